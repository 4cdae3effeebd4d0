"""An execution and the one that repeats it: what lies between the two."""

from typing import NamedTuple

import numpy as np

from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.receptions import find_receptions, waiting_since
from hookbench.ledger.repeats import Repeats
from hookbench.ledger.search import first_after, last_before

__all__ = ["NEVER_NS", "Pairs", "next_ns", "pair_up"]

NEVER_NS = np.iinfo(np.int64).max


class Pairs(NamedTuple):
    """One entry per repeat; times in monotonic ns, ``NEVER_NS`` for never.

    Of the two executions the *first* is the one whose delivery its broker sent first. As a rule it
    was done first as well; but a worker that stood still may be done with it, or even take it up,
    after somebody else was with the one that was sent later.

    Attributes:
        first: record of the first execution.
        again_row: row of the reception of the other one, -1 for none.
        broker: that of the first one.
        received_ns: when the first one was received.
        again_ns: when the other one was taken up: claimed, or received where nothing is claimed.
        acked_ns: when the process of the first one sent its acknowledgement.
        confirmed_ns: when that was confirmed.
        unconfirmed: no acknowledgement was sent before the other one was received.
        reclaimed: the task was claimed for both, and the authority counts two attempts: the
            claim of the first one had ended without a word, or in a failure.
        other_delivery: of the same broker, and not the same delivery worked on twice.
        redelivered: of the same broker, and the broker says so: it has another number.
        other_copy: there is a second copy on the same broker, from a second put: another number
            in the stream, or a put beyond the first where the broker has no numbers.
        maybe_copy: another delivery that the broker counts as a first one, without such numbers.
        given_back: its process gave the task back after it was done, before the repeat, and not
            because it was delivered once more and failed then.
        forgotten: both are of one copy in the stream, and the consumer counts the later one no
            higher: it does not know of the first.
        waits_ns, again_waits_ns: since when the two deliveries may have waited for their workers,
            where they are ``forgotten``, see ``waiting_since``; ``NEVER_NS`` otherwise.
    """

    first: Ints
    again_row: Ints
    broker: Ints
    received_ns: Ints
    again_ns: Ints
    acked_ns: Ints
    confirmed_ns: Ints
    unconfirmed: Bools
    reclaimed: Bools
    other_delivery: Bools
    redelivered: Bools
    other_copy: Bools
    maybe_copy: Bools
    given_back: Bools
    forgotten: Bools
    waits_ns: Ints
    again_waits_ns: Ints


class _Sides(NamedTuple):
    """Two executions per repeat, in the order of their deliveries, each with its reception."""

    first: Ints
    again: Ints
    first_row: Ints
    again_row: Ints
    numbered: Bools
    first_waits_ns: Ints
    again_waits_ns: Ints


def pair_up(columns: TaskColumns, repeats: Repeats) -> Pairs:
    """What lies between each repeat and the execution before it.

    The acknowledgement of an execution is the first one that its process sent for the task after
    it received it.
    """
    key = columns.ledger.writer.astype(np.int64) * columns.count + columns.task
    mine = np.isin(columns.task, repeats.task)
    sides = _in_order(columns, repeats, mine, key)
    first, again = sides.first, sides.again

    def received(records: Ints, rows: Ints) -> Ints:
        """When each execution was received; the time of its record for one that never was."""
        times: Ints = np.where(rows >= 0, columns.time[rows], columns.time[records])
        return times

    received_ns = received(first, sides.first_row)
    again_ns = received(again, sides.again_row)
    claimed_first = _claimed_ns(columns, mine, key, first, received_ns)
    claimed_again = _claimed_ns(columns, mine, key, again, again_ns)
    again_ns = np.where(claimed_again >= 0, claimed_again, again_ns)
    acked_ns = next_ns(columns, mine, key, first, received_ns, Event.ACK_SENT)
    confirmed_ns = next_ns(columns, mine, key, first, received_ns, Event.ACK_CONFIRMED)
    done_ns = next_ns(columns, mine, key, first, columns.time[first].astype(np.int64), Event.DONE)
    back_ns, taken_ns = (
        next_ns(columns, mine, key, first, done_ns, event) for event in (Event.NAK, Event.RECEIVED)
    )
    attempt = columns.ledger.records["attempt"]
    same_broker = columns.broker[first] == columns.broker[again]
    known = (sides.first_row >= 0) & (sides.again_row >= 0)
    puts = np.bincount(columns.task[columns.where(Event.PUT_INVOKED)], minlength=columns.count)
    numbers = columns.value[sides.first_row] != columns.value[sides.again_row]
    second = np.where(sides.numbered, numbers, puts[repeats.task] > 1)
    other = same_broker & ((sides.first_row != sides.again_row) | ~known)
    renumbered = attempt[first] != attempt[again]
    redelivered = same_broker & renumbered
    forgotten = other & sides.numbered & ~numbers
    forgotten &= attempt[sides.again_row] <= attempt[sides.first_row]
    return Pairs(
        first=first,
        again_row=sides.again_row,
        broker=columns.broker[first],
        received_ns=np.minimum(received_ns, again_ns),
        again_ns=again_ns,
        acked_ns=acked_ns,
        confirmed_ns=confirmed_ns,
        unconfirmed=acked_ns > again_ns,
        reclaimed=(claimed_first >= 0) & (claimed_again >= 0) & renumbered,
        other_delivery=other,
        redelivered=redelivered,
        other_copy=same_broker & second,
        maybe_copy=other & ~redelivered & ~sides.numbered,
        given_back=back_ns < np.minimum(again_ns, taken_ns),
        forgotten=forgotten,
        waits_ns=np.where(forgotten, sides.first_waits_ns, NEVER_NS),
        again_waits_ns=np.where(forgotten, sides.again_waits_ns, NEVER_NS),
    )


