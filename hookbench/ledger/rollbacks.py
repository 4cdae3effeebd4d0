"""Ends that a power cut took back: the task came again, and was done again or ended otherwise."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hookbench.ledger.columns import Ints, TaskColumns
from hookbench.ledger.events import Event
from hookbench.ledger.killers import NO_FAULT
from hookbench.ledger.model import FaultWindow
from hookbench.ledger.pairs import Pairs

__all__ = ["ends_rolled_back", "rolled_back"]

_ENDS = (Event.DONE, Event.DEAD, Event.SUPERSEDED)


def rolled_back(columns: TaskColumns, pairs: Pairs, faults: Sequence[FaultWindow]) -> Ints:
    """The power cut that took back what the brokers knew of each first execution; -1 for none.

    What a worker has the brokers record of an execution (that the task is done, that the delivery
    is acknowledged, that the copy on the other broker is gone) may lie on either of them, and the
    copy that is done again on the other one: so whichever was cut counts, if one of these was
    recorded within what was taken back, and the repeat was taken up after the cut. This names a
    cause and excuses nothing.
    """
    done_ns = columns.time[pairs.first].astype(np.int64)
    last_ns = done_ns
    for word_ns in (pairs.acked_ns, pairs.confirmed_ns):
        last_ns = np.where(word_ns < pairs.again_ns, np.maximum(last_ns, word_ns), last_ns)
    return _cuts(_Ends(pairs.broker, done_ns, last_ns, pairs.again_ns), faults)


def ends_rolled_back(
    columns: TaskColumns, tasks: Ints, faults: Sequence[FaultWindow]
) -> tuple[Ints, Ints]:
    """Which power cut let each of some tasks end in two ways.

    Args:
        columns: the ledger.
        tasks: those that ended in two ways.
        faults: those that fired.

    Returns:
        Per task the row of its first end, and the place of the cut that took that back, -1 for
        none.
    """
    ends = np.flatnonzero(np.isin(columns.event, _ENDS))
    first, last = (np.zeros(columns.count, dtype=np.int64) for _ in range(2))
    last[columns.task[ends]] = ends  # records are sorted by time: the last write stays
    first[columns.task[ends[::-1]]] = ends[::-1]
    first, last = first[tasks], last[tasks]
    ended_ns, again_ns = (columns.time[rows].astype(np.int64) for rows in (first, last))
    return first, _cuts(_Ends(columns.broker[first], ended_ns, ended_ns, again_ns), faults)


class _Ends(NamedTuple):
    """Ends of tasks that came again, one entry each; monotonic ns.

    Attributes:
        broker: that delivered what was ended.
        first_ns, last_ns: the first and the last record of it on a broker.
        again_ns: when the task was taken up, or ended, again.
    """

    broker: Ints
    first_ns: Ints
    last_ns: Ints
    again_ns: Ints


def _cuts(ends: _Ends, faults: Sequence[FaultWindow]) -> Ints:
    """The cut that took back something of each end; of the broker that delivered, if there is one.

    Of several it is the earliest.
    """
    found = np.full(len(ends.first_ns), NO_FAULT, dtype=np.int64)
    latest_first = sorted(range(len(faults)), key=lambda place: -faults[place].begin_ns)
    for own, place in itertools.product((False, True), latest_first):
        fault = faults[place]
        if not fault.rollback_ns:
            continue
        cut_ns, back_ns = fault.span_ns()
        here = (ends.last_ns >= cut_ns - fault.rollback_ns) & (ends.first_ns <= back_ns)
        here &= ends.again_ns >= cut_ns
        here &= np.isin(ends.broker, [int(broker) for broker in fault.reach.brokers]) == own
        found = np.where(here, place, found)
    return found
