"""What the worker's measures cost: tasks done per second with each, beside none.

``python -m tests.evidence.worker_price`` prints them. One process, no-op handler, from the put of
all tasks to the last acknowledgement; rounds of all variants follow each other, so that a slow
moment of the machine meets each of them. Medians of the rounds, and of the ratios of a round to
the one without a measure. Both brokers are in durability class ``memory``; the ledger is on.
"""

import asyncio
import contextlib
import dataclasses
import random
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path

import nats

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.clock import SystemClock
from hookbench.ledger.events import LedgerWriter
from hookbench.migration.consumer import RedisConsumer
from hookbench.migration.phases import AckMode
from hookbench.queues.jetstream import (
    ConsumerSettings,
    StreamSettings,
    ensure_consumer,
    ensure_stream,
)
from hookbench.queues.kv_bucket import ensure_bucket
from hookbench.queues.kv_done_store import KvDoneStore
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.redis_done_store import RedisDoneStore
from hookbench.queues.transport import AppTransport, make_nats_consume
from hookbench.task import Names, encode_task, new_task
from hookbench.worker.claims import Claims
from hookbench.worker.dead_letters import MemoryDeadLetters
from hookbench.worker.handlers.noop import NoopHandler
from hookbench.worker.heartbeats import Heart
from hookbench.worker.loop import Worker, WorkerLimits
from hookbench.worker.protections import Protections
from hookbench.worker.trimming import Trimmer
from tests.evidence.rates import Counting

