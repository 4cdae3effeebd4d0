"""The clock of a simulated process."""

import asyncio

from hookbench.clock import NS_PER_S
from hookbench.sim.loop import EPOCH_NS, SimulatedLoop

__all__ = ["WALL_EPOCH_NS", "SimulatedClock"]

WALL_EPOCH_NS = 1_700_000_000 * NS_PER_S
"""The wall clock at the start of every run: 14 November 2023, 22:13:20 UTC."""


class SimulatedClock:
    """``hookbench.clock.Clock`` over the time of a loop.

    Args:
        loop: whose time it is.
        wall_offset_ns: how far the wall clock of this machine is ahead of the others.
    """

    def __init__(self, loop: SimulatedLoop, *, wall_offset_ns: int = 0) -> None:
        self._loop = loop
        self._after = loop.after
        self._wall_ns = WALL_EPOCH_NS - EPOCH_NS + wall_offset_ns

    def monotonic_ns(self) -> int:
        """Nanoseconds of virtual time; all processes have the same."""
        return self._loop.now_ns

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch, as this machine's clock has them."""
        return self._loop.now_ns + self._wall_ns

    async def sleep(self, seconds: float) -> None:
        """Suspend the caller for that long, to the nanosecond."""
        if seconds > 0:
            await self._after(seconds)
        else:
            await asyncio.sleep(0)
