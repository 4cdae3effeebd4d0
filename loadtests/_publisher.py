"""Publishing for the users of one Locust process: over the bridge, or by an engine."""

import logging
import time

import gevent
from _bridge import Bridge
from _engine_process import EngineProcess
from _engine_protocol import Closed, Delta
from _outcome_rows import METHOD, OutcomeRows
from _producer import Burst, Outcome, Producer, PublishError
from _protocol import ProducerTotals, Ticket
from _report import entry_of
from _run_options import ModeChoice, RunOptions
from locust.env import Environment
from locust.stats import StatsError

from hookbench.migration.phases import Phase

__all__ = ["PublishError", "Publisher"]

_log = logging.getLogger("hookbench.locust")

_SETTLE_TIMEOUT_S = 10.0
_LISTEN_S = 0.25


class Publisher:
    """Publishes for the users of this process, and reports each outcome to Locust."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._outcomes = OutcomeRows(environment)
        self._bridge = Bridge()
        self._producer: Producer | None = None
        self._engine: EngineProcess | None = None
        self._listener: gevent.Greenlet | None = None
        self._users = 0
        self._name = ""
        self._ticket: Ticket | None = None
        self.options = RunOptions()
        self.totals = ProducerTotals()

    @property
    def is_open(self) -> bool:
        """Whether a run takes tasks now."""
        return self._producer is not None or self._engine is not None

    @property
    def has_engine(self) -> bool:
        """Whether the users only count, and an engine publishes for them."""
        return self.options.mode is ModeChoice.ENGINE

    def open(self, ticket: Ticket, writer: int) -> None:
        """Connect to the brokers of a run.

        Raises:
            HookbenchError: see ``Producer.open`` and ``EngineProcess``.
        """
        self.close()
        self._ticket = ticket
        self.options = ticket.options
        self.totals = ProducerTotals()
        self._users = 0
        self._name = self._row(ticket.phase)
        if self.has_engine:
            engine = self._engine = EngineProcess(ticket, writer)
            _log.info("engine      pid %d", engine.pid)
            self._listener = gevent.spawn(self._listen, engine)
        else:
            self._producer = self._bridge.call(Producer.open, ticket, writer)

    def _row(self, phase: str) -> str:
        """What the row of a phase is called: with a timeline each phase has its own."""
        options = self.options
        of_queue = not options.phases and phase == options.queue.phase.label
        return options.label if of_queue else phase

    def enter(self, index: int, phase: Phase) -> None:
        """Publish as another phase has it.

        Raises:
            HookbenchError: see ``Producer.enter``.
        """
        if self._engine is not None:
            self._engine.enter(index, phase.label)
        elif self._producer is not None:
            self._bridge.call(self._producer.enter, index, phase)
        self._name = self._row(phase.label)

    def join(self) -> None:
        """A user starts."""
        self._users += 1
        if self._engine is not None:
            self._engine.be(self._users)

    def leave(self) -> None:
        """A user stops."""
        self._users = max(0, self._users - 1)
        if self._engine is not None:
            self._engine.be(self._users)

    def publish(self, intended_ns: int) -> Outcome | None:
        """Send one task that was due at ``intended_ns`` (0: now); ``None`` if no run takes it."""
        producer = self._producer
        if producer is None:
            return None
        outcome: Outcome = self._bridge.call(producer.publish, intended_ns, report=self._report)
        return outcome

    def publish_burst(self, count: int) -> list[Outcome] | None:
        """Send so many tasks at once; ``None`` if no run takes them.

        Raises:
            Exception: a defect; the tasks that have an outcome are reported all the same.
        """
        producer = self._producer
        if producer is None:
            return None
        burst: Burst = self._bridge.call(producer.publish_burst, count, report=self._report_burst)
        if burst.defect is not None:
            raise burst.defect
        return burst.outcomes

    def _report_burst(self, burst: Burst | None, error: Exception | None) -> None:
        if burst is not None:
            self._outcomes.report(self._name, burst.outcomes)
            error = burst.defect
        if error is not None:
            self._report(None, error)

    def _report(self, outcome: Outcome | None, error: Exception | None) -> None:
        self._outcomes.report_one(self._name, outcome, error)

    # The engine.

    def _listen(self, engine: EngineProcess) -> None:
        while self._engine is engine:
            ended = not engine.alive
            for event in engine.events():
                self._hear(event)
            if ended and self._engine is engine:
                text = f"the engine (pid {engine.pid}) ended: {engine.why_it_ended()}"
                _log.error("%s", text)
                self._environment.runner.log_exception("hookbench", text, "")
                return
            gevent.sleep(_LISTEN_S)

    def _hear(self, event: object) -> None:
        if isinstance(event, Closed):
            self.totals = event.totals
        elif isinstance(event, Delta):
            self.totals = event.totals
            self._add(event)

    def _add(self, delta: Delta) -> None:
        """Many outcomes at once, as Locust's master adds what its workers report."""
        stats = self._environment.stats
        name = self._row(delta.phase)
        for target in (stats.entries[name, METHOD], stats.total):
            entry = entry_of(stats, (name, METHOD), delta.latency)
            entry.total_content_length = delta.payload_bytes
            entry.num_failures = sum(delta.errors.values())
            if entry.num_failures:
                entry.num_fail_per_sec[int(time.time())] = entry.num_failures
            target.extend(entry)
        for text, count in delta.errors.items():
            error = PublishError(text)
            key = StatsError.create_key(METHOD, name, error)
            known = stats.errors.setdefault(key, StatsError(METHOD, name, error))
            known.occurrences += count

    def close(self) -> ProducerTotals:
        """Take no more tasks, wait for the outcomes of those on their way, and disconnect."""
        producer, self._producer = self._producer, None
        if producer is not None:
            if not self._bridge.settle(_SETTLE_TIMEOUT_S):
                _log.warning("%d publishes have no outcome", self._bridge.pending)
            self.totals = self._bridge.call(producer.close)
        engine, self._engine = self._engine, None
        if engine is not None:
            for event in engine.close():
                self._hear(event)
        return self.totals

    def end(self) -> None:
        """Close the bridge."""
        self.close()
        self._bridge.close()