TASKS = 1_000
ROUNDS = 9
CONCURRENCY = 100
WAIT_S = 0.5
DEADLINE_S = 60.0
RETENTION_S = 3600.0
LEASE_S = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A queue with some measures."""

    queue: str
    authority: str = ""
    heartbeats: bool = False
    confirmed: bool = False
    trim: bool = False

    @property
    def label(self):
        parts = [f"done_store on {self.authority}" if self.authority else ""]
        parts += [name for name in ("heartbeats", "confirmed", "trim") if getattr(self, name)]
        return ", ".join(filter(None, parts)) or "none"


VARIANTS = (
    Variant(queue="jetstream"),
    Variant(queue="jetstream", authority="redis"),
    Variant(queue="jetstream", authority="nats"),
    Variant(queue="jetstream", heartbeats=True),
    Variant(queue="jetstream", authority="redis", heartbeats=True),
    Variant(queue="jetstream", confirmed=True),
    Variant(queue="jetstream", trim=True),
    Variant(queue="jetstream", authority="redis", heartbeats=True, confirmed=True, trim=True),
    Variant(queue="redis_list"),
    Variant(queue="redis_list", authority="redis"),
)


class Rig:
    """A worker of one variant; it works only while a round runs."""

    def __init__(self, redis_url, nats_url, variant, ledger, clock):
        self.variant = variant
        self.names = Names.for_run(uuid.uuid4().hex[:12])
        self.clock = clock
        self.counting = Counting(ledger)
        self._urls = redis_url, nats_url
        self._stack = contextlib.AsyncExitStack()
        self._entropy = random.Random(7)

    async def open(self):
        redis_url, nats_url = self._urls
        self.redis = connect_redis(redis_url)
        self._stack.push_async_callback(self.redis.aclose)
        self.transport = await self._stack.enter_async_context(
            await AppTransport.connect(
                nats_url, names=self.names, clock=self.clock, sync_ack=self.variant.confirmed
            )
        )
        self.writer = await nats.connect(nats_url)
        self._stack.push_async_callback(self.writer.close)
        if self.variant.queue == "jetstream":
            await ensure_stream(self.transport, StreamSettings(storage="memory"))
            await ensure_consumer(self.transport, ConsumerSettings(max_ack_pending=2 * CONCURRENCY))
            consume = make_nats_consume(self.transport, wait_s=WAIT_S)
            source = RedisConsumer.nats_only(
                consume,
                ack=AckMode.AFTER_PROCESSING,
                names=self.names,
                recorder=self.counting,
            )
        else:
            source = RedisConsumer(
                self.redis, block_timeout_secs=WAIT_S, names=self.names, recorder=self.counting
            )
        self.trimmer = Trimmer(self.redis, names=self.names, task_type="sync", clock=self.clock)
        self.worker = Worker(
            source,
            NoopHandler(),
            dead_letters=MemoryDeadLetters(),
            clock=self.clock,
            limits=WorkerLimits(concurrency=CONCURRENCY),
            recorder=self.counting,
            protections=Protections(
                claims=await self._claims(),
                heart=Heart(LEASE_S, self.clock) if self.variant.heartbeats else None,
                trim=self.trimmer.trim if self.variant.trim else None,
            ),
        )
        self._running = asyncio.ensure_future(self.worker.run())

    async def _claims(self):
        if not self.variant.authority:
            return None
        if self.variant.authority == "redis":
            store = RedisDoneStore(self.redis, names=self.names, retention_s=RETENTION_S)
        else:
            await ensure_bucket(self.transport, retention_s=RETENTION_S, storage="memory")
            store = KvDoneStore(self.transport, clock=self.clock)
        return Claims(store, owner="price", clock=self.clock, recorder=self.counting)

    async def round(self, tasks):
        """Tasks done per second."""
        payloads = [encode_task(self._task(number)) for number in range(tasks)]
        key, subject = self.names.pending_key("sync"), self.names.subject("sync")
        if self.variant.trim:  # the copies of a dual write
            await self.redis.lpush(key, *payloads)
        self.counting.expect(tasks)
        began = time.perf_counter()
        async with asyncio.timeout(DEADLINE_S):
            if self.variant.queue == "jetstream":
                for data in payloads:
                    await self.writer.publish(subject, data)
                await self.writer.flush()
            else:
                await self.redis.lpush(key, *payloads)
            await self.counting.reached.wait()
        return tasks / (time.perf_counter() - began)

    def _task(self, number):
        return new_task(
            repo_id=f"synthetic/plain/repo-{number % 50}",
            task_type="sync",
            payload={"number": number, "filling": "x" * 100},
            clock=self.clock,
            entropy=self._entropy,
        )

    async def close(self):
        self.worker.request_stop()
        totals = await self._running
        await self.trimmer.close()
        await self.redis.delete(self.names.pending_key("sync"), self.names.work_key("sync"))
        await RedisDoneStore(self.redis, names=self.names, retention_s=1.0).remove_all()
        for stream in (self.names.stream, f"KV_{self.names.done_bucket}"):
            with contextlib.suppress(nats.js.errors.NotFoundError):
                await self.transport.jetstream.delete_stream(stream)
        await self._stack.aclose()
        return totals


async def measure(redis_url, nats_url, folder, *, tasks=TASKS, rounds=ROUNDS):
    """Rates of each variant in every round, after one round that does not count."""
    clock = SystemClock()
    ledger = LedgerWriter(folder, role="worker", writer=0, clock=clock)
    rigs = [Rig(redis_url, nats_url, variant, ledger, clock) for variant in VARIANTS]
    rates = {variant: [] for variant in VARIANTS}
    try:
        for rig in rigs:
            await rig.open()
        for number in range(rounds + 1):
            for rig in rigs:
                rate = await rig.round(tasks)
                if number:
                    rates[rig.variant].append(rate)
    finally:
        totals = {rig.variant: await rig.close() for rig in rigs}
        ledger.close()
    for variant, total in totals.items():
        assert total.done == total.received == tasks * (rounds + 1), (variant, total)
        if variant.trim:
            assert (total.skipped, total.unclaimed, total.stale) == (0, 0, 0)
    return rates


def table(rates):
    """A line per variant: median rate, and median ratio to the queue without a measure."""
    lines = []
    for variant, found in rates.items():
        plain = rates[Variant(queue=variant.queue)]
        ratio = statistics.median(a / b for a, b in zip(found, plain, strict=True))
        lines.append(
            f"{variant.queue:<11} {variant.label:<56} {statistics.median(found):>8,.0f}/s"
            f"  x {ratio:.2f}"
        )
    return lines


def main():
    redis = start_redis(
        resolve_redis(env={"PATH": ""}), Path(tempfile.mkdtemp()), Durability.MEMORY
    )
    broker = start_nats(resolve_nats(env={"PATH": ""}), Path(tempfile.mkdtemp()), Durability.MEMORY)
    try:
        folder = Path(tempfile.mkdtemp())
        rates = asyncio.run(measure(redis.url, broker.url, folder))
    finally:
        redis.stop()
        broker.stop()
    sys.stdout.write("\n".join(table(rates)) + "\n")


if __name__ == "__main__":
    main()
