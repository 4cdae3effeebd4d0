"""Producer and worker of one variant, for one round of the price; see ``price``."""

import asyncio
import contextlib
import dataclasses
import itertools
import random
import shutil
import time
import uuid
from functools import partial

import nats
import numpy as np
import redis.asyncio as redis_asyncio

from hookbench.clock import SystemClock
from hookbench.ledger.boot import boot_id
from hookbench.ledger.columns import TaskColumns
from hookbench.ledger.events import Event, LedgerWriter
from hookbench.ledger.read import read_ledger
from hookbench.migration.outbox import Outbox
from hookbench.migration.outbox_file import OutboxFile, hold_outbox
from hookbench.migration.phases import ReadRoute, WriteRoute, read_route, write_route
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.task import Names, new_task
from hookbench.worker.limits import WorkerLimits
from hookbench.worker.service import WorkerService, WorkerSettings
from tests.evidence.rates import Counting
from tests.evidence.turns import PRODUCER, ROLES, WORKER, Tally, as_role

SENDERS = 32
SLOTS = 32
FILLING_BYTES = 100
BLOCK_S = 0.3
LONG_S = 600.0
DEADLINE_S = 60.0
_POLL_S = 0.001


@dataclasses.dataclass(kw_only=True)
class Round:
    """What one variant did in one round; counts are per task, by role."""

    put_per_s: float
    done_per_s: float
    put_ms: dict
    """Latencies of the acknowledgement, ``at_once`` and ``in_turn``."""
    done_ms: list
    """From the put to the end of the handler, in turn."""
    counts: dict
    """``at_once`` and ``in_turn``, and in them the roles."""
    executed: dict
    """Commands that Redis executed, with those of its scripts, likewise."""
    reconciled: Tally | None
    """What one round of ``reconcile`` sends and receives per task that lies on both brokers."""
    wrong: list = dataclasses.field(default_factory=list)
    """What the ledger has against it."""
    offered: int = 0


class Handler:
    """Does nothing, as soon as it is let."""

    def __init__(self):
        self.free = asyncio.Event()
        self.free.set()

    async def __call__(self, _task, _execution):
        if not self.free.is_set():
            await self.free.wait()


class Ends(Counting):
    """A worker's ledger that keeps the time of the last end."""

    done_at = 0.0

    def record(self, event, task=bytes(16), **facts):
        if event is Event.DONE:
            self.done_at = time.perf_counter()
        super().record(event, task, **facts)


@dataclasses.dataclass(kw_only=True)
class Brokers:
    """Where they are; ``monitor`` clients are not counted."""

    redis_url: str
    nats_url: str
    nats_monitor_url: str
    monitor: redis_asyncio.Redis
    nats: nats.NATS

    async def executed(self):
        """Commands that Redis executed, but for those that ask it this."""
        stats = await self.monitor.info("commandstats")
        mine = ("cmdstat_info", "cmdstat_scan", "cmdstat_unlink", "cmdstat_llen")
        return sum(item["calls"] for name, item in stats.items() if name not in mine)

    async def remove(self, names):
        """Whatever has a name of one round."""
        found = [key async for key in self.monitor.scan_iter(match=f"{names.prefix}*", count=1000)]
        if found:
            await self.monitor.unlink(*found)
        jetstream = self.nats.jetstream()
        for info in await jetstream.streams_info():
            await jetstream.delete_stream(info.config.name)


