"""The runs of one Locust process: what happens at start, at stop and at the end.

A local or a master process has the backstage process of a run; a local or a worker process has
users and a ``Publisher``, see ``_team.py``.
"""

import contextlib
import itertools
import logging
import uuid
from typing import Any

import gevent
import msgspec
from _html_charts import add_to_reports
from _live_page import LivePage
from _protocol import (
    Answer,
    Begin,
    Do,
    Enter,
    Full,
    Incident,
    Order,
    Pulse,
    Refused,
    RunAccount,
    Scene,
    Ticket,
)
from _publisher import Publisher
from _queue_tab import QueueTab
from _report import ConsumeRow, account_lines, broken_thresholds
from _run_options import RunOptions
from _stage_process import StageProcess
from _team import Team
from gevent.lock import RLock
from locust.env import Environment
from locust.runners import WorkerRunner

from hookbench.clock import NS_PER_S, SystemClock
from hookbench.errors import HookbenchError

__all__ = ["EXIT_DEFECT", "EXIT_INVALID", "EXIT_REFUSED", "EXIT_UNKNOWN", "Session"]

_log = logging.getLogger("hookbench.locust")

EXIT_INVALID = 1
EXIT_REFUSED = 2
EXIT_UNKNOWN = 3
EXIT_DEFECT = 70
QUIT_DRAIN_S = 5.0
"""The drain of a run that is cut off by SIGTERM or Ctrl-C."""
_ANSWER_TIMEOUT_S = 150.0
"""A change of phase by procedure waits for its gates."""
_ACCOUNT_TIMEOUT_S = 60.0
_POLL_S = 0.1


