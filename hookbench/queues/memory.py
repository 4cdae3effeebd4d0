"""A queue in this process: the null queue of unit tests and of the harness's own ceiling."""

import asyncio
import heapq
import itertools
from collections import deque
from typing import Self

from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import OversizeError, PublishRefusedError
from hookbench.ledger.events import Broker
from hookbench.queues.base import Capabilities, Delivery, Depth
from hookbench.task import DEFAULT_TASK_LIMIT_BYTES

__all__ = ["MemoryQueue"]


class _Entry:
    __slots__ = ("attempts", "payload", "sequence")

    def __init__(self, sequence: int, payload: bytes) -> None:
        self.sequence = sequence
        self.payload = payload
        self.attempts = 0


class MemoryQueue:
    """First in, first out, with acknowledgement and delayed nak; gone with the process."""

    name = "memory"
    capabilities = Capabilities(
        redelivery=False, delayed_nak=True, in_progress=False, attempts=True, ordered=True
    )

    def __init__(self, clock: Clock, *, limit_bytes: int = DEFAULT_TASK_LIMIT_BYTES) -> None:
        self._clock = clock
        self._limit_bytes = limit_bytes
        self._ready: deque[_Entry] = deque()
        self._delayed: list[tuple[int, int, _Entry]] = []
        self._in_flight: dict[int, _Entry] = {}
        self._sequence = itertools.count(1)
        self._changed = asyncio.Event()
        self._closed = False

    async def put(self, payload: bytes) -> int:
        """Store a task; its sequence."""
        if len(payload) > self._limit_bytes:
            raise OversizeError(f"task of {len(payload)} bytes: the limit is {self._limit_bytes}")
        if self._closed:
            raise PublishRefusedError("the queue is closed")
        entry = _Entry(next(self._sequence), payload)
        self._ready.append(entry)
        self._changed.set()
        return entry.sequence

    async def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        """Up to ``limit`` tasks; waits for the first, or for a delayed one that falls due."""
        deadline_ns = self._clock.monotonic_ns() + int(wait_s * NS_PER_S)
        while not self._closed:
            now_ns = self._clock.monotonic_ns()
            while self._delayed and self._delayed[0][0] <= now_ns:
                self._ready.append(heapq.heappop(self._delayed)[2])
            if self._ready:
                return [self._hand_over() for _ in range(min(limit, len(self._ready)))]
            if now_ns >= deadline_ns:
                break
            due_ns = min(deadline_ns, self._delayed[0][0] if self._delayed else deadline_ns)
            await self._wait((due_ns - now_ns) / NS_PER_S)
        return []

    async def _wait(self, seconds: float) -> None:
        self._changed.clear()
        timer = asyncio.ensure_future(self._clock.sleep(seconds))
        change = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({timer, change}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            change.cancel()

    def _hand_over(self) -> Delivery:
        entry = self._ready.popleft()
        entry.attempts += 1
        self._in_flight[entry.sequence] = entry
        return MemoryDelivery(self, entry)

    def settle(self, entry: _Entry, *, again_in_s: float | None = None) -> None:
        """End a delivery; with ``again_in_s`` the task comes back after that many seconds."""
        if self._in_flight.pop(entry.sequence, None) is None or again_in_s is None:
            return
        due_ns = self._clock.monotonic_ns() + int(again_in_s * NS_PER_S)
        heapq.heappush(self._delayed, (due_ns, entry.sequence, entry))
        self._changed.set()

    async def depth(self) -> Depth:
        """Delayed tasks count as pending."""
        pending = len(self._ready) + len(self._delayed)
        return Depth(pending=pending, in_flight=len(self._in_flight))

    async def close(self) -> None:
        """End a blocked ``receive``."""
        self._closed = True
        self._changed.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()


class MemoryDelivery:
    """A task handed out by a ``MemoryQueue``."""

    broker = Broker.MEMORY
    __slots__ = ("_entry", "_queue", "attempt")

    def __init__(self, queue: MemoryQueue, entry: _Entry) -> None:
        self._queue = queue
        self._entry = entry
        self.attempt = entry.attempts

    @property
    def payload(self) -> bytes:
        """The bytes as they were put."""
        return self._entry.payload

    @property
    def sequence(self) -> int:
        """The 1-based number of the task in this queue."""
        return self._entry.sequence

    async def ack(self) -> None:
        """Forget the task."""
        self._queue.settle(self._entry)

    async def nak(self, delay_s: float = 0.0) -> None:
        """Back to the queue after ``delay_s``."""
        self._queue.settle(self._entry, again_in_s=delay_s)

    async def term(self, reason: str) -> None:  # noqa: ARG002 - the dead letter holds it
        """Forget the task."""
        self._queue.settle(self._entry)

    async def in_progress(self) -> None:
        """Nothing to put off: this queue does not deliver again by itself."""
