"""One direction of a connection: bytes in, frames judged, bytes out."""

import enum
from typing import TYPE_CHECKING

from hookbench.faults.wire.frames import Frame, FrameParser
from hookbench.faults.wire.outbox import Outbox
from hookbench.faults.wire.rules import REQUEST, ActiveRule, Pacer

if TYPE_CHECKING:
    from hookbench.faults.wire.connection import Connection

__all__ = ["Flow", "Pipe"]


class Flow(enum.StrEnum):
    """Whether a connection forwards."""

    OPEN = "open"
    HALF_OPEN = "half_open"
    ENDING = "ending"
    CLOSED = "closed"


class Pipe:
    """One direction of a connection.

    Args:
        connection: whose.
        direction: ``request`` or ``reply``.
        parser: of this direction.
    """

    def __init__(self, connection: "Connection", direction: str, parser: FrameParser) -> None:
        self.ended = False  # its sender will send nothing more
        self.finished = False  # and its receiver was told
        self.outbox = Outbox(connection.link.clock, self._on_room)
        self._connection = connection
        self._link = connection.link
        self._direction = direction
        self._parser = parser
        self._is_request = direction == REQUEST
        self._ahead = 0  # bytes of an unfinished frame that were forwarded already

    def _on_room(self, room: bool) -> None:
        self._connection.block(self._direction, "outbox", not room)

    def receive(self, data: bytes) -> None:
        """Bytes from the sending side."""
        connection, link = self._connection, self._link
        stats = link.stats
        if self._is_request:
            stats.request_bytes += len(data)
        else:
            stats.reply_bytes += len(data)
        if connection.flow is not Flow.OPEN:
            self._discard(len(data))
            return
        partition = link.partitions[self._direction]
        if partition is not None:
            partition.touched(connection.number, len(data), self._direction)
            connection.lost_bytes = True
            self._discard(len(data))
            return
        if connection.transparent:
            self._send(data)
        elif link.frame_rules[self._direction] or (
            not self._is_request and connection.conversation.owed_swallows
        ):
            self._decide(data)
        else:
            self._forward(data)

    def _discard(self, size_bytes: int) -> None:
        self._link.stats.discarded_bytes += size_bytes

    def _send(self, data: bytes) -> None:
        """To the other side, through what slows the whole link."""
        if not data:
            return
        link, direction = self._link, self._direction
        bandwidth, latency = link.bandwidth[direction], link.latency[direction]
        if bandwidth is None and latency is None:
            self.outbox.send(data)
            return
        delay_ns = 0
        pacer: Pacer | None = None
        number = self._connection.number
        if latency is not None:
            latency.touched(number, len(data), direction)
            delay_ns = latency.delay_ns()
        if bandwidth is not None:
            bandwidth.touched(number, len(data), direction)
            pacer = bandwidth.pacer(direction)
        self.outbox.send(data, delay_ns=delay_ns, pacer=pacer, rule=bandwidth or latency)

    def _forward(self, data: bytes) -> None:
        """No rule can meet a frame of this direction: the bytes go first, and are parsed then."""
        self._send(data)
        batch = self._parser.feed(data)
        self._ahead = self._parser.held_bytes
        self._count(len(batch.frames))
        conversation = self._connection.conversation
        if self._is_request:
            for frame in batch.frames:
                conversation.forwarded(frame, 1)
        else:
            for frame in batch.frames:
                conversation.label_reply(frame, batch.data)
        if batch.error is not None:
            self._connection.go_transparent(self._direction, batch.error)

    def _count(self, frames: int) -> None:
        if self._is_request:
            self._link.stats.request_frames += frames
        else:
            self._link.stats.reply_frames += frames

    def _decide(self, data: bytes) -> None:
        """Look at each frame before it goes; frames in a row that pass go in one piece."""
        batch = self._parser.feed(data)
        self._count(len(batch.frames))
        conversation = self._connection.conversation
        begin = 0
        for frame in batch.frames:
            copies = 1
            wanted = self._told(frame, batch.data)
            if self._ahead:
                begin, self._ahead = self._ahead, 0
            elif not wanted:
                self._send(batch.data[begin : frame.start])
                begin = frame.end
            elif (rule := self._judge(frame)) is not None:
                self._send(batch.data[begin : frame.start])
                begin = frame.end
                copies = self._act(rule, batch.data[frame.start : frame.end])
                if self._connection.flow is not Flow.OPEN:
                    self._discard(len(batch.data) - begin + self._parser.held_bytes)
                    return
            if self._is_request:
                conversation.forwarded(frame, copies)
        self._send(batch.data[begin:])
        if batch.error is not None:
            self._connection.go_transparent(self._direction, batch.error)

    def _told(self, frame: Frame, data: bytes) -> bool:
        """Label a frame; whether it is meant for the other side at all."""
        conversation = self._connection.conversation
        if self._is_request:
            conversation.label_request(frame)
            return True
        return conversation.label_reply(frame, data)

    def _judge(self, frame: Frame) -> ActiveRule | None:
        """The rule that decides; each one that the frame meets counts it."""
        if not self._is_request and not self._connection.conversation.matches_replies():
            return None
        decides: ActiveRule | None = None
        for rule in self._link.frame_rules[self._direction]:
            if not rule.meets(frame):
                continue
            if rule.rule.action == "pass":
                rule.fired(frame, self._connection.number)
            elif decides is None:
                rule.fired(frame, self._connection.number)
                decides = rule
            else:
                rule.stats.overruled += 1
        return decides

    def _act(self, rule: ActiveRule, data: bytes) -> int:
        """Do what a rule says; how many copies of the frame were forwarded."""
        connection, action = self._connection, rule.rule.action
        if action == "delay":
            self.outbox.send(data, delay_ns=rule.delay_ns(), rule=rule)
            return 1
        if action == "trickle":
            self.outbox.send(data, pacer=Pacer(rule.rule.bytes_per_s), rule=rule)
            return 1
        if action == "duplicate":
            self._send(data + data)
            return 2
        self._discard(len(data))
        if action == "drop":
            if self._is_request or self._link.protocol == "nats":
                return 0
            action = rule.rule.then
        {
            "reset": connection.reset,
            "half_open": connection.half_open,
            "cut": connection.cut,
        }[action]()
        return 0

    def flush_held(self) -> None:
        """Forward what was held back for an unfinished frame: it will not be parsed any more."""
        held = self._parser.held[self._ahead :]
        self._ahead = self._parser.held_bytes
        if held:
            self._send(held)
