"""Invariant 7: the order of the tasks of one repository."""

import numpy as np

from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.events import Event
from hookbench.ledger.history import PHASE, History, NotCheckedError

__all__ = ["check_order", "find_overtaken"]


def check_order(history: History) -> None:
    """7: inversions are counted; more of them than the bound break it.

    Raises:
        NotCheckedError: the ledger has no repositories (schema 1).
    """
    columns = history.columns
    if columns.offered.any() and not (columns.repository != 0).any():
        raise NotCheckedError("the ledger does not say which repository a task is for")
    overtaken = find_overtaken(columns)
    started_step = columns.first(columns.where(Event.STARTED), columns.phase, -1)
    allowed = history.bounds.max_inversions
    for step in history.steps:
        here = overtaken & (started_step == step.index)
        row = history.rows[PHASE, step.index]
        row.inverted = int(here.sum())
        if allowed is not None and row.inverted > allowed:
            history.find(
                7,
                (PHASE, step.index),
                here,
                f"{{count}} tasks started after one of their repository that was put later"
                f" (allowed: {allowed})",
                hazard="P11",
            )


def find_overtaken(columns: TaskColumns) -> Bools:
    """Tasks that were first started after a task of their repository that was put later.

    Later means that its put began after this one was acknowledged to its caller; two puts at the
    same time have no order. Repeats do not count: they are duplicates.
    """
    started_ns = columns.first(columns.where(Event.STARTED), columns.time, 0)
    known = columns.accepted & (started_ns > 0) & (columns.repository != 0)
    overtaken = np.zeros(columns.count, dtype=bool)
    rows: Ints = np.flatnonzero(known)
    if len(rows) == 0:
        return overtaken
    rows = rows[np.lexsort((started_ns[rows], columns.repository[rows]))]
    group = np.cumsum(np.diff(columns.repository[rows], prepend=columns.repository[rows[0]]) != 0)
    # The latest put among those started before, per repository: a maximum over ranks, which a
    # repository's number is put in front of, so that one never reaches into the next.
    by_put = np.argsort(columns.invoked_ns[rows], kind="stable")
    rank = np.empty(len(rows), dtype=np.int64)
    rank[by_put] = np.arange(len(rows))
    highest = np.maximum.accumulate(group * len(rows) + rank)
    before = highest[:-1]
    same = before // len(rows) == group[1:]
    latest_put_ns = columns.invoked_ns[rows][by_put[before % len(rows)]]
    late = same & (latest_put_ns > columns.accepted_ns[rows[1:]])
    overtaken[rows[1:][late]] = True
    return overtaken
