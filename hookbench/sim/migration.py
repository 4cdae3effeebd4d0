"""A whole migration in virtual time: the reference producer and workers, and the checkers.

The processes are ``LoadGenerator`` and ``WorkerService`` as they run in a rehearsal; they follow a
phase file, and write ledgers that the account of a rehearsal is made of. What is simulated lies
below them: clock, network and brokers.
"""

import random
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from hookbench.brokers.durability import Durability
from hookbench.clock import NS_PER_S
from hookbench.effects.read import read_effects
from hookbench.effects.store import EffectStore, SqliteEffectStore
from hookbench.ledger.account import make_account
from hookbench.ledger.events import LedgerWriter
from hookbench.ledger.model import Account, Bounds, FaultWindow, StepPlan
from hookbench.ledger.read import Ledger, read_ledger
from hookbench.load.generator import GeneratorSettings, LoadGenerator
from hookbench.migration.measures import NO_MEASURES, Measures, measures_of, parse_measures
from hookbench.migration.phases import (
    Design,
    Phase,
    PhaseFile,
    ReadRoute,
    read_route,
)
from hookbench.migration.preflight import BrokerCheck, check_brokers
from hookbench.queues.jetstream import ConsumerSettings
from hookbench.rehearsal.observer import Observer
from hookbench.sim.brokers import Broker, RedisBroker, open_nats, stream_settings
from hookbench.sim.clock import SimulatedClock
from hookbench.sim.dialer import SimulatedDialer
from hookbench.sim.disk import SimulatedDisk
from hookbench.sim.loop import SimulatedLoop
from hookbench.sim.network import Network
from hookbench.sim.operator import change_phase
from hookbench.sim.redis.scripts import ScriptEngine
from hookbench.sim.simulate import simulate
from hookbench.task import Names, TaskSource, decode_task
from hookbench.worker.handlers.effect import EffectHandler
from hookbench.worker.handlers.sleep import SleepHandler
from hookbench.worker.limits import WorkerLimits
from hookbench.worker.loop import Handler
from hookbench.worker.service import WorkerService, WorkerSettings

if TYPE_CHECKING:
    import asyncio

    from hookbench.sim.processes import Process

__all__ = ["MigrationPlan", "Outcome", "SimulatedSite", "simulate_migration"]

PRODUCER, WORKER, OPERATOR = "producer", "worker", "operator"
_ROLES = (PRODUCER, WORKER)
_NO_END = 10_000_000
"""Tasks of a load that lasts until the timeline is over."""
_PHASES = tuple(Phase)
_LEDGER_RECORDS = 8_192
_PRODUCER, _FIRST_WORKER = 0, 1
_QUIET_S = 0.5


class MigrationPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is simulated.

    Attributes:
        design: of producer and workers.
        measures: changes to those of the design, see ``parse_measures``.
        tasks: in all, at a constant rate over all phases. With gates it is the rate alone, for the
            load lasts until the last phase has had its length, as in a rehearsal.
        phases: in their order.
        phase_s: how long each lasts.
        workers: processes.
        concurrency: tasks at once in each of them.
        service_s: how long a handler takes.
        ack_wait_s: of the consumer.
        redis_lease_s: of a worker's list.
        drain_s: how long the end waits until nothing moves any more.
        durability: of both brokers; ``replicated`` is a Redis with a replica and three NATS nodes.
        replica: whether Redis has one all the same.
        maxmemory_bytes: of Redis; 0 for no limit.
        eviction: what Redis does at that limit.
        nats_sync_interval_s: how often JetStream syncs its disk, 0 for always; ``None`` for what
            the durability has.
        max_inversions: as of ``Bounds``: tasks that may be overtaken within their repository.
    """

    design: Design = Design.GUIDE
    measures: str = ""
    tasks: int = 200
    phases: tuple[Phase, ...] = _PHASES
    phase_s: float = 4.0
    workers: int = 2
    concurrency: int = 4
    service_s: float = 0.01
    ack_wait_s: float = 5.0
    redis_lease_s: float = 2.0
    drain_s: float = 60.0
    durability: Durability = Durability.FSYNC
    replica: bool = False
    maxmemory_bytes: int = 0
    eviction: str = "noeviction"
    nats_sync_interval_s: float | None = None
    max_inversions: int | None = None

    @property
    def in_force(self) -> Measures:
        """The measures that are on."""
        return parse_measures(self.measures, measures_of(self.design))

    @property
    def rate_per_s(self) -> float:
        """Tasks per second."""
        return self.tasks / (self.phase_s * len(self.phases))


class Outcome(msgspec.Struct, frozen=True):
    """What a run came to.

    Attributes:
        account: of every task.
        unfinished: why the drain did not finish; empty if it did.
        held_back: why the last phases were not entered; empty if they were.
        notes: what the operator did, with the time in s.
        ended_ns: virtual time at the end.
        calls: callbacks that ran.
        messages: that the network carried.
    """

    account: Account
    unfinished: str
    held_back: str
    notes: tuple[str, ...]
    ended_ns: int
    calls: int
    messages: int


class SimulatedSite:
    """Brokers, a producer and workers; faults are given it.

    Args:
        loop: of the run.
        plan: what is simulated.
        seed: of everything that is drawn.
        folder: for phase file, ledger and effects.
        engine: runs the scripts; it may serve many runs.

    Attributes:
        redis: the broker.
        nats: the broker.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        plan: MigrationPlan,
        seed: int,
        folder: Path,
        engine: ScriptEngine,
    ) -> None:
        self.loop = loop
        self.plan = plan
        self.clock = SimulatedClock(loop)
        self.network = Network(loop, random.Random(f"network:{seed}"))
        self.disk = SimulatedDisk(self.clock, random.Random(f"disk:{seed}"))
        self.measures = plan.in_force
        self.workers: dict[int, Process] = {}
        self.producer: Process | None = None
        self.operator: Process | None = None
        self.windows: list[FaultWindow] = []
        self.incidents: list[str] = []
        self.start_ns = loop.now_ns
        self._said: dict[int, dict[str, Any]] = {}
        self._seed = seed
        self.folder = folder
        self._running: dict[int, tuple[WorkerService, asyncio.Task[Any]]] = {}
        self._writers = _FIRST_WORKER
        self._producer_writer = _PRODUCER
        self._outbox = folder / "outbox.sqlite"
        self._steps: list[tuple[int, Phase]] = []
        self.stream = stream_settings(plan.durability)
        self.redis = RedisBroker(
            loop,
            self.network,
            engine,
            plan.durability,
            maxmemory_bytes=plan.maxmemory_bytes,
            policy=plan.eviction,
            replica=plan.replica,
        )
        self.nats = open_nats(
            loop,
            self.network,
            plan.durability,
            Names().stream,
            random.Random(f"nats:{seed}"),
            sync_interval_s=plan.nats_sync_interval_s,
        )
        self.urls = (self.redis.url, self.nats.url)
        (folder / "ledger").mkdir()
        self._stores: list[SqliteEffectStore] = []

    def _ledger(self, role: str, writer: int) -> LedgerWriter:
        return LedgerWriter(
            self.folder / "ledger",
            role=role,
            writer=writer,
            clock=self.clock,
            capacity=_LEDGER_RECORDS,
        )

    def _effects(self, writer: int) -> EffectStore:
        store = SqliteEffectStore(self.folder / "effects.sqlite", writer=writer, clock=self.clock)
        self._stores.append(store)
        return store

    def _close_effects(self) -> None:
        for store in self._stores:
            store.close()

    def dialer(self, name: str) -> SimulatedDialer:
        """Of a process, or of whoever looks on."""
        return SimulatedDialer(self.network, name, random.Random(f"inboxes:{name}:{self._seed}"))

    def note(self, text: str) -> None:
        """Keep what happened, with its time."""
        self.incidents.append(f"{(self.loop.now_ns - self.start_ns) / NS_PER_S:.6f} s: {text}")

    def _path_of(self, role: str) -> Path:
        return self.folder / f"phase-{role}.json"

    def enter(self, index: int, phase: Phase) -> None:
        """Tell everybody at once."""
        for role in _ROLES:
            self.enter_role(role, index, phase)

    def enter_role(self, role: str, index: int, phase: Phase) -> None:
        """Tell ``producer`` or ``worker``; a step begins with the first of them."""
        if len(self._steps) <= index:
            self._steps.append((self.loop.now_ns, self.plan.phases[index]))
        PhaseFile(self._path_of(role)).write(index, phase)

    def said_by(self, role: str) -> list[tuple[str, dict[str, Any]]]:
        """Name and last announcements of each process of a role that is to run."""
        if role == PRODUCER:
            return [(PRODUCER, self._said.get(self._producer_writer, {}))]
        return [(f"{WORKER}-{number}", self._said.get(number, {})) for number in self.workers]

    def _listen(self, writer: int) -> Callable[[dict[str, Any]], None]:
        """What a process is given to announce what it does."""
        said = self._said[writer] = {}
        return said.update

    def start_worker(self) -> int:
        """Start a worker process; its number."""
        number, plan = self._writers, self.plan
        self._writers += 1
        name = f"{WORKER}-{number}"
        dialer = self.dialer(name)
        ledger = self._ledger(WORKER, number)
        handler = EffectHandler(
            self._effects(number), SleepHandler(plan.service_s, self.clock), recorder=ledger
        )
        work = self._wrap_handler(handler)
        service = WorkerService(
            WorkerSettings(
                redis_url=self.redis.url,
                nats_url=self.nats.url,
                nats_monitor_url=self.nats.monitor_urls,
                phase_file=self._path_of(WORKER),
                measures=self.measures,
                redis_lease_s=plan.redis_lease_s,
                block_timeout_secs=1.0,
                stream=self.stream,
                consumer=ConsumerSettings(ack_wait_s=plan.ack_wait_s),
                limits=WorkerLimits(concurrency=plan.concurrency),
            ),
            work,
            clock=self.clock,
            ledger=ledger,
            announce=self._listen(number),
            entropy=random.Random(f"{name}:{self._seed}"),
            dialer=dialer,
            check=self._check(dialer),
        )

        async def main() -> None:
            try:
                await service.run()
            finally:
                ledger.close()

        process, task = self.loop.processes.start(name, main, self.loop.create_task)
        self.workers[number] = process
        self._running[number] = (service, task)
        return number

    def kill_worker(self, number: int) -> None:
        """SIGKILL."""
        self.loop.processes.kill(self.workers.pop(number))
        self._running.pop(number)

    def start_producer(
        self, *, writer: int = _PRODUCER, start_ns: int = 0, resume: bool = False
    ) -> "asyncio.Task[Any]":
        """Start the producer; its task is done when all tasks have their outcome.

        Args:
            writer: its number.
            start_ns: of the load, ``resume``: take another's place, see ``GeneratorSettings``.
            resume: as above.
        """
        plan = self.plan
        ledger, dialer = self._ledger(PRODUCER, writer), self.dialer(PRODUCER)
        generator = LoadGenerator(
            GeneratorSettings(
                redis_url=self.redis.url,
                nats_url=self.nats.url,
                nats_monitor_url=self.nats.monitor_urls,
                phase_file=self._path_of(PRODUCER),
                measures=self.measures,
                spool=self._outbox,
                stream=self.stream,
                rate_per_s=plan.rate_per_s,
                count=_NO_END if self.measures.gates else plan.tasks,
                repositories=10,
                mix="plain=1,idempotent=1,transactional=1",
                seed=self._seed,
                start_ns=start_ns,
                resume=resume,
            ),
            clock=self.clock,
            ledger=ledger,
            announce=self._listen(writer),
            dialer=dialer,
            check=self._check(dialer),
            disk=self.disk,
            wrap=self._wrap_tasks,
        )
        self._generator, self._producer_writer = generator, writer

        async def main() -> None:
            try:
                await generator.run()
            finally:
                ledger.close()

        self.producer, task = self.loop.processes.start(PRODUCER, main, self.loop.create_task)
        running: asyncio.Task[Any] = task
        return running

    def _wrap_handler(self, handler: Handler) -> Handler:
        """What faults put between a worker and its handler."""
        return handler

    def _wrap_tasks(self, tasks: TaskSource) -> TaskSource:
        """What faults put between a producer and its tasks."""
        return tasks

    def _check(self, dialer: SimulatedDialer) -> BrokerCheck:
        """What a process asks the brokers at its start: under guide nothing depends on it."""
        if not self.measures.oom_claims:
            return _unchecked
        return partial(check_brokers, dialer=dialer)

    def start_operator(
        self, main: Callable[[LedgerWriter], Coroutine[Any, Any, Any]]
    ) -> "asyncio.Task[Any]":
        """Start an operator's process; its first task.

        Args:
            main: what it does; it is given its ledger.
        """
        number = self._writers
        self._writers += 1
        ledger = self._ledger("procedure", number)

        async def run() -> None:
            try:
                await main(ledger)
            finally:
                ledger.close()

        self.operator, task = self.loop.processes.start(OPERATOR, run, self.loop.create_task)
        running: asyncio.Task[Any] = task
        return running

    def forget_operator(self) -> None:
        """His process has ended."""
        self.operator = None

    def broker(self, name: str) -> Broker:
        """``redis`` or ``nats``."""
        return self.redis if name == "redis" else self.nats

    async def run(self, faults: Sequence["Fault"]) -> Outcome:
        """The whole timeline, the drain, and the account."""
        plan = self.plan
        self.enter(0, plan.phases[0])
        for _ in range(plan.workers):
            self.start_worker()
        producing = self.start_producer()
        injecting: list[asyncio.Task[None]] = []
        injecting += [self.loop.create_task(fault(self)) for fault in faults]
        held_back = await self._go_through()
        for fault in injecting if self.measures.gates else ():
            await fault
        if self.measures.gates:
            self._generator.request_stop()
        await producing
        for fault in injecting:
            await fault
        ended_ns = self.loop.now_ns
        observer = Observer(
            self.redis.url,
            self.nats.url,
            WorkerSettings().names,
            clock=self.clock,
            dialer=self.dialer("observer"),
        )
        _start_ns, last = self._steps[-1]
        route = read_route(last)
        unfinished = await observer.drain(
            reads_redis=route is not ReadRoute.NATS,
            reads_nats=route is not ReadRoute.REDIS,
            timeout_s=plan.drain_s,
        )
        await self.clock.sleep(_QUIET_S)
        for service, _task in self._running.values():
            service.request_stop()
        for _service, task in self._running.values():
            await task
        residue = await observer.residue(self._in_outbox())
        await observer.close()
        self._close_effects()
        return Outcome(
            self._account(residue, ended_ns),
            unfinished or "",
            held_back,
            tuple(self.incidents),
            self.loop.now_ns,
            self.loop.calls,
            self.network.messages,
        )

    async def _go_through(self) -> str:
        """Every phase of the timeline; why not, if a gate or a process holds it back."""
        phases = self.plan.phases
        for index in range(1, len(phases)):
            await self.clock.sleep(self.plan.phase_s)
            if not self.measures.gates:
                self.enter(index, phases[index])
            elif held_back := await change_phase(self, index):
                return held_back
        if self.measures.gates:
            await self.clock.sleep(self.plan.phase_s)
        return ""

    def _in_outbox(self) -> list[str]:
        """Ids of the tasks that are still in the outbox of the producer, also those set aside."""
        if not self.measures.outbox:
            return []
        with self.disk.open(self._outbox) as spool:
            return [str(decode_task(task).id) for task in spool.tasks()]

    def _account(self, residue: Any, ended_ns: int, ledger: Ledger | None = None) -> Account:
        plans = [
            StepPlan(
                index,
                phase.label,
                reads_redis=read_route(phase) is not ReadRoute.NATS,
                reads_nats=read_route(phase) is not ReadRoute.REDIS,
            )
            for index, (_start, phase) in enumerate(self._steps)
        ]
        starts = [start_ns for start_ns, _phase in self._steps]
        return make_account(
            ledger or read_ledger(self.folder / "ledger", same_boot=True),
            plans,
            residue,
            step_starts_ns=starts,
            end_ns=ended_ns,
            planned_starts_ns=starts,
            effects=read_effects(self.folder / "effects.sqlite"),
            bounds=Bounds(max_inversions=self.plan.max_inversions),
            faults=self.windows,
            latencies=False,
        )


