"""One worker process: connections, phase changes without a restart, and a graceful stop."""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import msgspec

from hookbench import __version__
from hookbench.brokers.redis_memory import read_redis_memory
from hookbench.cancellation import run_beside
from hookbench.clock import Clock
from hookbench.ids import Entropy, system_entropy
from hookbench.ledger.events import Event, LedgerWriter, NullRecorder, Recorder
from hookbench.migration.consumer import RedisConsumer
from hookbench.migration.done_store import DoneStore, authority_of
from hookbench.migration.metrics import HookMetrics
from hookbench.migration.phase_source import PhaseSource
from hookbench.migration.phases import Phase, ReadRoute, check_redis_kind, read_route
from hookbench.migration.preflight import BrokerCheck, check_brokers, check_sync_interval
from hookbench.migration.read_both import AgedTasks
from hookbench.migration.reconcile_loop import ReconcileLoop, open_reconciler
from hookbench.migration.reconciliation import Reconciler
from hookbench.migration.redis_reads import RedisReads
from hookbench.queues.base import NatsConsumeFn
from hookbench.queues.connections import Connections
from hookbench.queues.dialing import NETWORK, Dialer
from hookbench.queues.epoch_reading import make_epoch_consume
from hookbench.queues.epochs import NEVER, Entry
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_kind import RedisKind
from hookbench.queues.redis_reaper import RedisSurvey
from hookbench.queues.transport import make_nats_consume
from hookbench.worker.chores import Chores
from hookbench.worker.dead_letters import NatsDeadLetters, RedisDeadLetters, RoutedDeadLetters
from hookbench.worker.ended import EndedTasks
from hookbench.worker.loop import Around, Handler, Worker, WorkerTotals
from hookbench.worker.measures import MeasuredParts, consumer_of
from hookbench.worker.memory_watch import watch_memory
from hookbench.worker.protections import Protections
from hookbench.worker.settings import WorkerSettings

__all__ = ["Announce", "WorkerService", "WorkerSettings"]

_PROGRESS_S = 1.0

Announce = Callable[[dict[str, Any]], None]
"""Tells the outside what a process does: one flat, JSON-able object per event."""


