"""The only module that reads time: everything else is given a ``Clock``."""

import time
from typing import Protocol

__all__ = ["NS_PER_MS", "NS_PER_S", "Clock", "SystemClock", "sleep_until"]

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


class Clock(Protocol):
    """Time as the code sees it; the simulator brings one of its own."""

    def monotonic_ns(self) -> int:
        """Nanoseconds of the machine's monotonic clock: durations, and order between processes."""
        ...

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch: labels only, never durations."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspend the caller for at least ``seconds``."""
        ...


class SystemClock:
    """The machine's clocks. The monotonic one is shared by all processes since boot."""

    monotonic_ns = staticmethod(time.monotonic_ns)
    """Nanoseconds since an arbitrary point of this boot."""
    wall_ns = staticmethod(time.time_ns)
    """Nanoseconds since the Unix epoch."""

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling coroutine."""
        import asyncio  # noqa: PLC0415 - a third of the git hook's start, and the hook never sleeps

        await asyncio.sleep(seconds)

    def block(self, seconds: float) -> None:
        """Block the calling thread: for code outside any event loop."""
        time.sleep(seconds)


async def sleep_until(time_ns: int, clock: Clock) -> None:
    """Sleep until a monotonic time has come, never less: a timer may be a millisecond early."""
    while (left_ns := time_ns - clock.monotonic_ns()) > 0:
        await clock.sleep(left_ns / NS_PER_S)
