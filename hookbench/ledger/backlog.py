"""How many accepted tasks wait for their end, over time."""

import numpy as np

from hookbench.clock import NS_PER_MS, NS_PER_S
from hookbench.ledger.columns import Ints, TaskColumns

__all__ = ["backlog_at", "backlog_growth"]

_EVERY_NS = 50 * NS_PER_MS


def backlog_at(columns: TaskColumns, moments_ns: Ints) -> Ints:
    """Tasks that were accepted and had not ended at these times.

    Args:
        columns: of the ledger.
        moments_ns: monotonic, any shape.
    """
    accepted = np.sort(columns.accepted_ns[columns.accepted])
    ended = np.sort(columns.done_ns[columns.accepted & (columns.done_count > 0)])
    return np.searchsorted(accepted, moments_ns, "right") - np.searchsorted(
        ended, moments_ns, "right"
    )


def backlog_growth(columns: TaskColumns, begin_ns: int, end_ns: int) -> float:
    """The slope of the backlog between two times, tasks per second, by least squares."""
    moments_ns = np.arange(begin_ns, end_ns, _EVERY_NS, dtype=np.int64)
    if len(moments_ns) < 2:  # noqa: PLR2004 - a slope needs two points
        return 0.0
    seconds = (moments_ns - begin_ns) / NS_PER_S
    return float(np.polyfit(seconds, backlog_at(columns, moments_ns), 1)[0])
