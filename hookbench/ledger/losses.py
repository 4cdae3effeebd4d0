"""Which fault took a task away from the brokers that had it."""

from collections.abc import Sequence

import numpy as np

from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.killers import NO_FAULT, find_killers
from hookbench.ledger.model import FaultWindow

__all__ = ["faults_of_losses", "last_records"]

_BROKERS = (Broker.REDIS, Broker.NATS)


def last_records(columns: TaskColumns) -> Ints:
    """Per task the row of its last record, of a worker's where a worker has had it.

    A producer may hear that a task is accepted when a worker is already at it; what became of the
    task is what the worker did last.
    """
    last = np.zeros(columns.count, dtype=np.int64)
    rows = np.arange(len(columns.task))
    last[columns.task] = rows
    worked = columns.event >= Event.RECEIVED
    last[columns.task[worked]] = rows[worked]
    return last


def faults_of_losses(columns: TaskColumns, lost: Bools, faults: Sequence[FaultWindow]) -> Ints:
    """Per task the place in ``faults`` of the one that lost it; -1 for none.

    A broker loses a task by a fault (see ``Reach.loses``) that was in effect at some time after
    it had taken it, the first such one. The task is lost by the last of its brokers; a broker
    that had no such fault did not lose it, and then no fault did. A task that was acknowledged
    before it was done is lost by what its worker died of.

    Args:
        columns: the ledger.
        lost: the tasks, shape (tasks,).
        faults: those that fired.
    """
    found = np.full(columns.count, NO_FAULT, dtype=np.int64)
    if not faults or not lost.any():
        return found
    tasks = np.flatnonzero(lost)
    last = last_records(columns)
    found[tasks] = find_killers(columns, faults)[columns.ledger.writer[last[tasks]]]
    begins_ns = np.array([fault.begin_ns for fault in faults], dtype=np.int64)
    had, lost_by_all = (np.full(len(tasks), value, dtype=bool) for value in (False, True))
    latest = np.full(len(tasks), NO_FAULT, dtype=np.int64)
    for broker in _BROKERS:
        put = columns.where(Event.PUT_OK) & (columns.broker == broker)
        put_ns = columns.first(put, columns.time, -1)[tasks]
        held = put_ns >= 0
        by = _first_loss(put_ns, broker, faults)
        had |= held
        lost_by_all &= ~held | (by != NO_FAULT)
        later = held & (by != NO_FAULT)
        later &= (latest == NO_FAULT) | (begins_ns[by] > begins_ns[latest])
        latest = np.where(later, by, latest)
    here = had & lost_by_all & ~columns.acked[tasks]
    found[tasks[here]] = latest[here]
    return found


def _first_loss(put_ns: Ints, broker: Broker, faults: Sequence[FaultWindow]) -> Ints:
    """Per task the first fault by which the broker may have lost what it took at ``put_ns``."""
    found = np.full(len(put_ns), NO_FAULT, dtype=np.int64)
    for place in sorted(range(len(faults)), key=lambda place: -faults[place].begin_ns):
        reach = faults[place].reach
        if reach.loses and broker in reach.brokers:
            _, end_ns = faults[place].span_ns()
            found = np.where(end_ns >= put_ns, place, found)
    return found
