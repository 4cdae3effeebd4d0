"""An open loop: tasks are sent when they are due, whatever became of those before.

Latency counts from the intended time of a task. When the generator itself falls behind, that
shows as schedule lag, which is reported and bounds what the latencies are worth.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import msgspec
from hdrh.histogram import HdrHistogram

from hookbench.clock import NS_PER_S, Clock

__all__ = ["LoadTotals", "OpenLoop"]

MAX_IN_FLIGHT = 4_000
_HIGHEST_LAG_NS = 600 * NS_PER_S
_SIGNIFICANT_DIGITS = 3


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
    """Sends at given offsets from a start."""

    def __init__(self, send: Send, *, clock: Clock, max_in_flight: int = MAX_IN_FLIGHT) -> None:
        self._send = send
        self._clock = clock
        self._max_in_flight = max_in_flight
        self._in_flight: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self._stop = False
        self._defect: BaseException | None = None
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
        loop = asyncio.get_running_loop()
        resumed_ns = self._clock.monotonic_ns() if skip is not None else start_ns
        for number, offset_ns in enumerate(offsets_ns):
            intended_ns = start_ns + offset_ns
            if skip is not None and intended_ns < resumed_ns:
                self.totals.skipped += 1
                skip(number)
                continue
            await self._until(intended_ns)
            if len(self._in_flight) >= self._max_in_flight:
                self.totals.blocked += 1
                await self._wait_for_room()
            if self._stop:
                break
            self._lag.record_value(max(1, self._clock.monotonic_ns() - intended_ns))
            self.totals.offered += 1
            task = loop.create_task(self._one(number, intended_ns))
            self._in_flight.add(task)
            task.add_done_callback(self._ended)
        if self._in_flight:
            await asyncio.wait(set(self._in_flight))
        if self._defect is not None:
            raise self._defect
        self.totals.lag_p50_ns = int(self._lag.get_value_at_percentile(50))
        self.totals.lag_p99_ns = int(self._lag.get_value_at_percentile(99))
        self.totals.lag_max_ns = int(self._lag.get_max_value())
        return self.totals

    async def _one(self, number: int, intended_ns: int) -> None:
        await self._send(number, intended_ns)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._room.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._defect = self._defect or error
            self._stop = True

    async def _until(self, moment_ns: int) -> None:
        while not self._stop:
            left_ns = moment_ns - self._clock.monotonic_ns()
            if left_ns <= 0:
                return
            await self._clock.sleep(min(left_ns / NS_PER_S, 0.5))

    async def _wait_for_room(self) -> None:
        while len(self._in_flight) >= self._max_in_flight and not self._stop:
            self._room.clear()
            await self._room.wait()
