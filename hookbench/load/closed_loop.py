"""A closed loop: callers that each wait for the outcome of their task before they send another.

It is how many clients behave, and how most load generators do. When the system stalls, so do its
callers: what they would have sent is never sent, and the stall is one long sample in place of
many. Latency counts from the moment of sending here, and says nothing about a load that comes from
outside (coordinated omission). An open loop does, see ``open_loop``.
"""

import asyncio

from hookbench.clock import NS_PER_S, Clock
from hookbench.load.open_loop import LoadTotals, Send

__all__ = ["ClosedLoop"]


class ClosedLoop:
    """Some callers, each with one task under way.

    Args:
        send: as of ``OpenLoop``; the intended time is that of sending.
        callers: how many there are, which is also the window: so many tasks are under way.
        pause_s: the least time from one task of a caller to its next; 0 for none.
        clock: of the run.
    """

    def __init__(self, send: Send, *, callers: int, pause_s: float = 0.0, clock: Clock) -> None:
        self._send = send
        self._callers = callers
        self._pause_ns = int(pause_s * NS_PER_S)
        self._clock = clock
        self._stop = False
        self._next = 0
        self.totals = LoadTotals()

    def request_stop(self) -> None:
        """Send nothing more."""
        self._stop = True

    async def run(self, count: int, start_ns: int) -> LoadTotals:
        """Send ``count`` tasks in all, from a moment on; returns with the last outcome.

        Raises:
            ExceptionGroup: what ``send`` raised; it is a defect of ``send``, not an outcome.
        """
        async with asyncio.TaskGroup() as group:
            for number in range(min(self._callers, count)):
                # They begin one after the other, not all at once every time.
                begin_ns = start_ns + self._pause_ns * number // self._callers
                group.create_task(self._call(count, begin_ns))
        return self.totals

    def so_far(self) -> LoadTotals:
        """The totals by now."""
        return self.totals

    async def _call(self, count: int, due_ns: int) -> None:
        while not self._stop:
            now_ns = self._clock.monotonic_ns()
            if now_ns < due_ns:
                now_ns = await self._until(due_ns)
            if self._stop or self._next >= count:
                return
            number = self._next
            self._next += 1
            self.totals.offered += 1
            due_ns = max(now_ns, due_ns) + self._pause_ns
            await self._send(number, now_ns)

    async def _until(self, moment_ns: int) -> int:
        """Sleep until a moment, or a stop; the time then."""
        while (left_ns := moment_ns - (now_ns := self._clock.monotonic_ns())) > 0:
            if self._stop:
                break
            await self._clock.sleep(min(left_ns / NS_PER_S, 0.5))
        return now_ns
