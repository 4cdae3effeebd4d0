"""What several tests of the simulator use."""

import logging

import pytest

from hookbench.sim.redis.scripts import ScriptEngine


@pytest.fixture
def quiet():
    """What processes log of faults is not looked at, and costs more than the run."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def engine():
    return ScriptEngine()
