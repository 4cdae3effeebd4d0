"""Which fault made a second copy of a task on one broker."""

from collections.abc import Sequence

import numpy as np

from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.events import Event
from hookbench.ledger.killers import NO_FAULT, find_killers
from hookbench.ledger.model import FaultWindow
from hookbench.ledger.pairs import Pairs
from hookbench.ledger.repeats import Repeats

__all__ = ["put_again"]

_DOUBTFUL = frozenset({"pause", "wire", "partition"})


def put_again(
    columns: TaskColumns, repeats: Repeats, pairs: Pairs, faults: Sequence[FaultWindow]
) -> Ints:
    """The fault of puts that lasted while the task was put, or put again, on the repeat's broker.

    One that sent the very request twice comes before those that only leave a producer in doubt. It
    doubles so many tasks as it has sent twice (``FaultWindow.doubles``), and no more are named
    after it. A put that has no outcome, because its producer died, lasted until then.
    """
    found = np.full(len(repeats.task), NO_FAULT, dtype=np.int64)
    outcome = columns.where(Event.PUT_OK) | columns.where(Event.PUT_UNKNOWN)
    outcomes = np.flatnonzero(outcome & np.isin(columns.task, repeats.task))
    task, time, broker = (
        column[outcomes] for column in (columns.task, columns.time, columns.broker)
    )
    cut_off, died_ns = _cut_off(columns, faults)
    ranked = sorted(range(len(faults)), key=lambda place: faults[place].doubles == 0)
    for place in ranked:
        fault = faults[place]
        reach = fault.reach
        if not (reach.puts and (reach.undoes or fault.kind in _DOUBTFUL)):
            continue
        begin_ns, end_ns = fault.span_ns()
        codes = [int(code) for code in reach.brokers]
        mine = np.isin(broker, codes)
        open_still = cut_off[(died_ns >= begin_ns) & ~np.isin(cut_off, task[mine])]
        lasted = np.concatenate((task[mine & (time >= begin_ns)], open_still))
        here = np.isin(repeats.task, lasted)
        here &= np.isin(pairs.broker, codes) & (pairs.other_copy | pairs.maybe_copy)
        here &= (columns.invoked_ns[repeats.task] <= end_ns) & (found == NO_FAULT)
        if fault.doubles:
            here &= _first_tasks(columns, repeats.task, here, fault.doubles)
        found = np.where(here, place, found)
    return found


def _cut_off(columns: TaskColumns, faults: Sequence[FaultWindow]) -> tuple[Ints, Ints]:
    """Tasks of producers that died, and when: at the end of the fault that they died of.

    Without one it is not known, and no later than their last record counts.
    """
    rows = np.flatnonzero(columns.where(Event.PUT_INVOKED) & columns.died)
    if len(rows) == 0:
        return rows, rows
    ledger = columns.ledger
    died_ns = np.zeros(len(ledger.writers), dtype=np.int64)
    died_ns[ledger.writer] = columns.time  # records are sorted by time: the last write stays
    for writer, place in enumerate(find_killers(columns, faults).tolist()):
        if place != NO_FAULT:
            died_ns[writer] = max(died_ns[writer], faults[place].span_ns()[1])
    return columns.task[rows], died_ns[ledger.writer[rows]]


def _first_tasks(columns: TaskColumns, task: Ints, here: Bools, count: int) -> Bools:
    """The repeats of so many of the tasks that are marked: those put once first, and by time."""
    tasks = np.unique(task[here])
    puts = np.bincount(columns.task[columns.where(Event.PUT_INVOKED)], minlength=columns.count)
    order = np.lexsort((columns.invoked_ns[tasks], puts[tasks] > 1))
    chosen: Bools = np.isin(task, tasks[order[:count]])
    return chosen
