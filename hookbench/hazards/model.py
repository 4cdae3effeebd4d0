"""What a hazard is, and what a scenario of it found."""

import enum
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from hookbench.migration.phases import Design

if TYPE_CHECKING:
    from hookbench.hazards.bench import Bench

__all__ = ["Harm", "Hazard", "HazardResult", "Observation", "Outcome", "Protection"]


class Harm(enum.StrEnum):
    """What a hazard does to a task, or to the queue as a whole."""

    LOST = "lost"
    DUPLICATED = "duplicated"
    STUCK = "stuck"
    REORDERED = "reordered"
    STALLED = "stalled"
    SPLIT = "split"
    LEFT = "left behind"
    FULL = "full"
    IGNORED = "ignored"
    FAILED = "failed"


class Protection(enum.StrEnum):
    """How a design keeps a hazard from doing harm."""

    PREVENTED = "prevented"
    REFUSED = "refused"
    ALARMED = "alarmed"


class Outcome(enum.StrEnum):
    """What became of one hazard under one design.

    ``shown``: the harm that the table of hazards names was observed. ``otherwise``: something else
    happened, or nothing. A design that protects says how. ``unknown``: the scenario did not get
    through.
    """

    SHOWN = "shown"
    OTHERWISE = "otherwise"
    PREVENTED = "prevented"
    REFUSED = "refused"
    ALARMED = "alarmed"
    UNKNOWN = "unknown"


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a scenario found, with what proves it.

    Attributes:
        harm: ``None`` for what is no harm: what was refused, or told in time.
        protection: how the design kept the harm away, if it did so here.
        count: tasks concerned; of a harm to the whole queue 1.
        text: what happened, for a person, in one sentence.
        tasks: ids of some of the tasks.
    """

    text: str
    harm: Harm | None = None
    protection: Protection | None = None
    count: int = 0
    tasks: tuple[str, ...] = ()


Scenario = Callable[["Bench"], Awaitable[list[Observation]]]


class Hazard(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table of hazards.

    Attributes:
        id: ``R1``; a letter for the place (Redis, phases, NATS, types, cutover, back, size).
        where: phases or operation.
        mechanism: how the guide does harm, in one sentence.
        harm: which one.
        scenario: drives the reference producer and real worker processes into it, and looks.
        topology: the brokers that it needs.
        switches: measures of the design that are on for the row to be seen at all.
        otherwise: why the guide does not show it; empty for a row that it does.
        held_by: conditions of gates, and steps of procedures, by which the measure ``gates`` may
            hold the scenario back; empty for a row whose phases are entered without asking.
        masked_by: the hazard that hides this one in the guide to the letter; the scenario is then
            run once more without the switches.
    """

    id: str
    where: str
    mechanism: str
    harm: Harm
    scenario: Scenario
    topology: str = "single"
    switches: tuple[str, ...] = ()
    otherwise: str = ""
    held_by: tuple[str, ...] = ()
    masked_by: str | None = None


class HazardResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one hazard.

    Attributes:
        count: tasks that came to the harm of the row.
        tasks: ids of some of them.
        measures: changes to the measures of the design that were asked for.
        observations: what was found.
        steps: what was done, in order, with the time since the start of the scenario.
        otherwise: as of the row.
        masked: what was found without the switches, in one line; empty where that was not asked.
        seconds: how long it took.
        problem: why the outcome is unknown.
    """

    id: str
    where: str
    mechanism: str
    design: Design
    harm: Harm
    outcome: Outcome
    count: int = 0
    tasks: tuple[str, ...] = ()
    observations: tuple[Observation, ...] = ()
    steps: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()
    measures: str = ""
    otherwise: str = ""
    masked: str = ""
    seconds: float = 0.0
    problem: str = ""

    @property
    def as_expected(self) -> bool:
        """``guide`` shows the harm but where it is known not to, ``hardened`` keeps it away.

        Of changed measures nothing is expected but an answer.
        """
        if self.measures:
            return self.outcome is not Outcome.UNKNOWN
        if self.design is Design.GUIDE:
            known = self.outcome is not Outcome.UNKNOWN and bool(self.otherwise)
            return known if self.outcome is not Outcome.SHOWN else not self.otherwise
        return self.outcome in (Outcome.PREVENTED, Outcome.REFUSED, Outcome.ALARMED)
