"""Reference worker and producer beside the bare clients, on each queue, in one process and run.

Rounds of both sides follow each other, so that a slow moment of the machine meets both; what is
reported is the median of the rounds, and the median of the ratios of a round's two sides. Both
brokers are in durability class ``memory``. The ledger of the reference is on.
"""

import asyncio
import contextlib
import random
import statistics
import time

import nats
import redis.asyncio as redis_asyncio
from nats.js.api import ConsumerConfig, StreamConfig

from hookbench.clock import SystemClock
from hookbench.ledger.events import Event, LedgerWriter
from hookbench.migration.consumer import RedisConsumer
from hookbench.migration.phases import AckMode, Phase
from hookbench.migration.producer import ReceiveSyncService
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import StreamSettings
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.redis_kind import RedisKind
from hookbench.queues.redis_stream import GROUP, PAYLOAD_FIELD, RedisStreamQueue
from hookbench.queues.transport import make_nats_consume
from hookbench.task import Names, encode_task, new_task
from hookbench.worker.dead_letters import MemoryDeadLetters
from hookbench.worker.handlers.noop import NoopHandler
from hookbench.worker.loop import Worker, WorkerLimits
from tests.evidence.spread import spread_of

TASKS = 2_000
IN_TURN = 300
AT_ONCE = 100
PIPELINE = 100
CONCURRENCY = 100
FILLING_BYTES = 100
DEADLINE_S = 60.0
QUEUES = ("redis_list", "redis_stream", "jetstream")


class Counting:
    """A ledger that knows when so many of each of some events were recorded."""

    def __init__(self, ledger, events=(Event.ACK_SENT,)):
        self._ledger = ledger
        self._events = events
        self._missing = {}
        self.reached = asyncio.Event()

    def expect(self, count):
        self._missing = dict.fromkeys(self._events, count)
        self.reached.clear()

    def record(self, event, task=bytes(16), **facts):
        self._ledger.record(event, task, **facts)
        if event in self._missing:
            self._missing[event] -= 1
            if not any(left > 0 for left in self._missing.values()):
                self.reached.set()


class Tasks:
    """Fresh tasks, and their bytes."""

    def __init__(self, clock, seed):
        self._clock = clock
        self._rng = random.Random(seed)

    def make(self, count):
        return [
            new_task(
                repo_id="synthetic/plain/repo-1",
                task_type="sync",
                payload={"filling": "x" * FILLING_BYTES},
                clock=self._clock,
                entropy=self._rng,
            )
            for _ in range(count)
        ]


async def in_turn(send, items):
    for item in items:
        await send(item)


async def at_once(send, items):
    """``AT_ONCE`` loops that share the items."""
    iterator = iter(items)

    async def loop():
        for item in iterator:
            await send(item)

    await asyncio.gather(*(loop() for _ in range(AT_ONCE)))


class Bare:
    """The clients as their own documentation uses them, on keys and a stream of their own."""

    def __init__(self, redis, client, names):
        self.redis = redis
        self.client = client
        self.jetstream = client.jetstream()
        self.names = names
        self.key = names.pending_key("sync")
        self.stream_key = names.stream_key("sync")
        self.subject = names.subject("sync")

    async def prepare(self):
        await self.jetstream.add_stream(
            StreamConfig(name=self.names.stream, subjects=[self.subject], storage="memory")
        )
        await self.redis.xgroup_create(self.stream_key, GROUP, id="0", mkstream=True)
        self.puller = await self.jetstream.pull_subscribe(
            self.subject,
            durable="bare",
            config=ConsumerConfig(max_ack_pending=10_000),
        )

    def send(self, queue):
        if queue == "redis_list":
            return lambda data: self.redis.lpush(self.key, data)
        if queue == "redis_stream":
            return lambda data: self.redis.xadd(self.stream_key, {PAYLOAD_FIELD: data})
        return lambda data: self.jetstream.publish(self.subject, data)

    async def send_windowed(self, queue, items):
        """The client's own way to have many under way: ``publish_async``, or pipelines."""
        if queue == "jetstream":
            sent = [await self.jetstream.publish_async(self.subject, data) for data in items]
            await asyncio.gather(*sent)
            return
        for begin in range(0, len(items), PIPELINE):
            pipeline = self.redis.pipeline(transaction=False)
            for data in items[begin : begin + PIPELINE]:
                if queue == "redis_list":
                    pipeline.lpush(self.key, data)
                else:
                    pipeline.xadd(self.stream_key, {PAYLOAD_FIELD: data})
            await pipeline.execute()

    async def drain(self, queue, count):
        await getattr(self, f"_drain_{queue}")(count)

    async def _drain_redis_list(self, count):
        """``CONCURRENCY`` loops of a move and a removal."""
        left = count
        work = self.names.work_key("sync")

        async def loop():
            nonlocal left
            while left > 0:
                left -= 1
                data = await self.redis.blmove(self.key, work, 5, "RIGHT", "LEFT")
                await self.redis.lrem(work, 1, data)

        await asyncio.gather(*(loop() for _ in range(CONCURRENCY)))

    async def _drain_redis_stream(self, count):
        left = count
        while left > 0:
            ((_key, entries),) = await self.redis.xreadgroup(
                GROUP, "bare", {self.stream_key: ">"}, count=CONCURRENCY, block=5_000
            )
            ids = [entry for entry, _fields in entries]
            await asyncio.gather(*(self._ack_entry(entry) for entry in ids))
            left -= len(ids)

    async def _ack_entry(self, entry):
        pipeline = self.redis.pipeline(transaction=True)
        pipeline.xack(self.stream_key, GROUP, entry)
        pipeline.xdel(self.stream_key, entry)
        await pipeline.execute()

    async def _drain_jetstream(self, count):
        left = count
        while left > 0:
            for message in await self.puller.fetch(min(CONCURRENCY, left), timeout=5):
                await message.ack()
                left -= 1
        await self.client.flush()


