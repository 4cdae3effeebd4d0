"""A fleet that is restarted in order, as a deployment does it."""

import signal

from hookbench.errors import SettingError
from hookbench.faults.base import Fault, FaultNotFiredError, Targets, wait_until
from hookbench.faults.process import end_process

__all__ = ["RollingRestart"]

FLEETS = ("workers", "producers")
_END_TRIES = 3_000  # of 10 ms each
_BACK_TRIES = 12_000
"""Whoever takes a place meets other faults on a busy machine, and starts more than once."""


class RollingRestart(Fault, frozen=True, kw_only=True, tag="rolling_restart"):
    """SIGTERM to one process of a fleet after the other; each is back in its phase before the next.

    It lasts as long as that takes; ``for_s`` comes on top.
    """

    def check(self) -> None:
        """Refuse what is no fleet."""
        if self.target not in FLEETS:
            raise SettingError(f"{self.name}: target {self.target!r}: use {' or '.join(FLEETS)}")

    async def inject(self, targets: Targets) -> None:
        """Restart every process of the fleet.

        Raises:
            FaultNotFiredError: one did not end, or its place was not filled; those before it
                have been restarted, those behind it have not.
        """
        for name in targets.members(self.target):
            pid = targets.process(name).pid
            await end_process(targets, name, signal.SIGTERM, tries=_END_TRIES)

            def back(name: str = name, pid: int = pid) -> bool:
                return targets.process(name).pid != pid and targets.has_entered(name)

            if not await wait_until(back, targets.clock, tries=_BACK_TRIES):
                raise FaultNotFiredError(
                    f"{name} (pid {pid}): nobody took its place within"
                    f" {_BACK_TRIES // 100} s of its end"
                )
