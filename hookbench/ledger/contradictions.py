"""Invariants 3 and 6: nothing unexpected comes out, and no task is delivered beyond its budget."""

import numpy as np

from hookbench.ledger.events import Event
from hookbench.ledger.history import PHASE, History

__all__ = ["check_budget", "check_unexpected"]


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
    """6: no delivery beyond the budget, by the attempt that the delivery itself carried."""
    columns = history.columns
    allowed = history.bounds.max_attempts
    over = columns.where(Event.RECEIVED) & (columns.ledger.records["attempt"] > allowed)
    for step in history.steps:
        here = np.flatnonzero(over & (columns.phase == step.index))
        history.rows[PHASE, step.index].over_budget = history.find(
            6,
            (PHASE, step.index),
            columns.task[here].astype(np.int64),
            f"{{count}} deliveries beyond {allowed} attempts",
        )
