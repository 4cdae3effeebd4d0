"""What a fault is: a plan in a scenario, an injection, a healing, and the proof that it fired."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from hookbench.clock import Clock
from hookbench.errors import BrokerUnreachableError, FaultTargetMissingError, HookbenchError
from hookbench.faults.administration import Administration
from hookbench.faults.memory import FaultMemory
from hookbench.faults.orders import Orders
from hookbench.migration.phases import Phase

__all__ = [
    "Fault",
    "FaultNotFiredError",
    "FaultRecord",
    "Process",
    "Targets",
    "insist",
    "wait_for",
    "wait_until",
]

POLL_S = 0.01
_INSIST_S = 0.1
_INSIST_TRIES = 100


class FaultNotFiredError(HookbenchError):
    """A fault was tried and had no effect: its verdict is unknown. The text says why."""


class Process(Protocol):
    """A process that the run started, and so may be stopped, killed and paused."""

    @property
    def pid(self) -> int:
        """Its id now; another one after a restart."""
        ...

    @property
    def exit_code(self) -> int | None:
        """``None`` while it runs; negative for a signal."""
        ...

    def signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        ...

    def restart(self) -> None:
        """Start it again after its end, on the same port and data.

        Raises:
            BrokerUnreachableError: it did not come up.
        """
        ...

    @property
    def replaced(self) -> bool:
        """Whether somebody else starts it again when it has ended: the fleet, its members."""
        ...


class Targets(Protocol):
    """Who can be aimed at."""

    @property
    def clock(self) -> Clock:
        """Of the run."""
        ...

    @property
    def memory(self) -> FaultMemory:
        """What faults keep from their beginning to their end."""
        ...

    @property
    def orders(self) -> Orders:
        """What the processes of the fleet are told to do wrong."""
        ...

    @property
    def phase(self) -> Phase:
        """The phase of the moment."""
        ...

    @property
    def administration(self) -> Administration:
        """The brokers that the run started."""
        ...

    def die_at(self, name: str, step: str) -> None:
        """Tell a worker to kill itself at a step, see ``parse_step``."""
        ...

    async def add_rule(self, fault: "Fault") -> int:
        """Put the rule of a wire fault to work; its number."""
        ...

    async def firings(self, number: int) -> int:
        """How often a rule has fired."""
        ...

    async def remove_rule(self, fault: "Fault") -> None:
        """End the rule of a wire fault, if it is at work."""
        ...

    def members(self, role: str) -> list[str]:
        """The names of the processes of a role: ``workers`` or ``producers``."""
        ...

    def has_entered(self, name: str) -> bool:
        """Whether a worker or producer is in the phase that it was told last."""
        ...

    async def resolve(self, target: str) -> str:
        """Whom a target means now: of ``stream_leader`` the node that leads the hook stream.

        Raises:
            HookbenchError: nobody at the moment.
        """
        ...

    def process(self, name: str) -> Process:
        """The process ``redis``, ``nats-2``, ``worker-0``, ``producer-1``.

        Raises:
            SettingError: there is none, or the run did not start it.
        """
        ...


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fault of a schedule; each kind is a struct of its own with what it needs.

    Attributes:
        target: whom it is aimed at; a role is replaced by the node that has it when it fires,
            before ``inject``, so that ``heal`` acts on the same one.
        at_s: when, from the start of the load, or from where ``phase_index`` says.
        for_s: how long until it is healed; 0 where there is nothing to heal.
        phase_index: the place of a phase in the timeline, from 0 on: ``at_s`` counts from the
            moment when the change into it begins. With gates nobody knows that moment before.
    """

    target: str
    at_s: float
    for_s: float = 0.0
    phase_index: int | None = None

    @property
    def name(self) -> str:
        """For people: ``kill worker-0``."""
        return f"{self.__struct_config__.tag} {self.target}"

    @property
    def when(self) -> str:
        """For people: ``4 s``, or ``1.5 s into phase 3 of the timeline``."""
        where = (
            "" if self.phase_index is None else f" into phase {self.phase_index} of the timeline"
        )
        return f"{self.at_s:g} s{where}"

    @property
    def lead_s(self) -> float:
        """How long before ``at_s`` it is prepared; 0 where there is nothing to prepare."""
        return 0.0

    @property
    def may_repeat(self) -> bool:
        """Whether it may be healed and tried again when a broker did not answer it."""
        return True

    @property
    def one_at_a_time(self) -> bool:
        """Whether it waits until the one of its kind before it is healed, however late that is."""
        return False

    @property
    def what(self) -> str:
        """What it changes, where a fault that comes later must not find it changed; else empty.

        It waits for each one before it that was to be healed by then, however late that is. Two
        that are to overlap do.
        """
        return ""

    def check(self) -> None:
        """Refuse what makes no sense, before a run begins.

        Raises:
            SettingError: the text names the value.
        """

    def needs(self) -> dict[str, int] | None:
        """Brokers that the run must have started for it, each with its least number of nodes.

        ``None`` for a fault that is aimed at one process or link, which its target names.
        """
        return None

    async def prepare(self, targets: Targets) -> None:
        """What has to be done ``lead_s`` before, and is not the fault yet."""

    async def inject(self, targets: Targets) -> None:
        """Do it; returns once it is known to be in effect.

        Raises:
            FaultNotFiredError: it had no effect.
        """
        raise NotImplementedError

    async def heal(self, targets: Targets) -> None:
        """Undo it; may be called although it never fired."""


class FaultRecord(msgspec.Struct, kw_only=True):
    """What became of a fault, monotonic ns.

    Attributes:
        index: place in the schedule; the value of its events in the ledger.
        kind, target: as planned.
        node: whom it hit, where the target is a role; the target itself otherwise.
        name: for people, with what belongs to its kind: ``drop reply BLMOVE workers-redis``.
        planned_ns: when it was due.
        begin_ns, end_ns: when it was in effect and healed; ``None`` for never.
        problem: why it did not fire, or could not be healed.
        noted: what it saw of its effect, by name, for people.
    """

    index: int
    kind: str
    target: str
    name: str
    planned_ns: int
    node: str | None = None
    begin_ns: int | None = None
    end_ns: int | None = None
    problem: str | None = None
    noted: dict[str, str] = {}


async def wait_for(question: Callable[[], Awaitable[bool]], clock: Clock, *, tries: int) -> bool:
    """Ask somebody else every 10 ms, so many times; whether the answer was yes."""
    for _ in range(tries):
        if await question():
            return True
        await clock.sleep(POLL_S)
    return False


async def wait_until(condition: Callable[[], bool], clock: Clock, *, tries: int) -> bool:
    """Ask every 10 ms, so many times; whether it came true."""
    for _ in range(tries):
        if condition():
            return True
        await clock.sleep(POLL_S)
    return condition()


async def insist(call: Callable[[], Awaitable[None]], clock: Clock) -> None:
    """Do something that must be done, for 10 s: another fault may keep the broker away.

    Or it may delete what is to be put back, or make it, between two requests of ``call``.

    Raises:
        BrokerUnreachableError, FaultTargetMissingError: it was out of reach all the time.
    """
    for attempt in range(1, _INSIST_TRIES + 1):
        try:
            await call()
        except (BrokerUnreachableError, FaultTargetMissingError):
            if attempt == _INSIST_TRIES:
                raise
            await clock.sleep(_INSIST_S)
        else:
            return
