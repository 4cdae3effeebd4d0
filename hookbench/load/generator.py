"""One producer process: synthetic tasks through ``ReceiveSyncService``, phase by phase."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from hookbench import __version__
from hookbench.cancellation import run_beside
from hookbench.clock import Clock
from hookbench.errors import HookbenchError, OversizeError, SendError, SettingError
from hookbench.ledger.boot import boot_id
from hookbench.ledger.events import Event, LedgerWriter
from hookbench.load.arrivals import constant, poisson
from hookbench.load.mix import ALL_PLAIN, parse_mix
from hookbench.load.open_loop import LoadTotals, OpenLoop
from hookbench.migration.measures import NO_MEASURES, Measures
from hookbench.migration.metrics import HookMetrics
from hookbench.migration.outbox import Outbox
from hookbench.migration.outbox_file import OutboxFile, hold_outbox
from hookbench.migration.phase_source import PhaseSource
from hookbench.migration.phases import Phase
from hookbench.migration.preflight import check_brokers
from hookbench.migration.producer import ReceiveSyncService  # noqa: TC001
from hookbench.migration.publishing import PublishPatience
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import StreamSettings
from hookbench.task import HookTask, Names, TaskSource, new_task
from hookbench.worker.service import Announce

__all__ = ["GeneratorSettings", "LoadGenerator"]

_log = logging.getLogger(__name__)

SYNTHETIC = "synthetic"
"""First component of the repository ids of synthetic tasks; a worker routes by it."""

_PROGRESS_S = 1.0


class GeneratorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a producer process is told.

    Attributes:
        measures: those of the hardened design that are on.
        spool: file of the outbox, which that measure needs.
        patience: how long a publish is tried, with ``message_ids``.
        rate_per_s: tasks per second.
        count: tasks in all; the same seed offers the same tasks at the same offsets.
        arrivals: ``constant`` or ``poisson``.
        payload_bytes: size of the filling in each payload.
        repositories: how many synthetic repositories of each class the tasks are spread over.
        mix: weights of the handler classes, see ``parse_mix``.
        start_ns: monotonic time of offset 0; 0 for now.
        resume: take the place of a producer that ended early: what was due before now was its
            affair, the rest are the tasks that it would have offered.
        nats_monitor_url: where NATS tells its sync settings, for ``synced_only``.
        nats_sync_interval_s: those settings as the operator says, where they cannot be read.
    """

    redis_url: str | None = None
    nats_url: str | None = None
    phase: Phase | None = None
    phase_file: Path | None = None
    names: Names = msgspec.field(default_factory=Names)
    task_type: str = "sync"
    measures: Measures = NO_MEASURES
    spool: Path | None = None
    patience: PublishPatience = msgspec.field(default_factory=PublishPatience)
    stream: StreamSettings = msgspec.field(default_factory=StreamSettings)
    rate_per_s: float = 100.0
    count: int = 1000
    arrivals: str = "constant"
    payload_bytes: int = 64
    repositories: int = 100
    mix: str = ALL_PLAIN
    seed: int = 0
    start_ns: int = 0
    resume: bool = False
    nats_monitor_url: str | None = None
    nats_sync_interval_s: float | None = None


