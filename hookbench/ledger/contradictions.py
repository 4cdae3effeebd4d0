"""Invariants 3 and 6: nothing unexpected comes out, and no task is delivered beyond its budget."""

from collections import defaultdict, deque

import numpy as np

from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.history import PHASE, History

__all__ = ["check_budget", "check_unexpected"]

_TOLD = (
    Event.RECEIVED,
    Event.CLAIMED,
    Event.STARTED,
    Event.FAILED,
    Event.STALE,
    Event.SKIPPED,
    Event.SUPERSEDED,
    Event.NAK,
    Event.REQUEUED,
    Event.DEAD,
)
"""What a worker says of a delivery until it is settled."""


def check_unexpected(history: History) -> None:
    """3: what comes out was put, and not under a refusal."""
    columns = history.columns
    came = columns.where(Event.RECEIVED) | columns.where(Event.DONE)
    came_step = columns.first(came, columns.phase, -1)
    out = columns.real & (came_step >= 0)
    texts = (
        (out & ~columns.offered, "came out although nobody put them"),
        (out & columns.refused, "came out although their caller was told that they were refused"),
    )
    for mask, what in texts:
        for step in history.steps:
            history.rows[PHASE, step.index].unexpected += history.find(
                3, (PHASE, step.index), mask & (came_step == step.index), f"{{count}} tasks {what}"
            )


def check_budget(history: History) -> None:
    """6: no delivery beyond the budget, by the attempt that it carried or by those before it.

    The ledger counts for itself, for a retry that does not raise the task's own count would go on
    for ever. Each copy has a budget of its own: one per broker, and one per put. Whenever a power
    cut took the end of a task back, its attempts were forgotten with it: it has a budget once more.

    A delivery that its worker did not start is no attempt: it was skipped, superseded, given back
    since another worker had claimed the task, or buried since the budget was used up. The number
    of one that was claimed is the authority's, which counts what was started; so where tasks are
    claimed, one of which nothing more was said was not started: its worker died, or could neither
    claim it nor give it back.
    """
    columns = history.columns
    allowed = history.bounds.max_attempts
    received = columns.where(Event.RECEIVED)
    numbered, unstarted = _attempts(columns, allowed)
    over = received & (numbered > allowed) & ~unstarted
    over |= _uncounted(columns, allowed, received & ~unstarted, _forgotten(history))
    for step in history.steps:
        here = np.flatnonzero(over & (columns.phase == step.index))
        history.rows[PHASE, step.index].over_budget = history.find(
            6,
            (PHASE, step.index),
            columns.task[here].astype(np.int64),
            f"{{count}} deliveries beyond {allowed} attempts",
        )


def _attempts(columns: TaskColumns, allowed: int) -> tuple[Ints, Bools]:
    """Per record the attempt that a delivery is, and whether its worker did not start it.

    Both are told by what the worker says next of the task and broker. Only tasks are looked at
    that have more deliveries, or a higher number, than the budget.
    """
    attempt = columns.ledger.records["attempt"].astype(np.int64)
    unstarted = np.zeros(len(attempt), dtype=bool)
    received = columns.where(Event.RECEIVED) & columns.real[columns.task]
    many = np.bincount(columns.task[received], minlength=columns.count) > allowed
    many[columns.task[received & (attempt > allowed)]] = True
    rows: Ints = np.flatnonzero(many[columns.task] & np.isin(columns.event, _TOLD))
    if len(rows) == 0:
        return attempt, unstarted
    writers = len(columns.ledger.writers)
    key = columns.task[rows].astype(np.int64) * writers + columns.ledger.writer[rows]
    key = key * len(Broker) + columns.broker[rows]
    hands: defaultdict[int, _Hand] = defaultdict(_Hand)
    for row, whose in zip(rows.tolist(), key.tolist(), strict=True):  # sorted by time
        hand = hands[whose]
        hand.tell(Event(int(columns.event[row])), row, beyond=bool(attempt[row] > allowed))
    claims = bool(columns.where(Event.CLAIMED).any())
    for hand in hands.values():
        unstarted[hand.unstarted] = True
        if claims:
            unstarted[[*hand.waiting, *(row for row in hand.claimed if columns.died[row])]] = True
        for delivery, claim in hand.claims:
            attempt[delivery] = attempt[claim]
    return attempt, unstarted


class _Hand:
    """The deliveries of one task from one broker that one worker has in hand.

    Several may be there at once, and then the first is the first that something is said of.

    Attributes:
        waiting: deliveries that nothing was said of yet.
        claimed: those of which a claim was granted and nothing more was said.
        unstarted: those that the worker did not start.
        claims: delivery and claim, by their rows.
    """

    def __init__(self) -> None:
        self.waiting: deque[int] = deque()
        self.claimed: deque[int] = deque()
        self.unstarted: list[int] = []
        self.claims: list[tuple[int, int]] = []
        self._failed = 0
        """Those that were started, ended without an outcome, and are still to be settled."""

    def tell(self, event: Event, row: int, *, beyond: bool) -> None:
        """What the worker says next; ``beyond``: of an attempt that is not to be started.

        A dead letter of such an attempt is of a delivery that came for nothing else. One that
        failed before it, and of which no broker could be told, is still to be settled.
        """
        if event is Event.RECEIVED:
            self.waiting.append(row)
        elif event is Event.CLAIMED:
            if self.waiting:
                delivery = self.waiting.popleft()
                self.claims.append((delivery, row))
                self.claimed.append(delivery)
        elif event is Event.STARTED:
            self._next()
        elif event in (Event.FAILED, Event.STALE):
            self._failed += 1
        elif event in (Event.SKIPPED, Event.SUPERSEDED):
            self.unstarted += [self.waiting.popleft()] if self.waiting else []
        elif self._failed and not (event is Event.DEAD and beyond):  # it is settled now
            self._failed -= 1
        else:
            self.unstarted += self._next()

    def _next(self) -> list[int]:
        for held in (self.claimed, self.waiting):
            if held:
                return [held.popleft()]
        return []


def _forgotten(history: History) -> Ints:
    """Per task how often a power cut took its end back."""
    cuts = [place for place, fault in enumerate(history.faults) if fault.rollback_ns]
    if not cuts:
        return np.zeros(history.columns.count, dtype=np.int64)
    by_cut = np.isin(history.explanation.fault, cuts)
    return np.bincount(history.repeats.task[by_cut], minlength=history.columns.count)


def _uncounted(columns: TaskColumns, allowed: int, deliveries: Bools, forgotten: Ints) -> Bools:
    """Deliveries after as many as the budget of all copies of their task on their broker."""
    over = np.zeros(len(columns.event), dtype=bool)
    puts = np.bincount(columns.task[columns.where(Event.PUT_INVOKED)], minlength=columns.count)
    received = np.flatnonzero(deliveries & columns.real[columns.task])
    copy = columns.task[received].astype(np.int64) * len(Broker) + columns.broker[received]
    budget = allowed * (np.maximum(puts, 1) + forgotten)[columns.task[received]]
    many = np.bincount(copy, minlength=1)[copy] > budget
    received, copy, budget = received[many], copy[many], budget[many]
    if len(received) == 0:
        return over
    order = np.argsort(copy, kind="stable")  # records are sorted by time
    ordered = copy[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 1))
    lengths = np.diff(starts, append=len(ordered))
    before = np.arange(len(ordered)) - np.repeat(starts, lengths)
    over[received[order][before >= budget[order]]] = True
    return over