class Rig:
    """Producer and worker of a variant, for one round."""

    def __init__(self, variant, brokers, meter, folder, sizes):
        self.variant = variant
        self.names = Names.for_run(uuid.uuid4().hex[:12])
        self.sizes = sizes
        self._brokers = brokers
        self._meter = meter
        self._folder = folder
        self._clock = SystemClock()
        self._entropy = random.Random(7)
        self._numbers = itertools.count()
        self.offered = 0
        self._handler = Handler()
        self._outbox = None
        self._roles = {role: as_role(role) for role in ROLES}

    def _as(self, role, coroutine):
        return asyncio.get_running_loop().create_task(coroutine, context=self._roles[role])

    @contextlib.asynccontextmanager
    async def open(self):
        self._folder.mkdir()
        async with contextlib.AsyncExitStack() as stack:
            ledgers = {
                role: LedgerWriter(self._folder, role=role, writer=number, clock=self._clock)
                for number, role in enumerate(ROLES, 1)
            }
            for ledger in ledgers.values():
                stack.callback(ledger.close)
            self._service = await self._as(PRODUCER, self._producer(stack, ledgers[PRODUCER]))
            await self._begin_worker(stack, ledgers[WORKER])
            yield self

    async def _producer(self, stack, ledger):
        variant, measures = self.variant, self.variant.chosen
        connections = Connections(
            redis_url=self._brokers.redis_url,
            nats_url=self._brokers.nats_url,
            names=self.names,
            clock=self._clock,
            measures=measures.nats,
            nats_monitor_url=self._brokers.nats_monitor_url,
        )
        stack.push_async_callback(connections.close)
        if measures.outbox:
            path = self._folder / "outbox.sqlite"
            stack.enter_context(hold_outbox(path))
            file = OutboxFile(path, boot_id=boot_id(), clock=self._clock)
            self._outbox = Outbox(file, clock=self._clock)
            stack.push_async_callback(self._outbox.close)
        return await open_service(
            variant.phase,
            connections,
            self.names,
            measures=measures,
            recorder=ledger,
            outbox=self._outbox,
        )

    async def _begin_worker(self, stack, ledger):
        variant, measures = self.variant, self.variant.chosen
        reads_redis = read_route(variant.phase) is ReadRoute.REDIS
        events = [Event.DONE, Event.ACK_SENT]
        if measures.confirmed_acks and not reads_redis:
            events.append(Event.ACK_CONFIRMED)
        self._ends = Ends(ledger, events)
        both = write_route(variant.phase) is WriteRoute.BOTH
        self._trims = measures.trim and both and not reads_redis
        self._reconciles = measures.reconcile and both
        begun = asyncio.Event()
        worker = WorkerService(
            WorkerSettings(
                redis_url=self._brokers.redis_url,
                nats_url=self._brokers.nats_url,
                nats_monitor_url=self._brokers.nats_monitor_url,
                phase=variant.phase,
                names=self.names,
                block_timeout_secs=BLOCK_S,
                measures=measures,
                redis_age_s=LONG_S,  # a copy that lies there is not taken, however slow a round
                limits=WorkerLimits(concurrency=SLOTS),
            ),
            self._handler,
            clock=self._clock,
            ledger=ledger,
            recorder=self._ends,
            announce=lambda event: begun.set() if event["event"] == "phase" else None,
        )
        # Its rounds come every five seconds: one is made by hand, and counted by itself.
        self._reconciler = partial(worker._open_reconciler, "sync")
        worker._reconcile = _nothing
        running = self._as(WORKER, worker.run())

        async def stop():
            worker.request_stop()
            await running

        stack.push_async_callback(stop)
        waiting = asyncio.ensure_future(begun.wait())
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            raise running.exception() or RuntimeError("the worker ended at its start")

    async def measure(self):
        """The figures of a round."""
        sizes = self.sizes
        reconciled = await self._reconcile(sizes.reconciled) if self._reconciles else None
        await self._at_once(sizes.warm_up)
        counts, executed, put_ms = {}, {}, {}
        before, commands = self._read(), await self._brokers.executed()
        put_s, done_s, put_ms["at_once"] = await self._at_once(sizes.at_once)
        executed["at_once"] = (await self._brokers.executed() - commands) / sizes.at_once
        counts["at_once"] = self._since(before, sizes.at_once)
        before, commands = self._read(), await self._brokers.executed()
        put_ms["in_turn"], done_ms = await self._as(PRODUCER, self._in_turn(sizes.in_turn))
        executed["in_turn"] = (await self._brokers.executed() - commands) / sizes.in_turn
        counts["in_turn"] = self._since(before, sizes.in_turn)
        return Round(
            put_per_s=sizes.at_once / put_s,
            done_per_s=sizes.at_once / done_s,
            put_ms=put_ms,
            done_ms=done_ms,
            counts=counts,
            executed=executed,
            reconciled=reconciled,
            offered=self.offered,
        )

    def _read(self):
        return {role: self._meter.read(role) for role in ROLES}

    def _since(self, before, tasks):
        return {role: tally.less(before[role]).per(tasks) for role, tally in self._read().items()}

    async def _at_once(self, count):
        """Seconds of the puts, seconds of the worker, and latencies of the puts."""
        self._ends.expect(count)
        self._handler.free.clear()
        left = iter(range(count))
        latencies = []

        async def sender():
            latencies.extend([await self._put() for _ in left])

        async def put():
            await asyncio.gather(*(sender() for _ in range(SENDERS)))
            await self._placed()

        began = time.perf_counter()
        await self._as(PRODUCER, put())
        put_s = time.perf_counter() - began
        began = time.perf_counter()
        self._handler.free.set()
        await self._finished()
        return put_s, time.perf_counter() - began, latencies

    async def _reconcile(self, count):
        """Counts of a round over tasks that are in both brokers, and in no worker's way."""
        self._handler.free.clear()
        await self._as(PRODUCER, self._put_some(count))
        before = self._read()[WORKER]
        await self._as(WORKER, self._round(count))
        found = self._read()[WORKER].less(before).per(count)
        self._ends.expect(count)
        self._handler.free.set()
        await self._finished()
        return found

    async def _round(self, count):
        told = await (await self._reconciler()).round()
        moved = told.put_on_nats + told.put_on_redis + told.turned_up
        if told.in_redis != count or moved:
            raise RuntimeError(f"{self.variant.label}: of {count} tasks on both brokers: {told}")

    async def _put_some(self, count):
        for _ in range(count):
            await self._put()
        await self._placed()

    async def _in_turn(self, count):
        put_ms, done_ms = [], []
        for _ in range(count):
            self._ends.expect(1)
            began = time.perf_counter()
            put_ms.append(await self._put())
            await self._finished()
            done_ms.append((self._ends.done_at - began) * 1e3)
            await self._placed()
        return put_ms, done_ms

    async def _put(self):
        """Milliseconds until the task is acknowledged to its caller."""
        number = next(self._numbers)
        self.offered += 1
        task = new_task(
            repo_id=f"synthetic/plain/repo-{number}",  # of its own: none supersedes another
            task_type="sync",
            payload={"number": number, "filling": "x" * FILLING_BYTES},
            clock=self._clock,
            entropy=self._entropy,
        )
        began = time.perf_counter()
        await self._service.send(task)
        return (time.perf_counter() - began) * 1e3

    async def _placed(self):
        """Nothing is in the outbox any more."""
        while self._outbox is not None and not self._outbox.idle:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(_POLL_S)

    async def _finished(self):
        """Everything is done, acknowledged and confirmed, and its copy is removed."""
        await self._ends.reached.wait()
        while self._trims and await self._copies():  # noqa: ASYNC110 - as above
            await asyncio.sleep(_POLL_S)

    async def _copies(self):
        """Tasks that lie in the list of Redis, counted past the clients that are counted."""
        return await self._brokers.monitor.llen(self.names.pending_key("sync"))


async def _nothing(_task_type):
    """In the place of a loop that is not measured."""


def check_ledger(folder, tasks):
    """What contradicts that each task was accepted, started and done once, and only that."""
    columns = TaskColumns(read_ledger(folder, same_boot=True))
    real = columns.real
    wrong = []
    for what, event in (
        ("accepted", Event.ACCEPTED), ("started", Event.STARTED), ("done", Event.DONE),
    ):  # fmt: skip
        times = np.bincount(columns.task[columns.where(event)], minlength=columns.count)[real]
        once = int((times == 1).sum())
        if once != tasks or len(times) != tasks:
            wrong.append(f"of {len(times)} tasks for {tasks}, {once} were {what} once")
    return wrong


async def one_round(variant, brokers, meter, folder, sizes):
    rig = Rig(variant, brokers, meter, folder, sizes)
    try:
        async with asyncio.timeout(DEADLINE_S):
            async with rig.open():
                found = await rig.measure()
            found.wrong = check_ledger(folder, rig.offered)
    except TimeoutError as error:
        raise RuntimeError(f"{variant.label}: not finished within {DEADLINE_S:g} s") from error
    finally:
        await brokers.remove(rig.names)
        shutil.rmtree(folder, ignore_errors=True)
    return found
