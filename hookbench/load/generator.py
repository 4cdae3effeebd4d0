"""One producer process: synthetic tasks through ``ReceiveSyncService``, phase by phase."""

import asyncio
import contextlib
import itertools
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from hookbench import __version__
from hookbench.cancellation import run_beside
from hookbench.clock import Clock
from hookbench.errors import HookbenchError, OversizeError, SendError, SettingError
from hookbench.ledger.boot import boot_id
from hookbench.ledger.events import Event, LedgerWriter, Recorder
from hookbench.load.arrivals import parse_arrivals
from hookbench.load.closed_loop import ClosedLoop
from hookbench.load.mix import ALL_PLAIN, parse_mix
from hookbench.load.open_loop import LoadTotals, OpenLoop
from hookbench.load.payloads import parse_payload
from hookbench.load.repositories import Repositories
from hookbench.load.workload import Workload
from hookbench.migration.measures import NO_MEASURES, Measures
from hookbench.migration.metrics import HookMetrics
from hookbench.migration.outbox import Outbox
from hookbench.migration.outbox_disk import OutboxDisk
from hookbench.migration.outbox_file import LOCAL_DISK, OutboxFile
from hookbench.migration.phase_source import PhaseSource
from hookbench.migration.phases import Phase
from hookbench.migration.preflight import BrokerCheck, check_brokers
from hookbench.migration.producer import ReceiveSyncService
from hookbench.migration.publishing import PublishPatience
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.dialing import NETWORK, Dialer
from hookbench.queues.jetstream import StreamSettings
from hookbench.queues.null import NullPublish
from hookbench.queues.redis_kind import RedisKind
from hookbench.task import Names, TaskSource
from hookbench.worker.service import Announce

if TYPE_CHECKING:
    from hookbench.tracing import Tracing

__all__ = ["LOOPS", "GeneratorSettings", "LoadGenerator"]

_log = logging.getLogger(__name__)

LOOPS = ("open", "closed", "windowed")
MAX_CALLERS = 100_000
_PROGRESS_S = 1.0
_AT_THE_END = ("lag_p50_ns", "lag_p99_ns")


class GeneratorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a producer process is told.

    Attributes:
        measures: those of the hardened design that are on.
        spool: file of the outbox, which that measure needs.
        patience: how long a publish is tried, with ``message_ids``.
        loop: ``open``: tasks are sent when they are due. ``closed``: each of ``callers`` waits for
            the outcome of its task before it sends another, at the rate if it can. ``windowed``:
            likewise, as fast as it goes; ``callers`` tasks are under way all the time.
        callers: of a closed or windowed loop.
        rate_per_s: tasks per second, over all callers.
        count: tasks in all; the same seed offers the same tasks at the same offsets.
        arrivals: of an open loop, see ``parse_arrivals``.
        part, parts: which of several processes this is that a trace is dealt out to.
        payload: size of the filling in each payload, or their distribution, see ``parse_payload``.
        repositories: how many synthetic repositories of each class the tasks are spread over.
        skew: exponent of Zipf's law over them, see ``Repositories``.
        mix: weights of the handler classes, see ``parse_mix``.
        start_ns: monotonic time of offset 0; 0 for now.
        resume: take the place of a producer that ended early: what was due before now was its
            affair, the rest are the tasks that it would have offered.
        null: tasks go nowhere, see ``NullPublish``; no broker is connected.
        nats_monitor_url: where NATS tells its sync settings, for ``synced_only``.
        nats_sync_interval_s: those settings as the operator says, where they cannot be read.
        redis_kind: what holds the tasks on Redis.
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
    loop: str = "open"
    callers: int = 100
    rate_per_s: float = 100.0
    count: int = 1000
    arrivals: str = "constant"
    part: int = 0
    parts: int = 1
    payload: str = "64"
    repositories: int = 100
    skew: float = 0.0
    mix: str = ALL_PLAIN
    seed: int = 0
    start_ns: int = 0
    resume: bool = False
    null: bool = False
    nats_monitor_url: str | None = None
    nats_sync_interval_s: float | None = None
    redis_kind: RedisKind = RedisKind.LIST


