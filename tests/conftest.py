"""Shared fixtures: one embedded Redis and one embedded NATS for the whole session."""

import asyncio
import gc
import itertools
import os
import random
import sys
import uuid

import pytest

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.clock import SystemClock
from hookbench.task import Names, new_task
from tests.forks import Forks
from tests.sim.seed_of_commit import seed_line


def pytest_configure():
    """Keep bytecode, wherever the environment says not to.

    The tests start some thousand Python processes: without it each compiles the package anew, two
    fifths of what the start of a worker costs.
    """
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Six thousand tests are no garbage: the collector looks at none of them, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_report_header():
    """The seed that this commit adds to the search, so that it can be repeated."""
    return seed_line()


@pytest.fixture(scope="session")
def redis_broker(tmp_path_factory):
    broker = start_redis(
        resolve_redis(env={"PATH": ""}), tmp_path_factory.mktemp("redis"), Durability.MEMORY
    )
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def nats_broker(tmp_path_factory):
    broker = start_nats(
        resolve_nats(env={"PATH": ""}), tmp_path_factory.mktemp("nats"), Durability.LAZY
    )
    yield broker
    broker.stop()


@pytest.fixture
def names():
    """Names of its own for each test, so that tests share the servers and nothing else."""
    return Names.for_run(uuid.uuid4().hex[:12])


@pytest.fixture
def clock():
    return SystemClock()


@pytest.fixture
def make_task(clock):
    entropy = random.Random(7)
    numbers = itertools.count()

    def make(**changes):
        values = {
            "repo_id": f"synthetic/repo-{next(numbers)}",
            "task_type": "sync",
            "payload": {"ref": "refs/heads/main"},
            **changes,
        }
        return new_task(clock=clock, entropy=entropy, **values)

    return make


@pytest.fixture
def needs(queue):
    """Skip, visibly, what the queue of a contract test says that it cannot do."""

    def check(capability):
        if not getattr(queue.capabilities, capability):
            pytest.skip(f"{queue.name} declares no {capability}")

    return check


async def eventually(condition, *, timeout_s=10.0, what="the condition"):
    """Wait for a condition with a deadline; ``condition`` may be async.

    What takes longer to look at is looked at less often, or the looking itself keeps a core busy.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        begun = loop.time()
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        now = loop.time()
        assert now < deadline, f"{what} did not come true within {timeout_s} s"
        await asyncio.sleep(min(max(0.01, 4 * (now - begun)), 0.1))


_LONGEST = "test_procedures.py"
_LONG_FIRST = ("notebooks", "integration", "sim", "mutations", "witness", "contract")
"""Folders whose files take longest; several processes take file after file, in this order."""


def pytest_collection_modifyitems(items):
    """Long files first: at the end there are short ones, for whoever is through earlier."""

    def place(item):
        if item.path.name == _LONGEST:
            return -1
        folder = item.path.relative_to(item.config.rootpath / "tests").parts[0]
        return _LONG_FIRST.index(folder) if folder in _LONG_FIRST else len(_LONG_FIRST)

    items.sort(key=place)


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    """For the processes of procedures, of which some tests start one for each step."""
    needed = (
        "tests.integration.migrating_child",
        "hookbench.cli.main",
        "hookbench.live.migrate",
        "hookbench.rehearsal.stage",
        "hookbench.worker.requeue",
    )
    opened = Forks(needed, tmp_path_factory.mktemp("forks"))
    yield opened
    opened.close()
