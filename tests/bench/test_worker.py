"""The reference worker: one process, no-op handler, from the put of all tasks to the last ack.

A round puts its tasks in one write and then waits; that write is timed with the rest, since a
worker that runs takes the first task at once. ``null`` is a queue in this process, read through the
same ``RedisConsumer``: the ceiling of the worker itself. On both brokers storage is in memory and
acknowledgements come after the processing.
"""

import asyncio
import contextlib

import nats
import pytest

from hookbench.ledger.events import Event
from hookbench.migration.consumer import RedisConsumer
from hookbench.migration.phases import AckMode
from hookbench.queues.base import Depth
from hookbench.queues.jetstream import (
    JetStreamQueue,
    StreamSettings,
    ensure_consumer,
    ensure_stream,
)
from hookbench.queues.memory import MemoryQueue
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.redis_list import RedisListQueue
from hookbench.queues.redis_stream import PAYLOAD_FIELD, RedisStreamQueue
from hookbench.queues.transport import AppTransport, make_nats_consume
from hookbench.task import encode_task
from hookbench.worker.dead_letters import MemoryDeadLetters
from hookbench.worker.handlers.noop import NoopHandler
from hookbench.worker.loop import Worker, WorkerLimits
from tests.conftest import eventually

TASKS = 500
ROUNDS = 20
WARMUP_ROUNDS = 2
CONCURRENCY = 64
WAIT_S = 0.5
DEADLINE_S = 60.0


class AckCounter:
    """A recorder that knows when so many acknowledgements were sent."""

    def __init__(self):
        self._missing = 0
        self.reached = asyncio.Event()
        self.failed = 0

    def expect(self, count):
        self._missing = count
        self.reached.clear()

    def record(self, event, *_task, **_facts):
        if event is Event.ACK_SENT:
            self._missing -= 1
            if self._missing == 0:
                self.reached.set()
        elif event in (Event.ACK_FAILED, Event.FAILED):
            self.failed += 1


@contextlib.asynccontextmanager
async def open_null(_request, names, clock):
    queue = MemoryQueue(clock)

    async def consume(_subject, batch):
        deliveries = await queue.receive(batch, WAIT_S)
        return [(delivery.payload, delivery.ack) for delivery in deliveries]

    async def put_all(payloads):
        for data in payloads:
            await queue.put(data)

    source = RedisConsumer.nats_only(consume, ack=AckMode.AFTER_PROCESSING, names=names)
    yield source, put_all, queue.depth
    await queue.close()


@contextlib.asynccontextmanager
async def open_redis_list(request, names, _clock):
    client = connect_redis(request.getfixturevalue("redis_broker").url)
    key = names.pending_key("sync")

    async def put_all(payloads):
        await client.lpush(key, *payloads)

    source = RedisConsumer(client, block_timeout_secs=WAIT_S, names=names)
    yield source, put_all, RedisListQueue(client, names=names).depth
    await client.delete(key, names.work_key("sync"))
    await client.aclose()


@contextlib.asynccontextmanager
async def open_jetstream(request, names, _clock):
    url = request.getfixturevalue("nats_broker").url
    writer = await nats.connect(url)

    async def put_all(payloads):
        """Without waiting for the stream's answers: the deliveries prove that they arrived."""
        for data in payloads:
            await writer.publish(names.subject("sync"), data)
        await writer.flush()

    async with await AppTransport.connect(url, names=names) as transport:
        await ensure_stream(transport, StreamSettings(storage="memory"))
        await ensure_consumer(transport)
        consume = make_nats_consume(transport, wait_s=WAIT_S)
        source = RedisConsumer.nats_only(consume, ack=AckMode.AFTER_PROCESSING, names=names)
        yield source, put_all, JetStreamQueue(transport).depth
        await transport.jetstream.delete_stream(names.stream)
    await writer.close()


@contextlib.asynccontextmanager
async def open_redis_stream(request, names, _clock):
    client = connect_redis(request.getfixturevalue("redis_broker").url)
    key = names.stream_key("sync")

    async def put_all(payloads):
        pipeline = client.pipeline(transaction=False)
        for data in payloads:
            pipeline.xadd(key, {PAYLOAD_FIELD: data})
        await pipeline.execute()

    queue = RedisStreamQueue(client, names=names)
    source = RedisConsumer(client, block_timeout_secs=WAIT_S, names=names)
    source.redis_queue = lambda _task_type: queue
    yield source, put_all, queue.depth
    await client.delete(key)
    await client.aclose()


QUEUES = {
    "null": open_null,
    "redis_list": open_redis_list,
    "redis_stream": open_redis_stream,
    "jetstream": open_jetstream,
}


class Rig:
    """A worker on the loop; it works only while a round runs."""

    def __init__(self, loop, source, put_all, depth, clock):
        self._loop = loop
        self._put_all = put_all
        self._depth = depth
        self.counter = AckCounter()
        self.dead_letters = MemoryDeadLetters()
        self._worker = Worker(
            source,
            NoopHandler(),
            dead_letters=self.dead_letters,
            clock=clock,
            limits=WorkerLimits(concurrency=CONCURRENCY),
            recorder=self.counter,
        )
        self._running = loop.create_task(self._worker.run())

    def drain(self, payloads):
        self._loop.run_until_complete(self._drain(payloads))

    async def _drain(self, payloads):
        self.counter.expect(len(payloads))
        async with asyncio.timeout(DEADLINE_S):
            await self._put_all(payloads)
            await self.counter.reached.wait()

    def wait_until_empty(self):
        self._loop.run_until_complete(eventually(self._is_empty, what="an empty queue"))

    async def _is_empty(self):
        return await self._depth() == Depth(pending=0, in_flight=0)

    def stop(self):
        self._worker.request_stop()
        return self._loop.run_until_complete(self._running)


@pytest.fixture(params=QUEUES)
def rig(request, loop, names, clock):
    context = QUEUES[request.param](request, names, clock)
    source, put_all, depth = loop.run_until_complete(context.__aenter__())
    rig = Rig(loop, source, put_all, depth, clock)
    yield rig
    rig.stop()
    loop.run_until_complete(context.__aexit__(None, None, None))


@pytest.mark.benchmark(group=f"worker: {TASKS} no-op tasks")
def test_drain(benchmark, rig, make_task, payload):
    put = 0

    def batch():
        nonlocal put
        put += TASKS
        return ([encode_task(make_task(payload=payload)) for _ in range(TASKS)],), {}

    benchmark.extra_info["tasks_per_round"] = TASKS
    benchmark.pedantic(rig.drain, setup=batch, rounds=ROUNDS, warmup_rounds=WARMUP_ROUNDS)
    rig.wait_until_empty()
    totals = rig.stop()
    assert totals.received == totals.done == put
    assert (totals.failed, totals.dead, totals.given_back) == (0, 0, 0)
    assert rig.counter.failed == 0
    assert rig.dead_letters.letters == []