class Reference:
    """Producer and worker of the project on each queue."""

    def __init__(self, connections, stream_client, names, recorder, clock):
        self.connections = connections
        self.stream_client = stream_client
        self.names = names
        self.recorder = recorder
        self.clock = clock
        self.sends = {}
        self.sources = {}

    async def prepare(self):
        to_stream = ReceiveSyncService(self.stream_client, names=self.names, recorder=self.recorder)
        to_stream.redis_kind = RedisKind.STREAM
        self.sends = {
            "redis_list": (await self._service(Phase.REDIS_ONLY)).send,
            "redis_stream": to_stream.send,
            "jetstream": (await self._service(Phase.NATS_ONLY)).send,
        }
        transport = await self.connections.nats_for_reading("sync")
        self.sources = {
            "redis_list": lambda: RedisConsumer(
                self.connections.redis(), names=self.names, recorder=self.recorder,
                block_timeout_secs=0.5,
            ),
            "redis_stream": self._reads_stream,
            "jetstream": lambda: RedisConsumer.nats_only(
                make_nats_consume(transport, wait_s=0.5),
                ack=AckMode.AFTER_PROCESSING,
                names=self.names,
                recorder=self.recorder,
            ),
        }  # fmt: skip

    def _reads_stream(self):
        source = RedisConsumer(
            self.stream_client, names=self.names, recorder=self.recorder, block_timeout_secs=0.5
        )
        source.redis_queue = lambda _task_type: RedisStreamQueue(
            self.stream_client, names=self.names
        )
        return source

    async def _service(self, phase):
        return await open_service(phase, self.connections, self.names, recorder=self.recorder)

    async def drain(self, queue, count):
        """The seconds from the first read to the last acknowledgement."""
        worker = Worker(
            self.sources[queue](),
            NoopHandler(),
            dead_letters=MemoryDeadLetters(),
            clock=self.clock,
            limits=WorkerLimits(concurrency=CONCURRENCY),
            recorder=self.recorder,
        )
        self.recorder.expect(count)
        started = time.perf_counter()
        running = asyncio.ensure_future(worker.run())
        await self.recorder.reached.wait()
        seconds = time.perf_counter() - started
        worker.request_stop()
        await running
        return seconds


async def timed(awaitable):
    started = time.perf_counter()
    await awaitable
    return time.perf_counter() - started


async def one_round(queue, bare, reference, tasks):
    """Rates of both sides, tasks per second, by what was measured."""
    rates = {}
    for what, way, count in (("in turn", in_turn, IN_TURN), ("at once", at_once, TASKS)):
        items = [encode_task(task) for task in tasks.make(count)]
        seconds = await timed(way(bare.send(queue), items))
        ours = await timed(way(reference.sends[queue], tasks.make(count)))
        rates[f"producer, {what}"] = (count / ours, count / seconds)
    items = [encode_task(task) for task in tasks.make(TASKS)]
    seconds = await timed(bare.send_windowed(queue, items))
    ours = await timed(at_once(reference.sends[queue], tasks.make(TASKS)))
    rates["producer, windowed"] = (TASKS / ours, TASKS / seconds)
    count = 2 * TASKS + IN_TURN
    bare_s = await timed(bare.drain(queue, count))
    ours_s = await reference.drain(queue, count)
    rates["worker"] = (count / ours_s, count / bare_s)
    return rates


def summarise(rounds):
    """Medians over the rounds: both rates, and the ratio of each round."""
    table = {}
    for what in rounds[0]:
        ours = statistics.median(item[what][0] for item in rounds)
        bare = statistics.median(item[what][1] for item in rounds)
        ratios = [item[what][0] / item[what][1] for item in rounds]
        table[what] = {
            "reference_per_s": round(ours),
            "bare_per_s": round(bare),
            **spread_of("ratio", ratios),
        }
    return table


@contextlib.asynccontextmanager
async def sides(redis_url, nats_url, ledger_folder, run):
    clock = SystemClock()
    names = Names.for_run(f"{run}-reference")
    ledger = LedgerWriter(ledger_folder, role="worker", writer=1, clock=clock)
    connections = Connections(
        redis_url=f"{redis_url}?max_connections={AT_ONCE + 10}",
        nats_url=nats_url,
        names=names,
        clock=clock,
        stream=StreamSettings(storage="memory"),
    )
    client = await nats.connect(nats_url)
    plain = redis_asyncio.Redis.from_url(redis_url, max_connections=AT_ONCE + 10)
    stream_client = connect_redis(redis_url)
    try:
        bare = Bare(plain, client, Names.for_run(f"{run}-bare"))
        await bare.prepare()
        reference = Reference(connections, stream_client, names, Counting(ledger), clock)
        await reference.prepare()
        yield bare, reference
    finally:
        await stream_client.aclose()
        await plain.aclose()
        await client.close()
        await connections.close()
        ledger.close()


async def measure(redis_url, nats_url, ledger_folder, *, rounds, seed, run):
    """The table: queue, what, and both rates with their ratio."""
    tasks = Tasks(SystemClock(), seed)
    async with sides(redis_url, nats_url, ledger_folder, run) as (bare, reference):
        table = {}
        for queue in QUEUES:
            async with asyncio.timeout(DEADLINE_S * rounds):
                await one_round(queue, bare, reference, tasks)  # warm-up
                table[queue] = summarise(
                    [await one_round(queue, bare, reference, tasks) for _ in range(rounds)]
                )
        return table
