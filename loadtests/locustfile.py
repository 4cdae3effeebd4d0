"""Load on the hook queue with Locust: ``locust -f loadtests/`` (see docs/locust.md).

The users publish through ``ReceiveSyncService``; brokers and real workers run beside Locust.
"""

import gc
import logging
import os
import random
import signal
import sys
from typing import TYPE_CHECKING, Any

import gevent
import locust.stats
from _figures import bucket_ms
from _options import add_options, read_options
from _protocol import Order
from _session import EXIT_DEFECT, EXIT_REFUSED, Session
from flask import Response, jsonify, request
from flask_login import current_user
from gevent import GreenletExit
from locust import User, constant, events, task
from locust.env import Environment
from locust.runners import WorkerRunner

from hookbench.clock import NS_PER_S, SystemClock
from hookbench.errors import HookbenchError, SettingError

if TYPE_CHECKING:
    from _publisher import Publisher

_log = logging.getLogger("hookbench.locust")

locust.stats.bucket_response_time = bucket_ms
locust.stats.PERCENTILES_TO_CHART = [0.5, 0.95, 0.99]
locust.stats.PERCENTILES_TO_STATISTICS = [0.5, 0.95, 0.99, 0.999]

_IDLE_S = 0.1
_THERE_S = 1.0
_BACK_OFF_S = 0.1
_PARENT_POLL_S = 0.5
_YOUNG_OBJECTS = 20_000
"""Of which the collector is to look for garbage. A hundred tasks under way have thousands that are
none; with 700, Python's default, it went through some of them every hundred tasks."""


class HookUser(User):
    """Publishes one task after another.

    With a rate its tasks are due at the moments of a Poisson process, and latency counts from
    there, whether or not the task before was slow. Without one it sends as soon as it can.
    """

    host = "hook queue"  # Locust's form asks for one otherwise
    wait_time = constant(0)

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._publisher: Publisher = environment.hookbench.publisher
        self._clock = SystemClock()
        self._arrivals = random.Random()
        self._due_ns = 0

    def on_start(self) -> None:
        """One more."""
        self._publisher.join()

    def on_stop(self) -> None:
        """One less."""
        self._publisher.leave()

    @task
    def publish(self) -> None:
        """Wait until the next task is due, and send it; with an engine, only be there."""
        if self._publisher.has_engine:
            gevent.sleep(_THERE_S)
            return
        rate_per_s = self._publisher.options.rate_per_s
        if rate_per_s:
            self._wait_until_due(rate_per_s)
        burst = self._publisher.options.burst
        if burst > 1:
            self._publish_burst(burst)
            return
        outcome = self._publisher.publish(self._due_ns)
        if outcome is None:  # between two runs
            gevent.sleep(_IDLE_S)
        elif outcome.error is not None and not rate_per_s:
            gevent.sleep(_BACK_OFF_S)  # a broker that is down fails fast

    def _publish_burst(self, count: int) -> None:
        outcomes = self._publisher.publish_burst(count)
        if outcomes is None:
            gevent.sleep(_IDLE_S)
        elif any(outcome.error is not None for outcome in outcomes):
            gevent.sleep(_BACK_OFF_S)

    def _wait_until_due(self, rate_per_s: float) -> None:
        now_ns = self._clock.monotonic_ns()
        gap_ns = int(self._arrivals.expovariate(rate_per_s) * NS_PER_S)
        self._due_ns = (self._due_ns or now_ns) + gap_ns
        if self._due_ns > now_ns:
            gevent.sleep((self._due_ns - now_ns) / NS_PER_S)


@events.init_command_line_parser.add_listener
def _add_options(parser: Any, **_kwargs: Any) -> None:
    add_options(parser)


@events.init.add_listener
def _open_session(environment: Environment, runner: Any, web_ui: Any, **_kwargs: Any) -> None:
    parsed = environment.parsed_options
    signal.signal(signal.SIGTERM, _exit_early)  # before there is anything to undo
    if parsed.loglevel.upper() != "DEBUG":
        # The reference code logs every task at INFO, which is Locust's default.
        for name in ("hookbench.migration", "hookbench.queues"):
            logging.getLogger(name).setLevel(logging.WARNING)
    try:
        options = read_options(vars(parsed))
    except SettingError as error:  # two options that do not go together
        _log.error("%s", error)
        sys.exit(EXIT_REFUSED)
    order = Order(
        run="",
        options=options,
        redis_url=parsed.redis_url or None,
        nats_url=parsed.nats_url or None,
        allow_existing=parsed.allow_existing,
    )
    session = Session(environment, order)
    environment.hookbench = session
    if web_ui is not None:
        _check_before_swarm(environment, web_ui, session)
    elif not isinstance(runner, WorkerRunner):
        # Before the clock of --run-time starts.
        try:
            session.prepare(order.options)
        except HookbenchError as error:
            _log.error("%s", error)
            sys.exit(EXIT_REFUSED)
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
    if isinstance(runner, WorkerRunner) and parsed.processes:
        gevent.spawn(_end_with_parent, os.getppid())
    _settle_memory()


def _settle_memory() -> None:
    """Let the collector look at what a run makes, and at that rarely."""
    gc.collect()  # a collection of all that was imported would take 20 ms in the middle of a run
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


def _end_with_parent(parent: int) -> None:
    """Forked by ``--processes``: Locust's master may die without a word to its workers."""
    while os.getppid() == parent:
        gevent.sleep(_PARENT_POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)


def _exit_early(number: int, _frame: Any) -> None:
    """SIGTERM before Locust has its own handler: an exit that ends what was started."""
    sys.exit(128 + number)


def _check_before_swarm(environment: Environment, web_ui: Any, session: Session) -> None:
    """Answer the web form itself when a run cannot start: Locust would only log it."""

    @web_ui.app.before_request
    def prepare() -> Response | None:
        if request.method != "POST" or not request.path.endswith("/swarm") or session.running:
            return None
        if web_ui.web_login and not current_user.is_authenticated:
            return None  # Locust sends it away: nothing is started for it
        try:
            values = {**vars(environment.parsed_options), **request.form.to_dict()}
            session.prepare(read_options(values))
        except (HookbenchError, SettingError) as error:
            _log.error("%s", error)
            return jsonify({"success": False, "message": str(error)})
        return None


@events.test_start.add_listener
def _begin(environment: Environment, **_kwargs: Any) -> None:
    session: Session = environment.hookbench
    if not session.has_stage:
        session.team.join()
        return
    try:
        session.begin(read_options(vars(environment.parsed_options)))
    except HookbenchError as error:
        session.refuse(error)
        raise GreenletExit from error  # no users: Locust would go on after any other error
    except Exception as error:
        _log.exception("a defect of the load test")
        session.refuse(error, EXIT_DEFECT)
        raise GreenletExit from error


@events.test_stop.add_listener
def _finish(environment: Environment, **_kwargs: Any) -> None:
    session: Session = environment.hookbench
    if session.has_stage:
        session.finish()
    elif session.publisher is not None:
        session.publisher.close()


@events.quitting.add_listener
def _quit(environment: Environment, **_kwargs: Any) -> None:
    session: Session = environment.hookbench
    session.quit()
    if session.last_lines and not session.logs_account:
        lines = session.last_lines

        @environment.events.quit.add_listener
        def show(**_kwargs: Any) -> None:
            sys.stdout.write("\n".join(lines) + "\n")
            sys.stdout.flush()
