"""Benchmarks: ordinary tests under ``make test`` (each body runs once), measured by ``make bench``.

Nothing here asserts a time. Each group has the reference beside a yardstick, the bare client or
the standard library, so that the ratio can be read on any machine. Embedded Redis runs without AOF
and streams are in memory: both brokers in durability class ``memory``.
"""

import asyncio

import pytest
import uvloop


@pytest.fixture(scope="session")
def loop():
    """The event loop of all benchmarks, as ``hookbench worker`` has it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner.get_loop()


@pytest.fixture
def payload():
    return {
        "ref": "refs/heads/main",
        "before": "0" * 40,
        "after": "5" * 40,
        "pusher": "ada",
    }
