"""Executions beyond the first of a task, and why they happened."""

from typing import NamedTuple

import numpy as np

from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.model import Finding, StepAccount, StepPlan

__all__ = ["find_duplicates"]


def find_duplicates(
    columns: TaskColumns,
    steps: list[StepPlan],
    rows: dict[tuple[str, int], StepAccount],
    findings: list[Finding],
) -> None:
    """Executions beyond the first of a task.

    What was done by redis and again by jetstream, or the other way round, counts for the
    transition that began to read the second one. Any other counts for the phase in which it was
    done again, or for the transition before it if the task was put before that.
    """
    done = np.flatnonzero(columns.where(Event.DONE))
    if len(done) == 0:
        return
    order = done[np.lexsort((columns.time[done], columns.task[done]))]
    tasks = columns.task[order]
    extra = np.flatnonzero(tasks[1:] == tasks[:-1]) + 1
    if len(extra) == 0:
        return
    before, again = order[extra - 1], order[extra]
    task = columns.task[again]
    explained = _explained(columns, before)
    step = columns.phase[again]
    changes = _changes_of_broker(columns, steps, before, again)
    crossed = columns.put_step[task] < step
    other = np.ones(len(task), dtype=bool)
    for change in changes:
        other &= ~change.mask
        for index in np.unique(change.entered[change.mask]).tolist():
            row = rows["transition", index]
            mask = change.mask & (change.entered == index)
            unexplained = _count(row, mask, explained, task)
            if len(unexplained):
                findings.append(_change_finding(columns, steps, row, unexplained, change))
    for target in steps:
        for kind, side in (("transition", crossed), ("phase", ~crossed)):
            mask = other & side & (step == target.index)
            if not mask.any():
                continue
            row = rows[kind, target.index]
            unexplained = _count(row, mask, explained, task)
            if len(unexplained):
                findings.append(
                    Finding(
                        hazard="-",
                        row=row.name,
                        count=len(unexplained),
                        examples=columns.names(np.unique(unexplained)),
                        text=f"{len(unexplained):,} tasks done again in {steps[row.step].phase}"
                        " without a crash before",
                    )
                )


def _count(row: StepAccount, mask: Bools, explained: Bools, task: Ints) -> Ints:
    """Add repeats to a row; the tasks of those that no crash explains."""
    row.duplicated += int(mask.sum())
    row.explained += int((mask & explained).sum())
    return task[mask & ~explained]


class _Change(NamedTuple):
    """Repeats that another broker's copy caused, and the step at which it began to be read."""

    mask: Bools
    entered: Ints
    how: str


def _changes_of_broker(
    columns: TaskColumns, steps: list[StepPlan], before: Ints, again: Ints
) -> list[_Change]:
    """Done by redis and again by jetstream, and the other way round."""
    step = columns.phase[again]
    changes = []
    for first, second, reads, how in (
        (Broker.REDIS, Broker.NATS, [item.reads_nats for item in steps], "jetstream"),
        (
            Broker.NATS,
            Broker.REDIS,
            [item.reads_redis and not item.reads_nats for item in steps],
            "redis",
        ),
    ):
        entries = np.array([_entry(reads, index) for index in range(len(steps))])
        entered = entries[step]
        mask = (columns.broker[before] == first) & (columns.broker[again] == second)
        changes.append(_Change(mask & (entered > 0), entered, how))
    return changes


def _entry(reads: list[bool], index: int) -> int:
    """The step at which the reading began that is going on at ``index``; 0 for none."""
    while index > 0 and reads[index] and reads[index - 1]:
        index -= 1
    return index if reads[index] else 0


def _change_finding(
    columns: TaskColumns, steps: list[StepPlan], row: StepAccount, task: Ints, change: _Change
) -> Finding:
    counts = np.bincount(columns.put_step[task], minlength=len(steps))
    origins = ", ".join(
        f"{count:,} put in {steps[index].phase}" for index, count in enumerate(counts) if count
    )
    now = steps[row.step].phase
    number = f"{len(task):,}"
    if change.how == "redis":
        hazard = "B2"
        text = (
            f"{number} finished tasks run again on going back to {now}: done by jetstream before,"
            f" their copies in redis delivered and done again ({origins})"
        )
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


def _explained(columns: TaskColumns, before: Ints) -> Bools:
    """Whether the earlier execution's worker died before its acknowledgement was recorded."""
    ledger = columns.ledger
    dead_writers = {row for row, name in enumerate(ledger.writers) if name in ledger.crashed}
    acks = np.flatnonzero(columns.where(Event.ACK_SENT))
    acked = set(zip(ledger.writer[acks].tolist(), columns.task[acks].tolist(), strict=True))
    return np.array(
        [
            writer in dead_writers and (writer, task) not in acked
            for writer, task in zip(
                ledger.writer[before].tolist(), columns.task[before].tolist(), strict=True
            )
        ],
        dtype=bool,
    )
