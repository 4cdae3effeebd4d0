"""A handler with a service time."""

from hookbench.clock import Clock
from hookbench.effects.classes import Execution
from hookbench.errors import SettingError
from hookbench.task import HookTask

__all__ = ["SleepHandler"]

MAX_SLEEP_S = 3600.0


class SleepHandler:
    """Sleeps for ``seconds`` of the clock that it is given.

    Raises:
        SettingError: the time is negative or longer than an hour.
    """

    def __init__(self, seconds: float, clock: Clock) -> None:
        if not 0 <= seconds <= MAX_SLEEP_S:
            raise SettingError(f"sleep of {seconds} s: use between 0 and {MAX_SLEEP_S:.0f}")
        self._seconds = seconds
        self._clock = clock

    async def __call__(self, _task: HookTask, _execution: Execution) -> None:
        """Wait."""
        await self._clock.sleep(self._seconds)
