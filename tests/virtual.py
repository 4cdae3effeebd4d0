"""Virtual time: no unit test sleeps."""

import asyncio
import heapq
import itertools


class FixedClock:
    """A clock that stands still."""

    def __init__(self, *, wall_ns=0, monotonic_ns=0):
        self.wall = wall_ns
        self.now_ns = monotonic_ns

    def monotonic_ns(self):
        return self.now_ns

    def wall_ns(self):
        return self.wall

    async def sleep(self, seconds):
        raise AssertionError(f"slept {seconds} s on a clock that stands still")


class VirtualClock:
    """A clock that jumps to the next sleeper when nothing else can run."""

    def __init__(self):
        self.now_ns = 1_000_000_000
        self._sleepers = []
        self._numbers = itertools.count()
        self._pump = None

    def monotonic_ns(self):
        return self.now_ns

    def wall_ns(self):
        return 1_700_000_000_000_000_000 + self.now_ns

    async def sleep(self, seconds):
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        due_ns = self.now_ns + int(seconds * 1e9)
        heapq.heappush(self._sleepers, (due_ns, next(self._numbers), woken))
        if self._pump is None or self._pump.done():
            self._pump = asyncio.ensure_future(self._advance())
        await woken

    async def _advance(self):
        """After every other task had several turns, wake the earliest sleeper."""
        while self._sleepers:
            for _ in range(20):
                await asyncio.sleep(0)
            due_ns, _number, woken = heapq.heappop(self._sleepers)
            self.now_ns = max(self.now_ns, due_ns)
            if not woken.done():
                woken.set_result(None)
