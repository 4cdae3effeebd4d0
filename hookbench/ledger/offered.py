"""The load as it was meant: tasks by the phase in which they were due."""

import numpy as np

from hookbench.ledger.columns import TaskColumns

__all__ = ["count_offered"]


def count_offered(columns: TaskColumns, planned_starts_ns: list[int]) -> list[int]:
    """Synthetic tasks whose intended time lies in each planned phase, the last one without an end.

    A phase begins for each process at another moment, so tasks around a change are put in the one
    or the other; when they are due follows from scenario and seed alone.
    """
    synthetic = columns.offered & ~columns.pushed
    intended_ns = np.sort(columns.intended_ns[synthetic])
    before = np.searchsorted(intended_ns, np.array(planned_starts_ns, dtype=np.int64))
    counts: list[int] = np.diff([*before, len(intended_ns)]).tolist()
    return counts
