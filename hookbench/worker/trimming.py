"""Removes the Redis copies of tasks that NATS has done.

The copy of a dual write has the bytes of what NATS delivered, and is one of the oldest of the
list: LREM from the tail finds it at once. It may not be there yet, for the producer writes NATS
first; then it is looked for again. Where it never comes (another worker has read it) it is given
up, and counted: the done-store keeps it from being executed.
"""

import asyncio
import heapq
import itertools
import logging

from hookbench.cancellation import cancel
from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import BrokerUnreachableError
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_errors import broker_errors
from hookbench.task import Names

__all__ = ["Trimmer"]

_log = logging.getLogger(__name__)

_BATCH = 128
_LOOK_AGAIN_S = (0.05, 0.5, 5.0)
"""After each miss; a producer writes the second copy within the timeout of its first write."""
_LOOKS_AT_CLOSE = 2
_AWAY_PAUSE_S = 0.5
_MAX_WAITING = 100_000
_CLOSE_TIMEOUT_S = 10.0


class Trimmer:
    """Takes payloads without stalling the worker, and removes them in batches.

    Attributes:
        trimmed: copies that were removed.
        missed: payloads of which no copy was found, or that there was no time for.
    """

    def __init__(
        self, client: RedisClient, *, names: Names | None = None, task_type: str, clock: Clock
    ) -> None:
        self._client = client
        self._pending = (names or Names()).pending_key(task_type)
        self._clock = clock
        self._waiting: list[tuple[int, int, int, bytes]] = []
        """Due time, number, misses so far, payload: a heap."""
        self._numbers = itertools.count()
        self._changed = asyncio.Event()
        self._closing = False
        self._looks_again = True
        self._finds = True
        """Whether the last batch had a copy."""
        self._running: asyncio.Task[None] | None = None
        self.trimmed = 0
        self.missed = 0

    def trim(self, payload: bytes) -> None:
        """Remove the copy with these bytes, soon; what comes after the close is given up."""
        if self._closing or len(self._waiting) >= _MAX_WAITING:
            self.missed += 1
            return
        self._push(payload, misses=0, due_ns=self._clock.monotonic_ns())
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run())

    async def close(self, *, look: bool = True) -> None:
        """Remove what is still to be removed; copies that do not come any more are given up.

        It can be repeated. Without ``look`` nothing is looked for any more: Redis is known to be
        empty.
        """
        self._closing = True
        self._looks_again = look
        if not look:
            self.missed += len(self._waiting)
            self._waiting.clear()
        self._changed.set()
        if self._running is None:
            return
        done, _pending = await asyncio.wait({self._running}, timeout=_CLOSE_TIMEOUT_S)
        if not done:
            await cancel(self._running)
        self.missed += len(self._waiting)
        self._waiting.clear()

    def reopen(self) -> None:
        """Go on after a close: the worker reads NATS beside Redis again."""
        if self._closing:
            self._closing, self._looks_again, self._running = False, True, None

    def _push(self, payload: bytes, *, misses: int, due_ns: int) -> None:
        heapq.heappush(self._waiting, (due_ns, next(self._numbers), misses, payload))
        self._changed.set()

    async def _run(self) -> None:
        while self._waiting or not self._closing:
            self._changed.clear()
            batch = self._due()
            if not batch:
                await self._wait()
                continue
            try:
                removed = [0] * len(batch)
                # One question in place of four for each task, where producers write NATS alone.
                if self._finds or await self._is_anything_there():
                    removed = await self._remove([payload for _misses, payload in batch])
                    self._finds = any(removed)
            except BrokerUnreachableError as error:
                _log.warning("%d Redis copies are not removed yet: %s", len(batch), error)
                due_ns = self._clock.monotonic_ns() + int(_AWAY_PAUSE_S * NS_PER_S)
                for misses, payload in batch:
                    self._push(payload, misses=misses, due_ns=due_ns)
                continue
            for (misses, payload), count in zip(batch, removed, strict=True):
                self._note(payload, misses, count)

    def _due(self) -> list[tuple[int, bytes]]:
        now_ns = self._clock.monotonic_ns()
        patience_ns = int(_LOOK_AGAIN_S[_LOOKS_AT_CLOSE - 1] * NS_PER_S)
        batch: list[tuple[int, bytes]] = []
        while self._waiting and len(batch) < _BATCH:
            left_ns = self._waiting[0][0] - now_ns
            if left_ns > 0 and not (self._closing and left_ns > patience_ns):
                break
            _due_ns, _number, misses, payload = heapq.heappop(self._waiting)
            batch.append((misses, payload))
        return batch

    def _note(self, payload: bytes, misses: int, count: int) -> None:
        self.trimmed += count
        if count:
            return
        # A worker that stops looks once more for what was put a moment ago, and not for long.
        looks = _LOOK_AGAIN_S[: _LOOKS_AT_CLOSE if self._closing else None]
        if misses >= len(looks) or not self._looks_again:
            self.missed += 1
            return
        due_ns = self._clock.monotonic_ns() + int(looks[misses] * NS_PER_S)
        self._push(payload, misses=misses + 1, due_ns=due_ns)

    async def _wait(self) -> None:
        """Until something is due, or is added."""
        pending: set[asyncio.Future[object]] = {asyncio.ensure_future(self._changed.wait())}
        if self._waiting:
            left_s = max(0.0, (self._waiting[0][0] - self._clock.monotonic_ns()) / NS_PER_S)
            pending.add(asyncio.ensure_future(self._clock.sleep(left_s)))
        try:
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in pending:
                future.cancel()

    async def _is_anything_there(self) -> bool:
        with broker_errors(f"LLEN {self._pending}"):
            return await self._client.llen(self._pending) > 0

    async def _remove(self, payloads: list[bytes]) -> list[int]:
        pipeline = self._client.pipeline(transaction=False)
        for payload in payloads:
            pipeline.lrem(self._pending, -1, payload)
        with broker_errors(f"LREM {self._pending}"):
            return [int(count) for count in await pipeline.execute()]
