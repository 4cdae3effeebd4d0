"""An execution and the one that repeats it: what lies between the two."""

from typing import NamedTuple

import numpy as np

from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.repeats import Repeats
from hookbench.ledger.search import first_after, last_before

__all__ = ["NEVER_NS", "Pairs", "pair_up"]

NEVER_NS = np.iinfo(np.int64).max


class Pairs(NamedTuple):
    """One entry per repeat; times in monotonic ns, ``NEVER_NS`` for never.

    Attributes:
        broker: that of the execution before.
        received_ns: when the execution before was received.
        again_ns: when the repeat was taken up: claimed, or received where nothing is claimed.
        acked_ns: when the process of the execution before sent its acknowledgement.
        confirmed_ns: when that was confirmed.
        unconfirmed: no acknowledgement was sent before the repeat was received.
        reclaimed: the task was claimed for both, and the authority counts two attempts: the
            claim of the execution before had ended without a word, or in a failure.
        other_delivery: of the same broker, and not the same delivery worked on twice.
        redelivered: of the same broker, and the broker says so: it has another number.
        other_copy: there is a second copy on the same broker, from a second put: another number
            in the stream, or a put beyond the first where the broker has no numbers.
        maybe_copy: another delivery that the broker counts as a first one, without such numbers.
        given_back: its process gave the task back after it was done, before the repeat.
    """

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


def pair_up(columns: TaskColumns, repeats: Repeats) -> Pairs:
    """What lies between each repeat and the execution before it.

    The acknowledgement of an execution is the first one that its process sent for the task after
    it received it.
    """
    before, again = repeats.before, repeats.again
    key = columns.ledger.writer.astype(np.int64) * columns.count + columns.task
    mine = np.isin(columns.task, repeats.task)
    received = np.flatnonzero(mine & columns.where(Event.RECEIVED))

    def reception(records: Ints) -> tuple[Ints, Ints]:
        """Row of the reception of each execution, -1 for none, and its time or the record's."""
        rows = last_before(
            key[records], columns.time[records], key[received], columns.time[received]
        )
        found = received[rows] if len(received) else records
        rows = np.where(rows >= 0, found, -1)
        return rows, np.where(rows >= 0, columns.time[found], columns.time[records])

    before_row, received_ns = reception(before)
    again_row, again_ns = reception(again)
    claimed_before = _claimed_ns(columns, mine, key, before, received_ns)
    claimed_again = _claimed_ns(columns, mine, key, again, again_ns)
    again_ns = np.where(claimed_again >= 0, claimed_again, again_ns)
    acked_ns = _next_ns(columns, mine, key, before, received_ns, Event.ACK_SENT)
    confirmed_ns = _next_ns(columns, mine, key, before, received_ns, Event.ACK_CONFIRMED)
    done_ns = columns.time[before].astype(np.int64)
    for event in (Event.DONE, Event.NAK):
        done_ns = _next_ns(columns, mine, key, before, done_ns, event)
    attempt = columns.ledger.records["attempt"]
    same_broker = columns.broker[before] == columns.broker[again]
    number, number_again = columns.value[before_row], columns.value[again_row]
    known = (before_row >= 0) & (again_row >= 0)
    puts = np.bincount(columns.task[columns.where(Event.PUT_INVOKED)], minlength=columns.count)
    numbered = known & (columns.broker[before] == Broker.NATS) & (number > 0) & (number_again > 0)
    second = np.where(numbered, number != number_again, puts[repeats.task] > 1)
    other = same_broker & ((before_row != again_row) | ~known)
    renumbered = attempt[before] != attempt[again]
    redelivered = same_broker & renumbered
    return Pairs(
        broker=columns.broker[before],
        received_ns=received_ns,
        again_ns=again_ns,
        acked_ns=acked_ns,
        confirmed_ns=confirmed_ns,
        unconfirmed=acked_ns > again_ns,
        reclaimed=(claimed_before >= 0) & (claimed_again >= 0) & renumbered,
        other_delivery=other,
        redelivered=redelivered,
        other_copy=same_broker & second,
        maybe_copy=other & ~redelivered & ~numbered,
        given_back=done_ns < again_ns,
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


def _next_ns(
    columns: TaskColumns, mine: Bools, key: Ints, records: Ints, since_ns: Ints, event: Event
) -> Ints:
    """When the process of each record recorded an event of its task next; never: ``NEVER_NS``."""
    found = np.flatnonzero(mine & columns.where(event))
    if len(found) == 0:
        return np.full(len(records), NEVER_NS, dtype=np.int64)
    rows = first_after(key[records], since_ns, key[found], columns.time[found])
    times: Ints = np.where(rows >= 0, columns.time[found[rows]], NEVER_NS)
    return times
