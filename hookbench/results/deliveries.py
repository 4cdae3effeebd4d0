"""What became of each delivery: the records of its worker up to the next delivery of the task."""

from typing import NamedTuple

import numpy as np

from hookbench.ledger.columns import Ints, TaskColumns
from hookbench.ledger.events import Event

__all__ = ["OUTCOMES", "DeliveryColumns", "delivery_columns"]

OUTCOMES = {
    "done": Event.DONE,
    "dead": Event.DEAD,
    "failed": Event.FAILED,
    "superseded": Event.SUPERSEDED,
    "skipped": Event.SKIPPED,
    "stale": Event.STALE,
    "given_back": Event.NAK,
}
"""How a delivery can end; of several records the earliest in this list counts."""


class DeliveryColumns(NamedTuple):
    """One entry per delivery, in the order of tasks, workers, brokers and time.

    Attributes:
        received_record: the record of the ledger that it begins with.
        started_ns, ended_ns, acked_ns: 0 for never.
        outcome: place in ``OUTCOMES``, -1 for none.
        done_record: the record of the completed execution, -1 for none.
    """

    received_record: Ints
    started_ns: Ints
    ended_ns: Ints
    acked_ns: Ints
    outcome: Ints
    done_record: Ints


def delivery_columns(columns: TaskColumns) -> DeliveryColumns:
    """The deliveries of a ledger.

    What a worker recorded for a task and a broker belongs to its last delivery of that task by
    that broker. A failed attempt that became a dead letter counts as ``dead``; one that failed and
    was given back as ``failed``.
    """
    writer = columns.ledger.writer
    wanted = np.flatnonzero(columns.event >= Event.RECEIVED)
    wanted = wanted[columns.event[wanted] < Event.PHASE]
    order = wanted[
        np.lexsort((wanted, columns.broker[wanted], writer[wanted], columns.task[wanted]))
    ]  # records are sorted by time, so their place is as good as it
    event = columns.event[order]
    begins = event == Event.RECEIVED
    number = np.cumsum(begins) - 1
    received = order[begins]
    count = len(received)
    # Before the first delivery of a key stand records of another one: they belong to none.
    known = number >= 0
    at = received[np.maximum(number, 0)] if count else order
    known &= (columns.task[at] == columns.task[order]) & (writer[at] == writer[order])
    known &= columns.broker[at] == columns.broker[order]

    def first(kind: Event, column: Ints, default: int) -> Ints:
        out = np.full(count, default, dtype=np.int64)
        rows = np.flatnonzero(known & (event == kind))[::-1]  # the last write wins: the earliest
        out[number[rows]] = column[order[rows]]
        return out

    place = np.arange(len(columns.event), dtype=np.int64)
    ended_ns, outcome = np.zeros((2, count), dtype=np.int64)
    outcome -= 1
    for index, kind in reversed(list(enumerate(OUTCOMES.values()))):
        times = first(kind, columns.time, 0)
        outcome = np.where(times > 0, index, outcome)
        ended_ns = np.where(times > 0, times, ended_ns)
    return DeliveryColumns(
        received_record=received,
        started_ns=first(Event.STARTED, columns.time, 0),
        ended_ns=ended_ns,
        acked_ns=first(Event.ACK_SENT, columns.time, 0),
        outcome=outcome,
        done_record=first(Event.DONE, place, -1),
    )
