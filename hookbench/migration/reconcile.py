"""Transitions and rollbacks as procedures: reroute, drain, verify, and only then go on.

Each step may be repeated, and the progress is in a small file: a procedure that was killed at any
step goes on where it was, or does that step again. What moves tasks, tells processes their phase
and asks the gates is passed in.
"""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import msgspec

from hookbench.clock import NS_PER_S, Clock
from hookbench.decoding import decode_json, read_document
from hookbench.errors import (
    BrokerUnreachableError,
    HeldBackError,
    HookbenchError,
    PublishRefusedError,
    PublishUnknownError,
    SettingError,
)
from hookbench.migration.checks import Answer, Move
from hookbench.migration.gates import GateAnswer, is_known
from hookbench.migration.phases import Phase
from hookbench.migration.procedures import JOINED, MOMENTS, PROCEDURES, REPEATED, Step
from hookbench.migration.snapshot import NEVER
from hookbench.queues.moving import Assure, nobody_else

__all__ = [
    "AskGate",
    "FleetControl",
    "Movers",
    "Patience",
    "Procedure",
    "Progress",
    "read_progress",
]


_MOST_PAUSES = 8


class FleetControl(Protocol):
    """Producers and workers, as far as a procedure needs them."""

    async def enter(self, role: str, phase: Phase) -> None:
        """Tell all processes of a role (``producer``, ``worker``) their phase."""
        ...

    async def not_in(self, role: str, phase: Phase) -> list[str]:
        """Those that have not announced the phase, by name."""
        ...


class Movers(Protocol):
    """Moves of tasks between the brokers; ``queues.moving.Mover``, each may be repeated."""

    async def redis_to_nats(self) -> int:
        """What is left in Redis, to the stream."""
        ...

    async def letters_to_nats(self) -> int:
        """The dead letters of Redis, to the stream of those."""
        ...

    async def records_to_nats(self) -> int:
        """What the done-store of Redis knows, to the one of NATS."""
        ...

    async def records_to_redis(self) -> int:
        """What the done-store of NATS knows, to the one of Redis."""
        ...

    async def nats_only_to_redis(self) -> int:
        """What the stream alone has to do, to Redis."""
        ...

    async def drain_to_redis(self, *, timeout_s: float) -> int:
        """What NATS has not got acknowledged, to Redis; acknowledged after the push."""
        ...

    async def trim_copies(self) -> int:
        """Redis copies of finished tasks go."""
        ...

    async def left_on_nats(self) -> int:
        """Tasks that NATS has to deliver, or waits for."""
        ...

    async def left_in_work(self) -> int:
        """Tasks in Redis work lists."""
        ...

    async def last_sequence(self) -> int:
        """The stream's highest."""
        ...

    async def forget_moves(self) -> None:
        """The procedure is over."""
        ...


