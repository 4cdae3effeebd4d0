"""What one direction of a connection still has to send: at once, later, or slowly."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

import msgspec

from hookbench.clock import NS_PER_S, Clock
from hookbench.faults.wire.rules import ActiveRule, Pacer

__all__ = ["Outbox"]

HIGH_WATER_BYTES = 4 * 1024 * 1024
LOW_WATER_BYTES = 1024 * 1024


class _Held(msgspec.Struct, gc=False):
    data: bytes | memoryview
    due_ns: int
    pacer: Pacer | None
    rule: ActiveRule | None


class Outbox:
    """Keeps the order: what is behind a delayed frame waits with it.

    Args:
        clock: when something is due.
        on_room: is told ``False`` when too much is held back, ``True`` when it is sent.
    """

    def __init__(self, clock: Clock, on_room: Callable[[bool], None]) -> None:
        self._clock = clock
        self._on_room = on_room
        self._transport: asyncio.WriteTransport | None = None
        self._queue: deque[_Held] = deque()
        self._queued_bytes = 0
        self._full = False
        self._timer: asyncio.TimerHandle | None = None
        self._when_empty: list[Callable[[], None]] = []

    def attach(self, transport: asyncio.BaseTransport) -> None:
        """Where it goes; what came before it goes now."""
        self._transport = cast("asyncio.WriteTransport", transport)
        self.pump()

    @property
    def unsent_bytes(self) -> int:
        """What waits here and in the transport."""
        transport = self._transport
        waiting = 0 if transport is None else transport.get_write_buffer_size()
        return waiting + self._queued_bytes

    def send(
        self,
        data: bytes,
        *,
        delay_ns: int = 0,
        pacer: Pacer | None = None,
        rule: ActiveRule | None = None,
    ) -> None:
        """Send after what is here already, not before a delay has passed, no faster than a pacer.

        Args:
            data: some bytes.
            delay_ns: from now.
            pacer: of a slow link or a slow frame.
            rule: whose delay or pacer it is; when it is removed nothing is held back for it.
        """
        if not data:
            return
        if not self._queue and not delay_ns and pacer is None and self._transport is not None:
            self._transport.write(data)
            return
        due_ns = self._clock.monotonic_ns() + delay_ns if delay_ns else 0
        self._queue.append(_Held(data, due_ns, pacer, rule))
        self._queued_bytes += len(data)
        if not self._full and self._queued_bytes > HIGH_WATER_BYTES:
            self._full = True
            self._on_room(False)
        if self._timer is None:
            self.pump()

    def pump(self) -> None:
        """Send what may go now, and wake up for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is None:
            return
        while self._queue:
            held = self._queue[0]
            now_ns = self._clock.monotonic_ns()
            wait_ns = self._send_some(held, now_ns)
            if wait_ns:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(wait_ns / NS_PER_S, self.pump)
                break
        if self._full and self._queued_bytes < LOW_WATER_BYTES:
            self._full = False
            self._on_room(True)
        if not self._queue and self._when_empty:
            finished, self._when_empty = self._when_empty, []
            for done in finished:
                done()

    def _send_some(self, held: _Held, now_ns: int) -> int:
        """Send what may go of the first; how long to wait for the rest, 0 when it is sent."""
        transport = cast("asyncio.WriteTransport", self._transport)
        freed = held.rule is not None and held.rule.removed
        if not freed and held.due_ns > now_ns:
            return held.due_ns - now_ns
        if not freed and held.pacer is not None:
            size = held.pacer.take(now_ns, len(held.data))
            if size < len(held.data):
                if size:
                    rest = memoryview(held.data)
                    transport.write(bytes(rest[:size]))
                    held.data = rest[size:]
                    self._queued_bytes -= size
                return max(held.pacer.free_ns - now_ns, 1)
        transport.write(held.data)
        self._queued_bytes -= len(held.data)
        self._queue.popleft()
        return 0

    def then(self, done: Callable[[], None]) -> None:
        """Call ``done`` once, when nothing is held back."""
        if self._queue:
            self._when_empty.append(done)
        else:
            done()

    def discard(self) -> int:
        """Forget what is held back; how many bytes that were."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lost = self._queued_bytes
        self._queue.clear()
        self._queued_bytes = 0
        self._when_empty.clear()
        return lost
