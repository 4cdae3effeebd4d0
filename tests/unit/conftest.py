"""Fixtures of the unit tests: no server and no process behind them."""

import functools

import pytest

from tests import fake_brokers


@pytest.fixture
def servers():
    return fake_brokers.FakeServers()


@pytest.fixture
def rehearse(servers):
    """Carries faults out on ``servers``, see ``fake_brokers.rehearse``."""
    return functools.partial(fake_brokers.rehearse, servers)
