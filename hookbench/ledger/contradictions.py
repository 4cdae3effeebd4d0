"""Invariants 3 and 6: nothing unexpected comes out, and no task is delivered beyond its budget."""

import numpy as np

from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.history import PHASE, History

__all__ = ["check_budget", "check_unexpected"]

_NOT_STARTED = (Event.SKIPPED, Event.SUPERSEDED, Event.NAK, Event.DEAD)


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
    for ever. Each copy has a budget of its own: one per broker, and one per put.

    A delivery that its worker did not start is no attempt: it was skipped, superseded, given back
    since another worker had claimed the task, or buried since the budget was used up. The number
    of one that was claimed is the authority's, which counts what was started; so where tasks are
    claimed, a worker that died before it said anything more of a delivery had not started it.
    """
    columns = history.columns
    allowed = history.bounds.max_attempts
    received = columns.where(Event.RECEIVED)
    numbered, unstarted = _attempts(columns, allowed)
    over = received & (numbered > allowed) & ~unstarted
    over |= _uncounted(columns, allowed, received & ~unstarted)
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
    rows: Ints = np.flatnonzero(many[columns.task])
    if len(rows) == 0:
        return attempt, unstarted
    writers = len(columns.ledger.writers)
    key = columns.task[rows].astype(np.int64) * writers + columns.ledger.writer[rows]
    key = key * len(Broker) + columns.broker[rows]
    order = np.argsort(key, kind="stable")  # records are sorted by time
    ordered = rows[order]
    places = np.flatnonzero(columns.event[ordered] == Event.RECEIVED)
    deliveries = ordered[places]
    after = _following(key[order], places)
    after = np.where(after >= 0, ordered[after], -1)
    known = after >= 0
    if columns.where(Event.CLAIMED).any():
        unstarted[deliveries[~known & columns.died[deliveries]]] = True
    deliveries, after = deliveries[known], after[known]
    unstarted[deliveries[np.isin(columns.event[after], _NOT_STARTED)]] = True
    claimed = columns.event[after] == Event.CLAIMED
    attempt[deliveries[claimed]] = attempt[after[claimed]]
    return attempt, unstarted


def _following(key: Ints, places: Ints) -> Ints:
    """Per delivery the place of what its worker says next of it; -1 for nothing.

    A task that was put back may come again before the worker has said that it put it back: of
    several deliveries one after the other, the first is the first that something is said of.

    Args:
        key: per record who says it, and of what.
        places: where the deliveries are among them.
    """
    begins = np.diff(places, prepend=-2) != 1
    begins |= np.diff(key[places], prepend=-1) != 0
    begins[:1] = True
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=len(places))
    after = places + np.repeat(lengths, lengths)
    after = np.where(after < len(key), after, 0)
    return np.where(key[after] == key[places], after, -1) if len(places) else after


def _uncounted(columns: TaskColumns, allowed: int, deliveries: Bools) -> Bools:
    """Deliveries after as many as the budget of all copies of their task on their broker."""
    over = np.zeros(len(columns.event), dtype=bool)
    puts = np.bincount(columns.task[columns.where(Event.PUT_INVOKED)], minlength=columns.count)
    received = np.flatnonzero(deliveries & columns.real[columns.task])
    copy = columns.task[received].astype(np.int64) * len(Broker) + columns.broker[received]
    budget = allowed * np.maximum(puts[columns.task[received]], 1)
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