class LoadGenerator:
    """Offers tasks in an open loop and follows the phase file.

    Args:
        settings: what the process was told.
        clock: of everything in it.
        ledger: records, and is told the phase.
        announce: is told what the process does.
        wrap: puts something between the source of the tasks and their sending.
    """

    def __init__(
        self,
        settings: GeneratorSettings,
        *,
        clock: Clock,
        ledger: LedgerWriter | None = None,
        announce: Announce | None = None,
        wrap: Callable[[TaskSource], TaskSource] | None = None,
    ) -> None:
        self._phases = PhaseSource(settings.phase, settings.phase_file)
        self._settings = settings
        self._clock = clock
        self._ledger = ledger
        self._announce = announce or (lambda _event: None)
        self._metrics = HookMetrics()
        self._rng = random.Random(settings.seed)
        self._mix = parse_mix(settings.mix)
        self._connections = Connections(
            redis_url=settings.redis_url,
            nats_url=settings.nats_url,
            names=settings.names,
            clock=clock,
            stream=settings.stream,
            measures=settings.measures.nats,
            nats_monitor_url=settings.nats_monitor_url,
            nats_sync_interval_s=settings.nats_sync_interval_s,
        )
        self._service: ReceiveSyncService | None = None
        self._outbox: Outbox | None = None
        self._loop = OpenLoop(self._send, clock=clock)
        self._warned: set[type[HookbenchError]] = set()
        self._filling = "x" * settings.payload_bytes
        self._tasks = self._make_task if wrap is None else wrap(self._make_task)

    def request_stop(self) -> None:
        """Send nothing more."""
        self._loop.request_stop()

    async def run(self) -> LoadTotals:
        """Offer all tasks; returns when each has its outcome, and the outbox had time to empty."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                if self._settings.measures.outbox:
                    self._outbox = await self._open_outbox(stack)
                return await self._run()
        finally:
            await self._connections.close()

    async def _open_outbox(self, stack: contextlib.AsyncExitStack) -> Outbox:
        path = self._settings.spool
        if path is None:
            raise SettingError("the measure outbox needs a spool: give --spool")
        stack.enter_context(hold_outbox(path))
        outbox = Outbox(OutboxFile(path, boot_id=boot_id(), clock=self._clock), clock=self._clock)
        stack.push_async_callback(outbox.close)
        return outbox

    async def _run(self) -> LoadTotals:
        settings = self._settings
        index, phase = self._phases.read()
        await check_brokers(
            phase,
            redis_url=settings.redis_url,
            nats_url=settings.nats_url,
            measures=settings.measures,
        )
        await self._enter(index, phase)
        totals, spooled = await run_beside(
            self._offer(),
            asyncio.ensure_future(self._phases.follow((index, phase), self._enter, self._clock)),
            asyncio.ensure_future(self._report()),
        )
        if spooled:
            _log.warning(
                "%d tasks are left in the outbox %s: the next producer with it sends them",
                spooled,
                settings.spool,
            )
        left = settings.count - totals.offered - totals.skipped
        self._announce({"event": "stopped", "left": left, "spooled": spooled, **self._progress()})
        return totals

    async def _offer(self) -> tuple[LoadTotals, int]:
        """The whole load; its totals, and how many tasks are left in the outbox."""
        start_ns = self._settings.start_ns or self._clock.monotonic_ns()
        totals = await self._loop.run(
            self._offsets(), start_ns, skip=self._skip if self._settings.resume else None
        )
        return totals, 0 if self._outbox is None else await self._outbox.drain()

    def _offsets(self) -> Iterator[int]:
        settings = self._settings
        if settings.arrivals == "poisson":
            # Not from the tasks' entropy: which of the two is drawn first is left to the load.
            rng = random.Random(f"arrivals:{settings.seed}")
            return poisson(settings.rate_per_s, settings.count, rng)
        if settings.arrivals == "constant":
            return constant(settings.rate_per_s, settings.count)
        raise SettingError(f"arrivals {settings.arrivals!r}: use constant or poisson")

    def _skip(self, number: int) -> None:
        """Draw what the task would have drawn, so that the rest are the same tasks."""
        self._make_task(number)

    def _make_task(self, number: int) -> HookTask:
        handler_class = self._mix.choose(self._rng)
        return new_task(
            repo_id=f"{SYNTHETIC}/{handler_class}/repo-{number % self._settings.repositories}",
            task_type=self._settings.task_type,
            payload={"number": number, "filling": self._filling},
            clock=self._clock,
            entropy=self._rng,
        )

    async def _send(self, number: int, intended_ns: int) -> None:
        task = self._tasks(number)
        if self._service is None:
            raise SettingError("no phase was entered")
        totals = self._loop.totals
        try:
            await self._service.send(task, intended_ns=intended_ns)
        except OversizeError as error:
            totals.refused += 1
            self._warn_once(error)
        except SendError as error:
            self._warn_once(error)
            if error.outcome == "unknown":
                totals.unknown += 1
            else:
                totals.refused += 1
        else:
            totals.accepted += 1

    def _warn_once(self, error: HookbenchError) -> None:
        """The first failure of each kind, so that a log does not grow with an outage."""
        if type(error) not in self._warned:
            self._warned.add(type(error))
            _log.warning("%s (further ones of this kind are only counted)", error)

    async def _enter(self, index: int, phase: Phase) -> None:
        self._service = await open_service(
            phase,
            self._connections,
            self._settings.names,
            measures=self._settings.measures,
            recorder=self._ledger,
            metrics=self._metrics,
            outbox=self._outbox,
            patience=self._settings.patience,
        )
        if self._ledger is not None:
            self._ledger.phase = index
            self._ledger.record(Event.PHASE, value=index)
        self._announce(
            {
                "event": "phase",
                "phase": phase.label,
                "index": index,
                "version": __version__,
                "role": "producer",
                "measures": self._settings.measures.text,
            }
        )

    def _progress(self) -> dict[str, Any]:
        return msgspec.structs.asdict(self._loop.totals)

    async def _report(self) -> None:
        while True:
            await self._clock.sleep(_PROGRESS_S)
            self._announce({"event": "progress", **self._progress()})
