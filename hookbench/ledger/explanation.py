"""Why a task was executed again: what explains it, and which fault it is to be named after."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.copies import put_again
from hookbench.ledger.forgetting import forgotten, replayed
from hookbench.ledger.killers import NO_FAULT, find_killers
from hookbench.ledger.model import FaultWindow
from hookbench.ledger.pairs import Pairs, pair_up
from hookbench.ledger.repeats import Repeats
from hookbench.ledger.rollbacks import rolled_back

__all__ = ["Explanation", "explain"]

_STALLING = frozenset({"pause", "slow_handler"})
_SIDE = ("worker-", "workers")
_CATCH_UP_NS = 500_000_000
"""After it stood still a process takes what came meanwhile within it."""


class Explanation(NamedTuple):
    """Why a repeat had to be, per repeat.

    Attributes:
        crash: the process of the execution before died before its acknowledgement.
        lease: its broker delivered the same copy again, under another number, before its
            acknowledgement, and not because its worker gave back what it had done; or its claim
            was another's before that, whichever broker delivered to it. A process that stood still
            takes both deliveries when it goes on, and the later one after its acknowledgement of
            the first, which comes too late.
        failover: its broker delivered the same copy again after a fault that made it forget the
            acknowledgement, or kept it from arriving, and that was not confirmed before.
        fault: place in the list of faults of the one behind it; -1 for none. One behind a repeat
            that is not explained (a confirmed acknowledgement was forgotten, a second copy was
            put, a power cut took the record of the end) is named as well.
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
    it received it. A repeat that was received after that needs a fault of the same broker, see
    ``forgotten``. One that no fault explains is named all the same after the fault that made its
    broker deliver that copy once more, see ``replayed``, or made a second copy, see ``put_again``,
    or took back what was recorded of it, see ``rolled_back``.
    """
    count = len(repeats.task)
    none = np.zeros(count, dtype=bool)
    unnamed = np.full(count, NO_FAULT, dtype=np.int64)
    if count == 0:
        return Explanation(crash=none, lease=none, failover=none, fault=unnamed)
    pairs = pair_up(columns, repeats)
    crash = _crashed(columns, pairs)
    lease = pairs.redelivered | pairs.reclaimed
    slept = _slept(columns, pairs, faults)
    lease &= (pairs.unconfirmed | (slept != NO_FAULT)) & ~crash & ~pairs.given_back
    failover, fault = forgotten(pairs, faults, put_ns=columns.invoked_ns[repeats.task])
    named = [
        (crash, find_killers(columns, faults)[columns.ledger.writer[pairs.first]]),
        (fault != NO_FAULT, fault),
        (lease, slept),
        (lease, _stalled(columns, pairs, faults)),
        (~pairs.forgotten, replayed(columns, pairs, faults)),
        (pairs.other_copy | pairs.maybe_copy, put_again(columns, repeats, pairs, faults)),
        (~none, rolled_back(columns, pairs, faults)),
    ]
    for mask, places in reversed(named):
        unnamed = np.where(mask & (places != NO_FAULT), places, unnamed)
    return Explanation(crash=crash, lease=lease, failover=failover & ~crash & ~lease, fault=unnamed)


def _crashed(columns: TaskColumns, pairs: Pairs) -> Bools:
    """Whether the process of the first execution died before it acknowledged."""
    ledger = columns.ledger
    last_ns = np.zeros(max(1, len(ledger.writers)), dtype=np.int64)
    last_ns[ledger.writer] = columns.time  # records are sorted by time: the last write stays
    writer = ledger.writer[pairs.first]
    crashed: Bools = (
        columns.writer_died[writer] & (last_ns[writer] <= pairs.again_ns) & pairs.unconfirmed
    )
    return crashed


def _stalled(columns: TaskColumns, pairs: Pairs, faults: Sequence[FaultWindow]) -> Ints:
    """The fault that kept a worker busy, or still, until its lease had ended."""
    found = np.full(len(pairs.first), NO_FAULT, dtype=np.int64)
    writer = columns.ledger.writer[pairs.first]
    for place, fault in enumerate(faults):
        if fault.kind not in _STALLING or not fault.target.startswith(_SIDE):
            continue
        begin_ns, end_ns = fault.span_ns()
        here = (begin_ns <= pairs.again_ns) & (end_ns >= pairs.received_ns)
        if fault.kind == "pause":
            here &= ~_wrote(columns, writer, begin_ns, end_ns)
        found = np.where(here & (found == NO_FAULT), place, found)
    return found


def _slept(columns: TaskColumns, pairs: Pairs, faults: Sequence[FaultWindow]) -> Ints:
    """The pause of a process that took a delivery and its repetition one after the other, late."""
    found = np.full(len(pairs.first), NO_FAULT, dtype=np.int64)
    writer = columns.ledger.writer[pairs.first]
    same = (pairs.again_row >= 0) & (columns.ledger.writer[pairs.again_row] == writer)
    for place, fault in enumerate(faults):
        if fault.kind != "pause" or not fault.target.startswith(_SIDE):
            continue
        begin_ns, end_ns = fault.span_ns()
        here = same & (pairs.received_ns >= begin_ns)
        here &= pairs.again_ns <= end_ns + _CATCH_UP_NS
        here &= ~_wrote(columns, writer, begin_ns, end_ns)
        found = np.where(here & (found == NO_FAULT), place, found)
    return found


def _wrote(columns: TaskColumns, writer: npt.NDArray[Any], begin_ns: int, end_ns: int) -> Bools:
    """Whether each process wrote while somebody stood still; the edges are those of the signals."""
    edge_ns = (end_ns - begin_ns) // 4
    low, high = np.searchsorted(columns.time, [begin_ns + edge_ns, end_ns - edge_ns])
    wrote: Bools = np.isin(writer, np.unique(columns.ledger.writer[low:high]))
    return wrote
