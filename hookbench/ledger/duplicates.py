"""Executions beyond the first of a task, and why they happened."""

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

    What was done by redis and again by jetstream counts for the transition that began to read
    NATS; any other for the phase in which it was done again, or for the transition before it if
    the task was put before that.
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
    replay = (columns.broker[before] == Broker.REDIS) & (columns.broker[again] == Broker.NATS)
    entered = np.array([_entry_into_nats(steps, index) for index in range(len(steps))])
    replay &= entered[step] > 0
    crossed = columns.put_step[task] < step
    for target in steps:
        masks = {
            ("transition", True): replay & (entered[step] == target.index),
            ("transition", False): ~replay & crossed & (step == target.index),
            ("phase", False): ~replay & ~crossed & (step == target.index),
        }
        for (kind, replayed), mask in masks.items():
            if not mask.any():
                continue
            row = rows[kind, target.index]
            row.duplicated += int(mask.sum())
            row.explained += int((mask & explained).sum())
            unexplained = task[mask & ~explained]
            if len(unexplained) == 0:
                continue
            if replayed:
                findings.append(_replay_finding(columns, steps, row, unexplained))
            else:
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


def _entry_into_nats(steps: list[StepPlan], index: int) -> int:
    """The step at which the reading of NATS began that is going on at ``index``; 0 for none."""
    while index > 0 and steps[index].reads_nats and steps[index - 1].reads_nats:
        index -= 1
    return index if steps[index].reads_nats else 0


def _replay_finding(
    columns: TaskColumns, steps: list[StepPlan], row: StepAccount, task: Ints
) -> Finding:
    counts = np.bincount(columns.put_step[task], minlength=len(steps))
    origins = ", ".join(
        f"{count:,} put in {steps[index].phase}" for index, count in enumerate(counts) if count
    )
    return Finding(
        hazard="P5",
        row=row.name,
        count=len(task),
        examples=columns.names(np.unique(task)),
        text=f"deliver-all replayed {len(task):,} tasks on entering {steps[row.step].phase}: done"
        f" by redis before, delivered and done again by jetstream ({origins})",
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
