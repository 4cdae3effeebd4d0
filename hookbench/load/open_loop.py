"""An open loop: tasks are sent when they are due, whatever became of those before.

Latency counts from the intended time of a task. When the generator itself falls behind, that
shows as schedule lag, which is reported and bounds what the latencies are worth.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec
from hdrh.histogram import HdrHistogram

from hookbench.cancellation import cancel
from hookbench.clock import NS_PER_S, Clock
from hookbench.load.fine_clock import open_alarm

if TYPE_CHECKING:
    from hookbench.load.alarm import Alarm

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
    sending itself. What is due is handed to them by a callback of the clock: a coroutine that
    sleeps from one task to the next would take two turns of the event loop more for each.

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
        self._landed = asyncio.Event()
        self._stop = False
        self._defect: Exception | None = None
        self._schedule: Iterator[tuple[int, int]] = iter(())
        self._number = 0
        self._intended_ns = 0
        self._has_no_room = False
        self._alarm: Alarm | None = None
        self._offered: asyncio.Future[None] | None = None
        self.totals = LoadTotals()
        self._lag = HdrHistogram(1, _HIGHEST_LAG_NS, _SIGNIFICANT_DIGITS)

    def request_stop(self) -> None:
        """Send nothing more."""
        self._stop = True
        self._end()

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
            Exception: what ``send`` raised; it is a defect of ``send``, not an outcome. Or what
                ``offsets_ns`` or ``skip`` raised.
        """
        moments_ns = enumerate(start_ns + offset_ns for offset_ns in offsets_ns)
        self._schedule = moments_ns if skip is None else self._resumed(moments_ns, skip)
        self._offered = asyncio.get_running_loop().create_future()
        self._alarm = open_alarm(self._clock, self._offer)
        try:
            if self._advance():
                self._offer()
            await self._alarm.serve(self._offered)
            await self._until_all_landed()
        finally:
            self._alarm.close()
            await cancel(*self._senders)
            self._senders.clear()
        if self._defect is not None:
            raise self._defect
        self.totals.lag_p50_ns = int(self._lag.get_value_at_percentile(50))
        self.totals.lag_p99_ns = int(self._lag.get_value_at_percentile(99))
        return self.so_far()

    def so_far(self) -> LoadTotals:
        """The totals, with the largest lag by now; its percentiles, which take long, at the end."""
        self.totals.lag_max_ns = int(self._lag.get_max_value())
        return self.totals

    def _resumed(
        self, moments_ns: Iterable[tuple[int, int]], skip: Callable[[int], None]
    ) -> Iterator[tuple[int, int]]:
        resumed_ns = self._clock.monotonic_ns()
        for number, intended_ns in moments_ns:
            if intended_ns < resumed_ns:
                self.totals.skipped += 1
                skip(number)
            else:
                yield number, intended_ns

    def _advance(self) -> bool:
        """Whether there is another task; without one all is offered."""
        try:
            self._number, self._intended_ns = next(self._schedule)
        except StopIteration:
            self._end()
            return False
        return True

    def _end(self) -> None:
        if self._offered is not None and not self._offered.done():
            self._offered.set_result(None)

    def _fail(self, defect: Exception) -> None:
        """End the offers; it is raised where the loop was run."""
        self._defect = self._defect or defect
        self.request_stop()

    def _offer(self) -> None:
        """Hand out what is due, and see to it that this is called for the next task."""
        try:
            self._hand_out()
        except Exception as error:  # noqa: BLE001 - nobody else would see it: this is a callback
            self._fail(error)

    def _hand_out(self) -> None:
        if self._stop:
            self._end()
        if self._alarm is None or self._offered is None or self._offered.done():
            return
        for _ in range(_TURN):
            now_ns = self._clock.monotonic_ns()
            if now_ns < self._intended_ns:
                self._alarm.set(self._intended_ns)
                return
            if self._in_flight >= self._max_in_flight:
                self.totals.blocked += 1
                self._has_no_room = True
                return
            self._lag.record_value(max(1, now_ns - self._intended_ns))
            self.totals.offered += 1
            self._hand(self._number, self._intended_ns)
            if not self._advance():
                return
        # One that is behind lets the others have their turn.
        asyncio.get_running_loop().call_soon(self._offer)

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
                self._fail(error)
            finally:
                self._in_flight -= 1
                self._landed.set()
                if self._has_no_room:
                    self._has_no_room = False
                    loop.call_soon(self._offer)

    async def _until_all_landed(self) -> None:
        while self._in_flight:
            self._landed.clear()
            await self._landed.wait()
