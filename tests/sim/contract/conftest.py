"""The contract suite in virtual time: the same tests, over simulated brokers."""

import contextlib
import inspect

import pytest

from hookbench.sim.loop import SimulatedLoop
from hookbench.sim.redis.scripts import ScriptEngine
from tests.contract import conftest as contract
from tests.contract import (
    test_done_records,
    test_done_store,
    test_redis_full,
    test_redis_leased,
    test_redis_list,
    test_redis_stream,
    test_trimming,
)
from tests.sim.world import World

_CONNECTING = (
    contract,
    test_done_records,
    test_done_store,
    test_redis_full,
    test_redis_leased,
    test_redis_list,
    test_redis_stream,
    test_trimming,
)


def pytest_asyncio_loop_factories(config, item):  # noqa: ARG001 - the hook's own names
    return {"simulated": SimulatedLoop}


@pytest.fixture(scope="session")
def engine():
    return ScriptEngine()


@pytest.fixture
async def world(engine, monkeypatch):
    world = World(engine)
    world.patch(monkeypatch, *_CONNECTING)
    return world


@pytest.fixture(autouse=True)
def _in_the_world(request):
    """Also tests that start a broker of their own do it here."""
    if inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("world")


@pytest.fixture
def clock(world):
    return world.clock


@pytest.fixture
def redis_broker(world):
    broker = world.start_redis()
    yield broker
    broker.stop()


@pytest.fixture
def nats_broker(world):
    broker = world.start_nats()
    yield broker
    broker.stop()


@pytest.fixture(params=contract.BROKER_QUEUES)
def kind(request):
    return request.param


@pytest.fixture
async def opened(kind, request, names):
    broker = "nats_broker" if kind == "jetstream" else "redis_broker"
    url = request.getfixturevalue(broker).url
    async with contextlib.AsyncExitStack() as stack:

        async def open_one():
            return await stack.enter_async_context(contract.open_queue(kind, url, names))

        yield open_one


@pytest.fixture
async def queue(opened):
    return await opened()


@pytest.fixture
def open_more(opened):
    return opened


after_silence = contract.after_silence
queue_of_own_broker = contract.queue_of_own_broker


@pytest.fixture
def own_broker(kind, world):
    start = world.start_nats if kind == "jetstream" else world.start_redis
    broker = start(durability=contract.Durability.FSYNC)
    yield broker
    broker.stop()
