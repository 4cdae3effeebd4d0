"""What happens on the stage while the users publish: phases, faults, and what is asked for by hand.

The workers are the backstage's own and follow phase files. The producers are in the processes of
Locust: they are told by an event, and answer with a command.
"""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from _everybody import Everybody, Producers, Say
from _protocol import Answer, Do, Order, Scene, SceneFault, SceneStep
from _run_options import WireChoice

from hookbench.clock import NS_PER_S, Clock, sleep_until
from hookbench.errors import HeldBackError, HookbenchError, SettingError
from hookbench.faults.registry import AnyFault
from hookbench.faults.schedule import FaultSchedule
from hookbench.faults.texts import parse_fault_text, parse_fault_texts
from hookbench.faults.wire_fault import Wire
from hookbench.ledger.events import Event, LedgerWriter
from hookbench.migration.gates import is_known
from hookbench.migration.measures import measures_of
from hookbench.migration.phases import Phase, parse_phase
from hookbench.migration.procedures import Step
from hookbench.rehearsal.detours import Detours
from hookbench.rehearsal.fleet import Fleet, Member
from hookbench.rehearsal.gated import open_changes
from hookbench.rehearsal.links import Links
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.rehearsal.stage import Stage
from hookbench.rehearsal.targets import RunTargets, check_targets

__all__ = ["Director", "check_faults", "links_to_proxy"]

_ENTER_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 10.0
_POLL_S = 0.05
_BEGUN_TIMEOUT_S = 30.0
_MOST_WORKERS = 64
_LINKS = ("producers-redis", "producers-nats", "workers-redis", "workers-nats")


def links_to_proxy(order: Order) -> tuple[AnyFault, ...]:
    """Faults whose links have to go through a proxy: those that are planned, or any."""
    faults = parse_fault_texts(order.options.faults)
    if order.options.wire is WireChoice.DIRECT:
        return faults
    every = (Wire(target=link, at_s=0, for_s=1, action="partition") for link in _LINKS)
    return (*faults, *every)


def check_faults(faults: tuple[AnyFault, ...], order: Order, stage: Stage, workers: int) -> None:
    """Refuse a fault that could not fire in this run.

    Raises:
        SettingError: the text names the fault.
    """
    check_targets(faults, RehearsalSettings(workers=workers, producers=1), stage)
    steps = len(order.options.timeline)
    for fault in faults:
        if fault.target.startswith("producer") and not isinstance(fault, Wire):
            raise SettingError(
                f"fault {fault.name}: the producers of this run are the users of Locust: aim it at"
                " a worker, a broker or a link"
            )
        if fault.phase_index is not None and fault.phase_index >= steps:
            raise SettingError(
                f"fault {fault.name}: phase_index {fault.phase_index}: the timeline has the phases"
                f" 0 to {steps - 1}"
            )


