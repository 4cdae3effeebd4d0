"""One connection of a client through the proxy, both ways."""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from hookbench.clock import NS_PER_MS, NS_PER_S
from hookbench.faults.wire.conversation import Conversation, open_conversation
from hookbench.faults.wire.model import OPAQUE
from hookbench.faults.wire.pipe import Flow, Pipe
from hookbench.faults.wire.rules import REPLY, REQUEST

if TYPE_CHECKING:
    from hookbench.faults.wire.link import Link

__all__ = ["Connection", "Side"]

RESET_PATIENCE_NS = NS_PER_S
"""How long a reset waits for the bytes before it to leave this process."""

_RESET_POLL_NS = NS_PER_MS
_LINGER_0 = struct.pack("ii", 1, 0)


class Side(asyncio.Protocol):
    """The end of a connection at the client or at the broker."""

    def __init__(self, connection: "Connection", direction: str) -> None:
        self._connection = connection
        self.direction = direction
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)
        self._connection.made(self)

    def data_received(self, data: bytes) -> None:
        """Bytes from this side."""
        self._connection.pipes[self.direction].receive(data)

    def eof_received(self) -> bool:
        """This side sends nothing more; the other may still answer."""
        self._connection.ended(self)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """This side is gone."""
        self.transport = None
        self._connection.lost(self, exc)

    def pause_writing(self) -> None:
        """This side does not read: stop the other."""
        self._connection.hold_up(self, True)

    def resume_writing(self) -> None:
        """This side reads again."""
        self._connection.hold_up(self, False)


class Connection:
    """A client, its broker, and the pipe in each direction.

    Args:
        link: rules and counts.
        number: from 1 on this link.
    """

    def __init__(self, link: "Link", number: int) -> None:
        self.link = link
        self.number = number
        self.flow = Flow.OPEN
        self.lost_bytes = False
        self.transparent = link.protocol == OPAQUE
        self.client = Side(self, REQUEST)
        self.broker = Side(self, REPLY)
        self.conversation: Conversation = open_conversation(link.protocol, self._tell)
        self.pipes = {
            REQUEST: Pipe(self, REQUEST, self.conversation.requests),
            REPLY: Pipe(self, REPLY, self.conversation.replies),
        }
        self._blocked: set[tuple[str, str]] = set()
        self._reset_deadline_ns = 0

    def _tell(self, text: str) -> None:
        self.link.trouble(self.number, text)

    def _other(self, side: Side) -> Side:
        return self.broker if side is self.client else self.client

    def made(self, side: Side) -> None:
        """One side is there. What a client sends before its broker is there waits in the outbox."""
        transport = cast("asyncio.Transport", side.transport)
        into = REPLY if side is self.client else REQUEST
        if side is self.client:
            self.link.opened(self)
        elif self.client.transport is None or self.flow is not Flow.OPEN:
            transport.abort()
            return
        self.pipes[into].outbox.attach(transport)
        if side is self.broker and self.pipes[REQUEST].ended:
            self.ended(self.client)

    def block(self, direction: str, why: str, blocked: bool) -> None:
        """Stop or go on reading from the side that sends in a direction."""
        before = self._is_blocked(direction)
        (self._blocked.add if blocked else self._blocked.discard)((direction, why))
        after = self._is_blocked(direction)
        transport = (self.client if direction == REQUEST else self.broker).transport
        if before == after or transport is None or transport.is_closing():
            return
        if after:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def _is_blocked(self, direction: str) -> bool:
        return any(blocked == direction for blocked, _why in self._blocked)

    def hold_up(self, side: Side, blocked: bool) -> None:
        """The transport of a side is full, or has room again."""
        self.block(REPLY if side is self.client else REQUEST, "transport", blocked)

    def _silent(self, side: Side) -> bool:
        """Whether the other side learns nothing of one, as when a machine in between is gone."""
        cut = self.link.partitions[side.direction] is not None
        if cut:
            self.lost_bytes = True
        return self.flow is Flow.HALF_OPEN or cut

    def ended(self, side: Side) -> None:
        """A side has sent its last byte: the other is told when all before it is sent."""
        if self._silent(side):
            return
        other, pipe = self._other(side), self.pipes[side.direction]

        def tell() -> None:
            pipe.finished = other.transport is not None
            transport = other.transport
            if transport is not None and not transport.is_closing() and transport.can_write_eof():
                transport.write_eof()
            self._close_if_done()

        pipe.ended = True
        pipe.flush_held()
        pipe.outbox.then(tell)

    def _close_if_done(self) -> None:
        if all(pipe.finished for pipe in self.pipes.values()):
            self.close()

    def lost(self, side: Side, error: Exception | None) -> None:
        """A side is gone: so goes the other, with what was under way to it."""
        if self._silent(side):
            self._forget_if_gone()
            return
        other = self._other(side)
        if error is not None:
            self._linger_0(other)
            if other.transport is not None:
                other.transport.abort()
        elif self.flow is Flow.OPEN:
            self.flow = Flow.ENDING
            pipe = self.pipes[side.direction]
            pipe.flush_held()
            pipe.outbox.then(self.close)
        self._forget_if_gone()

    def _forget_if_gone(self) -> None:
        if self.client.transport is None and self.broker.transport is None:
            self.flow = Flow.CLOSED
            for pipe in self.pipes.values():
                self.link.stats.discarded_bytes += pipe.outbox.discard()
            self.link.closed(self)

    def close(self) -> None:
        """Both sides in order: what was written is sent first."""
        for side in (self.client, self.broker):
            if side.transport is not None:
                side.transport.close()

    def abort(self) -> None:
        """Both sides at once."""
        self.flow = Flow.ENDING
        for side in (self.client, self.broker):
            if side.transport is not None:
                side.transport.abort()
        self._forget_if_gone()

    def half_open(self) -> None:
        """Nothing more is forwarded, the sockets stay."""
        self.flow = Flow.HALF_OPEN

    def cut(self) -> None:
        """Both sides are closed in order, after what was forwarded so far."""
        self.flow = Flow.ENDING
        for direction, side in ((REQUEST, self.broker), (REPLY, self.client)):
            self.pipes[direction].outbox.then(_closing(side))

    def reset(self) -> None:
        """RST to both sides, after what was forwarded so far has left this process."""
        if self.flow is not Flow.ENDING:
            self.flow = Flow.ENDING
            clock = self.link.clock
            self._reset_deadline_ns = clock.monotonic_ns() + RESET_PATIENCE_NS
        self._reset_when_sent()

    def _reset_when_sent(self) -> None:
        waiting = any(
            side.transport is not None and side.transport.get_write_buffer_size()
            for side in (self.client, self.broker)
        )
        if waiting and self.link.clock.monotonic_ns() < self._reset_deadline_ns:
            loop = asyncio.get_running_loop()
            loop.call_later(_RESET_POLL_NS / NS_PER_S, self._reset_when_sent)
            return
        for side in (self.client, self.broker):
            self._linger_0(side)
        self.abort()

    @staticmethod
    def _linger_0(side: Side) -> None:
        if side.transport is not None and not side.transport.is_closing():
            found = cast("socket.socket", side.transport.get_extra_info("socket"))
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)

    def go_transparent(self, direction: str, why: str) -> None:
        """Pass all bytes from now on as they are: one direction is not understood."""
        self.transparent = True
        self.link.stats.transparent += 1
        self._tell(f"{direction}: {why}; all further bytes of the connection pass unparsed")
        for pipe in self.pipes.values():
            pipe.flush_held()


def _closing(side: Side) -> Callable[[], None]:
    def close() -> None:
        if side.transport is not None:
            side.transport.close()

    return close
