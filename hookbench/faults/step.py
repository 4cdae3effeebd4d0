"""A worker that is killed at a named step of its work."""

import os
import signal
from pathlib import Path

from hookbench.clock import Clock
from hookbench.errors import SettingError
from hookbench.faults.base import Fault, FaultNotFiredError, Targets, wait_until
from hookbench.ledger.events import NO_TASK, Broker, Event, Recorder

__all__ = ["STEPS", "DyingRecorder", "KillAtStep", "parse_step"]

STEPS = {
    "receive": Event.RECEIVED,
    "claim": Event.CLAIMED,
    "start": Event.STARTED,
    "effect": Event.EFFECT,
    "done": Event.DONE,
    "ack": Event.ACK_SENT,
}
"""The worker dies right after it has recorded this. ``done`` is before the acknowledgement, which
``ack`` is after; with the guide's early acknowledgement ``ack`` comes before ``start``. What was
sent just before may lie in the buffers of the process, and die with it: also after ``ack`` the
broker may deliver the task again."""
MAX_NTH = 1_000_000
_WATCH_S = 0.02
_TRIES = 3_000  # of 10 ms each


def parse_step(text: str) -> tuple[Event, int]:
    """Event and number of ``effect:5``.

    Raises:
        SettingError: another form, or no step.
    """
    name, _colon, number = text.partition(":")
    if name not in STEPS or not number.isdigit() or not 1 <= int(number) <= MAX_NTH:
        raise SettingError(
            f"step {text!r}: use STEP:N, as in effect:5, with one of {', '.join(STEPS)}"
        )
    return STEPS[name], int(number)


class DyingRecorder:
    """A ledger whose process gets SIGKILL right after the n-th event of a kind is recorded.

    It is told which one by a file that is watched, so that a worker can be told while it works.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._event: Event | None = None
        self._left = 0

    def arm(self, event: Event, nth: int) -> None:
        """Die after the ``nth`` such event from now on."""
        self._event, self._left = event, nth

    async def watch(self, path: Path, clock: Clock) -> None:
        """Obey what is written to ``path``, as in ``effect:5``, until cancelled.

        The file is removed before it is obeyed: who takes this process's place does not die of it.

        Raises:
            SettingError: something else is written there.
        """
        while True:
            text = _take(path)
            if text is not None:
                self.arm(*parse_step(text))
            await clock.sleep(_WATCH_S)

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
        """Record, and die if this was the one."""
        self._recorder.record(
            event, task, broker=broker, value=value, attempt=attempt, repository=repository
        )
        if event is self._event:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def _take(path: Path) -> str | None:
    """What the file says, which is then gone; ``None`` without one."""
    try:
        text = path.read_text()
        path.unlink()
    except FileNotFoundError:
        return None
    return text.strip()


class KillAtStep(Fault, frozen=True, kw_only=True, tag="kill_at_step"):
    """A worker that kills itself with SIGKILL after a step of its n-th task from ``at_s`` on.

    Attributes:
        step: ``receive``, ``claim``, ``start``, ``effect``, ``done`` or ``ack``.
        nth: the first, second, … time that it gets there.
        within_s: how long to wait for it.
    """

    step: str
    nth: int = 1
    within_s: float = 30.0

    def check(self) -> None:
        """Refuse an unknown step, and another target than a worker."""
        parse_step(f"{self.step}:{self.nth}")
        if not self.target.startswith("worker-"):
            raise SettingError(f"{self.name}: only a worker has steps: use worker-0, worker-1, …")

    async def inject(self, targets: Targets) -> None:
        """Tell the worker, and wait until it is dead."""
        process = targets.process(self.target)
        pid = process.pid
        targets.die_at(self.target, f"{self.step}:{self.nth}")

        def gone() -> bool:
            return process.exit_code is not None or process.pid != pid

        if not await wait_until(gone, targets.clock, tries=int(self.within_s * 100)):
            raise FaultNotFiredError(
                f"{self.target} (pid {pid}) did not get to step {self.step} number {self.nth}"
                f" within {self.within_s:g} s"
            )
