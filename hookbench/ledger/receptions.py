"""The deliveries that executions worked on, and how long each may have waited for its worker."""

import numpy as np

from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.search import last_before

__all__ = ["find_receptions", "waiting_since"]

_ENDS = (Event.FAILED, Event.SKIPPED, Event.STALE, Event.SUPERSEDED, Event.DEAD, Event.NAK)
"""After one of these a delivery is no other execution's."""


def find_receptions(columns: TaskColumns, mine: Bools, key: Ints, records: Ints) -> Ints:
    """Row of the reception of each execution, -1 for none.

    It is the last one before the execution, of the same process and task. A process that has two
    deliveries of a task in hand works on each of them: no two executions are given one reception
    while an earlier one has none. One delivery that is worked on twice is one reception.

    Args:
        columns: the ledger.
        mine: records of the tasks concerned.
        key: per record, one number for its process and task.
        records: the executions, every one of these tasks.
    """
    received = np.flatnonzero(mine & columns.where(Event.RECEIVED))
    if len(received) == 0:
        return np.full(len(records), -1, dtype=np.int64)
    found = last_before(key[records], columns.time[records], key[received], columns.time[received])
    rows = np.where(found >= 0, received[found], -1)
    _, group, count = np.unique(rows, return_inverse=True, return_counts=True)
    shared = np.unique(key[records[(rows >= 0) & (count[group.reshape(-1)] > 1)]])
    if len(shared) == 0:
        return rows
    interesting = np.flatnonzero(mine & np.isin(key, shared))
    events: dict[int, list[int]] = {int(one): [] for one in shared}
    for row in interesting.tolist():
        events[int(key[row])].append(row)
    places: dict[int, list[int]] = {int(one): [] for one in shared}
    for place in np.flatnonzero(np.isin(key[records], shared)).tolist():
        places[int(key[records[place]])].append(place)
    for one, own in places.items():
        free = _unended(columns, events[one])
        for place in sorted(own, key=lambda place: -int(records[place])):
            broker = columns.broker[records[place]]
            fitting = [
                row for row in free if row < records[place] and columns.broker[row] == broker
            ]
            if fitting:
                rows[place] = fitting[-1]
                free.remove(fitting[-1])
    return rows


def _unended(columns: TaskColumns, rows: list[int]) -> list[int]:
    """The receptions among the records of one process and task that did not end before the next."""
    open_ones: list[int] = []
    ended = False
    for row in rows:
        event = columns.event[row]
        if event == Event.RECEIVED:
            if ended:
                open_ones.pop()
            ended = False
            open_ones.append(row)
        elif event in _ENDS and open_ones:
            ended = True
    return open_ones


def waiting_since(columns: TaskColumns, rows: Ints) -> Ints:
    """Per reception from JetStream since when the delivery may have waited for its worker, ns.

    A client gets deliveries in the order in which the server sent them, and takes them in that
    order, however late. A consumer that has forgotten what it delivered begins again at a lower
    sequence. So as long as the sequences of first deliveries that a process takes grow, all of
    them may date from before whatever happened to the consumer meanwhile; the first that does not
    grow, and whatever comes after it, was sent later. Before its first record a process was not
    there.
    """
    ledger = columns.ledger
    first_record = np.full(max(1, len(ledger.writers)), -1, dtype=np.int64)
    order = np.arange(len(columns.time))[::-1]
    first_record[ledger.writer[order]] = columns.time[order]  # the earliest record is written last
    firsts = np.flatnonzero(
        columns.where(Event.RECEIVED)
        & (columns.broker == Broker.NATS)
        & (columns.value > 0)
        & (ledger.records["attempt"] <= 1)
    )
    writer = ledger.writer[firsts].astype(np.int64)
    sorting = np.argsort(writer, kind="stable")  # by process, and by time within it
    firsts, writer = firsts[sorting], writer[sorting]
    since_ns = first_record[writer] if len(firsts) else np.zeros(0, dtype=np.int64)
    broken = np.zeros(len(firsts), dtype=bool)
    broken[1:] = (writer[1:] == writer[:-1]) & (
        columns.value[firsts[1:]] <= columns.value[firsts[:-1]]
    )
    since_ns = np.where(broken, columns.time[firsts], since_ns)
    starts = broken.copy()
    starts[:1] = True
    starts[1:] |= writer[1:] != writer[:-1]
    begin = np.maximum.accumulate(np.where(starts, np.arange(len(firsts)), 0))
    since_ns = since_ns[begin] if len(firsts) else since_ns
    found = last_before(ledger.writer[rows].astype(np.int64), rows, writer, firsts)
    known = found >= 0
    since = first_record[ledger.writer[rows]]
    since[known] = since_ns[found[known]]
    return since
