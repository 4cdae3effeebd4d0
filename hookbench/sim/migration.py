"""A whole migration in virtual time: the reference producer and workers, and the checkers.

The processes are ``LoadGenerator`` and ``WorkerService`` as they run in a rehearsal; they follow a
phase file, and write ledgers that the account of a rehearsal is made of. What is simulated lies
below them: clock, network and brokers.
"""

import random
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from hookbench.clock import NS_PER_S
from hookbench.effects.read import read_effects
from hookbench.effects.store import EffectStore, SqliteEffectStore
from hookbench.ledger.account import make_account
from hookbench.ledger.events import LedgerWriter
from hookbench.ledger.model import Account, Bounds, FaultWindow, StepPlan
from hookbench.ledger.read import Ledger, read_ledger
from hookbench.load.generator import GeneratorSettings, LoadGenerator
from hookbench.migration.measures import HARDENED, NO_MEASURES, Measures, parse_measures
from hookbench.migration.phases import (
    Design,
    Phase,
    PhaseFile,
    ReadRoute,
    read_route,
)
from hookbench.queues.addresses import REPLICA_SCHEME
from hookbench.queues.jetstream import ConsumerSettings, StreamSettings
from hookbench.rehearsal.observer import Observer
from hookbench.sim.clock import SimulatedClock
from hookbench.sim.dialer import SimulatedDialer
from hookbench.sim.loop import SimulatedLoop
from hookbench.sim.nats.server import NatsServer
from hookbench.sim.network import Network
from hookbench.sim.redis.log import LogEntry, survivors
from hookbench.sim.redis.scripts import ScriptEngine
from hookbench.sim.redis.server import RedisServer
from hookbench.sim.redis.settings import Persistence, RedisSettings
from hookbench.sim.simulate import simulate
from hookbench.task import TaskSource
from hookbench.worker.handlers.effect import EffectHandler
from hookbench.worker.handlers.sleep import SleepHandler
from hookbench.worker.limits import WorkerLimits
from hookbench.worker.loop import Handler
from hookbench.worker.service import WorkerService, WorkerSettings

if TYPE_CHECKING:
    import asyncio

    from hookbench.sim.processes import Process

__all__ = [
    "NOT_SIMULATED",
    "MigrationPlan",
    "Outcome",
    "SimulatedSite",
    "measures_in_simulation",
    "simulate_migration",
]

REDIS, REPLICA, NATS = "redis:6379", "redis-2:6379", "nats:4222"
NOT_SIMULATED = ("oom_claims", "synced_only", "outbox", "gates")
"""Measures that look at a broker beside the clients, or need a disk, a thread or an operator."""
_PHASES = tuple(Phase)
_LEDGER_RECORDS = 8_192
_PRODUCER, _FIRST_WORKER = 0, 1
_QUIET_S = 0.5


class MigrationPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is simulated.

    Attributes:
        design: of producer and workers.
        measures: changes to those of the design, see ``parse_measures``.
        tasks: in all, at a constant rate over all phases.
        phases: in their order.
        phase_s: how long each lasts.
        workers: processes.
        concurrency: tasks at once in each of them.
        service_s: how long a handler takes.
        ack_wait_s: of the consumer.
        redis_lease_s: of a worker's list.
        drain_s: how long the end waits until nothing moves any more.
        persistence: of Redis.
        replica: whether Redis has one.
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
    persistence: Persistence = Persistence.ALWAYS
    replica: bool = False


class Outcome(msgspec.Struct, frozen=True):
    """What a run came to.

    Attributes:
        account: of every task.
        unfinished: why the drain did not finish; empty if it did.
        ended_ns: virtual time at the end.
        calls: callbacks that ran.
        messages: that the network carried.
    """

    account: Account
    unfinished: str
    ended_ns: int
    calls: int
    messages: int


def measures_in_simulation(design: Design) -> Measures:
    """The measures of a design, but for those that are not simulated."""
    if design is Design.GUIDE:
        return NO_MEASURES
    return msgspec.structs.replace(HARDENED, **dict.fromkeys(NOT_SIMULATED, False))


