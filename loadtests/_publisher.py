"""Publishing for the users of one Locust process."""

import logging
import re

from _bridge import Bridge
from _producer import Outcome, Producer
from _protocol import ProducerTotals, RunOptions, Ticket
from locust.env import Environment

from hookbench.clock import NS_PER_MS
from hookbench.errors import HookbenchError
from hookbench.migration.phases import Phase

__all__ = ["PublishError", "Publisher"]

_log = logging.getLogger("hookbench.locust")

_SETTLE_TIMEOUT_S = 10.0
_TASK_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class PublishError(HookbenchError):
    """What Locust shows of a task that was not acknowledged."""


class Publisher:
    """Publishes for the users of this process, and reports each outcome to Locust."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._bridge = Bridge()
        self._producer: Producer | None = None
        self._name = ""
        self.options = RunOptions()
        self.totals = ProducerTotals()

    @property
    def is_open(self) -> bool:
        """Whether a run takes tasks now."""
        return self._producer is not None

    def open(self, ticket: Ticket, writer: int) -> None:
        """Connect to the brokers of a run.

        Raises:
            HookbenchError: see ``Producer.open``.
        """
        self.close()
        self.options = ticket.options
        self.totals = ProducerTotals()
        self._name = ticket.phase if ticket.options.phases else ticket.options.label
        self._producer = self._bridge.call(Producer.open, ticket, writer)

    def enter(self, index: int, phase: Phase) -> None:
        """Publish as another phase has it; with a timeline each phase has a row of its own.

        Raises:
            HookbenchError: see ``Producer.enter``.
        """
        producer = self._producer
        if producer is None:
            return
        self._bridge.call(producer.enter, index, phase)
        self._name = phase.label

    def publish(self, intended_ns: int) -> Outcome | None:
        """Send one task that was due at ``intended_ns`` (0: now); ``None`` if no run takes it."""
        producer = self._producer
        if producer is None:
            return None
        outcome: Outcome = self._bridge.call(producer.publish, intended_ns, report=self._report)
        return outcome

    def _report(self, outcome: Outcome | None, error: Exception | None) -> None:
        self._environment.events.request.fire(
            request_type="PUBLISH",
            name=self._name,
            response_time=outcome.latency_ns / NS_PER_MS if outcome else 0.0,
            response_length=outcome.payload_bytes if outcome else 0,
            exception=_without_ids(outcome.error if outcome else error),
            context={},
        )

    def close(self) -> ProducerTotals:
        """Take no more tasks, wait for the outcomes of those on their way, and disconnect."""
        producer, self._producer = self._producer, None
        if producer is not None:
            if not self._bridge.settle(_SETTLE_TIMEOUT_S):
                _log.warning("%d publishes have no outcome", self._bridge.pending)
            self.totals = self._bridge.call(producer.close)
        return self.totals

    def end(self) -> None:
        """Close the bridge."""
        self.close()
        self._bridge.close()


def _without_ids(error: Exception | None) -> Exception | None:
    """The error without task ids: Locust counts equal texts in one row."""
    return None if error is None else PublishError(_TASK_ID.sub("...", str(error)))
