"""A simulated site under a schedule of faults: places of a fleet that are filled again.

As in a rehearsal: who is killed is replaced, and so is who ends because a broker does not answer at
its start. A producer that takes another's place goes on with what is due from then on.
"""

import asyncio
from collections.abc import Sequence
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
from hookbench.migration.phases import Phase, PhaseFile, ReadRoute, read_route
from hookbench.rehearsal.done_stores import BothStores
from hookbench.rehearsal.observer import Observer
from hookbench.sim.coverage import Firing, strikes
from hookbench.sim.inject import inject
from hookbench.sim.loop import SimulatedLoop
from hookbench.sim.migration import NATS, REDIS, REPLICA, MigrationPlan, SimulatedSite
from hookbench.sim.moves import calm_s, move_all
from hookbench.sim.redis.log import survivors
from hookbench.sim.redis.scripts import ScriptEngine
from hookbench.sim.redis_pair import RedisPair
from hookbench.sim.schedule import PRODUCER, FaultKind, SimFault, worker_place
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
_LIMIT_NS = 3_600 * NS_PER_S
_LIMIT_CALLS = 20_000_000
_LEDGER_RECORDS = 4_096


class Member:
    """A place of the fleet, and the process that has it now.

    Attributes:
        place: ``worker-0``, ``producer``.
        writer: number of the process in the ledger.
        process: ``None`` between two.
        back_s: after how long the place is filled again.
        replaced: called with the member whenever the place is filled.
        starts: how many processes it has had.
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
        self.is_over = False
        self.killed: asyncio.Future[None] = loop.create_future()

    @property
    def link_name(self) -> str:
        """Whose links in the network its process uses."""
        return PRODUCER if self.place == PRODUCER else f"worker-{self.writer}"


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
        self.incidents: list[str] = []
        self.start_ns = loop.now_ns
        self.orders = SiteOrders()
        self.redis_pair: RedisPair | None = None
        self._unknown: list[str] = []
        self._ledgers: dict[int, WatchedLedger] = {}
        self._ending = False

    def enter(self, index: int, phase: Phase) -> None:
        """Tell everybody at once."""
        self._steps.append((self.loop.now_ns, phase))
        for role in (PRODUCER, "worker"):
            PhaseFile(self._path_of(role)).write(index, phase)

    def enter_role(self, role: str, index: int, phase: Phase) -> None:
        """Tell ``producer`` or ``worker``; the phase begins with the first of them."""
        if len(self._steps) <= index:
            self._steps.append((self.loop.now_ns, phase))
        PhaseFile(self._path_of(role)).write(index, phase)

    def _path_of(self, role: str) -> Path:
        return self._folder / f"phase-{role}.json"

    def _effects(self, writer: int) -> EffectStore:
        return EffectsOfTheLiving(super()._effects(writer))

    def _ledger(self, role: str, writer: int) -> LedgerWriter:
        ledger = WatchedLedger(
            self._folder / LEDGER_NAME,
            role=role,
            writer=writer,
            clock=self.clock,
            capacity=_LEDGER_RECORDS,
        )
        self._ledgers[writer] = ledger
        return ledger

    def note(self, text: str) -> None:
        """Keep what happened, with its time."""
        self.incidents.append(f"{(self.loop.now_ns - self.start_ns) / NS_PER_S:.6f} s: {text}")

    def kill_member(self, member: Member, *, back_s: float) -> None:
        """SIGKILL whoever has the place; it is filled again after ``back_s``."""
        process = member.process
        if process is None or not process.alive or member.ledger is None:
            return
        member.back_s = back_s
        member.ledger.dead = True
        self.loop.processes.kill(process)
        self._forget(member)
        if not member.killed.done():
            member.killed.set_result(None)

    def end_broker(self, name: str, *, power: bool) -> None:
        """Kill a broker; or cut its power, which nobody is told and which takes what it holds."""
        if not power:
            (self.kill_redis if name == "redis" else self.kill_nats)()
        elif name == "redis":
            server, cut_us = self._redis, self.clock.wall_ns() // 1_000
            kept = survivors(server.log, server.settings.persistence, cut_us=cut_us)
            self._redis_log = server.log[:kept]
            self.network.node(self.redis_node).lose_power()
        else:
            self.network.node(NATS).lose_power()

    def begin_broker(self, name: str) -> None:
        """Start it on what was left."""
        (self.start_redis if name == "redis" else self.start_nats)()
        if name == "redis" and self.redis_pair is not None:
            self.redis_pair.master_is_back()

    def node_of(self, broker: str) -> str:
        """The node that a fault of a broker is aimed at: of Redis the master."""
        return self.redis_node if broker == "redis" else NATS

    async def fail_over(self, *, pause_s: float) -> bool:
        """Kill the master of Redis and promote its replica; whether that was possible."""
        pair = self.redis_pair
        server = None if pair is None else await pair.fail_over(pause_s=pause_s)
        if pair is None or server is None:
            return False
        self._redis, self.redis_node = server, pair.master
        return True

    def targets(self) -> SimulatedTargets:
        """What a fault of a rehearsal finds here now."""
        administration = SiteAdministration(
            (self.redis_url, f"nats://{NATS}"),
            self.network,
            self._dialer(ADMINISTRATION),
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
        task: asyncio.Task[Any]
        self._phase_file = self._path_of(member.place.partition("-")[0])
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
            if not member.killed.done():
                self._forget(member)
                error = task.exception()
                if error is None:
                    member.is_over = True
                    return
                how = f"{type(error).__name__}: {error}"
                self.note(f"{member.place} ended: {how}")
                if not isinstance(error, HookbenchError | OSError):
                    self._unknown.append(f"{member.place} ended with {how}")
            if self._is_ending():
                return
            await self.clock.sleep(member.back_s)
            if self._is_ending():
                return
        self._unknown.append(f"{member.place} was started {_MAX_STARTS} times")

    def _is_ending(self) -> bool:
        """Asked again behind an await."""
        return self._ending

    async def run_all(self, faults: Sequence[SimFault]) -> SimulatedRun:
        """The whole timeline under the faults, the drain, and the account."""
        plan, create = self.plan, self.loop.create_task
        self.enter(0, plan.phases[0])
        if plan.replica:
            self.redis_pair = RedisPair(self.network, REDIS, REPLICA, self._serve_redis)
        places = [worker_place(number) for number in range(plan.workers)]
        self.members = {place: Member(place, self.loop) for place in (*places, PRODUCER)}
        keeping = {place: create(self._keep(item)) for place, item in self.members.items()}
        injecting = [create(inject(self, number, item)) for number, item in enumerate(faults)]
        observer = self._observe()
        for index in range(1, len(plan.phases)):
            await self.clock.sleep(plan.phase_s)
            if not await move_all(self, index, observer):
                break
        await keeping[PRODUCER]
        for fault in injecting:
            await fault
        ended_ns = self.loop.now_ns
        _start_ns, last = self._steps[-1]
        await self.clock.sleep(calm_s(self, last))
        nats_is_read = read_route(last) is not ReadRoute.REDIS
        unfinished = await observer.drain(
            reads_redis=not nats_is_read, reads_nats=nats_is_read, timeout_s=plan.drain_s
        )
        if unfinished:
            self._unknown.append(unfinished)
        await self.clock.sleep(_QUIET_S)
        await self._stop([keeping[place] for place in places])
        residue = await observer.residue([])
        await observer.close()
        self._close_effects()
        ledger = read_ledger(self._folder / LEDGER_NAME, same_boot=True)
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

    def _observe(self) -> Observer:
        return Observer(
            self.redis_url,
            f"nats://{NATS}",
            Names(),
            clock=self.clock,
            dialer=self._dialer("observer"),
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
        dialer = self._dialer("stores")
        redis = dialer.redis(self.redis_url)
        transport = await dialer.nats(f"nats://{NATS}", names=Names(), clock=self.clock)
        both = BothStores(redis, transport, stream=self._stream, clock=self.clock)
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