class SimulatedSite:
    """Brokers, a producer and workers; faults are given it.

    Args:
        loop: of the run.
        plan: what is simulated.
        seed: of everything that is drawn.
        folder: for phase file, ledger and effects.
        engine: runs the scripts; it may serve many runs.
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
        self.measures = parse_measures(plan.measures, measures_in_simulation(plan.design))
        self.workers: dict[int, Process] = {}
        self.producer: Process | None = None
        self.windows: list[FaultWindow] = []
        self._seed = seed
        self._folder = folder
        self._engine = engine
        self._running: dict[int, tuple[WorkerService, asyncio.Task[Any]]] = {}
        self._writers = _FIRST_WORKER
        self._phase_file = folder / "phase.json"
        self._steps: list[tuple[int, Phase]] = []
        self._stream = StreamSettings(storage="file")
        self.redis_url = f"redis://{REDIS}"
        if plan.replica:
            self.redis_url = f"{REPLICA_SCHEME}://{REDIS},{REPLICA}"
        self.redis_node = REDIS
        self._redis_log: list[LogEntry] = []
        self._nats: NatsServer | None = None
        self.start_redis()
        self.start_nats()
        (folder / "ledger").mkdir()
        self._stores: list[SqliteEffectStore] = []

    def _ledger(self, role: str, writer: int) -> LedgerWriter:
        return LedgerWriter(
            self._folder / "ledger",
            role=role,
            writer=writer,
            clock=self.clock,
            capacity=_LEDGER_RECORDS,
        )

    def _effects(self, writer: int) -> EffectStore:
        store = SqliteEffectStore(self._folder / "effects.sqlite", writer=writer, clock=self.clock)
        self._stores.append(store)
        return store

    def _close_effects(self) -> None:
        for store in self._stores:
            store.close()

    def _dialer(self, name: str) -> SimulatedDialer:
        return SimulatedDialer(self.network, name, random.Random(f"inboxes:{name}:{self._seed}"))

    def enter(self, index: int, phase: Phase) -> None:
        """Write the phase file."""
        PhaseFile(self._phase_file).write(index, phase)
        self._steps.append((self.loop.now_ns, phase))

    def start_worker(self) -> int:
        """Start a worker process; its number."""
        number, plan = self._writers, self.plan
        self._writers += 1
        name = f"worker-{number}"
        ledger = self._ledger("worker", number)
        handler = EffectHandler(
            self._effects(number), SleepHandler(plan.service_s, self.clock), recorder=ledger
        )
        work = self._wrap_handler(handler)
        service = WorkerService(
            WorkerSettings(
                redis_url=self.redis_url,
                nats_url=f"nats://{NATS}",
                phase_file=self._phase_file,
                measures=self.measures,
                redis_lease_s=plan.redis_lease_s,
                block_timeout_secs=1.0,
                stream=self._stream,
                consumer=ConsumerSettings(ack_wait_s=plan.ack_wait_s),
                limits=WorkerLimits(concurrency=plan.concurrency),
            ),
            work,
            clock=self.clock,
            ledger=ledger,
            entropy=random.Random(f"{name}:{self._seed}"),
            dialer=self._dialer(name),
            check=_unchecked,
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
        ledger = self._ledger("producer", writer)
        generator = LoadGenerator(
            GeneratorSettings(
                redis_url=self.redis_url,
                nats_url=f"nats://{NATS}",
                phase_file=self._phase_file,
                measures=self.measures,
                stream=self._stream,
                rate_per_s=plan.tasks / (plan.phase_s * len(plan.phases)),
                count=plan.tasks,
                repositories=10,
                mix="plain=1,idempotent=1,transactional=1",
                seed=self._seed,
                start_ns=start_ns,
                resume=resume,
            ),
            clock=self.clock,
            ledger=ledger,
            dialer=self._dialer("producer"),
            check=_unchecked,
            wrap=self._wrap_tasks,
        )

        async def main() -> None:
            try:
                await generator.run()
            finally:
                ledger.close()

        self.producer, task = self.loop.processes.start("producer", main, self.loop.create_task)
        running: asyncio.Task[Any] = task
        return running

    def _wrap_handler(self, handler: Handler) -> Handler:
        """What faults put between a worker and its handler."""
        return handler

    def _wrap_tasks(self, tasks: TaskSource) -> TaskSource:
        """What faults put between a producer and its tasks."""
        return tasks

    def kill_redis(self) -> None:
        """SIGKILL; what its AOF has is there when it is started again."""
        node = self.network.node(self.redis_node)
        server = self._redis
        kept = survivors(server.log, server.settings.persistence, cut_us=None)
        self._redis_log = server.log[:kept]
        node.kill()

    def start_redis(self) -> None:
        """Start it, on what was left."""
        self._redis = self._serve_redis(self.redis_node, self._redis_log)

    def _serve_redis(self, name: str, log: Sequence[LogEntry] = ()) -> RedisServer:
        node = self.network.node(name)
        settings = RedisSettings(persistence=self.plan.persistence)
        server = RedisServer(self.loop, node, self._engine, settings=settings, log=list(log))
        node.start(server)
        return server

    def kill_nats(self) -> None:
        """SIGKILL; the streams are on its disk."""
        self.network.node(NATS).kill()

    def start_nats(self) -> None:
        """Start it, on what was left."""
        node = self.network.node(NATS)
        self._nats = NatsServer(self.loop, node, before=self._nats)
        node.start(self._nats)

    async def run(self, faults: Sequence["Fault"]) -> Outcome:
        """The whole timeline, the drain, and the account."""
        plan = self.plan
        self.enter(0, plan.phases[0])
        for _ in range(plan.workers):
            self.start_worker()
        producing = self.start_producer()
        injecting: list[asyncio.Task[None]] = []
        injecting += [self.loop.create_task(fault(self)) for fault in faults]
        for index, phase in enumerate(plan.phases[1:], start=1):
            await self.clock.sleep(plan.phase_s)
            self.enter(index, phase)
        await producing
        for fault in injecting:
            await fault
        ended_ns = self.loop.now_ns
        observer = Observer(
            self.redis_url,
            f"nats://{NATS}",
            WorkerSettings().names,
            clock=self.clock,
            dialer=self._dialer("observer"),
        )
        route = read_route(plan.phases[-1])
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
        residue = await observer.residue([])
        await observer.close()
        self._close_effects()
        return Outcome(
            self._account(residue, ended_ns),
            unfinished or "",
            self.loop.now_ns,
            self.loop.calls,
            self.network.messages,
        )

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
            ledger or read_ledger(self._folder / "ledger", same_boot=True),
            plans,
            residue,
            step_starts_ns=starts,
            end_ns=ended_ns,
            planned_starts_ns=starts,
            effects=read_effects(self._folder / "effects.sqlite"),
            bounds=Bounds(),
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
