"""What a fault did: who was exposed to it, what became of them, and for how long nothing went."""

import numpy as np

from hookbench.ledger.columns import Bools, Ints
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.history import History
from hookbench.ledger.model import FaultAccount, FaultWindow

__all__ = ["account_for_faults"]

_NEVER_NS = np.iinfo(np.int64).max
_BROKERS = {"redis": Broker.REDIS, "nats": Broker.NATS}
_OPERATIONS = {"put": Event.PUT_OK, "receive": Event.RECEIVED}


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
    accounts = []
    for place, fault in enumerate(history.faults):
        begin_ns = fault.begin_ns
        end_ns = history.end_ns if fault.end_ns is None else max(fault.end_ns, begin_ns)
        earlier = int(np.searchsorted(begins_ns, begin_ns))
        since_ns = int(begins_ns[earlier - 1]) if earlier else 0
        in_flight = np.where(columns.terminal, ended_ns >= begin_ns, last_ns >= since_ns)
        exposed = columns.offered & (columns.invoked_ns <= end_ns) & in_flight
        lost = history.loss_faults == place
        repeated = history.explanation.fault == place
        exposed |= lost
        exposed[history.repeats.task[repeated]] = True
        gaps = {
            f"{broker} {operation}": gap
            for broker, code in _BROKERS.items()
            for operation, event in _OPERATIONS.items()
            if (gap := _longest_gap(_times(history, event, code), begin_ns, end_ns)) is not None
        }
        accounts.append(
            FaultAccount(
                index=fault.index,
                name=fault.name,
                length_ns=end_ns - begin_ns,
                exposed=int(exposed.sum()),
                lost=int(lost.sum()),
                stuck=int((exposed & _stuck(history)).sum()),
                duplicated=int(repeated.sum()),
                longest_without_ns={name: last - first for name, (first, last) in gaps.items()},
                served_again_ns={
                    name: last - begin_ns
                    for name, (_, last) in gaps.items()
                    if _BROKERS[name.partition(" ")[0]] in fault.reach.brokers
                },
                recovery_ns=_recovery(history, fault, end_ns),
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


def _times(history: History, event: Event, broker: Broker) -> Ints:
    columns = history.columns
    times: Ints = columns.time[columns.where(event) & (columns.broker == broker)]
    return times


def _longest_gap(times: Ints, begin_ns: int, end_ns: int) -> tuple[int, int] | None:
    """The two events between which nothing went for longest, that reach into the fault."""
    first = max(0, int(np.searchsorted(times, begin_ns)) - 1)
    last = int(np.searchsorted(times, end_ns, "right")) + 1
    near = times[first:last]
    if len(near) < 2:  # noqa: PLR2004 - one event has no gap
        return None
    longest = int(np.diff(near).argmax())
    return int(near[longest]), int(near[longest + 1])


def _recovery(history: History, fault: FaultWindow, end_ns: int) -> int | None:
    """From the end of a broker's fault to its first success; ``None`` for never, or no broker."""
    reach = fault.reach
    wanted = {"put": reach.puts, "receive": reach.deliveries}
    found = []
    for broker in reach.brokers:
        for operation, event in _OPERATIONS.items():
            if wanted[operation]:
                times = _times(history, event, broker)
                found += times[np.searchsorted(times, end_ns) :][:1].tolist()
    return min(found) - end_ns if found else None
