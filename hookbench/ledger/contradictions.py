"""What must not be in a history at all, whatever the queue: invariants 1, 3 and 6."""

import numpy as np

from hookbench.ledger.columns import TaskColumns
from hookbench.ledger.events import Event
from hookbench.ledger.model import Finding, StepAccount, StepPlan

__all__ = ["find_over_budget", "find_unexpected"]

Rows = dict[tuple[str, int], StepAccount]


def find_unexpected(
    columns: TaskColumns, steps: list[StepPlan], rows: Rows, findings: list[Finding]
) -> None:
    """Tasks that came out although nobody put them, and tasks that are done and dead as well."""
    came = columns.where(Event.RECEIVED) | columns.where(Event.DONE)
    came_step = columns.first(came, columns.phase, -1)
    nobodys = columns.real & (came_step >= 0) & ~columns.offered
    both = columns.dead & (columns.done_count > 0)
    texts = (
        (nobodys, came_step, "came out although nobody put them"),
        (both, columns.put_step, "ended twice: done, and a dead letter as well"),
    )
    for mask, step_of, what in texts:
        for step in steps:
            here = mask & (step_of == step.index)
            if not (count := int(here.sum())):
                continue
            row = rows["phase", step.index]
            row.unexpected += count
            findings.append(
                Finding(
                    hazard="-",
                    row=row.name,
                    count=count,
                    text=f"{count:,} tasks {what}",
                    examples=columns.names(here),
                )
            )


def find_over_budget(
    columns: TaskColumns,
    steps: list[StepPlan],
    rows: Rows,
    findings: list[Finding],
    max_attempts: int,
) -> None:
    """Deliveries beyond the budget, by the attempt that the delivery itself carried."""
    records = columns.ledger.records
    over = columns.where(Event.RECEIVED) & (records["attempt"] > max_attempts)
    for step in steps:
        here = np.flatnonzero(over & (columns.phase == step.index))
        if len(here) == 0:
            continue
        row = rows["phase", step.index]
        row.over_budget = len(here)
        findings.append(
            Finding(
                hazard="-",
                row=row.name,
                count=len(here),
                text=f"{len(here):,} deliveries beyond {max_attempts} attempts",
                examples=columns.names(np.unique(columns.task[here])),
            )
        )
