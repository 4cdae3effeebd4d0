"""Why a task was executed again: what explains it, and which fault it is to be named after."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.events import Event
from hookbench.ledger.killers import NO_FAULT, find_killers
from hookbench.ledger.model import FaultWindow
from hookbench.ledger.pairs import Pairs, pair_up
from hookbench.ledger.repeats import Repeats

__all__ = ["Explanation", "explain"]

_STALLING = frozenset({"pause", "slow_handler"})
_SIDE = ("worker-", "workers")


class Explanation(NamedTuple):
    """Why a repeat had to be, per repeat.

    Attributes:
        crash: the process of the execution before died before its acknowledgement.
        lease: its broker delivered the same copy again, under another number, before its
            acknowledgement, and not because its worker gave back what it had done; or its claim
            was another's before that, whichever broker delivered to it.
        failover: its broker delivered the same copy again after a fault that made it forget the
            acknowledgement, or kept it from arriving, and that was not confirmed before.
        fault: place in the list of faults of the one behind it; -1 for none. One behind a repeat
            that is not explained (a confirmed acknowledgement was forgotten, a second copy was
            put) is named as well.
    """

    crash: Bools
    lease: Bools
    failover: Bools
    fault: Ints

    @property
    def any(self) -> Bools:
        """One of the three."""
        some: Bools = self.crash | self.lease | self.failover
        return some


def explain(
    columns: TaskColumns, repeats: Repeats, faults: Sequence[FaultWindow] = ()
) -> Explanation:
    """What explains each repeat: a crash, the end of a lease, or a fault of the broker.

    The acknowledgement of an execution is the first one that its process sent for the task after
    it received it. A repeat that was received after that needs a fault of the same broker:

    - one that makes a broker forget (see ``Reach.undoes``) explains the repeat if it was in effect
      at some time between the acknowledgement and the second delivery;
    - one that holds acknowledgements up (``Reach.holds``) if the acknowledgement was sent while it
      was in effect.

    Without an acknowledgement either one counts from the first delivery on. Where several do, the
    earliest is named.
    """
    count = len(repeats.task)
    none = np.zeros(count, dtype=bool)
    unnamed = np.full(count, NO_FAULT, dtype=np.int64)
    if count == 0:
        return Explanation(crash=none, lease=none, failover=none, fault=unnamed)
    pairs = pair_up(columns, repeats)
    crash = _crashed(columns, repeats, pairs)
    lease = pairs.redelivered | pairs.reclaimed
    lease &= pairs.unconfirmed & ~crash & ~pairs.given_back
    failover, fault = _forgotten(pairs, faults)
    named = [
        (crash, find_killers(columns, faults)[columns.ledger.writer[repeats.before]]),
        (fault != NO_FAULT, fault),
        (lease, _stalled(columns, repeats, pairs, faults)),
        (pairs.other_copy | pairs.maybe_copy, _put_again(columns, repeats, faults)),
    ]
    for mask, places in reversed(named):
        unnamed = np.where(mask & (places != NO_FAULT), places, unnamed)
    return Explanation(crash=crash, lease=lease, failover=failover & ~crash & ~lease, fault=unnamed)


def _crashed(columns: TaskColumns, repeats: Repeats, pairs: Pairs) -> Bools:
    """Whether the process of the execution before died before it acknowledged."""
    ledger = columns.ledger
    last_ns = np.zeros(max(1, len(ledger.writers)), dtype=np.int64)
    last_ns[ledger.writer] = columns.time  # records are sorted by time: the last write stays
    writer = ledger.writer[repeats.before]
    crashed: Bools = (
        columns.writer_died[writer] & (last_ns[writer] <= pairs.again_ns) & pairs.unconfirmed
    )
    return crashed


def _forgotten(pairs: Pairs, faults: Sequence[FaultWindow]) -> tuple[Bools, Ints]:
    """Whether a fault of the broker excuses each repeat, and which one is behind it."""
    excused = np.zeros(len(pairs.again_ns), dtype=bool)
    behind = np.full(len(pairs.again_ns), NO_FAULT, dtype=np.int64)
    same = pairs.other_delivery & ~pairs.other_copy & ~pairs.given_back
    since_ns = np.where(pairs.unconfirmed, pairs.received_ns, pairs.acked_ns)
    for place in sorted(range(len(faults)), key=lambda place: -faults[place].begin_ns):
        fault = faults[place]
        reach = fault.reach
        if not (reach.undoes or reach.holds):
            continue
        begin_ns, end_ns = fault.span_ns()
        here = same & np.isin(pairs.broker, [int(broker) for broker in reach.brokers])
        here &= (begin_ns <= pairs.again_ns) & (end_ns >= since_ns)
        unsure = pairs.confirmed_ns >= begin_ns
        if not reach.undoes:
            here &= unsure & (pairs.unconfirmed | (since_ns >= begin_ns))
        excused |= here & unsure
        behind = np.where(here, place, behind)
    return excused, behind


def _stalled(
    columns: TaskColumns, repeats: Repeats, pairs: Pairs, faults: Sequence[FaultWindow]
) -> Ints:
    """The fault that kept a worker busy, or still, until its lease had ended."""
    found = np.full(len(repeats.task), NO_FAULT, dtype=np.int64)
    writer = columns.ledger.writer[repeats.before]
    for place, fault in enumerate(faults):
        if fault.kind not in _STALLING or not fault.target.startswith(_SIDE):
            continue
        begin_ns, end_ns = fault.span_ns()
        here = (begin_ns <= pairs.again_ns) & (end_ns >= pairs.received_ns)
        if fault.kind == "pause":
            # A process that stands still writes nothing; the edges are those of the signals.
            edge_ns = (end_ns - begin_ns) // 4
            low, high = np.searchsorted(columns.time, [begin_ns + edge_ns, end_ns - edge_ns])
            here &= ~np.isin(writer, np.unique(columns.ledger.writer[low:high]))
        found = np.where(here & (found == NO_FAULT), place, found)
    return found


def _put_again(columns: TaskColumns, repeats: Repeats, faults: Sequence[FaultWindow]) -> Ints:
    """The fault of puts that lasted while the task was put, or put again."""
    found = np.full(len(repeats.task), NO_FAULT, dtype=np.int64)
    outcome = columns.where(Event.PUT_OK) | columns.where(Event.PUT_UNKNOWN)
    outcomes = np.flatnonzero(outcome & np.isin(columns.task, repeats.task))
    task, time, broker = (
        column[outcomes] for column in (columns.task, columns.time, columns.broker)
    )
    for place, fault in enumerate(faults):
        reach = fault.reach
        if not (reach.puts and (reach.undoes or fault.kind in {"pause", "wire", "partition"})):
            continue
        begin_ns, end_ns = fault.span_ns()
        concerned = np.isin(broker, [int(code) for code in reach.brokers])
        here = np.isin(repeats.task, task[concerned & (time >= begin_ns)])
        here &= columns.invoked_ns[repeats.task] <= end_ns
        found = np.where(here & (found == NO_FAULT), place, found)
    return found
