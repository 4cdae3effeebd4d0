"""Findings about executions beyond the first of a task."""

import numpy as np

from hookbench.ledger.columns import Ints, TaskColumns
from hookbench.ledger.model import Finding, StepAccount, StepPlan
from hookbench.ledger.repeats import find_repeats

__all__ = ["find_duplicates"]


def find_duplicates(
    columns: TaskColumns,
    steps: list[StepPlan],
    rows: dict[tuple[str, int], StepAccount],
    findings: list[Finding],
) -> None:
    """Count every repeat in its row; those that no crash explains are findings."""
    repeats = find_repeats(columns, steps)
    other = ~repeats.by_nats & ~repeats.by_redis
    for (kind, index), row in rows.items():
        here = (repeats.step == index) & (repeats.transition == (kind == "transition"))
        row.duplicated = int(here.sum())
        row.explained = int((here & repeats.explained).sum())
        for how, mask in (
            ("nats", repeats.by_nats),
            ("redis", repeats.by_redis),
            ("again", other),
        ):
            task = repeats.task[here & mask & ~repeats.explained]
            if len(task):
                findings.append(_finding(columns, steps, row, task, how))


def _finding(
    columns: TaskColumns, steps: list[StepPlan], row: StepAccount, task: Ints, how: str
) -> Finding:
    counts = np.bincount(columns.put_step[task].clip(0), minlength=len(steps))
    origins = ", ".join(
        f"{count:,} put in {steps[index].phase}" for index, count in enumerate(counts) if count
    )
    now = steps[row.step].phase
    number = f"{len(task):,}"
    if how == "redis":
        hazard = "B2"
        text = (
            f"{number} finished tasks run again on going back to {now}: done by jetstream before,"
            f" their copies in redis delivered and done again ({origins})"
        )
    elif how == "again":
        hazard = "-"
        text = f"{number} tasks done again in {now} without a crash before ({origins})"
    elif any(step.reads_nats for step in steps[: row.step]):
        hazard = "B1"
        text = (
            f"re-entry into {now} replayed {number} tasks: done by redis since NATS was read last,"
            f" delivered and done again by jetstream ({origins})"
        )
    else:
        hazard = "P5"
        text = (
            f"deliver-all replayed {number} tasks on entering {now}: done by redis before,"
            f" delivered and done again by jetstream ({origins})"
        )
    return Finding(
        hazard=hazard,
        row=row.name,
        count=len(task),
        examples=columns.names(np.unique(task)),
        text=text,
    )
