"""A clock whose sleeps end within some tens of microseconds, without spinning.

asyncio's own timers are a millisecond off at p99, and uvloop's count in whole milliseconds and spin
below one. A timerfd of Linux (timerfd_create(2)) is a file descriptor that becomes readable at a
time of the monotonic clock, which any event loop waits for as for a socket.
"""

import asyncio
import ctypes
import heapq
import itertools
import os
import sys
from collections.abc import Callable

from hookbench.clock import NS_PER_S, Clock, SystemClock
from hookbench.load.alarm import Alarm, SleepingAlarm

__all__ = ["FineClock", "open_alarm"]

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1  # TFD_TIMER_ABSTIME
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK and TFD_CLOEXEC have their values
_COARSE_S = 0.02
_MARGIN_S = 0.01
"""Of a long sleep, what is left to the fine timer: more than any loop's own is off."""


class _Timer:
    """One timerfd of one loop, set to one moment.

    It is not read when it has rung: to be set anew takes the ringing away as well
    (timerfd_settime(2)), and costs one call of the system less for each task that is waited for.

    Args:
        loop: that waits for it.
        callback: called once the moment is over; it may set the next one.

    Raises:
        OSError: there is none.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.timerfd_create(_CLOCK_MONOTONIC, _FLAGS)
        if self._fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"timerfd_create: {os.strerror(number)}")
        # struct itimerspec: the interval, which stays 0, and the moment; each s and ns.
        self._spec = (ctypes.c_long * 4)()
        self._address = ctypes.addressof(self._spec)
        self._settime = libc.timerfd_settime
        self._settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self._callback = callback
        self._is_set = False
        self._loop = loop
        loop.add_reader(self._fd, self._ring)

    def set(self, moment_ns: int) -> None:
        """Ring at that time; at once when it is over."""
        self._is_set = True
        self._arm(max(1, moment_ns))

    def _arm(self, moment_ns: int) -> None:
        self._spec[2], self._spec[3] = divmod(moment_ns, NS_PER_S)
        if self._settime(self._fd, _ABSOLUTE, self._address, None):
            number = ctypes.get_errno()
            raise OSError(number, f"timerfd_settime: {os.strerror(number)}")

    def _ring(self) -> None:
        self._is_set = False
        try:
            self._callback()
        finally:
            if not self._is_set:
                self._arm(0)  # which disarms it

    def close(self) -> None:
        """Give the descriptor back."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)


class _Sleepers:
    """Who sleeps in one loop, on one timer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = _Timer(loop, self._wake)
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._loop = loop

    def wait(self, moment_ns: int) -> "asyncio.Future[None]":
        """A future that is done at that time."""
        future = self._loop.create_future()
        heapq.heappush(self._waiting, (moment_ns, next(self._numbers), future))
        if self._waiting[0][2] is future:
            self._timer.set(moment_ns)
        return future

    def _wake(self) -> None:
        now_ns = SystemClock.monotonic_ns()
        while self._waiting and self._waiting[0][0] <= now_ns:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(None)
        if self._waiting:
            self._timer.set(self._waiting[0][0])

    def close(self) -> None:
        """Give the timer back; who still sleeps is woken."""
        self._timer.close()
        for _moment, _number, future in self._waiting:
            if not future.done():
                future.set_result(None)


class _FineAlarm(_Timer):
    """An alarm that the event loop itself waits for."""

    async def serve(self, until: "asyncio.Future[None]") -> None:
        """As in ``Alarm``."""
        await until


class FineClock(SystemClock):
    """The machine's clocks, with fine sleeps where the system has a timerfd.

    Used by one event loop, in which it is closed.
    """

    def __init__(self) -> None:
        self._sleepers: _Sleepers | None = None

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling coroutine."""
        if seconds <= 0 or not _has_timers():
            await asyncio.sleep(seconds)
            return
        moment_ns = self.monotonic_ns() + int(seconds * NS_PER_S)
        if seconds > _COARSE_S:
            await asyncio.sleep(seconds - _MARGIN_S)
        if self._sleepers is None:
            self._sleepers = _Sleepers(asyncio.get_running_loop())
        await self._sleepers.wait(moment_ns)

    def close(self) -> None:
        """Give the timer back; the next sleep has another one."""
        if self._sleepers is not None:
            self._sleepers.close()
            self._sleepers = None


def open_alarm(clock: Clock, callback: Callable[[], None]) -> Alarm:
    """The finest alarm that a clock has.

    Args:
        clock: of the moments.
        callback: what is called in the running event loop; what it raises in one of a
            ``FineClock`` goes to the handler of that loop.
    """
    if isinstance(clock, FineClock) and _has_timers():
        return _FineAlarm(asyncio.get_running_loop(), callback)
    return SleepingAlarm(clock, callback)


def _has_timers() -> bool:
    return sys.platform.startswith("linux")
