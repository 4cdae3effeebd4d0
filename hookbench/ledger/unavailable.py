"""When a broker did not answer: by broker and operation, the times in which none succeeded."""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hookbench.clock import NS_PER_MS
from hookbench.ledger.columns import Bools, Ints
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.history import History
from hookbench.ledger.model import FaultWindow, Unavailability
from hookbench.ledger.search import last_before

__all__ = ["UNAVAILABLE_NS", "find_unavailable"]

UNAVAILABLE_NS = 200 * NS_PER_MS
"""Shorter times are none: a busy machine of two cores, an append-only file that is synced, and a
reconnect of a client (50 to 100 ms) all stay below, while a caller with a timeout of a second has
a fifth of it gone. A constant for puts and acknowledgements: how often they come does not matter,
since a window begins with an attempt."""
RECEIVE_FACTOR = 4
RECEIVE_PERCENTILE = 95
"""Who reads says nothing while he waits or works, so for deliveries the bound is at least four
times what 95 of 100 gaps between them stay below: a handler of a second is no broker that is away.
Not of the median: of a batch that is read together all gaps but one are nothing."""
MAX_WINDOWS = 100
"""Of one broker and operation, the longest ones: each is looked at by itself."""
_BROKERS = {"redis": Broker.REDIS, "nats": Broker.NATS}


class _Gap(NamedTuple):
    """Two successes with none between: their records; -1 and the number of records for none."""

    low: int
    high: int


_Span = Callable[[_Gap], tuple[int, int] | None]
"""Begin of the first attempt within a gap, and end of the last one, ns; ``None`` for no attempt."""


def find_unavailable(history: History) -> list[Unavailability]:
    """The windows of each broker and operation, by their beginning.

    A window goes from the first attempt that did not succeed at once to the next success, or to
    the last attempt where there is no success any more. Attempts are: of puts those in the
    ledger; of acknowledgements what was done, or received, and acknowledged next by the same
    process; of deliveries the tasks that lie on a broker from which the workers read, Redis only
    where it is not the fallback of NATS. Deliveries that never come again are no window but tasks
    that are lost or stuck.
    """
    columns = history.columns
    rows = {
        event: np.flatnonzero(columns.where(event))
        for event in (Event.PUT_OK, Event.RECEIVED, Event.ACK_SENT)
    }
    found = []
    for name, broker in _BROKERS.items():
        put, received, acked = (all_[columns.broker[all_] == broker] for all_ in rows.values())
        for operation, successes, span in (
            ("put", put, _puts(history, broker)),
            ("receive", received, _receptions(history, broker, put, received)),
            ("ack", acked, _acks(history, broker)),
        ):
            bound_ns = _bound_ns(history, successes, operation)
            for begin_ns, end_ns in _windows(history, successes, span, bound_ns):
                found.append((begin_ns, end_ns, name, operation))
    return [_describe(history, *window) for window in sorted(found)]


def _bound_ns(history: History, successes: Ints, operation: str) -> int:
    """What a window must be longer than."""
    if operation != "receive" or len(successes) < 2:  # noqa: PLR2004 - one event has no gap
        return UNAVAILABLE_NS
    gaps_ns = np.diff(history.columns.time[successes])
    usual_ns = np.percentile(gaps_ns, RECEIVE_PERCENTILE)
    return max(UNAVAILABLE_NS, int(RECEIVE_FACTOR * usual_ns))


def _windows(
    history: History, successes: Ints, span: _Span, bound_ns: int
) -> Iterator[tuple[int, int]]:
    """Begin and end of each window before, between and after the successes."""
    time = history.columns.time
    rows = np.concatenate(([-1], successes, [len(time)]))
    edges = np.concatenate(([history.step_starts_ns[0]], time[successes], [history.end_ns]))
    gaps_ns = np.diff(edges)
    long = np.flatnonzero(gaps_ns > bound_ns)
    for place in long[np.argsort(-gaps_ns[long], kind="stable")[:MAX_WINDOWS]].tolist():
        attempts = span(_Gap(int(rows[place]), int(rows[place + 1])))
        if attempts is None:
            continue
        begin_ns = max(attempts[0], int(edges[place]))
        if attempts[1] - begin_ns > bound_ns:
            yield begin_ns, attempts[1]