def _in_order(columns: TaskColumns, repeats: Repeats, mine: Bools, key: Ints) -> _Sides:
    """The two executions of each repeat, the one whose delivery was sent first in front.

    Deliveries of one broker are in the order in which they were received. A consumer that counts
    deliveries says better: of one copy, the one with the lower number is the earlier, if its
    worker can have had it before the other one was received and did not get it from a consumer
    that had begun anew.
    """
    before, again = repeats.before, repeats.again
    executions = np.union1d(before, again)
    rows = find_receptions(columns, mine, key, executions)
    before_row = rows[np.searchsorted(executions, before)]
    again_row = rows[np.searchsorted(executions, again)]
    known = (before_row >= 0) & (again_row >= 0) & (columns.broker[before] == columns.broker[again])
    number, number_again = columns.value[before_row], columns.value[again_row]
    numbered = known & (columns.broker[before] == Broker.NATS) & (number > 0) & (number_again > 0)
    attempt = columns.ledger.records["attempt"]
    count = len(before)
    waits_ns = waiting_since(columns, np.concatenate((before_row, again_row)))
    lower, lower_again = (
        numbered
        & (number == number_again)
        & (attempt[one] < attempt[other])
        & (since_ns <= columns.time[other])
        for one, other, since_ns in (
            (before_row, again_row, waits_ns[:count]),
            (again_row, before_row, waits_ns[count:]),
        )
    )
    swapped = known & ~lower & (lower_again | (again_row < before_row))
    return _Sides(
        first=np.where(swapped, again, before),
        again=np.where(swapped, before, again),
        first_row=np.where(swapped, again_row, before_row),
        again_row=np.where(swapped, before_row, again_row),
        numbered=numbered,
        first_waits_ns=np.where(swapped, waits_ns[count:], waits_ns[:count]),
        again_waits_ns=np.where(swapped, waits_ns[:count], waits_ns[count:]),
    )


def _claimed_ns(
    columns: TaskColumns, mine: Bools, key: Ints, records: Ints, since_ns: Ints
) -> Ints:
    """When the process of each record had last claimed its task since then; -1 for not at all."""
    found = np.flatnonzero(mine & columns.where(Event.CLAIMED))
    if len(found) == 0:
        return np.full(len(records), -1, dtype=np.int64)
    rows = last_before(key[records], columns.time[records], key[found], columns.time[found])
    times = columns.time[found[rows]]
    claimed: Ints = np.where((rows >= 0) & (times >= since_ns), times, -1)
    return claimed


def next_ns(
    columns: TaskColumns, mine: Bools, key: Ints, records: Ints, since_ns: Ints, event: Event
) -> Ints:
    """When the process of each record recorded an event of its task next; never: ``NEVER_NS``."""
    found = np.flatnonzero(mine & columns.where(event))
    if len(found) == 0:
        return np.full(len(records), NEVER_NS, dtype=np.int64)
    rows = first_after(key[records], since_ns, key[found], columns.time[found])
    times: Ints = np.where(rows >= 0, columns.time[found[rows]], NEVER_NS)
    return times
