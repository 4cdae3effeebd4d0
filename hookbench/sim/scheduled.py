"""A simulated site under a schedule of faults: places of a fleet that are filled again.

As in a rehearsal: who is killed is replaced, and so is who ends because a broker does not answer at
its start. A producer that takes another's place goes on with what is due from then on.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from hookbench.clock import NS_PER_S
from hookbench.effects.store import EffectStore
from hookbench.errors import HookbenchError
from hookbench.faults.failing_handler import FailedHandler
from hookbench.faults.oversize import OversizeSource
from hookbench.faults.slow_handler import SlowedHandler
from hookbench.ledger.columns import without_end
from hookbench.ledger.events import LedgerWriter
from hookbench.ledger.model import Account, Residue
from hookbench.ledger.read import Ledger, read_ledger
from hookbench.migration.phases import Phase, ReadRoute, WriteRoute, read_route, write_route
from hookbench.rehearsal.done_stores import BothStores
from hookbench.rehearsal.observer import Observer
from hookbench.sim.coverage import Firing, strikes
from hookbench.sim.inject import inject
from hookbench.sim.loop import SimulatedLoop
from hookbench.sim.migration import OPERATOR, PRODUCER, MigrationPlan, SimulatedSite
from hookbench.sim.redis.scripts import ScriptEngine
from hookbench.sim.schedule import FaultKind, SimFault, worker_place
from hookbench.sim.simulate import simulate
from hookbench.sim.site_targets import (
    ADMINISTRATION,
    SimulatedTargets,
    SiteAdministration,
    SiteOrders,
)
from hookbench.sim.watched import EffectsOfTheLiving, WatchedLedger
from hookbench.task import Names, TaskSource

if TYPE_CHECKING:
    from hookbench.sim.processes import Process
    from hookbench.worker.loop import Handler
    from hookbench.worker.service import WorkerService

__all__ = ["Member", "ScheduledSite", "SimulatedRun", "run_schedule"]

LEDGER_NAME, EFFECTS_NAME = "ledger", "effects.sqlite"
_AGAIN_S = 0.5
_MAX_STARTS = 200
_QUIET_S = 0.5
_STOP_S = 60.0
_FINISH_S = 90.0
"""Longer: a producer that dies meanwhile is replaced, and sends what its outbox holds."""
_POLL_S = 0.05
_CALM_S = 15.0
_CALM_AFTER_A_DEATH_S = 80.0
_LIMIT_NS = 3_600 * NS_PER_S
_LIMIT_CALLS = 20_000_000
_LEDGER_RECORDS = 4_096


class Member:
    """A place of the fleet, and the process that has it now.

    Attributes:
        place: ``worker-0``, ``producer``, ``operator``.
        writer: number of the process in the ledger.
        process: ``None`` between two.
        back_s: after how long the place is filled again.
        replaced: called with the member whenever the place is filled.
        starts: how many processes it has had.
        asked: its process is asked to stop; the place is filled again when it has ended.
        is_over: its work is done; nobody takes the place any more.
    """

    def __init__(self, place: str, loop: SimulatedLoop) -> None:
        self.place = place
        self.writer = 0
        self.process: Process | None = None
        self.ledger: WatchedLedger | None = None
        self.service: WorkerService | None = None
        self.back_s = _AGAIN_S
        self.starts = 0
        self.asked = False
        self.is_over = False
        self.killed: asyncio.Future[None] = loop.create_future()

    @property
    def link_name(self) -> str:
        """Whose links in the network its process uses."""
        return self.place if self.place in (PRODUCER, OPERATOR) else f"worker-{self.writer}"


class SimulatedRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a run under a schedule came to.

    Attributes:
        account: of every task.
        unknown_because: why its verdict is unknown, if it is.
        firings: of the schedule's faults that fired.
        incidents: what a person would want to know, with the time in s.
        ended_ns: virtual time at the end.
        calls: callbacks that ran.
    """

    account: Account
    unknown_because: tuple[str, ...]
    firings: tuple[Firing, ...]
    incidents: tuple[str, ...]
    residue: Residue
    ended_ns: int
    calls: int