def _puts(history: History, broker: Broker) -> _Span:
    """Attempts are puts with an outcome in the gap; one that began before it began with it."""
    outcomes = (Event.PUT_OK, Event.PUT_FAIL, Event.PUT_UNKNOWN)
    return functools.partial(_attempts, history, broker, outcomes, (Event.PUT_INVOKED,))


def _acks(history: History, broker: Broker) -> _Span:
    outcomes = (Event.ACK_SENT, Event.ACK_FAILED)
    return functools.partial(_attempts, history, broker, outcomes, (Event.RECEIVED, Event.DONE))


def _attempts(
    history: History,
    broker: Broker,
    outcomes: tuple[Event, ...],
    causes: tuple[Event, ...],
    gap: _Gap,
) -> tuple[int, int] | None:
    """Attempts that came to an outcome in a gap; each began with the last cause before it."""
    columns = history.columns
    low, high = gap.low + 1, min(gap.high + 1, len(columns.time))
    event, task = columns.event[low:high], columns.task[low:high]
    ends = np.flatnonzero(_one_of(event, outcomes))
    ends = ends[columns.broker[low:high][ends] == broker]
    if len(ends) == 0:
        return None
    begins = np.flatnonzero(_one_of(event, causes))
    rows = last_before(task[ends], ends, task[begins], begins)
    times = columns.time[low:high]
    if (rows < 0).any():  # it began before the gap
        return int(times[0]) if gap.low < 0 else int(columns.time[gap.low]), int(times[ends[-1]])
    return int(times[begins[rows]].min()), int(times[ends[-1]])


def _one_of(column: npt.NDArray[np.uint8], events: tuple[Event, ...]) -> Bools:
    """Where an event of these stands; ``isin`` takes ten times as long for two of them."""
    mask: Bools = np.logical_or.reduce([column == event for event in events])
    return mask


def _receptions(history: History, broker: Broker, put: Ints, received: Ints) -> _Span:
    """The attempt to read is as old as the task that was read next for the first time."""
    columns = history.columns
    attempts = columns.ledger.records["attempt"]
    reading = [
        step.reads_nats if broker is Broker.NATS else step.reads_redis and not step.reads_nats
        for step in history.steps
    ]

    def span(gap: _Gap) -> tuple[int, int] | None:
        if gap.high >= len(columns.time):
            return None
        later = received[np.searchsorted(received, gap.high) :]
        fresh = later[attempts[later] <= 1]
        step = int(columns.phase[gap.high])
        if len(fresh) == 0 or not reading[step]:
            return None
        while step and reading[step - 1]:
            step -= 1
        puts = put[columns.task[put] == columns.task[fresh[0]]]
        if len(puts) == 0:
            return None
        waiting_ns = int(columns.time[puts[0]])
        return max(waiting_ns, history.step_starts_ns[step]), int(columns.time[gap.high])

    return span


def _describe(
    history: History, begin_ns: int, end_ns: int, broker: str, operation: str
) -> Unavailability:
    step = int(np.searchsorted(history.step_starts_ns, begin_ns, "right")) - 1
    fault = _overlapping(history, begin_ns, end_ns, _BROKERS[broker], puts=operation == "put")
    return Unavailability(
        broker=broker,
        operation=operation,
        since_start_ns=begin_ns - history.step_starts_ns[0],
        length_ns=end_ns - begin_ns,
        phase=history.steps[max(step, 0)].phase,
        fault="-" if fault is None else fault.name,
        fault_index=None if fault is None else fault.index,
    )


def _overlapping(
    history: History, begin_ns: int, end_ns: int, broker: Broker, *, puts: bool
) -> FaultWindow | None:
    """The fault that lasted for most of a window, of those that concern broker and operation."""
    best, most_ns = None, -1
    for fault in history.faults:
        reach = fault.reach
        if not (reach.puts if puts else reach.deliveries):
            continue
        if reach.brokers and broker not in reach.brokers:
            continue
        first_ns, last_ns = fault.span_ns(history.end_ns)
        common_ns = min(last_ns, end_ns) - max(first_ns, begin_ns)
        if common_ns > most_ns:
            best, most_ns = fault, common_ns
    return best
