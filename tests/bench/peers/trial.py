"""One trial: a fresh broker, a backlog, a worker that is let finish or killed in the middle of it.

A worker runs in a session of its own with all that it starts, and is ended by the id of that
session's process group, never by a name.
"""

import contextlib
import os
import shutil
import signal
import tempfile
from pathlib import Path

import msgspec
import psutil

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.process import spawn
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.clock import NS_PER_S, SystemClock
from hookbench.errors import ResultsError
from tests.bench.peers.catalogue import MODULES
from tests.bench.peers.contenders.child import Given
from tests.bench.peers.effects import WARM_UP_SHARE, Account, count_effects, read_effects

__all__ = [
    "CONCURRENCY",
    "KILL_AT_SHARE",
    "MARGIN_S",
    "NUDGES",
    "ROOT",
    "SLEEP_S",
    "Crashed",
    "Drained",
    "TrialError",
    "child_environment",
    "crash",
    "drain",
    "end_group",
]

ROOT = Path(__file__).resolve().parents[3]
CONCURRENCY = 100
SLEEP_S = 0.005
NUDGES = 20
"""Tasks that are put after a crash where some are missing: some redeliver when new ones come."""
KILL_AT_SHARE = 0.4
MARGIN_S = 10.0
"""Beyond the time of redelivery, for whoever looks only now and then."""
LONGEST_CRASH_S = 240.0
_ENQUEUE_TIMEOUT_S = 180.0
_FIRST_EFFECT_TIMEOUT_S = 60.0
_SILENCE_S = 20.0
_SETTLE_S = 0.3
_POLL_S = 0.02
_TAIL_CHARACTERS = 600
_ROOM = 200_000
"""Effects of one process, of a file that takes no more of the disk than it is written."""
_US_PER_S = 1e6


class TrialError(ResultsError):
    """A contender did not do what a trial needs; the text has the end of its log."""


class Drained(msgspec.Struct, frozen=True, kw_only=True):
    """A backlog that was drained.

    Attributes:
        cpu_us: CPU of the worker per task, in microseconds, without its start; ``None`` where it
            was through too soon to tell.
    """

    account: Account
    cpu_us: float | None


class Crashed(msgspec.Struct, frozen=True, kw_only=True):
    """A backlog in whose middle the worker was killed, and a new one started.

    Attributes:
        tasks: that were put, nudges included.
        at_kill: effects at the moment of the kill.
        waiting: tasks that had no effect until new ones were put.
        lost: tasks that had none to the end.
        repeated: effects beyond the first of a task.
        recovery_s: from the kill to the last task that had its first effect before new ones came.
        cut_off: whether tasks still came, now and then, when the time was up.
    """

    tasks: int
    at_kill: int
    waiting: int
    lost: int
    repeated: int
    recovery_s: float
    cut_off: bool = False


def drain(contender, python, tasks, sleep_s):
    """Put so many tasks, then start a worker, and see what it does.

    Args:
        contender: who.
        python: the interpreter of its environment.
        tasks: in the backlog.
        sleep_s: of a task.

    Raises:
        TrialError: it does not get through, or a task is lost or repeated.
    """
    with _opened(contender, python, sleep_s) as trial:
        trial.enqueue(0, tasks)
        with trial.worker():
            trial.wait_for(int(tasks * WARM_UP_SHARE))
            before_s, at = trial.cpu_s(), count_effects(trial.effects)
            trial.wait_for(tasks)
            cpu_s = trial.cpu_s() - before_s
            trial.clock.block(_SETTLE_S)
        account = read_effects(trial.effects, tasks)
        if account.lost or account.repeated:
            raise TrialError(
                f"{contender.name}: {account.lost} of {tasks} tasks lost and {account.repeated}"
                f" repeated where nothing was killed{trial.tail()}"
            )
    return Drained(account=account, cpu_us=cpu_s * _US_PER_S / (tasks - at) if at < tasks else None)


def crash(contender, python, tasks, sleep_s, redelivery_s):
    """SIGKILL to the whole worker in the middle of a backlog; then a new one is started.

    Args:
        contender, python, tasks, sleep_s: as of ``drain``.
        redelivery_s: after which what the killed worker held should be handed out again; so long
            the effects are watched at least, for what comes once more.

    Raises:
        TrialError: the first worker was through before it was killed, or cannot work at all.
    """
    patience_s = redelivery_s + MARGIN_S
    with _opened(contender, python, sleep_s) as trial:
        trial.enqueue(0, tasks)
        with trial.worker():
            trial.wait_for(int(tasks * KILL_AT_SHARE))
        killed_ns, at_kill = trial.clock.monotonic_ns(), count_effects(trial.effects)
        if at_kill >= tasks:
            raise TrialError(f"{contender.name}: it was through before it was killed")
        with trial.worker():
            first_s = max(patience_s, _FIRST_EFFECT_TIMEOUT_S)
            waiting = trial.wait_for_rest(tasks, killed_ns, patience_s, first_s)
            elapsed_s = (trial.clock.monotonic_ns() - killed_ns) / NS_PER_S
            recovered_ns = read_effects(trial.effects, tasks).last_first_ns
            cut_off = bool(waiting) and elapsed_s > LONGEST_CRASH_S
            if waiting and not cut_off:
                trial.enqueue(tasks, NUDGES)
                tasks += NUDGES
                trial.wait_for_rest(tasks, trial.clock.monotonic_ns(), patience_s, patience_s)
            trial.clock.block(_SETTLE_S)
        account = read_effects(trial.effects, tasks)
        return Crashed(
            tasks=tasks,
            at_kill=at_kill,
            waiting=waiting,
            lost=account.lost,
            repeated=account.repeated,
            recovery_s=max(recovered_ns - killed_ns, 0) / NS_PER_S,
            cut_off=cut_off,
        )


