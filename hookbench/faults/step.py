"""A worker that is killed at a named step of its work."""

import asyncio
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
MAX_TURNS = 1_000
_WATCH_S = 0.02
_TRIES = 3_000  # of 10 ms each


def parse_step(text: str) -> tuple[Event, int, int]:
    """Event, number and turns of ``effect:5``, or of ``effect:5:3``.

    Raises:
        SettingError: another form, or no step.
    """
    name, *numbers = text.split(":")
    whole = name in STEPS and len(numbers) in (1, 2) and all(map(str.isdigit, numbers))
    nth, turns = (*map(int, numbers), 0)[:2] if whole else (0, 0)
    if not (1 <= nth <= MAX_NTH and turns <= MAX_TURNS):
        raise SettingError(
            f"step {text!r}: use STEP:N, as in effect:5, or STEP:N:TURNS with up to {MAX_TURNS}"
            f" turns, with one of {', '.join(STEPS)}"
        )
    return STEPS[name], nth, turns


class DyingRecorder:
    """A ledger whose process gets SIGKILL right after the n-th event of a kind is recorded.

    It is told which one by a file that is watched, so that a worker can be told while it works.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._event: Event | None = None
        self._left = 0
        self._turns = 0

    def arm(self, event: Event, nth: int, turns: int = 0) -> None:
        """Die after the ``nth`` such event from now on, so many turns of the loop later."""
        self._event, self._left, self._turns = event, nth, turns

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
                _die_after(self._turns)


def _die_after(turns: int) -> None:
    """SIGKILL to this process: at once, or when what is ready has run so many times."""
    if turns == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        asyncio.get_running_loop().call_soon(_die_after, turns - 1)


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
        turns: how many turns of the loop later: between awaits that take no time.
        within_s: how long to wait for it.
    """

    step: str
    nth: int = 1
    turns: int = 0
    within_s: float = 30.0

    def check(self) -> None:
        """Refuse an unknown step, and another target than a worker."""
        parse_step(self._text)
        if not self.target.startswith("worker-"):
            raise SettingError(f"{self.name}: only a worker has steps: use worker-0, worker-1, …")

    @property
    def _text(self) -> str:
        """As ``parse_step`` reads it."""
        return f"{self.step}:{self.nth}:{self.turns}"

    async def inject(self, targets: Targets) -> None:
        """Tell the worker, and wait until it is dead."""
        process = targets.process(self.target)
        pid = process.pid
        targets.die_at(self.target, self._text)

        def gone() -> bool:
            return process.exit_code is not None or process.pid != pid

        if not await wait_until(gone, targets.clock, tries=int(self.within_s * 100)):
            raise FaultNotFiredError(
                f"{self.target} (pid {pid}) did not get to step {self.step} number {self.nth}"
                f" within {self.within_s:g} s"
            )
