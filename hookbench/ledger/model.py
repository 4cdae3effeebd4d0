"""What an account of a run is made of."""

import enum
import uuid

import msgspec

__all__ = ["Account", "Crash", "Finding", "Place", "Residue", "StepAccount", "StepPlan", "Verdict"]


class Verdict(enum.StrEnum):
    """The answer about a phase, a transition or a run."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"


class Place(enum.StrEnum):
    """Where a task lies after quiescence."""

    REDIS_PENDING = "redis-pending"
    REDIS_WORK = "redis-work"
    STREAM = "stream"
    CONSUMER_PENDING = "consumer-pending"
    SPOOL = "spool"


class Residue(msgspec.Struct, frozen=True, kw_only=True):
    """What the brokers and spools hold after the drain, read by an observer.

    Attributes:
        places: task ids found in each place, with repeats where a task lies there twice.
        delivered_sequence: highest stream sequence that the consumer has delivered; ``None``
            where there is no consumer.
        ack_floor_sequence: everything up to this sequence is acknowledged or given up.
        ack_pending: deliveries that the consumer still waits for.
    """

    places: dict[Place, list[uuid.UUID]]
    delivered_sequence: int | None = None
    ack_floor_sequence: int | None = None
    ack_pending: int = 0


class StepPlan(msgspec.Struct, frozen=True):
    """One step of the timeline: its index, the phase's name, and what it reads and writes."""

    index: int
    phase: str
    reads_redis: bool
    reads_nats: bool


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which tasks went wrong, with tasks that prove it.

    Attributes:
        hazard: id in the table of hazards, ``-`` for one that has none.
        row: name of the phase or transition that it counts for.
        count: tasks (or extra executions) concerned.
        text: what happened, for a person.
        examples: some of the task ids.
    """

    hazard: str
    row: str
    count: int
    text: str
    examples: list[str]


class StepAccount(msgspec.Struct, kw_only=True):
    """The row of a phase or a transition. Latencies in ns, of synthetic tasks, ``None`` for none.

    Attributes:
        tasks: tasks put in the phase; at a transition those put before it and done after it.
        duplicated: executions beyond the first of a task; ``explained`` of them follow a crash
            of the worker before its acknowledgement.
        unexpected: tasks that came out although nobody put them, and tasks with two ends.
        over_budget: deliveries beyond the budget of attempts.
        left: copies of finished tasks that lie in Redis where nothing reads or trims them.
        gap_accepted_ns, gap_done_ns: at a transition, the longest time without an accepted put
            and without a completed task around it.
    """

    name: str
    step: int
    transition: bool
    tasks: int = 0
    enqueue_ns: dict[str, int] | None = None
    end_to_end_ns: dict[str, int] | None = None
    redelivered: int = 0
    duplicated: int = 0
    explained: int = 0
    lost: int = 0
    stuck: dict[str, int] = msgspec.field(default_factory=dict)
    left: int = 0
    unexpected: int = 0
    over_budget: int = 0
    gap_accepted_ns: int | None = None
    gap_done_ns: int | None = None
    verdict: Verdict = Verdict.VALID


class Crash(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that died, and what became of the tasks that it had received and not ended."""

    writer: str
    in_hand: int
    done_by_others: int
    stuck: int
    lost: int
    examples: list[str]


class Account(msgspec.Struct, kw_only=True):
    """The account of a run."""

    rows: list[StepAccount]
    findings: list[Finding]
    tasks: int
    accepted: int
    refused: int
    doubtful: int
    done: int
    dead: int
    lost: int
    stuck: int
    duplicated: int
    explained: int
    left: int
    junk: int
    pushed_tasks: int
    push_to_done_ns: dict[str, int] | None
    torn: int
    crashes: list[Crash]
    unexpected: int = 0
    over_budget: int = 0