@contextlib.contextmanager
def _opened(contender, python, sleep_s):
    folder = Path(tempfile.mkdtemp(prefix="hookbench-peers-"))
    try:
        broker = _start(contender.broker, folder)
        try:
            yield _Trial(contender, python, broker.url, folder, sleep_s)
        finally:
            broker.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(kind, folder):
    """A broker from the wheels with nothing in it."""
    if kind == "nats":
        return start_nats(resolve_nats(env={"PATH": ""}), folder, Durability.LAZY)
    return start_redis(resolve_redis(env={"PATH": ""}), folder, Durability.LAZY)


class _Trial:
    def __init__(self, contender, python, url, folder, sleep_s):
        self.clock = SystemClock()
        self.effects = folder / "effects"
        self.effects.mkdir()
        self._contender = contender
        self._python = python
        self._log = folder / "log"
        self._running = None
        given = Given(
            url=url,
            effects=str(self.effects),
            room=_ROOM,
            sleep_s=sleep_s,
            concurrency=CONCURRENCY,
            variant=contender.variant,
            folder=str(folder),
        )
        self._environment = child_environment() | given.to_environment()

    def enqueue(self, first, tasks):
        child = self._spawn("enqueue", str(first), str(tasks))
        try:
            code = child.wait(_ENQUEUE_TIMEOUT_S)
        finally:
            end_group(child)
        if code != 0:
            why = "took too long" if code is None else f"ended with {code}"
            raise TrialError(f"{self._contender.name}: putting {tasks} tasks {why}{self.tail()}")

    @contextlib.contextmanager
    def worker(self):
        """A worker for the time of the block; SIGKILL to all of its processes ends it."""
        self._running = self._spawn("work")
        try:
            yield
        finally:
            end_group(self._running)
            self._running = None

    def wait_for(self, effects):
        """Wait for so many effects.

        Raises:
            TrialError: the worker ended, or fell silent before.
        """
        enough = lambda: count_effects(self.effects) >= effects  # noqa: E731
        if not self._wait(enough, _SILENCE_S, _FIRST_EFFECT_TIMEOUT_S):
            code = self._running.exit_code
            how = f"no effect for {_SILENCE_S:g} s" if code is None else f"it ended with {code}"
            raise TrialError(
                f"{self._contender.name}: {count_effects(self.effects)} of {effects} effects, then"
                f" {how}{self.tail()}"
            )

    def wait_for_rest(self, tasks, since_ns, patience_s, first_s):
        """Wait until all tasks had an effect and the time of redelivery is over.

        Args:
            tasks: that were put.
            since_ns: when that time began.
            patience_s: how long it is, and the longest silence.
            first_s: the longest silence before the next effect.

        Returns:
            How many tasks had none.
        """
        self._wait(
            lambda: self._is_over(since_ns, patience_s) and not self._missing(tasks),
            patience_s,
            first_s,
            LONGEST_CRASH_S,
        )
        return self._missing(tasks)

    def _is_over(self, since_ns, patience_s):
        return self.clock.monotonic_ns() - since_ns > patience_s * NS_PER_S

    def _missing(self, tasks):
        return read_effects(self.effects, tasks).lost

    def _wait(self, reached, silence_s, first_s, longest_s=float("inf")):
        count, began_ns = count_effects(self.effects), self.clock.monotonic_ns()
        since_ns, patience_s = began_ns, first_s
        while not reached():
            now_ns, found = self.clock.monotonic_ns(), count_effects(self.effects)
            if found != count:
                count, since_ns, patience_s = found, now_ns, silence_s
            silent = now_ns - since_ns > patience_s * NS_PER_S
            ended = self._running.exit_code is not None
            if ended or silent or now_ns - began_ns > longest_s * NS_PER_S:
                return bool(reached())
            self.clock.block(_POLL_S)
        return True

    def cpu_s(self):
        """CPU seconds of the worker so far, with all of its processes that are still there."""
        used = 0.0
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getpgid(process.pid) == self._running.pid:
                    times = process.cpu_times()
                    used += times.user + times.system
        return used

    def tail(self):
        """The end of what the processes printed, to be put behind a message."""
        try:
            text = self._log.read_text(errors="replace")[-_TAIL_CHARACTERS:].strip()
        except FileNotFoundError:
            return ""
        return f":\n{text}" if text else ""

    def _spawn(self, *arguments):
        with self._log.open("ab") as output:
            return spawn(
                f"{self._contender.name}: {arguments[0]}",
                [self._python, "-m", f"{MODULES}.{self._contender.module}", *arguments],
                output=output,
                env=self._environment,
            )


def child_environment():
    """Of a process in another environment: it finds the contenders, and nothing of this one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {"PYTHONPATH": str(ROOT)}


def end_group(child):
    """SIGKILL to a child that leads a process group, and to all that are in it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.kill()