class Session:
    """All runs of one Locust process, one after another."""

    def __init__(self, environment: Environment, order: Order) -> None:
        self._environment = environment
        self._standing_order = order
        self._runner: Any = environment.runner
        self._clock = SystemClock()
        self._lock = RLock()
        self._stage: StageProcess | None = None
        self._begun = False
        self._quitting = False
        self._ready_lines: list[str] = []
        self._listener: gevent.Greenlet | None = None
        self._row: ConsumeRow | None = None
        self._account: RunAccount | None = None
        self._no_account = ""
        self._ticket: Ticket | None = None
        self._wishes = itertools.count(1)
        self._answers: dict[int, Answer] = {}
        self.team = Team(environment, self.refuse)
        self.has_stage = not isinstance(self._runner, WorkerRunner)
        self.queue_tab = QueueTab(environment)
        self.live_page = LivePage(environment, self.do)
        add_to_reports(environment, self.live_page)
        self.last_lines: list[str] = []
        """The account of the last run, for a person."""

    @property
    def publisher(self) -> Publisher | None:
        """Of the users of this process; ``None`` in a master."""
        return self.team.publisher

    @property
    def running(self) -> bool:
        """Whether users publish now, or are about to."""
        return self._begun

    @property
    def logs_account(self) -> bool:
        """Whether the log gets all of it: it is on the web page, or ``--json`` has stdout."""
        return self._environment.web_ui is not None or self._environment.parsed_options.json

    # Start.

    def prepare(self, options: RunOptions) -> None:
        """Start brokers and workers for the next run, unless they are there already.

        Raises:
            HookbenchError: they cannot be had, or are refused.
        """
        with self._lock:
            if self._stage is not None:
                if self._stage.alive and self._stage.order.options == options:
                    return
                self._drop_stage()
            if self._quitting:
                raise HookbenchError("Locust is quitting")
            order = msgspec.structs.replace(
                self._standing_order, run=f"locust-{uuid.uuid4().hex[:8]}", options=options
            )
            stage = self._stage = StageProcess(order)
            try:
                ready = stage.wait_until_ready()
            except BaseException:
                self._drop_stage()
                raise
            self._ticket = Ticket(
                run=order.run,
                folder=str(stage.folder),
                redis_url=ready.redis_url,
                nats_url=ready.nats_url,
                names=ready.names,
                foreign=ready.foreign,
                options=options,
                phase=options.timeline[0].phase.label,
            )
            pids = ", ".join(map(str, ready.worker_pids))
            self._ready_lines = [f"brokers     {line}" for line in ready.brokers]
            for line in (*self._ready_lines, f"workers     pid {pids or 'none'}"):
                _log.info(line)
            if self._environment.web_ui is not None:
                _log.info("live page   /hookbench, beside Locust's own")

    def begin(self, options: RunOptions) -> None:
        """The users are about to start.

        Raises:
            HookbenchError: see ``prepare`` and ``Publisher.open``.
        """
        with self._lock:
            self.prepare(options)
            stage, ticket = self._stage, self._ticket
            if stage is None or ticket is None:
                raise HookbenchError("no stage")
            self._account = None
            self._no_account = ""
            self._row = ConsumeRow(self._environment.stats, options.label)
            self.queue_tab.begin(options)
            self.live_page.begin(options)
            self.team.begin(stage, ticket)
            stage.tell(Begin())
            self._begun = True
            self._listener = gevent.spawn(self._listen, stage)

    def refuse(self, error: Exception, code: int = EXIT_REFUSED) -> None:
        """Say why there is no run, or no more of it, and end it."""
        _log.error("%s", error)
        self._environment.process_exit_code = code
        self._runner.log_exception("hookbench", str(error), "")
        gevent.spawn(self._stop_users)

    def _stop_users(self) -> None:
        parsed = self._environment.parsed_options
        if parsed is not None and parsed.headless:
            self._runner.quit()
        else:
            self._runner.stop()

    # While it runs.

    def _listen(self, stage: StageProcess) -> None:
        while self._account is None:
            ended = not stage.alive
            if self._begun:
                self.team.look()
            for event in stage.events():
                self._hear(event)
            if ended and self._account is None:
                ending = f"the backstage process ended: {stage.why_it_ended()}"
                self._no_account = self._no_account or ending
                if self._begun:  # the users still publish
                    self.refuse(HookbenchError(self._no_account), EXIT_UNKNOWN)
            if ended:
                return
            gevent.sleep(_POLL_S)

    def _hear(self, event: Any) -> None:
        if isinstance(event, Pulse) and self._row is not None:
            self._row.add(event.done)
            self.queue_tab.add(event)
            self.live_page.add(event)
        elif isinstance(event, Scene):
            self.live_page.scene = event
        elif isinstance(event, Answer):
            self._answers[event.number] = event
        elif isinstance(event, Enter):
            self.team.enter(event)
        elif isinstance(event, Incident):
            _log.warning("incident    %s", event.text)
        elif isinstance(event, Full):
            _log.warning("%d tasks: --max-tasks is reached, the run stops", event.offered)
            gevent.spawn(self._stop_users)
        elif isinstance(event, RunAccount):
            self._account = event
        elif isinstance(event, Refused):
            self._no_account = event.text

    def do(self, what: str, value: str) -> Answer:
        """Have something done on the stage; waits for the answer.

        Args:
            what: see ``Do``.
            value: likewise.
        """
        stage = self._stage
        number = next(self._wishes)
        if stage is None or not self._begun:
            return Answer(number=number, ok=False, text="no users publish: start a run first")
        stage.tell(Do(number=number, what=what, value=value))
        deadline_ns = self._clock.monotonic_ns() + int(_ANSWER_TIMEOUT_S * NS_PER_S)
        while number not in self._answers:
            if self._stage is not stage:
                return Answer(number=number, ok=False, text="the run ended before that was done")
            if self._clock.monotonic_ns() > deadline_ns:
                text = f"no answer within {_ANSWER_TIMEOUT_S:.0f} s; it may still happen"
                return Answer(number=number, ok=False, text=text)
            gevent.sleep(_POLL_S)
        return self._answers.pop(number)

    # Stop.

    def finish(self, *, drain_s: float | None = None) -> None:
        """The users have stopped: drain, account, and let brokers and workers go."""
        if not self._begun:
            return
        self._begun = False
        with self._lock:
            stage, row = self._stage, self._row
            if stage is None or row is None:
                return
            try:
                options = stage.order.options
                wait_s = options.drain_s if drain_s is None else min(drain_s, options.drain_s)
                order = self.team.finish(wait_s)
                if stage.alive:
                    stage.ask_to_finish(order)
                self._wait_for_account(wait_s + _ACCOUNT_TIMEOUT_S)
                self._conclude(stage, row)
            finally:
                self._drop_stage()

    def _wait_for_account(self, timeout_s: float) -> None:
        deadline_ns = self._clock.monotonic_ns() + int(timeout_s * NS_PER_S)
        listener = self._listener
        while self._account is None and listener is not None and not listener.dead:
            if self._clock.monotonic_ns() > deadline_ns:
                self._no_account = f"the backstage process is silent for {timeout_s:.0f} s"
                return
            gevent.sleep(_POLL_S)

    def _conclude(self, stage: StageProcess, row: ConsumeRow) -> None:
        account = self._account
        if account is None:
            self._environment.process_exit_code = EXIT_UNKNOWN
            self.last_lines = [
                *self._ready_lines,
                f"account     UNKNOWN, there is none: {self._no_account}",
            ]
        else:
            row.settle(account.done)
            self.last_lines = [
                *self._ready_lines,
                *account_lines(stage.order.run, stage.order.options, account),
            ]
            if not account.balanced or broken_thresholds(stage.order.options, account):
                self._environment.process_exit_code = EXIT_INVALID
            elif account.doubts:
                self._environment.process_exit_code = EXIT_UNKNOWN
        self.live_page.account_lines = self.last_lines
        # The brokers are in the log already.
        for line in self.last_lines[len(self._ready_lines) if self.logs_account else -1 :]:
            _log.info(line)

    def _drop_stage(self) -> None:
        stage, self._stage = self._stage, None
        self._ticket = None
        if self._listener is not None and self._listener is not gevent.getcurrent():
            self._listener.kill()
            self._listener = None
        if stage is not None:
            stage.close()

    # The end.

    def _wait_for_others(self) -> None:
        """Until another greenlet has begun or finished what it is at."""
        with contextlib.suppress(gevent.Timeout), gevent.Timeout(QUIT_DRAIN_S), self._lock:
            pass

    def quit(self) -> None:
        """Locust is about to exit: whatever still runs is ended, soon."""
        self._quitting = True
        if self.has_stage:
            self._wait_for_others()  # a beginning, or an end
            self.finish(drain_s=QUIT_DRAIN_S)
            self._wait_for_others()
            self._drop_stage()
        self.team.end()