class LoadGenerator:
    """Offers tasks, in an open loop or another one, and follows the phase file.

    Args:
        settings: what the process was told.
        clock: of everything in it.
        ledger: records, and is told the phase.
        recorder: records in the ledger's place.
        metrics: counters, for those who ask for them.
        tracing: has a span for each task.
        announce: is told what the process does.
        wrap: puts something between the source of the tasks and their sending.
        dialer: opens its connections.
        check: looks at the brokers before it begins; by default ``check_brokers``.
        disk: which the outbox lies on.

    Raises:
        SettingError, TraceError: a setting of the load cannot be used.
    """

    def __init__(
        self,
        settings: GeneratorSettings,
        *,
        clock: Clock,
        ledger: LedgerWriter | None = None,
        recorder: Recorder | None = None,
        metrics: HookMetrics | None = None,
        tracing: "Tracing | None" = None,
        announce: Announce | None = None,
        wrap: Callable[[TaskSource], TaskSource] | None = None,
        dialer: Dialer = NETWORK,
        check: BrokerCheck | None = None,
        disk: OutboxDisk = LOCAL_DISK,
    ) -> None:
        self._check = check
        self._disk = disk
        self._phases = PhaseSource(settings.phase, settings.phase_file)
        self._settings = settings
        self._clock = clock
        self._ledger = ledger
        self._recorder = ledger if recorder is None else recorder
        self._announce = announce or (lambda _event: None)
        self._metrics = metrics or HookMetrics()
        self._tracing = tracing
        self._arrivals = parse_arrivals(settings.arrivals)
        self._connections = Connections(
            redis_url=settings.redis_url,
            nats_url=settings.nats_url,
            names=settings.names,
            clock=clock,
            stream=settings.stream,
            measures=settings.measures.nats,
            nats_monitor_url=settings.nats_monitor_url,
            nats_sync_interval_s=settings.nats_sync_interval_s,
            redis_kind=settings.redis_kind,
            dialer=dialer,
        )
        self._service: ReceiveSyncService | None = None
        self._outbox: Outbox | None = None
        self._loop = self._make_loop()
        self._warned: set[type[HookbenchError]] = set()
        workload = Workload(
            task_type=settings.task_type,
            mix=parse_mix(settings.mix),
            payloads=parse_payload(settings.payload),
            repositories=Repositories(settings.repositories, settings.skew),
            names=self._arrivals.repositories[settings.part :: settings.parts],
            clock=clock,
            seed=settings.seed,
        )
        self._tasks: TaskSource = workload if wrap is None else wrap(workload)
        self._skipped: TaskSource = workload

    def _make_loop(self) -> OpenLoop | ClosedLoop:
        settings = self._settings
        if settings.loop == "open":
            return OpenLoop(self._send, clock=self._clock)
        if settings.loop not in LOOPS:
            raise SettingError(f"loop {settings.loop!r}: use {', '.join(LOOPS)}")
        if settings.resume:
            raise SettingError(f"a {settings.loop} loop cannot be resumed: it has no schedule")
        if settings.arrivals != "constant":
            raise SettingError(
                f"arrivals {settings.arrivals!r} in a {settings.loop} loop: only an open one has"
                " arrivals"
            )
        if not 1 <= settings.callers <= MAX_CALLERS:
            raise SettingError(f"{settings.callers} callers: use between 1 and {MAX_CALLERS:,}")
        pause_s = settings.callers / settings.rate_per_s if settings.loop == "closed" else 0.0
        return ClosedLoop(self._send, callers=settings.callers, pause_s=pause_s, clock=self._clock)

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
        stack.enter_context(self._disk.hold(path))
        file = OutboxFile(path, boot_id=boot_id(), clock=self._clock, disk=self._disk)
        outbox = Outbox(file, clock=self._clock)
        stack.push_async_callback(outbox.close)
        return outbox

    async def _run(self) -> LoadTotals:
        settings = self._settings
        index, phase = self._phases.read()
        if not settings.null:
            await (self._check or check_brokers)(
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
        told = {"left": left, "spooled": spooled, **msgspec.structs.asdict(totals)}
        self._announce({"event": "stopped", **told})
        return totals

    async def _offer(self) -> tuple[LoadTotals, int]:
        """The whole load; its totals, and how many tasks are left in the outbox."""
        start_ns = self._settings.start_ns or self._clock.monotonic_ns()
        if isinstance(self._loop, ClosedLoop):
            totals = await self._loop.run(self._settings.count, start_ns)
        else:
            totals = await self._loop.run(
                self._offsets(), start_ns, skip=self._skip if self._settings.resume else None
            )
        return totals, 0 if self._outbox is None else await self._outbox.drain()

    def _offsets(self) -> Iterator[int]:
        settings = self._settings
        # Not from the tasks' entropy: which of the two is drawn first is left to the load.
        rng = random.Random(f"arrivals:{settings.seed}")
        offsets = self._arrivals.offsets(
            settings.rate_per_s, rng, part=settings.part, parts=settings.parts
        )
        return itertools.islice(offsets, settings.count)

    def _skip(self, number: int) -> None:
        """Draw what the task would have drawn, so that the rest are the same tasks."""
        self._skipped(number)

    async def _send(self, number: int, intended_ns: int) -> None:
        task = self._tasks(number)
        if self._service is None:
            raise SettingError("no phase was entered")
        totals = self._loop.totals
        try:
            if self._tracing is None:
                await self._service.send(task, intended_ns=intended_ns)
            else:
                await self._tracing.send(self._service, task, intended_ns=intended_ns)
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
        self._service = self._null_service() if self._settings.null else await self._open(phase)
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

    async def _open(self, phase: Phase) -> ReceiveSyncService:
        return await open_service(
            phase,
            self._connections,
            self._settings.names,
            measures=self._settings.measures,
            recorder=self._recorder,
            metrics=self._metrics,
            outbox=self._outbox,
            patience=self._settings.patience,
            traced=self._tracing is not None,
        )

    def _null_service(self) -> ReceiveSyncService:
        return ReceiveSyncService.nats_only(
            NullPublish(),
            names=self._settings.names,
            recorder=self._recorder,
            metrics=self._metrics,
        )

    def _progress(self) -> dict[str, Any]:
        told = msgspec.structs.asdict(self._loop.so_far())
        return {name: value for name, value in told.items() if name not in _AT_THE_END}

    async def _report(self) -> None:
        while True:
            await self._clock.sleep(_PROGRESS_S)
            self._announce({"event": "progress", **self._progress()})
