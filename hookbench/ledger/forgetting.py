"""Which fault made a broker deliver again what it had delivered: it forgot, or was not told."""

from collections.abc import Sequence

import numpy as np

from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.killers import NO_FAULT
from hookbench.ledger.model import FaultWindow
from hookbench.ledger.pairs import NEVER_NS, Pairs, next_ns
from hookbench.ledger.search import last_before

__all__ = ["forgotten", "replayed"]

_ANEW = frozenset({"delete_consumer", "recreate_consumer"})
"""After one of these the consumer delivers all again."""


def forgotten(pairs: Pairs, faults: Sequence[FaultWindow], *, put_ns: Ints) -> tuple[Bools, Ints]:
    """Whether a fault of the broker excuses each repeat, and which one is behind it.

    - One that makes a broker forget (see ``Reach.undoes``) explains the repeat if it was in effect
      at some time between the acknowledgement and the second delivery.
    - One that holds acknowledgements up (``Reach.holds``) if the acknowledgement was sent while it
      was in effect.

    Without an acknowledgement either one counts from the first delivery on. A worker takes a
    delivery some time after it was sent, and it may have been sent before the consumer forgot it
    and taken afterwards: a fault of the first kind counts as well if the consumer did forget one
    delivery of the copy (``Pairs.forgotten``), and that one may have waited since before the
    fault. Which of the two that was is not known; the other one came after the beginning.

    Args:
        pairs: the repeats.
        faults: those that fired.
        put_ns: when the task of each repeat was put.
    """
    excused = np.zeros(len(pairs.again_ns), dtype=bool)
    behind = np.full(len(pairs.again_ns), NO_FAULT, dtype=np.int64)
    same = pairs.other_delivery & ~pairs.other_copy & ~pairs.given_back
    since_ns = np.where(pairs.unconfirmed, pairs.received_ns, pairs.acked_ns)
    for place in _by_rank(faults):
        fault = faults[place]
        reach = fault.reach
        if not (reach.undoes or reach.holds):
            continue
        begin_ns, end_ns = fault.span_ns()
        concerned = same & np.isin(pairs.broker, [int(broker) for broker in reach.brokers])
        concerned &= begin_ns <= pairs.again_ns
        here = concerned & (end_ns >= since_ns)
        unsure = pairs.confirmed_ns >= begin_ns
        if not reach.undoes:
            here &= unsure & (pairs.unconfirmed | (since_ns >= begin_ns)) & ~pairs.forgotten
        else:
            waited = pairs.waits_ns <= begin_ns
            waited |= (pairs.again_waits_ns <= begin_ns) & (pairs.received_ns >= begin_ns)
            here |= concerned & pairs.forgotten & waited & (put_ns <= end_ns)
        excused |= here & unsure
        behind = np.where(here, place, behind)
    return excused, behind


def replayed(columns: TaskColumns, pairs: Pairs, faults: Sequence[FaultWindow]) -> Ints:
    """The fault by which JetStream forgot an earlier delivery of the copy that was done again.

    For repeats of an execution of another copy: what was done before was not what the consumer
    forgot. The delivery before of the same copy was, whatever became of it, if the consumer counts
    this one no higher, and a fault that can have done it lasted at some time between the
    acknowledgement of that one and this one.
    """
    behind = np.full(len(pairs.again_ns), NO_FAULT, dtype=np.int64)
    attempt = columns.ledger.records["attempt"]
    received = np.flatnonzero(
        columns.where(Event.RECEIVED) & (columns.broker == Broker.NATS) & (columns.value > 0)
    )
    again = pairs.again_row
    if len(received) == 0 or not faults:
        return behind
    copy = columns.value * columns.count + columns.task
    rows = last_before(copy[again], again - 1, copy[received], received)
    found = (again >= 0) & (rows >= 0)
    found &= (columns.broker[again] == Broker.NATS) & (columns.value[again] > 0)
    prior = received[rows]
    found &= attempt[again] <= attempt[prior]
    if not found.any():
        return behind
    mine = np.isin(columns.task, columns.task[again[found]])
    key = columns.ledger.writer.astype(np.int64) * columns.count + columns.task
    prior_ns = columns.time[prior]
    acked_ns = next_ns(columns, mine, key, prior, prior_ns, Event.ACK_SENT)
    since_ns = np.where(acked_ns < NEVER_NS, np.minimum(acked_ns, columns.time[again]), prior_ns)
    for place in _by_rank(faults):
        fault = faults[place]
        if not (fault.reach.undoes and Broker.NATS in fault.reach.brokers):
            continue
        begin_ns, end_ns = fault.span_ns()
        here = found & (begin_ns <= columns.time[again]) & (end_ns >= since_ns)
        behind = np.where(here, place, behind)
    return behind


def _by_rank(faults: Sequence[FaultWindow]) -> list[int]:
    """Places of the faults, the one last that is to be named where several can have done it.

    It is the earliest. But a consumer that is made anew delivers all again, which others only may
    lead to, and what it delivers is the doing of the last one that made it so.
    """
    return sorted(
        range(len(faults)),
        key=lambda place: (
            (1, faults[place].begin_ns)
            if faults[place].kind in _ANEW
            else (0, -faults[place].begin_ns)
        ),
    )
