"""Executions beyond the first of a task: what they repeat, and where they count."""

from typing import NamedTuple

import numpy as np

from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.model import StepPlan

__all__ = ["Repeats", "find_repeats"]


class Repeats(NamedTuple):
    """One entry per repeat, in the order of tasks and, within a task, of time.

    Attributes:
        order: records of all executions, in that order.
        position: where in ``order`` the repeats stand.
        before, again: the record of the execution before, and of the repeat.
        task: the task.
        by_nats: done by redis before and by jetstream now, since a step that began to read NATS.
        by_redis: done by jetstream before and by redis now, in a step that reads Redis alone.
        by_fallback: done by jetstream before and by redis now, in any other step.
        after_fallback: done by redis before and by jetstream now, where NATS has been read since
            the run began: only a fallback, or a worker of a phase before, takes from redis there.
        step: the step that the repeat counts for.
        transition: whether it counts for the change into that step, or for the step itself.
    """

    order: Ints
    position: Ints
    before: Ints
    again: Ints
    task: Ints
    by_nats: Bools
    by_redis: Bools
    by_fallback: Bools
    after_fallback: Bools
    step: Ints
    transition: Bools

    @property
    def of_both(self) -> Bools:
        """Those of the copies of both brokers, in one of the four ways above."""
        both: Bools = self.by_nats | self.by_redis | self.by_fallback | self.after_fallback
        return both

    def within(self, kind: str, index: int) -> Bools:
        """Those that count for a row: ``phase`` or ``transition``, and its index."""
        here: Bools = (self.step == index) & (self.transition == (kind == "transition"))
        return here


def find_repeats(
    columns: TaskColumns, steps: list[StepPlan], records: Ints | None = None
) -> Repeats:
    """Every repeat of a run.

    What was done by redis and again by jetstream, or the other way round, counts for the
    transition that began to read the second one, unless it was a fallback. Any other counts for
    the step in which it was done again, or for the transition into it if the task was put before
    that.

    Args:
        columns: the ledger.
        steps: the timeline.
        records: rows of the records that stand for the executions; those that are done if left
            out, and any others (deliveries, say) in the same way.
    """
    done = np.flatnonzero(columns.where(Event.DONE)) if records is None else records
    order = done[np.lexsort((columns.time[done], columns.task[done]))]
    tasks = columns.task[order]
    position = np.flatnonzero(tasks[1:] == tasks[:-1]) + 1
    before, again = order[position - 1], order[position]
    task = columns.task[again]
    step = columns.phase[again]
    first, second = columns.broker[before], columns.broker[again]
    into_nats = _last_entries([item.reads_nats for item in steps])[step]
    into_redis = _entries([item.reads_redis and not item.reads_nats for item in steps])[step]
    by_nats = (first == Broker.REDIS) & (second == Broker.NATS)
    by_redis = (first == Broker.NATS) & (second == Broker.REDIS)
    # Not only while reads fall back: a read goes on into the next phase, and a worker may be late.
    by_fallback = by_redis & (into_redis == 0)
    after_fallback = by_nats & (into_nats == 0)
    by_nats &= into_nats > 0
    by_redis &= into_redis > 0
    return Repeats(
        order=order,
        position=position,
        before=before,
        again=again,
        task=task,
        by_nats=by_nats,
        by_redis=by_redis,
        by_fallback=by_fallback,
        after_fallback=after_fallback,
        step=np.where(by_nats, into_nats, np.where(by_redis, into_redis, step)),
        transition=by_nats | by_redis | (columns.put_step[task] < step),
    )


def _entries(reads: list[bool]) -> Ints:
    """Per step the one at which the reading began that goes on in it; 0 for none."""
    entry = 0
    entries = []
    for index, now in enumerate(reads):
        if not now:
            entry = 0
        elif index and not reads[index - 1]:
            entry = index
        entries.append(entry)
    return np.array(entries or [0], dtype=np.int64)


def _last_entries(reads: list[bool]) -> Ints:
    """As ``_entries``, and after a reading its own entry: a worker may be late. -1 before any."""
    entry = -1
    entries = []
    for index, now in enumerate(reads):
        if now and (index == 0 or not reads[index - 1]):
            entry = index
        entries.append(entry)
    return np.array(entries or [-1], dtype=np.int64)
