"""Counts what a process tells its ledger: plain integers, of which samples are made when asked.

Every event of a task passes ``Recorder.record``; the meter is one that counts and passes on. So a
count is what the ledger has, and a worker or a producer knows nothing of Prometheus. A client
library's counter takes a lock at each step, and a histogram two.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hookbench.clock import NS_PER_MS, NS_PER_S, Clock
from hookbench.ledger.events import NO_TASK, Broker, Event, Recorder

if TYPE_CHECKING:
    from hookbench.effects.classes import Execution
    from hookbench.task import HookTask
    from hookbench.worker.loop import Handler

__all__ = ["MOST_ATTEMPTS", "Histogram", "Meter", "TimedHandler"]

MOST_ATTEMPTS = 5
"""Attempts are counted one by one up to this one; with it are counted all later ones."""

_SHORT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG_S = (*_SHORT_S[1:], 30.0, 60.0, 300.0, 1800.0, 7200.0, 86_400.0)
"""A task may lie in a queue for as long as a broker is away; the stream keeps it for days."""

_BROKERS = 4
_VERSION_7 = 0x70
_VERSION_MASK = 0xF0
_RECEIVED, _DONE, _PUT_INVOKED = Event.RECEIVED, Event.DONE, Event.PUT_INVOKED
_ACCEPTED = Event.ACCEPTED
_ANSWERS = (_ACCEPTED, Event.REFUSED, Event.DOUBTFUL)


class Histogram:
    """Durations in ns, by upper bound; one thread observes, another may read.

    Args:
        bounds_s: ascending; what is above the last is counted by ``+Inf`` alone.
    """

    __slots__ = ("_bounds_ns", "bounds_s", "counts", "sum_ns")

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self.bounds_s = tuple(bounds_s)
        self._bounds_ns = [round(bound * NS_PER_S) for bound in bounds_s]
        self.counts = [0] * (len(bounds_s) + 1)
        self.sum_ns = 0

    def observe(self, duration_ns: int) -> None:
        """Count one; of clocks that are apart it may be negative, and counts as none then."""
        self.counts[bisect_left(self._bounds_ns, duration_ns)] += 1
        if duration_ns > 0:
            self.sum_ns += duration_ns


class Meter:
    """A ``Recorder`` that counts, and passes on.

    Args:
        recorder: is told everything first; ``None`` for nobody.
        clock: of the durations; its wall clock of those since a task's id was made.

    Attributes:
        attempts: deliveries by broker and attempt; 0 are bytes that are no task.
        processing: from the handler's start to its end, well or not.
        end_to_end: of tasks done, since their id was made (its milliseconds, of the producer's
            wall clock).
        put: from a caller's call to its acceptance.
        lag: from when a task was to be sent to when it was.
    """

    def __init__(self, recorder: Recorder | None, *, clock: Clock) -> None:
        self._next = None if recorder is None else recorder.record
        self._now_ns = clock.monotonic_ns
        self._wall_ns = clock.wall_ns
        self._counts = [[0] * _BROKERS for _ in range(max(Event) + 1)]
        self._begun_ns: dict[bytes, int] = {}
        self.attempts = [[0] * (MOST_ATTEMPTS + 1) for _ in range(_BROKERS)]
        self.processing = Histogram(_SHORT_S)
        self.end_to_end = Histogram(_LONG_S)
        self.put = Histogram(_SHORT_S)
        self.lag = Histogram(_SHORT_S)

    def count(self, event: Event, broker: Broker | None = None) -> int:
        """How often an event came, of one broker or of all; ``attempts`` has the deliveries."""
        counts = self._counts[event]
        return sum(counts) if broker is None else counts[broker]

    @property
    def in_work(self) -> int:
        """Handlers that run now."""
        return max(0, self.count(Event.STARTED) - sum(self.processing.counts))

    def record(
        self,
        event: Event,
        task: bytes = NO_TASK,
        *,
        broker: Broker = Broker.NONE,
        value: int = 0,
        attempt: int = 0,
        repository: int = 0,
    ) -> None:
        """See ``Recorder``; half a microsecond, so nothing is called that can be done here."""
        if self._next is not None:
            self._next(
                event, task, broker=broker, value=value, attempt=attempt, repository=repository
            )
        if event is _RECEIVED:
            self.attempts[broker][attempt if attempt < MOST_ATTEMPTS else -1] += 1
            return
        self._counts[event][broker] += 1
        if event is _DONE:
            if task[6] & _VERSION_MASK == _VERSION_7:
                made_ns = int.from_bytes(task[:6], "big") * NS_PER_MS
                self.end_to_end.observe(self._wall_ns() - made_ns)
        elif event is _PUT_INVOKED:
            self._invoked(task, value)
        elif self._begun_ns and event in _ANSWERS:
            self._answered(task, accepted=event is _ACCEPTED)

    def _invoked(self, task: bytes, intended_ns: int) -> None:
        now_ns = self._now_ns()
        self._begun_ns[task] = now_ns
        if intended_ns:
            self.lag.observe(now_ns - intended_ns)

    def _answered(self, task: bytes, *, accepted: bool) -> None:
        begun_ns = self._begun_ns.pop(task, None)
        if accepted and begun_ns is not None:
            self.put.observe(self._now_ns() - begun_ns)


class TimedHandler:
    """Measures another handler for a meter."""

    def __init__(self, handler: "Handler", meter: Meter, clock: Clock) -> None:
        self._handler = handler
        self._observe = meter.processing.observe
        self._now_ns = clock.monotonic_ns

    async def __call__(self, task: "HookTask", execution: "Execution") -> None:
        """Do the work."""
        begun_ns = self._now_ns()
        try:
            await self._handler(task, execution)
        finally:
            self._observe(self._now_ns() - begun_ns)
