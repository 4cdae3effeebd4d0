"""An open loop: tasks are sent when they are due, whatever became of those before.

Latency counts from the intended time of a task. When the generator itself falls behind, that
shows as schedule lag, which is reported and bounds what the latencies are worth.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

import msgspec
from hdrh.histogram import HdrHistogram

from hookbench.cancellation import cancel
from hookbench.clock import NS_PER_S, Clock

__all__ = ["LoadTotals", "OpenLoop"]

MAX_IN_FLIGHT = 4_000
_HIGHEST_LAG_NS = 600 * NS_PER_S
_SIGNIFICANT_DIGITS = 3
_TURN = 64


class LoadTotals(msgspec.Struct):
    """What a generator did.

    Attributes:
        offered: tasks that were due and were sent.
        skipped: tasks that were due before a resumed run began.
        accepted, refused, unknown: what their callers were told.
        lag_p50_ns, lag_p99_ns, lag_max_ns: schedule lag, sent minus intended.
        blocked: tasks that had to wait because ``MAX_IN_FLIGHT`` were out; their wait is in
            the lag.
    """

    offered: int = 0
    skipped: int = 0
    accepted: int = 0
    refused: int = 0
    unknown: int = 0
    lag_p50_ns: int = 0
    lag_p99_ns: int = 0
    lag_max_ns: int = 0
    blocked: int = 0


Send = Callable[[int, int], Awaitable[None]]
"""Sends task number n, due at an intended monotonic time in ns; it counts its own outcome."""


class OpenLoop:
    """Sends at given offsets from a start.

    Each task is sent by a coroutine that has nothing else to do; there are as many of them as
    tasks were under way at once. They stay, for a new one for each task would cost as much as the
    sending itself.

    Args:
        send: sends one task.
        clock: of the schedule.
        max_in_flight: tasks under way at once, at the most.
    """

    def __init__(self, send: Send, *, clock: Clock, max_in_flight: int = MAX_IN_FLIGHT) -> None:
        self._send = send
        self._clock = clock
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._due: deque[tuple[int, int]] = deque()
        self._senders: list[asyncio.Task[None]] = []
        self._idle: list[asyncio.Future[None]] = []
        self._changed = asyncio.Event()
        self._stop = False
        self._defect: Exception | None = None
        self.totals = LoadTotals()
        self._lag = HdrHistogram(1, _HIGHEST_LAG_NS, _SIGNIFICANT_DIGITS)

    def request_stop(self) -> None:
        """Send nothing more."""
        self._stop = True

    async def run(
        self,
        offsets_ns: Iterable[int],
        start_ns: int,
        *,
        skip: Callable[[int], None] | None = None,
    ) -> LoadTotals:
        """Send one task per offset, then wait for the outcomes of all.

        Args:
            offsets_ns: in ascending order.
            start_ns: monotonic time of offset 0.
            skip: for a run that is resumed: called with the number of each task that was due
                before now, which is not sent.

        Raises:
            Exception: what ``send`` raised; it is a defect of ``send``, not an outcome.
        """
        try:
            await self._offer(offsets_ns, start_ns, skip)
            await self._until_in_flight(0)
        finally:
            await cancel(*self._senders)
            self._senders.clear()
        if self._defect is not None:
            raise self._defect
        self.totals.lag_p50_ns = int(self._lag.get_value_at_percentile(50))
        self.totals.lag_p99_ns = int(self._lag.get_value_at_percentile(99))
        self.totals.lag_max_ns = int(self._lag.get_max_value())
        return self.totals

    async def _offer(
        self, offsets_ns: Iterable[int], start_ns: int, skip: Callable[[int], None] | None
    ) -> None:
        resumed_ns = self._clock.monotonic_ns() if skip is not None else start_ns
        for number, offset_ns in enumerate(offsets_ns):
            intended_ns = start_ns + offset_ns
            if skip is not None and intended_ns < resumed_ns:
                self.totals.skipped += 1
                skip(number)
                continue
            now_ns = self._clock.monotonic_ns()
            if now_ns < intended_ns:
                now_ns = await self._until(intended_ns)
            if self._in_flight >= self._max_in_flight:
                self.totals.blocked += 1
                await self._until_in_flight(self._max_in_flight - 1)
                now_ns = self._clock.monotonic_ns()
            if self._stop:
                return
            self._lag.record_value(max(1, now_ns - intended_ns))
            self.totals.offered += 1
            self._hand(number, intended_ns)
            if number % _TURN == 0:  # one that is behind lets the others have their turn
                await asyncio.sleep(0)

    def _hand(self, number: int, intended_ns: int) -> None:
        """Give a task to a sender that is idle, or to another one."""
        self._in_flight += 1
        self._due.append((number, intended_ns))
        if self._idle:
            self._idle.pop().set_result(None)
        elif len(self._senders) < self._in_flight:
            loop = asyncio.get_running_loop()
            self._senders.append(loop.create_task(self._send_what_is_due()))

    async def _send_what_is_due(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._due:
                idle = loop.create_future()
                self._idle.append(idle)
                await idle
                continue
            number, intended_ns = self._due.popleft()
            try:
                await self._send(number, intended_ns)
            except Exception as error:  # noqa: BLE001 - it is raised where the loop was run
                self._defect = self._defect or error
                self._stop = True
            finally:
                self._in_flight -= 1
                self._changed.set()

    async def _until(self, moment_ns: int) -> int:
        """Sleep until a moment, or a stop; the time then."""
        while (left_ns := moment_ns - (now_ns := self._clock.monotonic_ns())) > 0:
            if self._stop:
                break
            await self._clock.sleep(min(left_ns / NS_PER_S, 0.5))
        return now_ns

    async def _until_in_flight(self, count: int) -> None:
        """Until no more than so many are under way; a stop ends no wait for outcomes."""
        while self._in_flight > count and not (self._stop and count):
            self._changed.clear()
            await self._changed.wait()
