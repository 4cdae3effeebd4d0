"""What a condition of a gate is, and what it answers."""

import enum
import uuid
from collections.abc import Callable, Iterable

import msgspec

from hookbench.migration.phases import Phase
from hookbench.migration.snapshot import Snapshot

__all__ = [
    "Answer",
    "Check",
    "Condition",
    "GateBounds",
    "Moment",
    "Move",
    "go_if",
    "make_check",
    "silent",
]

EXAMPLES = 5


class Answer(enum.StrEnum):
    """Of a condition, and of a gate."""

    GO = "go"
    NO_GO = "no-go"
    UNKNOWN = "unknown"


class Moment(enum.StrEnum):
    """When a gate is asked: before anything is changed, in between, or when all has changed."""

    BEFORE = "before"
    BETWEEN = "between"
    AFTER = "after"


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """From one phase to another, and the moment."""

    source: Phase
    target: Phase
    moment: Moment

    @property
    def label(self) -> str:
        """``dual_write to dual_read, before``."""
        return f"{self.source.label} to {self.target.label}, {self.moment}"


class GateBounds(msgspec.Struct, frozen=True, kw_only=True):
    """What the conditions hold a snapshot against.

    Attributes:
        settle_s: tasks that are younger may be on their way to the second broker; so may the
            records of those that ended later than that.
        oldest_s: a task that has waited for longer shows that nobody works on the queue.
        redelivered: deliveries beyond the first that are under way.
        used_share: of memory, or of a limit of the stream.
        age_share: of the stream's max-age that a waiting task may have.
    """

    settle_s: float = 5.0
    oldest_s: float = 3600.0
    redelivered: int = 100
    used_share: float = 0.8
    age_share: float = 0.8


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What one condition came to.

    Attributes:
        evidence: what was looked at, with numbers.
        ids: some of the tasks concerned.
    """

    name: str
    answer: Answer
    evidence: str
    ids: tuple[str, ...] = ()


Condition = Callable[[Snapshot, Move, GateBounds], Check]


def make_check(name: str, answer: Answer, evidence: str, ids: Iterable[uuid.UUID] = ()) -> Check:
    """A check, with the first of the tasks concerned."""
    return Check(
        name=name,
        answer=answer,
        evidence=evidence,
        ids=tuple(str(item) for item in sorted(ids)[:EXAMPLES]),
    )


def go_if(fine: bool) -> Answer:
    """Go or no-go."""
    return Answer.GO if fine else Answer.NO_GO


def silent(snapshot: Snapshot, *brokers: str) -> str:
    """Why what a condition needs is not known; empty if it is."""
    missing = [
        f"{name} does not answer: {snapshot.problems.get(name, 'nobody asked')}"
        for name in brokers
        if getattr(snapshot, name) is None
    ]
    partly = [
        f"{name} holds more tasks than a survey reads"
        for name in brokers
        if (view := getattr(snapshot, name)) is not None and not view.whole
    ]
    return "; ".join(missing + partly)