class ScheduledSite(SimulatedSite):
    """See the module; ``run_schedule`` is its use."""

    def __init__(
        self,
        loop: SimulatedLoop,
        plan: MigrationPlan,
        seed: int,
        folder: Path,
        engine: ScriptEngine,
    ) -> None:
        super().__init__(loop, plan, seed, folder, engine)
        self.members: dict[str, Member] = {}
        self.firings: list[Firing] = []
        self.orders = SiteOrders()
        self._administration = self.dialer(ADMINISTRATION)  # another one has the same inboxes
        self._unknown: list[str] = []
        self._ledgers: dict[int, WatchedLedger] = {}
        self._ending = False

    def said_by(self, role: str) -> list[tuple[str, dict[str, Any]]]:
        """Of a place that is empty now there is nothing: who takes it has to say it first."""
        return [
            (place, {} if member.process is None else self._said.get(member.writer, {}))
            for place, member in self.members.items()
            if place.partition("-")[0] == role and not member.is_over
        ]

    def start_operator(
        self, main: Callable[[LedgerWriter], Coroutine[Any, Any, Any]]
    ) -> "asyncio.Task[Any]":
        """See ``SimulatedSite``; faults may be aimed at him."""
        member = self.members[OPERATOR]
        member.writer = self._writers
        task = super().start_operator(main)
        member.process, member.ledger = self.operator, self._ledgers[member.writer]
        return task

    def forget_operator(self) -> None:
        """See ``SimulatedSite``."""
        super().forget_operator()
        self.members[OPERATOR].process = None

    def _effects(self, writer: int) -> EffectStore:
        return EffectsOfTheLiving(super()._effects(writer))

    def _ledger(self, role: str, writer: int) -> LedgerWriter:
        ledger = WatchedLedger(
            self.folder / LEDGER_NAME,
            role=role,
            writer=writer,
            clock=self.clock,
            capacity=_LEDGER_RECORDS,
        )
        self._ledgers[writer] = ledger
        return ledger

    def kill_member(self, member: Member, *, back_s: float, power: bool = False) -> None:
        """SIGKILL whoever has the place; it is filled again after ``back_s``.

        Args:
            member: of the place.
            back_s: after how long.
            power: it is the power of his machine that goes, and its disk loses what is not synced.
        """
        process = member.process
        if process is None or not process.alive or member.ledger is None:
            return
        member.back_s = back_s
        member.ledger.dead = True
        self.loop.processes.kill(process)
        self._forget(member)
        if power and member.place == PRODUCER:
            self.disk.lose_power()
        if not member.killed.done():
            member.killed.set_result(None)

    def ask_to_stop(self, member: Member, *, back_s: float) -> bool:
        """SIGTERM; the place is filled again ``back_s`` after the end.

        Returns:
            Whether somebody who listens has the place; one who is asked already is not asked again.
        """
        if member.process is None or member.asked or "index" not in self._heard_of(member):
            return False
        member.back_s, member.asked = back_s, True
        asked = self._generator if member.place == PRODUCER else member.service
        if asked is not None:
            asked.request_stop()
        return True

    def _heard_of(self, member: Member) -> dict[str, Any]:
        return self._said.get(member.writer, {})

    def end_broker(self, name: str, *, power: bool) -> None:
        """Kill a broker; or cut its power, which nobody is told and which takes what it holds."""
        broker = self.broker(name)
        if power:
            broker.cut_power((broker.leader(),))
        else:
            broker.kill()

    def begin_broker(self, name: str) -> None:
        """Start it on what was left."""
        self.broker(name).start()

    def node_of(self, broker: str) -> str:
        """The node that a fault of a broker is aimed at."""
        return self.broker(broker).leader()

    def targets(self) -> SimulatedTargets:
        """What a fault of a rehearsal finds here now."""
        administration = SiteAdministration(
            self.urls,
            self.network,
            self._administration,
            self.clock,
        )
        targets = SimulatedTargets(administration, self.orders, self.clock)
        _start_ns, targets.phase = self._steps[-1]
        return targets

    def say_unknown(self, why: str) -> None:
        """The verdict is unknown."""
        self._unknown.append(why)

    def _wrap_handler(self, handler: "Handler") -> "Handler":
        book = self.orders.books["workers"]
        return SlowedHandler(FailedHandler(handler, book), book, self.clock)

    def _wrap_tasks(self, tasks: TaskSource) -> TaskSource:
        return OversizeSource(tasks, self.orders.books["producers"])

    def _forget(self, member: Member) -> None:
        member.process = None
        self.workers.pop(member.writer, None)
        self._running.pop(member.writer, None)

    def _start(self, member: Member) -> "asyncio.Task[Any]":
        """A process for a place; the first task of it."""
        member.killed = self.loop.create_future()
        member.back_s = _AGAIN_S
        member.asked = False
        task: asyncio.Task[Any]
        if member.place == PRODUCER:
            member.writer = self._writers if member.starts else 0
            self._writers += bool(member.starts)
            task = self.start_producer(
                writer=member.writer, start_ns=self.start_ns, resume=member.starts > 0
            )
            member.process = self.producer
        else:
            member.writer = self.start_worker()
            member.process = self.workers[member.writer]
            member.service, task = self._running[member.writer]
        member.ledger = self._ledgers[member.writer]
        member.starts += 1
        if member.starts > 1:
            self.note(f"{member.place} is started again (writer {member.writer})")
        return task

    async def _keep(self, member: Member) -> None:
        """Keep a place filled until its work is over."""
        while member.starts < _MAX_STARTS:
            task = self._start(member)
            await asyncio.wait({task, member.killed}, return_when=asyncio.FIRST_COMPLETED)
            if not member.killed.done() and self._has_ended(member, task.exception()):
                member.is_over = True
                return
            if self._is_ending():
                return
            await self.clock.sleep(member.back_s)
            if self._is_ending():
                return
        self._unknown.append(f"{member.place} was started {_MAX_STARTS} times")

    def _has_ended(self, member: Member, error: BaseException | None) -> bool:
        """Forget a process that has come to its end; whether its work is over."""
        process = member.process
        self._forget(member)
        if error is None:
            if member.asked and process is not None:
                self.note(f"{member.place} ended in order")
                self.loop.processes.kill(process)  # nothing of a process lives on behind its end
            return not member.asked
        how = f"{type(error).__name__}: {error}"
        self.note(f"{member.place} ended: {how}")
        if not isinstance(error, HookbenchError | OSError):
            self._unknown.append(f"{member.place} ended with {how}")
        return False

    def _is_ending(self) -> bool:
        """Asked again behind an await."""
        return self._ending

    async def run_all(self, faults: Sequence[SimFault]) -> SimulatedRun:
        """The whole timeline under the faults, the drain, and the account."""
        plan, create = self.plan, self.loop.create_task
        self.enter(0, plan.phases[0])
        places = [worker_place(number) for number in range(plan.workers)]
        self.members = {place: Member(place, self.loop) for place in (*places, PRODUCER)}
        keeping = {place: create(self._keep(item)) for place, item in self.members.items()}
        self.members[OPERATOR] = Member(OPERATOR, self.loop)
        injecting = [create(inject(self, number, item)) for number, item in enumerate(faults)]
        if held_back := await self._go_through():
            self._unknown.append(f"held back: {held_back}")
        if self.measures.gates:
            for fault in injecting:
                await fault
            await self._finish_load()
        await keeping[PRODUCER]
        for fault in injecting:
            await fault
        ended_ns = self.loop.now_ns
        _start_ns, last = self._steps[-1]
        await self.clock.sleep(self._calm_s(last))
        observer = self._observe()
        nats_is_read = read_route(last) is not ReadRoute.REDIS
        unfinished = await observer.drain(
            reads_redis=not nats_is_read, reads_nats=nats_is_read, timeout_s=plan.drain_s
        )
        if unfinished:
            self._unknown.append(unfinished)
        await self.clock.sleep(_QUIET_S)
        await self._stop([keeping[place] for place in places])
        residue = await observer.residue(self._in_outbox())
        await observer.close()
        self._close_effects()
        ledger = read_ledger(self.folder / LEDGER_NAME, same_boot=True)
        if self.measures.done_store:
            residue = msgspec.structs.replace(residue, ended=await self._ended(ledger))
        account = self._account(residue, ended_ns, ledger)
        return SimulatedRun(
            account=account,
            unknown_because=tuple(self._unknown),
            firings=tuple(strikes(ledger, self.firings)),
            incidents=tuple(self.incidents),
            residue=residue,
            ended_ns=self.loop.now_ns,
            calls=self.loop.calls,
        )

    async def _finish_load(self) -> None:
        """SIGTERM to the producer; who dies instead is replaced, and told when it listens."""
        member, told = self.members[PRODUCER], 0
        deadline_ns = self.loop.now_ns + int(_FINISH_S * NS_PER_S)
        while not member.is_over:
            ((_name, said),) = self.said_by(PRODUCER)
            if told < member.starts and "index" in said:
                told = member.starts
                self._generator.request_stop()
            if self.loop.now_ns > deadline_ns:
                self._unknown.append("the producer did not end by itself")
                break
            await self.clock.sleep(_POLL_S)

    def _calm_s(self, phase: Phase) -> float:
        """How long it may take after the load until nothing is left over.

        While both brokers are written what only one of them has is put on the other by a round of
        one worker; if that one dies, another has its turn after a minute.
        """
        if not self.measures.reconcile or write_route(phase) is not WriteRoute.BOTH:
            return 0.0
        died = any(member.starts > 1 for member in self.members.values())
        return _CALM_AFTER_A_DEATH_S if died else _CALM_S

    def _observe(self) -> Observer:
        return Observer(
            self.redis.url,
            self.nats.url,
            Names(),
            clock=self.clock,
            dialer=self.dialer("observer"),
        )

    async def _stop(self, keeping: "list[asyncio.Task[None]]") -> None:
        """Ask the workers to stop, as SIGTERM does."""
        self._ending = True
        for member in self.members.values():
            if member.process is not None and member.service is not None:
                member.service.request_stop()
        _ended, left = await asyncio.wait(keeping, timeout=_STOP_S)
        if left:
            self._unknown.append(f"{len(left)} workers did not stop within {_STOP_S:g} s")

    async def _ended(self, ledger: Ledger) -> list[Any]:
        """Of the tasks without an end in the ledger those that a done-store knows as ended."""
        dialer = self.dialer("stores")
        redis = dialer.redis(self.redis.url)
        transport = await dialer.nats(self.nats.url, names=Names(), clock=self.clock)
        both = BothStores(redis, transport, stream=self.stream, clock=self.clock)
        known = await both.are_done(without_end(ledger))
        await transport.close()
        await redis.aclose()
        return sorted(known)


def run_schedule(
    plan: MigrationPlan,
    faults: Sequence[SimFault],
    seed: int,
    folder: Path,
    *,
    engine: ScriptEngine | None = None,
) -> SimulatedRun:
    """One run under a schedule.

    Args:
        plan: what is simulated; Redis has a replica where a fault promotes one.
        faults: what is done to it.
        seed: of everything else that is drawn.
        folder: an empty one, which has ledger and effects afterwards.
        engine: of scripts, where many runs share one.

    Raises:
        SimulationError: it could not go on; see ``simulate``.
    """
    if any(fault.kind is FaultKind.PROMOTE for fault in faults):
        plan = msgspec.structs.replace(plan, replica=True)
    loop = SimulatedLoop(limit_ns=_LIMIT_NS, limit_calls=_LIMIT_CALLS)
    scripts = engine or ScriptEngine()
    return simulate(
        lambda running: ScheduledSite(running, plan, seed, folder, scripts).run_all(faults),
        loop=loop,
    )
