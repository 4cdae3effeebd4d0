"""Frames cut out of a stream of bytes, whichever way the bytes are split.

A scanner knows one protocol in one direction and finds the end of one frame; ``FrameParser`` holds
what is not whole yet. The frames of a batch are contiguous: joined, with what is held back, they
are the input.
"""

from typing import Protocol

import msgspec

__all__ = ["MAX_FRAME_BYTES", "Batch", "Frame", "FrameError", "FrameParser", "Scanner"]

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""A larger frame is not held back: see ``FrameError``."""


class FrameError(Exception):
    """Bytes that are no frame; from here on nothing can be told apart.

    It never leaves this package: the connection goes on unparsed, and its statistics say so.
    """


class Frame(msgspec.Struct, gc=False):
    """One frame, as a part of the bytes of its batch.

    Attributes:
        start: offset of its first byte.
        end: offset behind its last byte.
        command: the Redis command or NATS verb in upper case; of a Redis reply, the command that
            it answers, empty if that cannot be told.
        key: the Redis key or NATS subject; of a Redis reply or a PubAck, that of its request.
        special: the name of a pseudo-frame, empty for others: ``PubAck``, ``Ack``, ``Fetch``.
        reply_to: where NATS sends the answer.
        body: offset of a NATS payload behind its headers.
        unanswered: Redis answers nothing to this request.
    """

    start: int
    end: int
    command: bytes = b""
    key: bytes = b""
    special: bytes = b""
    reply_to: bytes = b""
    body: int = 0
    unanswered: bool = False


class Batch(msgspec.Struct, gc=False):
    """What one piece of input completed.

    Attributes:
        data: the bytes that the offsets of the frames count in, without what is held back.
        error: why nothing behind the last frame can be parsed, ``None`` while all is well.
    """

    data: bytes
    frames: list[Frame]
    error: str | None = None


class Scanner(Protocol):
    """Finds frames of one protocol in one direction."""

    @property
    def need_bytes(self) -> int:
        """How many bytes of the unfinished frame there must be before a scan can succeed."""
        ...

    def scan(self, data: bytes, at: int) -> Frame | None:
        """The frame that starts at ``at``, ``None`` while it is not whole.

        The next call gets the same frame with more bytes behind it, so a scanner may go on where
        it stopped; offsets that it keeps count from the start of the frame.

        Raises:
            FrameError: no frame starts there.
        """
        ...


class FrameParser:
    """Splits a stream into frames.

    Args:
        scanner: of its own; it keeps the state of the unfinished frame.
    """

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._chunks: list[bytes] = []
        self._held_bytes = 0

    @property
    def held(self) -> bytes:
        """The beginning of a frame that is not whole yet."""
        return b"".join(self._chunks)

    @property
    def held_bytes(self) -> int:
        """The length of ``held``."""
        return self._held_bytes

    def feed(self, data: bytes) -> Batch:
        """Take the next bytes; the frames that they complete."""
        self._chunks.append(data)
        self._held_bytes += len(data)
        if self._held_bytes < self._scanner.need_bytes:
            return Batch(b"", [])
        whole = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        frames: list[Frame] = []
        error = None
        at, size, scan = 0, len(whole), self._scanner.scan
        try:
            while at < size and (frame := scan(whole, at)) is not None:
                frames.append(frame)
                at = frame.end
            if self._scanner.need_bytes > MAX_FRAME_BYTES or size - at > MAX_FRAME_BYTES:
                error = f"a frame of more than {MAX_FRAME_BYTES} bytes"
        except FrameError as found:
            error = str(found)
        self._chunks = [whole[at:]] if at < size else []
        self._held_bytes = size - at
        return Batch(whole if at == size else whole[:at], frames, error)
