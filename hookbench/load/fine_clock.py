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

from hookbench.clock import NS_PER_S, SystemClock

__all__ = ["FineClock"]

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1  # TFD_TIMER_ABSTIME
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK and TFD_CLOEXEC have their values
_COARSE_S = 0.02
_MARGIN_S = 0.01
"""Of a long sleep, what is left to the fine timer: more than any loop's own is off."""


class _Spec(ctypes.Structure):
    """struct itimerspec: the interval, which is 0, and the moment."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class _Timer:
    """One timerfd of one loop, and who waits for it.

    Raises:
        OSError: there is none.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _FLAGS)
        if self._fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"timerfd_create: {os.strerror(number)}")
        self._spec = _Spec(0, 0, 0, 0)
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._loop = loop
        loop.add_reader(self._fd, self._ring)

    def wait(self, moment_ns: int) -> "asyncio.Future[None]":
        """A future that is done at that time."""
        future = self._loop.create_future()
        heapq.heappush(self._waiting, (moment_ns, next(self._numbers), future))
        if self._waiting[0][2] is future:
            self._arm(moment_ns)
        return future

    def _arm(self, moment_ns: int) -> None:
        # A moment of 0 would disarm it; one that is over rings at once.
        self._spec.value_s, self._spec.value_ns = divmod(max(1, moment_ns), NS_PER_S)
        failed = self._libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(self._spec), None)
        if failed:
            number = ctypes.get_errno()
            raise OSError(number, f"timerfd_settime: {os.strerror(number)}")

    def _ring(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # it was set anew after it had rung
            return
        now_ns = SystemClock().monotonic_ns()
        while self._waiting and self._waiting[0][0] <= now_ns:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(None)
        if self._waiting:
            self._arm(self._waiting[0][0])

    def close(self) -> None:
        """Give the descriptor back; who still waits is woken."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        for _moment, _number, future in self._waiting:
            if not future.done():
                future.set_result(None)


class FineClock(SystemClock):
    """The machine's clocks, with fine sleeps where the system has a timerfd.

    Used by one event loop, in which it is closed.
    """

    def __init__(self) -> None:
        self._timer: _Timer | None = None

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling coroutine."""
        if seconds <= 0 or not sys.platform.startswith("linux"):
            await asyncio.sleep(seconds)
            return
        moment_ns = self.monotonic_ns() + int(seconds * NS_PER_S)
        if seconds > _COARSE_S:
            await asyncio.sleep(seconds - _MARGIN_S)
        if self._timer is None:
            self._timer = _Timer(asyncio.get_running_loop())
        await self._timer.wait(moment_ns)

    def close(self) -> None:
        """Give the timer back; the next sleep has another one."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None