AskGate = Callable[[Move, int], Awaitable[GateAnswer]]
"""Asks a gate; the number is the stream's highest sequence at an earlier look, or ``NEVER``."""


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long a procedure waits before it is held back.

    Attributes:
        gate_s: for a gate to say go.
        ask_every_s: between two questions; doubled each time up to eight times, for each question
            reads both queues.
        announce_s: for all processes of a role to announce a phase.
        drain_s: for NATS to be drained, without progress.
        work_s: for the tasks in Redis work lists to be finished; what lies there longer is taken
            for orphaned. It must be longer than a task takes.
        broker_s: for a broker that does not answer, or refuses, to be back.
    """

    gate_s: float = 30.0
    ask_every_s: float = 0.5
    announce_s: float = 30.0
    drain_s: float = 60.0
    work_s: float = 30.0
    broker_s: float = 60.0


class Progress(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """How far a procedure came; what its file holds.

    Attributes:
        done: names of the steps that are done.
        moved: tasks that each step moved, over all its runs.
    """

    source: str
    target: str
    done: list[str] = []
    moved: dict[str, int] = {}
    schema: int = 1


def read_progress(path: Path) -> Progress | None:
    """The progress in a file, ``None`` if there is none.

    Raises:
        SettingError: it is no such file.
    """
    try:
        return decode_json(read_document(path), Progress)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise SettingError(f"progress file {path}: {error}; it was not written here") from error


class Procedure:
    """One transition or rollback.

    Args:
        source, target: the phases.
        fleet: the processes.
        movers: of tasks.
        ask: the gates.
        progress: file of the progress; removed by whoever begins the same move once more.
        clock: for waits.
        patience: see there.
        tell: is told each step when it begins, and each answer of a gate.
        assure: is asked before and after each step; it raises where another one does them.

    Raises:
        SettingError: there is no such move, or the file is of another one.
    """

    def __init__(
        self,
        source: Phase,
        target: Phase,
        *,
        fleet: FleetControl,
        movers: Movers,
        ask: AskGate,
        progress: Path,
        clock: Clock,
        patience: Patience | None = None,
        tell: Callable[[str], None] | None = None,
        assure: Assure = nobody_else,
    ) -> None:
        self._assure = assure
        if not is_known(source, target):
            raise SettingError(f"from {source.label} to {target.label}: no such procedure")
        self._source = source
        self._target = target
        self._fleet = fleet
        self._movers = movers
        self._ask = ask
        self._path = progress
        self._clock = clock
        self._patience = patience or Patience()
        self._tell = tell or (lambda _text: None)
        found = read_progress(progress)
        if found is not None and (found.source, found.target) != (source.label, target.label):
            raise SettingError(
                f"progress file {progress} is of {found.source} to {found.target}: finish that one"
                " first, turn it round with --back, or remove the file"
            )
        self._progress = found or Progress(source=source.label, target=target.label)
        self._sequence = NEVER

    @property
    def steps(self) -> tuple[Step, ...]:
        """All of them, in order."""
        return PROCEDURES[self._source, self._target]

    @property
    def progress(self) -> Progress:
        """How far it came."""
        return self._progress

    async def run(self) -> Progress:
        """Do what is not done yet.

        Raises:
            HeldBackError: a gate does not say go, a process does not follow, or NATS is not
                drained, all within the patience. What was done stays so, and ``run`` goes on there.
            BrokerUnreachableError, PublishRefusedError, PublishUnknownError: likewise, of a broker
                that is not back in time.
        """
        for step in self.steps:
            if step.value in self._progress.done:
                continue
            self._tell(f"{self._source.label} to {self._target.label}: {step.value}")
            await self._persist(step)
            self._progress.done.append(step.value)
            self._save()
        return self._progress

    async def _persist(self, step: Step) -> None:
        """Do a step, and again when a broker was away: each may be repeated."""
        deadline_ns = 0
        while True:
            try:
                await self._assure()
                await self._do(step)
                return await self._assure()
            except (BrokerUnreachableError, PublishRefusedError, PublishUnknownError) as error:
                now_ns = self._clock.monotonic_ns()
                deadline_ns = deadline_ns or now_ns + int(self._patience.broker_s * NS_PER_S)
                if now_ns >= deadline_ns:
                    raise
                self._tell(f"{step.value} is done again: {error}")
            await self._clock.sleep(self._patience.ask_every_s)

    async def _do(self, step: Step) -> None:
        if step in MOMENTS:
            await self._pass_gate(step)
        elif step is Step.REROUTE_PRODUCERS:
            await self._reroute(step, "producer")
        elif step is Step.REROUTE_WORKERS:
            await self._reroute(step, "worker")
        elif step is Step.JOIN_WORKERS:
            await self._reroute(step, "worker", JOINED)
        elif step is Step.WAIT_UNTIL_DRAINED:
            await self._wait_until_drained()
        elif step is Step.WAIT_FOR_WORK:
            await self._wait_for_work()
        elif step is Step.FORGET_MOVES:
            await self._movers.forget_moves()
        else:
            await self._move(step)

    async def _move(self, step: Step) -> None:
        await self._assure()
        if step is Step.DRAIN_TO_REDIS:
            count = await self._movers.drain_to_redis(timeout_s=self._patience.drain_s)
        else:
            count = await {
                Step.TRIM_COPIES: self._movers.trim_copies,
                Step.REDIS_TO_NATS: self._movers.redis_to_nats,
                Step.LETTERS_TO_NATS: self._movers.letters_to_nats,
                Step.RECORDS_TO_NATS: self._movers.records_to_nats,
                Step.LATE_RECORDS_TO_NATS: self._movers.records_to_nats,
                Step.RECORDS_TO_REDIS: self._movers.records_to_redis,
                Step.NATS_ONLY_TO_REDIS: self._movers.nats_only_to_redis,
            }[step]()
        self._progress.moved[step.value] = self._progress.moved.get(step.value, 0) + count

    async def _pass_gate(self, step: Step) -> None:
        """Ask until it says go; before it is asked again the moves are made again."""
        move = Move(source=self._source, target=self._target, moment=MOMENTS[step])
        deadline_ns = self._clock.monotonic_ns() + int(self._patience.gate_s * NS_PER_S)
        pause_s = self._patience.ask_every_s
        while True:
            answer = await self._ask(move, self._sequence)
            if answer.answer is Answer.GO:
                self._tell(f"gate {move.label}: go")
                return
            if self._clock.monotonic_ns() > deadline_ns:
                raise HeldBackError(
                    f"gate {move.label}: {answer.answer}: {answer.evidence}",
                    step=step.value,
                    evidence=answer.evidence,
                    conditions=tuple(
                        check.name for check in answer.checks if check.answer is answer.answer
                    ),
                )
            await self._note_sequence()
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, self._patience.ask_every_s * _MOST_PAUSES)
            for done in self.steps[: self.steps.index(step)]:
                if done in REPEATED:
                    await self._move(done)

    async def _note_sequence(self) -> None:
        """What is published from now on is late; a NATS that is away is the gate's affair."""
        try:
            self._sequence = await self._movers.last_sequence()
        except HookbenchError as error:
            self._tell(f"the stream's last sequence is not known: {error}")

    async def _reroute(self, step: Step, role: str, phase: Phase | None = None) -> None:
        phase = self._target if phase is None else phase
        await self._fleet.enter(role, phase)
        behind: list[str] = []

        async def all_in() -> bool:
            behind[:] = await self._fleet.not_in(role, phase)
            return not behind

        if not await self._wait(all_in, self._patience.announce_s):
            evidence = f"{', '.join(behind)} not in {phase.label}"
            raise HeldBackError(
                f"{self._source.label} to {self._target.label}: {evidence}",
                step=step.value,
                evidence=evidence,
            )

    async def _wait_until_drained(self) -> None:
        """Until the workers have done what NATS has; as long as it gets less."""
        least, still_ns = -1, self._clock.monotonic_ns()
        while left := await self._movers.left_on_nats():
            now_ns = self._clock.monotonic_ns()
            if least < 0 or left < least:
                least, still_ns = left, now_ns
            if now_ns - still_ns > self._patience.drain_s * NS_PER_S:
                evidence = f"{left} tasks are left on NATS, and get no fewer"
                raise HeldBackError(
                    f"{self._source.label} to {self._target.label}: {evidence}",
                    step=Step.WAIT_UNTIL_DRAINED.value,
                    evidence=evidence,
                )
            await self._clock.sleep(self._patience.ask_every_s)

    async def _wait_for_work(self) -> None:
        """Until no worker has a Redis task in hand, or what lies there has lain for too long."""

        async def empty() -> bool:
            return await self._movers.left_in_work() == 0

        await self._wait(empty, self._patience.work_s)

    async def _wait(self, condition: Callable[[], Awaitable[bool]], timeout_s: float) -> bool:
        deadline_ns = self._clock.monotonic_ns() + int(timeout_s * NS_PER_S)
        while not await condition():
            if self._clock.monotonic_ns() > deadline_ns:
                return False
            await self._clock.sleep(min(self._patience.ask_every_s, timeout_s))
        return True

    def _save(self) -> None:
        """Aside, synced, then renamed: the file is whole at any time."""
        aside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with aside.open("wb") as file:
            file.write(msgspec.json.encode(self._progress) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self._path)
