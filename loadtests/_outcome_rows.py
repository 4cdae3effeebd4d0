"""The rows of publishes in Locust's tables: outcomes as events, or many of them at once."""

from collections import Counter
from collections.abc import Sequence

from _figures import bucket_ms
from _producer import Outcome, without_ids
from _protocol import Histogram
from _report import entry_of
from locust.env import Environment
from locust.event import EventHook
from locust.runners import Runner

from hookbench.clock import NS_PER_MS

__all__ = ["METHOD", "OutcomeRows"]

METHOD = "PUBLISH"
_COUNTING = f"{Runner.__init__.__qualname__}.<locals>.on_request"


class OutcomeRows:
    """Tells Locust what became of publishes.

    ``events.request`` is fired for each, so that everybody who listens is told of it. Where
    nobody does but Locust's runner, which adds each to its statistics, those of a burst are added
    together, as Locust's master adds what its workers report: to the same rows, in a third of the
    time.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def report(self, name: str, outcomes: Sequence[Outcome]) -> None:
        """All outcomes of a burst, in the row ``name``."""
        together = self._only_runner_listens()
        good = [outcome for outcome in outcomes if outcome.error is None] if together else []
        if good:
            self._add(name, good)
        for outcome in outcomes:
            if not together or outcome.error is not None:
                self.report_one(name, outcome, None)

    def report_one(self, name: str, outcome: Outcome | None, error: Exception | None) -> None:
        """One outcome, or the error in place of it."""
        self._environment.events.request.fire(
            request_type=METHOD,
            name=name,
            response_time=outcome.latency_ns / NS_PER_MS if outcome else 0.0,
            response_length=outcome.payload_bytes if outcome else 0,
            exception=without_ids(outcome.error if outcome else error),
            context={},
        )

    def _only_runner_listens(self) -> bool:
        """Whether an event would come to nothing but a sample in the statistics.

        Looked up each time: listeners come and go. Locust has no public way to ask for them; where
        this one does not find what it knows, events are fired.
        """
        hook = self._environment.events.request
        listeners = getattr(hook, "_handlers", ())
        return (
            type(hook) is EventHook
            and len(listeners) == 1
            and getattr(listeners[0], "__module__", "") == Runner.__module__
            and getattr(listeners[0], "__qualname__", "") == _COUNTING
        )

    def _add(self, name: str, outcomes: Sequence[Outcome]) -> None:
        latencies_ms = [outcome.latency_ns / NS_PER_MS for outcome in outcomes]
        found = Histogram(
            count=len(latencies_ms),
            total_ms=sum(latencies_ms),
            min_ms=min(latencies_ms),
            max_ms=max(latencies_ms),
            buckets=list(Counter(map(bucket_ms, latencies_ms)).items()),
        )
        stats = self._environment.stats
        entry = entry_of(stats, (name, METHOD), found)
        entry.total_content_length = sum(outcome.payload_bytes for outcome in outcomes)
        stats.total.extend(entry)
        stats.entries[name, METHOD].extend(entry)
