"""What an account of a run is made of."""

import enum
import uuid

import msgspec

from hookbench.ledger.fault_model import Crash, FaultAccount, FaultWindow, Unavailability
from hookbench.ledger.latency import LatencyHistogram

__all__ = [
    "Account",
    "Attribution",
    "Bounds",
    "Counts",
    "Crash",
    "FaultAccount",
    "FaultWindow",
    "Finding",
    "InvariantResult",
    "Place",
    "Residue",
    "State",
    "StepAccount",
    "StepPlan",
    "Unavailability",
    "Verdict",
]


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
    NOWHERE = "nowhere"


class State(enum.StrEnum):
    """In which state a task is that has no end after quiescence."""

    NEVER_READ = "never-read"
    ONE_BROKER_ONLY = "one-broker-only"
    ORPHANED = "orphaned"
    ACK_PENDING = "ack-pending"
    MAX_DELIVER = "max-deliver"
    AGED_OUT = "aged-out"
    ACKED_EARLY = "acked-early"
    VANISHED = "vanished"
    NO_LETTER = "no-letter"


class Residue(msgspec.Struct, frozen=True, kw_only=True):
    """What the brokers and spools hold after the drain, read by an observer.

    Attributes:
        places: task ids found in each place, with repeats where a task lies there twice.
        first_sequence: lowest stream sequence that the stream still holds; 0 for no stream.
        last_sequence: the highest that it has given; ``None`` where nobody looked.
        delivered_sequence: highest stream sequence that the consumer has delivered; ``None``
            where there is no consumer.
        ack_floor_sequence: everything up to this sequence is acknowledged or given up.
        ack_pending: deliveries that the consumer still waits for.
        max_deliver: deliveries after which the consumer gives up; 0 for no bound.
        letters: tasks of which a broker holds a dead letter; ``None`` where nobody looked, as in
            runs before there was this field.
        ended: tasks that the done-store knows as ended, of those whose end no record tells.
    """

    places: dict[Place, list[uuid.UUID]]
    first_sequence: int = 0
    last_sequence: int | None = None
    delivered_sequence: int | None = None
    ack_floor_sequence: int | None = None
    ack_pending: int = 0
    max_deliver: int = 0
    letters: list[uuid.UUID] | None = None
    ended: list[uuid.UUID] = []


class StepPlan(msgspec.Struct, frozen=True):
    """One step of the timeline: its index, the phase's name, and what it reads and writes."""

    index: int
    phase: str
    reads_redis: bool
    reads_nats: bool


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What an account is held against.

    Attributes:
        max_attempts: the budget of deliveries of a task.
        max_inversions: tasks that may be overtaken within their repository in one step;
            ``None``: they are counted only.
        gap_window_ns: how far around a transition gaps and latencies are looked for.
        clock_error_ns: how far the clocks of several machines may be apart; 0 for one machine.
    """

    max_attempts: int = 3
    max_inversions: int | None = None
    gap_window_ns: int = 2_000_000_000
    clock_error_ns: int = 0


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which tasks went wrong, with tasks that prove it.

    Attributes:
        hazard: id in the table of hazards, ``-`` for one that has none.
        row: name of the phase or transition that it counts for.
        count: tasks (or extra executions) concerned.
        text: what happened, for a person.
        examples: some of the task ids.
        invariant: number of the invariant that it breaks; 0 in manifests of schema 1.
        step, transition: the row, by index: a timeline may have a phase twice.
    """

    hazard: str
    row: str
    count: int
    text: str
    examples: list[str]
    invariant: int = 0
    step: int = -1
    transition: bool = False


class InvariantResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one invariant.

    Attributes:
        number: 1 to 9.
        rule: what must hold.
        verdict: ``unknown`` where it could not be checked.
        count: violations.
        reason: why it is unknown, or figures that belong to it.
    """

    number: int
    rule: str
    verdict: Verdict
    count: int = 0
    reason: str = ""


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """To what a number of losses, duplicates or second ends is attributed.

    Attributes:
        what: ``lost``, ``duplicate``, or ``second end`` of a task that had ended in another way.
        phase: phase or transition that it counts for.
        step: the last event of the task before it was lost, or of the execution that was
            repeated, or the first end: ``received``, ``ack_sent``, ``done``.
        fault: name of the fault of the schedule, where there is one; else who died, ``lease`` for
            a redelivery before an acknowledgement, ``-`` for none.
        hazard: id in the table of hazards, ``-`` for none.
        count: tasks, or extra executions.
        fault_index: place of the fault in the schedule, ``None`` where none of it is the cause.
    """

    what: str
    phase: str
    step: str
    fault: str
    hazard: str
    count: int
    fault_index: int | None = None


class StepAccount(msgspec.Struct, kw_only=True):
    """The row of a phase or a transition. Latencies in ns, of synthetic tasks, ``None`` for none.

    Attributes:
        tasks: tasks put in the phase; at a transition those put before it and done after it.
        offered: synthetic tasks whose intended time lies in the phase's planned time; the same
            for the same scenario and seed.
        accepted_per_s, done_per_s: throughput over the phase's time, ``None`` for no time.
        enqueue_ns, end_to_end_ns: of the tasks put in the phase; at a transition of those that were
            due around it (``Bounds.gap_window_ns``), which count in their phases as well.
        redelivered: deliveries that their broker counted as a second or later one.
        duplicated_deliveries: deliveries beyond the first of a task, from whichever broker.
        duplicated: executions beyond the first of a task; ``explained`` of them follow a crash of
            the worker before, the end of its lease, or a fault of its broker, before its
            acknowledgement was sure to last.
        duplicated_effects: effects beyond the first of a task, in the effect store.
        inverted: tasks that were started after one of their repository that was put later.
        unexpected: tasks that came out although nobody put them, and tasks with two ends.
        over_budget: deliveries beyond the budget of attempts.
        stuck: tasks without an end that lie somewhere, by ``place/state``.
        lost_by: lost tasks by state.
        left: copies of finished tasks that lie in Redis where nothing reads or trims them.
        gap_accepted_ns, gap_done_ns: at a transition, the longest time without an accepted put
            and without a completed task around it.
    """

    name: str
    step: int
    transition: bool
    tasks: int = 0
    offered: int | None = None
    enqueue_ns: dict[str, int] | None = None
    end_to_end_ns: dict[str, int] | None = None
    accepted_per_s: float | None = None
    done_per_s: float | None = None
    redelivered: int = 0
    duplicated_deliveries: int = 0
    duplicated: int = 0
    explained: int = 0
    duplicated_effects: int | None = None
    inverted: int | None = None
    lost: int = 0
    lost_by: dict[str, int] = msgspec.field(default_factory=dict)
    stuck: dict[str, int] = msgspec.field(default_factory=dict)
    left: int = 0
    unexpected: int = 0
    over_budget: int = 0
    gap_accepted_ns: int | None = None
    gap_done_ns: int | None = None
    verdict: Verdict = Verdict.VALID


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks as Jepsen's total-queue checker counts them, see ``ledger.counts``.

    ``acknowledged + recovered == ok + lost + waiting``, and whatever is done was attempted or is
    unexpected.

    Attributes:
        attempted: put, whatever came of it.
        acknowledged: their caller was told that they are accepted.
        ok: attempted, and came out: they ended in one way or another.
        lost: acknowledged, did not come out, and lie nowhere.
        waiting: acknowledged, did not come out, and lie somewhere.
        duplicated: executions beyond the first of those that were attempted.
        recovered: came out although their caller was in doubt, refused, or never told.
        unexpected: came out although nobody put them.
    """

    attempted: int
    acknowledged: int
    ok: int
    lost: int
    waiting: int
    duplicated: int
    recovered: int
    unexpected: int


class Account(msgspec.Struct, kw_only=True):
    """The account of a run.

    Attributes:
        handler_failures: attempts that ended with an error of the handler.
        crashed_attempts: attempts that ended with the death of the worker.
        effects: effects in the store, ``None`` for a run without one.
        effects_explained: those of ``duplicated_effects`` that are explained in the same way.
        invariants: 1 to 9.
        faults: what each fault did that fired.
        recovered: tasks whose caller was left in doubt, and that were done all the same.
        counts: as Jepsen counts; ``None`` in accounts from before there was this field.
        redelivery_ns: over all workers that died, from the death to the next start of each task
            that they had in hand, by percentile; ``None`` for none.
        unavailable: by beginning.
        attributions: of losses, duplicates and second ends.
        histograms: kept beside the manifest in a stored run, see ``histograms.json``.
    """

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
    superseded: int = 0
    handler_failures: int = 0
    crashed_attempts: int = 0
    duplicated_deliveries: int = 0
    duplicated_effects: int = 0
    effects: int | None = None
    effects_explained: int = 0
    invariants: list[InvariantResult] = []
    attributions: list[Attribution] = []
    faults: list[FaultAccount] = []
    recovered: int = 0
    counts: Counts | None = None
    redelivery_ns: dict[str, int] | None = None
    unavailable: list[Unavailability] = []
    histograms: list[LatencyHistogram] = []
