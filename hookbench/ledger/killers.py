"""Which fault a process died of."""

from collections.abc import Sequence

import numpy as np

from hookbench.ledger.columns import Ints, TaskColumns
from hookbench.ledger.model import FaultWindow

__all__ = ["NO_FAULT", "find_killers"]

NO_FAULT = -1
"""Stands where a place in the list of faults is asked for, and there is none."""
_KILLING = frozenset({"kill", "kill_at_step", "restart", "rolling_restart"})
_MANY_AT_ONCE = "rolling_restart"
_OF_ALL = ("workers", "producers")


def find_killers(columns: TaskColumns, faults: Sequence[FaultWindow]) -> Ints:
    """Per writer the place in ``faults`` of the one that it died of; -1 for none.

    The ledger does not say which place of the fleet a process had. Each fault is given, among the
    processes of its role that died and are not another fault's, the one that spoke last before
    the fault's end; a rolling restart all that spoke last in it.
    """
    ledger = columns.ledger
    count = max(1, len(ledger.writers))
    killer = np.full(count, NO_FAULT, dtype=np.int64)
    if not faults or not ledger.crashed:
        return killer
    last_ns = np.zeros(count, dtype=np.int64)
    last_ns[ledger.writer] = columns.time  # records are sorted by time: the last write stays
    died = [name in ledger.crashed for name in ledger.writers]
    order = sorted(range(len(faults)), key=lambda place: faults[place].begin_ns)
    for place in order:
        fault = faults[place]
        role = fault.target.partition("-")[0].removesuffix("s")
        if fault.kind not in _KILLING or role not in {"worker", "producer"}:
            continue
        begin_ns, end_ns = fault.span_ns()
        mine = [
            number
            for number, name in enumerate(ledger.writers)
            if died[number]
            and name.startswith(f"{role}.")
            and killer[number] == NO_FAULT
            and last_ns[number] <= end_ns
        ]
        if fault.kind == _MANY_AT_ONCE or fault.target in _OF_ALL:
            killer[[number for number in mine if last_ns[number] >= begin_ns]] = place
        elif mine:
            killer[max(mine, key=last_ns.__getitem__)] = place
    return killer
