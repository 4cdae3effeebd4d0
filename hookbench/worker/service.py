"""One worker process: connections, phase changes without a restart, and a graceful stop."""

import asyncio
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from hookbench import __version__
from hookbench.cancellation import cancel
from hookbench.clock import Clock
from hookbench.ledger.events import Event, LedgerWriter, Recorder
from hookbench.migration.consumer import RedisConsumer
from hookbench.migration.measures import NO_MEASURES, Measures
from hookbench.migration.metrics import HookMetrics
from hookbench.migration.phase_source import PhaseSource
from hookbench.migration.phases import Phase, ReadRoute, read_route
from hookbench.migration.preflight import check_brokers
from hookbench.migration.read_both import DEFAULT_REDIS_AGE_S, AgedTasks
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import ConsumerSettings, StreamSettings
from hookbench.queues.transport import make_nats_consume
from hookbench.task import Names
from hookbench.worker.dead_letters import NatsDeadLetters, RedisDeadLetters, RoutedDeadLetters
from hookbench.worker.loop import Handler, Worker, WorkerLimits, WorkerTotals

__all__ = ["Announce", "WorkerService", "WorkerSettings"]

_PROGRESS_S = 1.0

Announce = Callable[[dict[str, Any]], None]
"""Tells the outside what a process does: one flat, JSON-able object per event."""


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker process is told.

    Attributes:
        phase: the phase, fixed; or
        phase_file: a file that is watched.
        block_timeout_secs: the longest wait of one read on either broker.
        measures: those of the hardened design that are on.
        redis_age_s: with ``read_both``, how long a task has lain in Redis before it is taken there
            in ``dual_read``.
    """

    redis_url: str | None = None
    nats_url: str | None = None
    phase: Phase | None = None
    phase_file: Path | None = None
    names: Names = msgspec.field(default_factory=Names)
    task_type: str = "sync"
    block_timeout_secs: float = 5.0
    measures: Measures = NO_MEASURES
    redis_age_s: float = DEFAULT_REDIS_AGE_S
    stream: StreamSettings = msgspec.field(default_factory=StreamSettings)
    consumer: ConsumerSettings = msgspec.field(default_factory=ConsumerSettings)
    limits: WorkerLimits = msgspec.field(default_factory=WorkerLimits)


class WorkerService:
    """Runs a ``Worker`` and moves it from phase to phase.

    Args:
        settings: what the process was told.
        handler: does the work.
        clock: of everything in it.
        ledger: is told the phase, and records.
        recorder: records in the ledger's place.
        metrics: counters, for those who ask for them.
        announce: is told what the process does.
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
        announce: Announce | None = None,
    ) -> None:
        self._phases = PhaseSource(settings.phase, settings.phase_file)
        self._settings = settings
        self._handler = handler
        self._clock = clock
        self._ledger = ledger
        self._recorder = ledger if recorder is None else recorder
        self._metrics = metrics or HookMetrics()
        self._announce = announce or (lambda _event: None)
        self._connections = Connections(
            redis_url=settings.redis_url,
            nats_url=settings.nats_url,
            names=settings.names,
            clock=clock,
            block_timeout_secs=settings.block_timeout_secs,
            stream=settings.stream,
            consumer=settings.consumer,
        )
        self._dead_letters = RoutedDeadLetters(f"{socket.gethostname()} pid {os.getpid()}")
        self._stop = asyncio.Event()
        self._phase: Phase | None = None

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
            await check_brokers(
                phase, redis_url=self._settings.redis_url, nats_url=self._settings.nats_url
            )
            worker = Worker(
                await self._consumer(phase),
                self._handler,
                task_type=self._settings.task_type,
                dead_letters=self._dead_letters,
                clock=self._clock,
                limits=self._settings.limits,
                recorder=self._recorder,
            )
            self._entered(index, phase)
            follower = asyncio.ensure_future(
                self._phases.follow((index, phase), partial(self._switch, worker), self._clock)
            )
            stopper = asyncio.ensure_future(self._stop_when_asked(worker))
            reporter = asyncio.ensure_future(self._report(worker))
            try:
                totals = await worker.run()
            finally:
                await cancel(follower, stopper, reporter)
            self._announce({"event": "stopped", **msgspec.structs.asdict(totals)})
            return totals
        finally:
            await self._connections.close()

    async def _stop_when_asked(self, worker: Worker) -> None:
        await self._stop.wait()
        worker.request_stop()

    async def _report(self, worker: Worker) -> None:
        while True:
            await self._clock.sleep(_PROGRESS_S)
            self._announce({"event": "progress", **msgspec.structs.asdict(worker.totals)})

    async def _switch(self, worker: Worker, index: int, phase: Phase) -> None:
        before = self._phase
        consumer = await self._consumer(phase)
        worker.switch(consumer)
        self._entered(index, phase)
        left_nats = before is not None and read_route(before) is not ReadRoute.REDIS
        if left_nats and read_route(phase) is ReadRoute.REDIS:
            # Back to Redis: what was fetched but not handed out must not wait for its AckWait.
            await (await self._connections.nats()).release()

    def _entered(self, index: int, phase: Phase) -> None:
        self._phase = phase
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
            }
        )

    async def _consumer(self, phase: Phase) -> RedisConsumer:
        route = read_route(phase)
        settings = self._settings
        pool = None
        consume = None
        if route is not ReadRoute.NATS:
            pool = self._connections.redis()
            self._dead_letters.redis = RedisDeadLetters(pool, settings.names)
        if route is not ReadRoute.REDIS:
            transport = await self._connections.nats_for_reading(settings.task_type)
            consume = make_nats_consume(transport, wait_s=settings.block_timeout_secs)
            self._dead_letters.nats = NatsDeadLetters(transport)
        return RedisConsumer.for_phase(
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
