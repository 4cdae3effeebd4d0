"""One queue fixture, parametrised over every queue; the suite is the same for all."""

import contextlib

import pytest

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.ids import system_entropy
from hookbench.queues.jetstream import (
    ConsumerSettings,
    JetStreamQueue,
    StreamSettings,
    ensure_consumer,
    ensure_stream,
)
from hookbench.queues.memory import MemoryQueue
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.redis_errors import MAX_BULK_BYTES
from hookbench.queues.redis_leased import RedisLeasedQueue
from hookbench.queues.redis_list import RedisListQueue
from hookbench.queues.redis_stream import RedisStreamQueue
from hookbench.queues.transport import AppTransport

REDIS_QUEUES = (
    "redis_list",
    "redis_list_alone",
    "redis_list_strict",
    "redis_list_oom",
    "redis_leased",
    "redis_leased_oom",
    "redis_leased_alone",
    "redis_stream",
    "redis_stream_alone",
)
ALONE = "_alone"
"""With a connection for each command, and each task taken by a command of its own."""
WORKER_LEASES = ("redis_leased", "redis_leased_oom", "redis_leased_alone")
"""A worker that lives keeps what it has: only that of one that is gone is delivered again."""
BROKER_QUEUES = (*REDIS_QUEUES, "jetstream")
QUEUES = ("memory", *BROKER_QUEUES)
ACK_WAIT_S = 1.0
OVERSIZE_BYTES = dict.fromkeys(REDIS_QUEUES, MAX_BULK_BYTES + 1) | dict.fromkeys(
    ("memory", "jetstream"), 2 * 1024 * 1024
)


def redis_queue(kind, client, names):
    if kind in ("redis_list", "redis_list_alone"):
        return RedisListQueue(client, names=names, one_by_one=kind.endswith(ALONE))
    if kind == "redis_list_strict":  # hazards R4 and R5 closed
        return RedisListQueue(client, names=names, lrem_count=1, requeue_only_held=True)
    if kind == "redis_list_oom":  # and the first half of R6
        return RedisListQueue(
            client, names=names, lrem_count=1, requeue_only_held=True, allow_oom=True
        )
    if kind in WORKER_LEASES:
        return RedisLeasedQueue(
            client,
            owner=f"{system_entropy().getrandbits(64):016x}",
            names=names,
            lease_s=ACK_WAIT_S,
            allow_oom=kind == "redis_leased_oom",
        )
    return RedisStreamQueue(client, names=names, min_idle_s=ACK_WAIT_S, claim_every_s=0.1)


@contextlib.asynccontextmanager
async def open_queue(kind, url, names, *, storage="memory"):
    """A receiver and producer of a queue with connections of its own."""
    if kind in REDIS_QUEUES:
        client = connect_redis(url, pipelined=not kind.endswith(ALONE))
        try:
            async with redis_queue(kind, client, names) as queue:
                yield queue
        finally:
            await client.aclose()
    else:
        async with await AppTransport.connect(url, names=names) as transport:
            await ensure_stream(transport, StreamSettings(storage=storage))
            await ensure_consumer(transport, ConsumerSettings(ack_wait_s=ACK_WAIT_S))
            async with JetStreamQueue(transport) as queue:
                yield queue


@pytest.fixture(params=QUEUES)
def kind(request):
    return request.param


@pytest.fixture
async def opened(kind, request, names, clock):
    """Opens one receiver after the other of the same queue."""
    async with contextlib.AsyncExitStack() as stack:
        if kind == "memory":
            memory = await stack.enter_async_context(MemoryQueue(clock))

            async def open_one():
                return memory  # it has no other side: all receivers share the object
        else:
            url = request.getfixturevalue(
                "redis_broker" if kind in REDIS_QUEUES else "nats_broker"
            ).url

            async def open_one():
                return await stack.enter_async_context(open_queue(kind, url, names))

        yield open_one
    if kind == "jetstream":
        async with await AppTransport.connect(url, names=names) as transport:
            await transport.jetstream.delete_stream(names.stream)


@pytest.fixture
async def queue(opened):
    return await opened()


@pytest.fixture
def open_more(opened):
    """Open another receiver of the same queue, as another worker has it."""
    return opened


@pytest.fixture
async def after_silence(queue, kind, opened):
    """The receiver that gets what ``queue`` is silent about."""
    return await opened() if kind in WORKER_LEASES else queue


@pytest.fixture
def own_broker(kind, tmp_path):
    """A broker for one test, which may kill it; what it acknowledged is on the disk."""
    if kind == "memory":
        pytest.skip("memory lives in this process: it has no broker that could be killed")
    if kind in REDIS_QUEUES:
        broker = start_redis(resolve_redis(env={"PATH": ""}), tmp_path, Durability.FSYNC)
    else:
        broker = start_nats(resolve_nats(env={"PATH": ""}), tmp_path, Durability.FSYNC)
    yield broker
    broker.stop()


@pytest.fixture
async def queue_of_own_broker(kind, own_broker, names):
    storage = own_broker.durability.stream_storage
    async with open_queue(kind, own_broker.url, names, storage=storage) as queue:
        yield queue