class Director:
    """Carries the timeline of a run out, its faults, and what is asked for at the page.

    Args:
        order: of the run.
        stage, fleet, links: what there is.
        start_worker: starts the worker of a number in a step.
        control: folder of the progress files of procedures.
        ledger: of the backstage.
        clock: of everything.
        say: is told what Locust has to know.

    Attributes:
        producers: of the run.
        faults: planned ones, and those by hand.
        steps: that were entered, with the moment when the change into them began.
        doubts: why the timeline was not what was planned.
    """

    def __init__(
        self,
        order: Order,
        stage: Stage,
        fleet: Fleet,
        links: Links,
        *,
        start_worker: Callable[[int, tuple[int, Phase]], Member],
        control: Path,
        ledger: LedgerWriter,
        clock: Clock,
        say: Say,
    ) -> None:
        self._order = order
        self._stage = stage
        self._fleet = fleet
        self._clock = clock
        self._say = say
        self._ledger = ledger
        self._start_worker = start_worker
        self._planned = order.options.timeline
        self._targets = RunTargets(stage, fleet, links, Detours((), "single"), clock=clock)
        self.producers = Producers(say)
        self.faults = FaultSchedule(parse_fault_texts(order.options.faults), self._targets, ledger)
        self.steps: list[tuple[Phase, int]] = []
        self.doubts: list[str] = []
        self._changes = open_changes(
            measures_of(order.options.design),
            stage,
            control,
            clock=clock,
            recorder=ledger,
            has_faults=True,  # somebody at the page may inject one at any time
        )
        self._changing = asyncio.Lock()
        self._by_hand = False
        self._told: Scene | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def phase(self) -> Phase:
        """The one that was entered last."""
        return self.steps[-1][0] if self.steps else self._planned[0].phase

    @property
    def index(self) -> int:
        """Of the step that was entered last."""
        return max(0, len(self.steps) - 1)

    def begin(self) -> None:
        """The users start now."""
        start_ns = self._clock.monotonic_ns()
        self._note_step(self._planned[0].phase, start_ns)
        self.faults.begin_phase(0, start_ns)
        self._spawn(self._follow(start_ns))
        self._spawn(self.faults.run(start_ns))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.doubts.append(f"a defect of the load test: {type(error).__name__}: {error}")

    def _note_step(self, phase: Phase, begin_ns: int) -> None:
        self.steps.append((phase, begin_ns))
        self._ledger.phase = self.index
        self._ledger.record(Event.PHASE, value=self.index)

    async def _follow(self, start_ns: int) -> None:
        """The planned phases at their times, unless somebody changes the phase by hand."""
        due_ns = start_ns
        for item, following in zip(self._planned, self._planned[1:], strict=False):
            due_ns = max(due_ns, self.steps[-1][1]) + int((item.seconds or 0.0) * NS_PER_S)
            await sleep_until(due_ns, self._clock)
            if self._by_hand:
                return
            try:
                await self._change(following.phase)
            except HookbenchError as error:
                self.doubts.append(f"the timeline ended in {self.phase.label}: {error}")
                return

    async def _change(self, target: Phase) -> None:
        """Into another phase: by procedure through its gates, or by telling everybody.

        Raises:
            HookbenchError: it is held back, or somebody does not follow.
        """
        async with self._changing:
            source, index, begin_ns = self.phase, len(self.steps), self._clock.monotonic_ns()
            if source is target:
                raise SettingError(f"the phase is {target.label} already")
            everybody = Everybody(self._fleet, index, self.producers)
            self.faults.begin_phase(index, begin_ns)
            if self._changes is None:
                await self._tell_everybody(everybody, index, target, begin_ns)
                return
            if not is_known(source, target):
                raise SettingError(
                    f"from {source.label} to {target.label}: no such procedure; go by the phases"
                    " between"
                )
            try:
                await self._changes.change(index, source, target, everybody)
            except HeldBackError as error:
                if error.step != Step.ASK_BEFORE.value:  # some of them have changed
                    self._note_step(target, begin_ns)
                raise
            self._note_step(target, begin_ns)

    async def _tell_everybody(
        self, everybody: Everybody, index: int, target: Phase, begin_ns: int
    ) -> None:
        """Producers first, then the workers, one by one, as a rehearsal without gates does."""
        self._note_step(target, begin_ns)
        deadline_ns = begin_ns + int(_ENTER_TIMEOUT_S * NS_PER_S)
        await everybody.enter("producer", target)
        while behind := await everybody.not_in("producer", target):
            if self._clock.monotonic_ns() > deadline_ns:
                raise HookbenchError(f"{', '.join(behind)} did not enter {target.label}")
            await self._clock.sleep(_POLL_S)
        for member in self._fleet.of("worker"):
            if member.expected_end:
                continue
            self._fleet.enter(member, index, target)
            if not await self._fleet.wait_until_in(member, index, _ENTER_TIMEOUT_S):
                raise HookbenchError(f"{member.name} did not enter {target.label}")

    # By hand.

    def do(self, wish: Do) -> None:
        """Carry out what somebody asks for, and answer."""
        self._spawn(self._answer(wish))

    async def _answer(self, wish: Do) -> None:
        try:
            text = await self._carry_out(wish)
        except HookbenchError as error:
            self._say(Answer(number=wish.number, ok=False, text=str(error)))
        else:
            self._say(Answer(number=wish.number, ok=True, text=text))

    async def _carry_out(self, wish: Do) -> str:
        if not self.steps:
            raise HookbenchError("no users publish yet: start a run first")
        if wish.what == "fault":
            return await self._inject(wish.value)
        if wish.what == "phase":
            target = parse_phase(wish.value)
            self._by_hand = True
            await self._change(target)
            return f"the phase is {target.label}"
        if wish.what == "start":
            return await self._add_worker()
        member = self._worker(wish.value)
        if wish.what == "kill":
            pid = member.child.pid
            await self._inject(f"kill {member.name}")
            return f"{member.name} (pid {pid}) was killed"
        if wish.what == "stop":
            return await self._stop_worker(member)
        raise SettingError(f"{wish.what!r}: use fault, kill, start, stop or phase")

    async def _inject(self, text: str) -> str:
        fault = parse_fault_text(text)
        if fault.phase_index is not None:
            raise SettingError(f"fault {text!r}: one by hand counts from now, not from a phase")
        check_faults((fault,), self._order, self._stage, len(self._fleet.of("worker")))
        index = self.faults.add(fault)
        record = self.faults.records[index]
        self._spawn(self.faults.carry_out(index))
        deadline_ns = self._clock.monotonic_ns() + int((fault.at_s + _BEGUN_TIMEOUT_S) * NS_PER_S)
        while record.begin_ns is None and record.problem is None:
            if self._clock.monotonic_ns() > deadline_ns:
                return f"{record.name} is being tried"
            await self._clock.sleep(_POLL_S)
        if record.problem is not None:
            raise HookbenchError(f"{record.name}: {record.problem}")
        until = f", for {fault.for_s:g} s" if fault.for_s else ""
        return f"{record.name} is in effect{until}"

    def _worker(self, name: str) -> Member:
        workers = {item.name: item for item in self._fleet.of("worker") if not item.expected_end}
        if name not in workers:
            raise SettingError(f"worker {name!r}: there are {', '.join(workers) or 'none'}")
        return workers[name]

    async def _add_worker(self) -> str:
        async with self._changing:
            number = len(self._fleet.of("worker"))
            if number >= _MOST_WORKERS:
                raise SettingError(f"{number} workers were started: use up to {_MOST_WORKERS}")
            member = self._start_worker(number, (self.index, self.phase))
            if not await self._fleet.wait_until_in(member, self.index, _ENTER_TIMEOUT_S):
                raise HookbenchError(f"{member.name} did not start: {self._fleet.log_tail(member)}")
            return f"{member.name} (pid {member.child.pid}) was started"

    async def _stop_worker(self, member: Member) -> str:
        if sum(not item.expected_end for item in self._fleet.of("worker")) == 1:
            raise SettingError(f"{member.name} is the only worker: start another one first")
        killed = await self._fleet.stop([member], _STOP_TIMEOUT_S)
        how = "had to be killed" if killed else "has stopped"
        return f"{member.name} {how}"

    # The end.

    async def end(self) -> None:
        """Nothing more happens by itself; what is still in effect is healed."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.faults.heal()
        self.doubts += self.faults.unknown()

    async def close(self) -> None:
        """Disconnect."""
        if self._changes is not None:
            await self._changes.close()

    def tell_scene(self) -> None:
        """Say what has changed since it was said last."""
        begun = [record for record in self.faults.records if record.begin_ns or record.problem]
        scene = Scene(
            steps=[
                SceneStep(number, phase.label, begin_ns)
                for number, (phase, begin_ns) in enumerate(self.steps)
            ],
            faults=[
                SceneFault(item.name, item.begin_ns, item.end_ns, item.problem) for item in begun
            ],
            workers=[
                f"{item.name} (pid {item.child.pid})"
                for item in self._fleet.of("worker")
                if not item.expected_end and item.child.exit_code is None
            ],
        )
        if scene != self._told:
            self._told = scene
            self._say(scene)