class WorkerService:
    """Runs a ``Worker`` and moves it from phase to phase.

    Args:
        settings: what the process was told.
        handler: does the work.
        clock: of everything in it.
        ledger: is told the phase, and records.
        recorder: records in the ledger's place.
        metrics: counters, for those who ask for them.
        around: is entered around each execution of the handler.
        announce: is told what the process does.
        entropy: for the name of its work lists.
        dialer: opens its connections.
        check: looks at the brokers before it begins; by default ``check_brokers``.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        handler: Handler,
        *,
        clock: Clock,
        ledger: LedgerWriter | None = None,
        recorder: Recorder | None = None,
        metrics: HookMetrics | None = None,
        around: Around | None = None,
        announce: Announce | None = None,
        entropy: Entropy | None = None,
        dialer: Dialer = NETWORK,
        check: BrokerCheck | None = None,
    ) -> None:
        self._check = check
        self._dialer = dialer
        self._phases = PhaseSource(settings.phase, settings.phase_file)
        self._settings = settings
        self._handler = handler
        self._clock = clock
        self._ledger = ledger
        self._recorder = ledger if recorder is None else recorder
        self._metrics = metrics or HookMetrics()
        self._around = around
        self._announce = announce or (lambda _event: None)
        self._entropy = entropy or system_entropy()
        self._consumer_settings = consumer_of(settings.consumer, settings.measures)
        self._connections = Connections(
            redis_url=settings.redis_url,
            nats_url=settings.nats_url,
            names=settings.names,
            clock=clock,
            block_timeout_secs=settings.block_timeout_secs,
            stream=settings.stream,
            consumer=self._consumer_settings,
            measures=settings.measures.nats,
            nats_monitor_url=settings.nats_monitor_url,
            nats_sync_interval_s=settings.nats_sync_interval_s,
            redis_kind=settings.redis_kind,
            dialer=dialer,
        )
        self._parts = {
            task_type: MeasuredParts(
                settings.measures,
                settings.bounds,
                self._connections,
                names=settings.names,
                task_type=task_type,
                stream=settings.stream,
                ack_wait_s=settings.consumer.ack_wait_s,
                clock=clock,
                entropy=self._entropy,
                recorder=self._recorder,
            )
            for task_type in settings.task_types
        }
        self._redis_step = NEVER
        self._chores = Chores(
            settings.measures,
            stream=settings.stream,
            slots=settings.limits.concurrency,
            clock=clock,
            recorder=self._recorder or NullRecorder(),
            announce=self._announce,
        )
        self._dead_letters = RoutedDeadLetters(f"{socket.gethostname()} pid {os.getpid()}")
        self._stop = asyncio.Event()
        self._phase: Phase | None = None
        self._owner = f"{(entropy or system_entropy()).getrandbits(64):016x}"
        self._reads: RedisReads | None = None

    def request_stop(self) -> None:
        """Take nothing more; ``run`` returns when the tasks in work are finished."""
        self._stop.set()

    async def run(self) -> WorkerTotals:
        """Work until ``request_stop``.

        Raises:
            HookbenchError: the brokers of the first phase cannot be used.
        """
        try:
            index, phase = self._phases.read()
            await (self._check or check_brokers)(
                phase,
                redis_url=self._settings.redis_url,
                nats_url=self._settings.nats_url,
                measures=self._settings.measures,
            )
            workers = {
                task_type: Worker(
                    await self._consumer(index, phase, task_type),
                    self._handler,
                    task_type=task_type,
                    dead_letters=self._dead_letters,
                    clock=self._clock,
                    limits=self._settings.limits,
                    recorder=self._recorder,
                    protections=await self._protections(phase, task_type),
                    around=self._around,
                )
                for task_type in self._settings.task_types
            }
            self._entered(index, phase)
            follow = self._phases.follow(
                (index, phase), partial(self._switch, workers), self._clock
            )
            beside = [
                follow,
                self._stop_when_asked(workers),
                self._report(workers),
                self._watch_memory(),
                *map(self._reconcile, workers),
            ]
            try:
                await run_beside(
                    run_together([worker.run() for worker in workers.values()]),
                    *map(asyncio.ensure_future, beside),
                )
            finally:
                await self._chores.end()
                for parts in self._parts.values():
                    await parts.close()
            totals = self._sum_of(workers)
            self._announce({"event": "stopped", **msgspec.structs.asdict(totals)})
            return totals
        finally:
            await self._chores.end()
            if self._reads is not None:
                await self._reads.close()
            await self._connections.close()

    async def _stop_when_asked(self, workers: dict[str, Worker]) -> None:
        await self._stop.wait()
        for worker in workers.values():
            worker.request_stop()

    async def _report(self, workers: dict[str, Worker]) -> None:
        while True:
            await self._clock.sleep(_PROGRESS_S)
            self._announce({"event": "progress", **msgspec.structs.asdict(self._sum_of(workers))})

    async def _watch_memory(self) -> None:
        """Whether the phase uses Redis or not: as long as tasks may be there."""
        url = self._settings.redis_url
        if self._settings.measures.oom_claims and url:
            read = partial(read_redis_memory, url, dialer=self._dialer)
            await watch_memory(read, self._announce, self._clock)

    async def _reconcile(self, task_type: str) -> None:
        """With that measure, while both brokers are written."""
        settings = self._settings
        if not settings.measures.reconcile:
            return
        await ReconcileLoop(
            self._connections,
            partial(self._open_reconciler, task_type),
            settings.names,
            task_type=task_type,
            phase=lambda: self._phase,
            clock=self._clock,
            owner=self._owner,
        ).run()

    async def _open_reconciler(self, task_type: str) -> Reconciler:
        names, phase = self._settings.names, self._phase
        survey = RedisSurvey(self._connections.redis(), names=names, task_type=task_type)
        return await open_reconciler(
            self._connections,
            names,
            task_type=task_type,
            done=None if phase is None else await self._done_store(phase, task_type),
            work_lists=survey.work_keys,
            recorder=self._recorder,
        )

    async def _switch(self, workers: dict[str, Worker], index: int, phase: Phase) -> None:
        before = self._phase
        for task_type, worker in workers.items():
            consumer = await self._consumer(index, phase, task_type)
            worker.switch(consumer, await self._protections(phase, task_type))
        self._entered(index, phase)
        left_nats = before is not None and read_route(before) is not ReadRoute.REDIS
        if left_nats and read_route(phase) is ReadRoute.REDIS:
            # Back to Redis: what was fetched but not handed out must not wait for its AckWait.
            await self._chores.end()
            for task_type in workers:
                await self._connections.leave(task_type)

    def _sum_of(self, workers: dict[str, Worker]) -> WorkerTotals:
        totals = WorkerTotals()
        for task_type, worker in workers.items():
            self._parts[task_type].count(worker.totals)
            for name in totals.__struct_fields__:
                setattr(totals, name, getattr(totals, name) + getattr(worker.totals, name))
        return totals

    def _entered(self, index: int, phase: Phase) -> None:
        self._phase = phase
        if read_route(phase) is ReadRoute.REDIS:
            self._redis_step = index
        if self._ledger is not None:
            self._ledger.phase = index
            self._ledger.record(Event.PHASE, value=index)
        self._announce(
            {
                "event": "phase",
                "phase": phase.label,
                "index": index,
                "version": __version__,
                "role": "worker",
                "task_type": self._settings.task_type,
                "measures": self._settings.measures.text,
                "authority": self._authority(phase),
            }
        )

    def _authority(self, phase: Phase) -> str:
        """Where this process claims, empty if it does not."""
        if not self._settings.measures.done_store:
            return ""
        return authority_of(phase, self._settings.bounds.authority).value

    async def _protections(self, phase: Phase, task_type: str) -> Protections:
        has_redis = bool(self._settings.redis_url)
        return await self._parts[task_type].of(phase, has_redis=has_redis)

    async def _consumer(self, index: int, phase: Phase, task_type: str) -> RedisConsumer:
        route = read_route(phase)
        settings = self._settings
        check_redis_kind(settings.redis_kind, phase)
        pool = None
        consume = None
        if route is not ReadRoute.NATS:
            pool = self._connections.redis()
            replicas = self._connections.redis_replicas if settings.measures.replica_wait else 0
            self._dead_letters.redis = RedisDeadLetters(pool, settings.names, replicas=replicas)
        if route is not ReadRoute.REDIS:
            consume = await self._nats_consume(index, phase, task_type)
        consumer = RedisConsumer.for_phase(
            phase,
            pool=pool,
            nats_consume=consume,
            names=settings.names,
            block_timeout_secs=settings.block_timeout_secs,
            ack=settings.measures.ack_mode,
            aged=AgedTasks(self._clock, min_age_s=settings.redis_age_s)
            if settings.measures.read_both
            else None,
            recorder=self._recorder,
            metrics=self._metrics,
        )
        streams = settings.redis_kind is RedisKind.STREAM
        if pool is not None and (streams or settings.measures.reads_redis_otherwise):
            consumer.redis_queue = self._redis_reads(pool).queue
        return consumer

    def _redis_reads(self, pool: RedisClient) -> RedisReads:
        """One for the life of the process: its leases last over phases that do not read Redis."""
        if self._reads is None:
            self._reads = RedisReads(
                pool,
                self._settings.measures,
                names=self._settings.names,
                owner=self._owner,
                lease_s=self._settings.redis_lease_s,
                kind=self._settings.redis_kind,
                min_idle_s=self._settings.consumer.ack_wait_s,
                recorder=self._recorder,
                clock=self._clock,
            )
        return self._reads

    async def _done_store(self, phase: Phase, task_type: str) -> DoneStore | None:
        """The authority on what is done, where there is one."""
        return await self._parts[task_type].store_of(phase)

    async def _nats_consume(self, index: int, phase: Phase, task_type: str) -> NatsConsumeFn:
        """How a task type is read from NATS from this step on."""
        settings = self._settings
        wait_s = settings.block_timeout_secs
        if settings.measures.synced_only:
            await check_sync_interval(self._connections)
        transport = await self._connections.nats()
        done = await self._done_store(phase, task_type)
        ended = None
        if done is not None:
            has_redis = settings.redis_url and phase is not Phase.NATS_ONLY
            pool = self._connections.redis() if has_redis else None
            ended = EndedTasks(done, transport, clock=self._clock, redis=pool, task_type=task_type)
        entry = Entry(step=index, redis_step=self._redis_step)
        await self._connections.nats_for_reading(task_type, entry=entry, ended=ended)
        self._dead_letters.nats = NatsDeadLetters(transport)
        consumer = msgspec.structs.replace(self._consumer_settings, task_type=task_type)
        await self._chores.begin(transport, consumer, done)
        if settings.measures.epoch_consumer:
            return make_epoch_consume(
                self._connections, transport, task_type, wait_s=wait_s, ended=ended
            )
        return make_nats_consume(transport, wait_s=wait_s)


async def run_together(runs: list[Coroutine[Any, Any, Any]]) -> None:
    """Run all to their end; the first error ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            for run in runs:
                group.create_task(run)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
