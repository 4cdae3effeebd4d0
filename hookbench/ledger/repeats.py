"""Executions beyond the first of a task: what they repeat, and where they count."""

from typing import NamedTuple

import numpy as np

from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.model import StepPlan
from hookbench.ledger.search import first_after, last_before

__all__ = ["Explanation", "Repeats", "explain", "find_repeats"]


class Repeats(NamedTuple):
    """One entry per repeat, in the order of tasks and, within a task, of time.

    Attributes:
        order: records of all executions, in that order.
        position: where in ``order`` the repeats stand.
        before, again: the record of the execution before, and of the repeat.
        task: the task.
        by_nats: done by redis before and by jetstream now, in a step that reads NATS.
        by_redis: done by jetstream before and by redis now, in a step that reads Redis alone.
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
    step: Ints
    transition: Bools

    def within(self, kind: str, index: int) -> Bools:
        """Those that count for a row: ``phase`` or ``transition``, and its index."""
        here: Bools = (self.step == index) & (self.transition == (kind == "transition"))
        return here


class Explanation(NamedTuple):
    """Why a repeat had to be, per repeat.

    Attributes:
        crash: the process of the execution before died before its acknowledgement.
        lease: its broker delivered the same copy again, under another number, before its
            acknowledgement, and not because its worker gave back what it had done.
    """

    crash: Bools
    lease: Bools

    @property
    def any(self) -> Bools:
        """Either."""
        either: Bools = self.crash | self.lease
        return either


def find_repeats(
    columns: TaskColumns, steps: list[StepPlan], records: Ints | None = None
) -> Repeats:
    """Every repeat of a run.

    What was done by redis and again by jetstream, or the other way round, counts for the
    transition that began to read the second one. Any other counts for the step in which it was
    done again, or for the transition into it if the task was put before that.

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
    into_nats = _entries([item.reads_nats for item in steps])[step]
    into_redis = _entries([item.reads_redis and not item.reads_nats for item in steps])[step]
    by_nats = (first == Broker.REDIS) & (second == Broker.NATS) & (into_nats > 0)
    by_redis = (first == Broker.NATS) & (second == Broker.REDIS) & (into_redis > 0)
    return Repeats(
        order=order,
        position=position,
        before=before,
        again=again,
        task=task,
        by_nats=by_nats,
        by_redis=by_redis,
        step=np.where(by_nats, into_nats, np.where(by_redis, into_redis, step)),
        transition=by_nats | by_redis | (columns.put_step[task] < step),
    )


def explain(columns: TaskColumns, repeats: Repeats) -> Explanation:
    """Whether each repeat follows a crash, or the end of a lease, before an acknowledgement.

    The acknowledgement of an execution is the first one that its process sent for the task after
    it received it. A repeat that was received after that is not explained.
    """
    if len(repeats.task) == 0:
        none = np.zeros(0, dtype=bool)
        return Explanation(crash=none, lease=none)
    ledger = columns.ledger
    before, again = repeats.before, repeats.again
    key = ledger.writer.astype(np.int64) * columns.count + columns.task
    mine = np.isin(columns.task, repeats.task)
    received = np.flatnonzero(mine & columns.where(Event.RECEIVED))
    acked = np.flatnonzero(mine & columns.where(Event.ACK_SENT))
    none_ns = np.iinfo(np.int64).max

    def received_ns(records: Ints) -> Ints:
        rows = last_before(
            key[records], columns.time[records], key[received], columns.time[received]
        )
        found = columns.time[received[rows]] if len(received) else columns.time[records]
        times: Ints = np.where(rows >= 0, found, columns.time[records])
        return times

    again_ns = received_ns(again)
    rows = first_after(key[before], received_ns(before), key[acked], columns.time[acked])
    acked_ns = np.where(rows >= 0, columns.time[acked[rows]], none_ns) if len(acked) else none_ns
    unconfirmed = acked_ns > again_ns
    dead = np.array([name in ledger.crashed for name in ledger.writers] or [False], dtype=bool)
    last_ns = np.zeros(max(1, len(ledger.writers)), dtype=np.int64)
    last_ns[ledger.writer] = columns.time  # records are sorted by time: the last write stays
    writer = ledger.writer[before]
    crash = dead[writer] & (last_ns[writer] <= again_ns) & unconfirmed
    # Another delivery of one copy has another number; two executions of one delivery have not.
    attempt = ledger.records["attempt"]
    redelivered = columns.broker[before] == columns.broker[again]
    redelivered &= attempt[before] != attempt[again]
    given_back = _given_back_when_done(columns, mine, key, before) < again_ns
    lease = redelivered & unconfirmed & ~crash & ~given_back
    return Explanation(crash=crash, lease=lease)


def _given_back_when_done(columns: TaskColumns, mine: Bools, key: Ints, before: Ints) -> Ints:
    """When the process of each execution gave the task back after it was done; never: the end.

    A failed execution is given back as well, but then it is not done.
    """
    never_ns = np.iinfo(np.int64).max
    moments = columns.time[before].astype(np.int64)
    for event in (Event.DONE, Event.NAK):
        records = np.flatnonzero(mine & columns.where(event))
        if len(records) == 0:
            return np.full(len(before), never_ns, dtype=np.int64)
        rows = first_after(key[before], moments, key[records], columns.time[records])
        moments = np.where(rows >= 0, columns.time[records[rows]], never_ns)
    return moments


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