Fault = Callable[[SimulatedSite], Coroutine[Any, Any, None]]
"""Does something to a site, at the time that it waits for."""


async def _unchecked(  # the arguments are those of ``check_brokers``
    phase: Phase,
    *,
    redis_url: str | None,
    nats_url: str | None,
    measures: Measures = NO_MEASURES,
) -> None:
    """The simulated brokers are what they are."""


def simulate_migration(
    plan: MigrationPlan,
    seed: int,
    folder: Path,
    *,
    engine: ScriptEngine | None = None,
    faults: Sequence[Fault] = (),
    interleave: bool = False,
) -> Outcome:
    """One run.

    Args:
        plan: what is simulated.
        seed: of everything that is drawn.
        folder: an empty one, which has ledger and effects afterwards.
        engine: of scripts, where many runs share one.
        faults: what is done to the site.
        interleave: draw the order of what is ready, too.

    Raises:
        SimulationError: it could not go on; see ``simulate``.
    """
    loop = SimulatedLoop(
        interleave=random.Random(f"interleave:{seed}") if interleave else None,
        limit_ns=3600 * NS_PER_S,
    )
    scripts = engine or ScriptEngine()
    return simulate(
        lambda running: SimulatedSite(running, plan, seed, folder, scripts).run(faults), loop=loop
    )
