"""One queue fixture, parametrised over every queue; the suite is the same for all."""

import contextlib

import pytest

from hookbench.queues.jetstream import (
    ConsumerSettings,
    JetStreamQueue,
    StreamSettings,
    ensure_consumer,
    ensure_stream,
)
from hookbench.queues.memory import MemoryQueue
from hookbench.queues.redis_list import RedisListQueue, connect_redis
from hookbench.queues.transport import AppTransport

QUEUES = ("memory", "redis_list", "jetstream")
ACK_WAIT_S = 1.0


@contextlib.asynccontextmanager
async def open_queue(kind, request, names, clock):
    if kind == "memory":
        async with MemoryQueue(clock) as queue:
            yield queue
    elif kind == "redis_list":
        client = connect_redis(request.getfixturevalue("redis_broker").url)
        try:
            async with RedisListQueue(client, names=names) as queue:
                yield queue
        finally:
            await client.aclose()
    else:
        url = request.getfixturevalue("nats_broker").url
        async with await AppTransport.connect(url, names=names) as transport:
            await ensure_stream(transport, StreamSettings(storage="memory"))
            await ensure_consumer(transport, ConsumerSettings(ack_wait_s=ACK_WAIT_S))
            async with JetStreamQueue(transport) as queue:
                yield queue
            await transport.jetstream.delete_stream(names.stream)


@pytest.fixture(params=QUEUES)
async def queue(request, names, clock):
    async with open_queue(request.param, request, names, clock) as opened:
        yield opened


@pytest.fixture
def needs(queue):
    """Skip, visibly, what the queue says that it cannot do."""

    def check(capability):
        if not getattr(queue.capabilities, capability):
            pytest.skip(f"{queue.name} declares no {capability}")

    return check
