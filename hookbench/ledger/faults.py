"""What a fault did: who was exposed to it, what became of them, and for how long nothing went."""

import numpy as np

from hookbench.ledger.columns import Bools, Ints
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.history import History
from hookbench.ledger.model import FaultAccount, FaultWindow

__all__ = ["account_for_faults"]

_NEVER_NS = np.iinfo(np.int64).max
_BROKERS = (Broker.REDIS, Broker.NATS)
_OPERATIONS = {"put": Event.PUT_OK, "receive": Event.RECEIVED}
_Key = tuple[Broker, str]
"""A broker and an operation."""


def account_for_faults(history: History) -> list[FaultAccount]:
    """One account per fault that fired.

    Exposed are the tasks that were in flight while it lasted: put before its end, and not ended
    before its beginning. One that never ended is exposed until the first fault that began after
    its last event, and not to any later one. A task whose loss or repeat is the fault's doing was
    exposed to it as well, though it may have ended before: with an acknowledgement that the fault
    undid. Losses and duplicates are those that invariant 8 attributes to it.
    """
    if not history.faults:
        return []
    columns = history.columns
    ended_ns, last_ns = _ended_ns(history), _last_ns(history)
    begins_ns = np.sort([fault.begin_ns for fault in history.faults])
    stuck = _stuck(history)
    times = _times(history)
    accounts = []
    for place, fault in enumerate(history.faults):
        begin_ns, end_ns = fault.span_ns(history.end_ns)
        earlier = int(np.searchsorted(begins_ns, begin_ns))
        since_ns = int(begins_ns[earlier - 1]) if earlier else 0
        in_flight = np.where(columns.terminal, ended_ns >= begin_ns, last_ns >= since_ns)
        exposed = columns.offered & (columns.invoked_ns <= end_ns) & in_flight
        lost = history.loss_faults == place
        repeated = history.explanation.fault == place
        exposed |= lost
        exposed[history.repeats.task[repeated]] = True
        gaps = {
            key: gap
            for key, moments in times.items()
            if (gap := _longest_gap(moments, begin_ns, end_ns)) is not None
        }
        accounts.append(
            FaultAccount(
                index=fault.index,
                name=fault.name,
                length_ns=end_ns - begin_ns,
                exposed=int(exposed.sum()),
                lost=int(lost.sum()),
                stuck=int((exposed & stuck).sum()),
                duplicated=int(repeated.sum()),
                longest_without_ns={
                    _name(key): last - first for key, (first, last) in gaps.items()
                },
                served_again_ns={
                    _name(key): last - begin_ns
                    for key, (_, last) in gaps.items()
                    if key[0] in fault.reach.brokers
                },
                recovery_ns=_recovery(fault, times, end_ns),
            )
        )
    return accounts


def _ended_ns(history: History) -> Ints:
    """When each task ended first; never: the largest number."""
    columns = history.columns
    ended = columns.where(Event.DONE) | columns.where(Event.DEAD)
    ended |= columns.where(Event.SUPERSEDED)
    return columns.first(ended, columns.time, _NEVER_NS)


def _last_ns(history: History) -> Ints:
    """The time of each task's last event."""
    columns = history.columns
    last = np.zeros(columns.count, dtype=np.int64)
    last[columns.task] = columns.time  # records are sorted by time: the last write stays
    return last


def _stuck(history: History) -> Bools:
    columns = history.columns
    mask = np.zeros(columns.count, dtype=bool)
    for lying in history.lying.values():
        mask |= lying
    stuck: Bools = mask & columns.offered & ~columns.terminal
    return stuck


def _times(history: History) -> dict[_Key, Ints]:
    """When each operation succeeded on each broker."""
    columns = history.columns
    rows = {
        operation: np.flatnonzero(columns.where(event)) for operation, event in _OPERATIONS.items()
    }
    return {
        (broker, operation): columns.time[found[columns.broker[found] == broker]]
        for broker in _BROKERS
        for operation, found in rows.items()
    }


def _name(key: _Key) -> str:
    """``redis put``."""
    return f"{key[0].name.lower()} {key[1]}"


def _longest_gap(times: Ints, begin_ns: int, end_ns: int) -> tuple[int, int] | None:
    """The two events between which nothing went for longest, that reach into the fault."""
    first = max(0, int(np.searchsorted(times, begin_ns)) - 1)
    last = int(np.searchsorted(times, end_ns, "right")) + 1
    near = times[first:last]
    if len(near) < 2:  # noqa: PLR2004 - one event has no gap
        return None
    longest = int(np.diff(near).argmax())
    return int(near[longest]), int(near[longest + 1])


def _recovery(fault: FaultWindow, times: dict[_Key, Ints], end_ns: int) -> int | None:
    """From the end of a broker's fault to its first success; ``None`` for never, or no broker."""
    reach = fault.reach
    wanted = {"put": reach.puts, "receive": reach.deliveries}
    found: list[int] = []
    for (broker, operation), moments in times.items():
        if broker in reach.brokers and wanted[operation]:
            found += moments[np.searchsorted(moments, end_ns) :][:1].tolist()
    return min(found) - end_ns if found else None
