"""What belongs together on one connection: a reply and its request.

A conversation is told each frame in the order in which it passes: ``label_request`` before the
rules look at it, ``forwarded`` with what became of it, and ``label_reply``.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from hookbench.faults.wire.frames import Frame, FrameParser
from hookbench.faults.wire.nats_frames import REPLY_VERBS, REQUEST_VERBS, NatsScanner
from hookbench.faults.wire.resp_frames import RespReplyScanner, RespRequestScanner

__all__ = ["Conversation", "NatsConversation", "RespConversation", "open_conversation"]

MAX_AWAITED = 100_000
"""Publishes of one connection whose answer is awaited at once; the oldest is given up beyond it."""

_PUSHING = frozenset([b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE", b"MONITOR", b"SYNC", b"PSYNC"])
_PUSHING |= {b"UNSUBSCRIBE", b"PUNSUBSCRIBE", b"SUNSUBSCRIBE"}
_PUBLISHES = frozenset([b"PUB", b"HPUB"])
_DELIVERIES = frozenset([b"MSG", b"HMSG"])

Tell = Callable[[str], None]


class Conversation(Protocol):
    """One connection, as its protocol sees it.

    Attributes:
        owed_swallows: replies still to come that no client asked for.
    """

    requests: FrameParser
    replies: FrameParser
    owed_swallows: int

    def label_request(self, frame: Frame) -> None:
        """Name a pseudo-frame."""
        ...

    def forwarded(self, frame: Frame, copies: int) -> None:
        """A request went to the broker so many times, or not at all."""
        ...

    def label_reply(self, frame: Frame, data: bytes) -> bool:
        """Name what a reply answers; whether the client is to get it."""
        ...

    def matches_replies(self) -> bool:
        """Whether replies can still be matched to requests."""
        ...


class RespConversation:
    """Redis answers in order, so the oldest request without a reply is the one answered.

    Inside of MULTI the reply to a command is its ``QUEUED``; the results come as the one reply to
    EXEC. Messages of pub/sub and of MONITOR answer nothing: from the reply to such a command on,
    no reply is matched.

    Args:
        tell: is told why replies can no longer be matched.
    """

    def __init__(self, tell: Tell) -> None:
        self.requests = FrameParser(RespRequestScanner())
        self.replies = FrameParser(RespReplyScanner())
        self.owed_swallows = 0
        self._tell = tell
        self._unanswered: deque[tuple[bytes, bytes, bool]] = deque()
        self._lost = False

    def label_request(self, frame: Frame) -> None:
        """RESP has no pseudo-frames."""

    def forwarded(self, frame: Frame, copies: int) -> None:
        """See ``Conversation``. The reply to a copy is kept from the client, which sent one."""
        if self._lost or frame.unanswered:
            return
        for number in range(copies):
            self._unanswered.append((frame.command, frame.key, number > 0))
        self.owed_swallows += max(copies - 1, 0)

    def label_reply(self, frame: Frame, data: bytes) -> bool:  # noqa: ARG002 - RESP needs none
        """See ``Conversation``."""
        if self._lost or not self._unanswered:
            return True
        command, key, swallow = self._unanswered.popleft()
        if command in _PUSHING or (command == b"CLIENT" and key.upper() == b"REPLY"):
            self._lost = True
            self._unanswered.clear()
            self.owed_swallows = 0
            self._tell(f"replies from {command.decode()} on cannot be matched: they pass")
            return True
        frame.command, frame.key = command, key
        if swallow:
            self.owed_swallows -= 1
        return not swallow

    def matches_replies(self) -> bool:
        """See ``Conversation``."""
        return not self._lost


class _StreamAnswer(msgspec.Struct):
    """The JSON of a PubAck; one with an error stored nothing."""

    stream: str
    seq: int
    error: msgspec.Raw | None = None


class NatsConversation:
    """A PubAck is the message on the reply subject of an earlier publish that names its sequence.

    Args:
        tell: is told what a run should know of this connection.
    """

    def __init__(self, tell: Tell) -> None:
        self.requests = FrameParser(NatsScanner(REQUEST_VERBS))
        self.replies = FrameParser(NatsScanner(REPLY_VERBS))
        self.owed_swallows = 0
        self._tell = tell
        self._awaited: dict[bytes, tuple[bytes, int]] = {}
        self._gave_up = False

    def label_request(self, frame: Frame) -> None:
        """See ``Conversation``."""
        if frame.command in _PUBLISHES and frame.key.startswith(b"$JS."):
            if frame.key.startswith(b"$JS.ACK."):
                frame.special = b"Ack"
            elif b".CONSUMER.MSG.NEXT." in frame.key:  # a domain may stand before it
                frame.special = b"Fetch"

    def forwarded(self, frame: Frame, copies: int) -> None:
        """See ``Conversation``."""
        if not frame.reply_to or not copies or frame.key.startswith(b"$JS."):
            return
        self._awaited[frame.reply_to] = (frame.key, copies)
        if len(self._awaited) > MAX_AWAITED:
            self._awaited.pop(next(iter(self._awaited)))
            if not self._gave_up:
                self._gave_up = True
                self._tell(f"more than {MAX_AWAITED} publishes without an answer: older forgotten")

    def label_reply(self, frame: Frame, data: bytes) -> bool:
        """See ``Conversation``."""
        if frame.command in _DELIVERIES:
            found = self._awaited.pop(frame.key, None)
            if found is not None:
                subject, copies = found
                if copies > 1:
                    self._awaited[frame.key] = (subject, copies - 1)
                if _stores(data[frame.body : frame.end - 2]):
                    frame.special, frame.key = b"PubAck", subject
        elif frame.command == b"INFO" and b'"connect_urls":["' in data[frame.start : frame.end]:
            self._tell("the server told the client other URLs (connect_urls): it may go round here")
        return True

    def matches_replies(self) -> bool:
        """See ``Conversation``."""
        return True


def _stores(payload: bytes) -> bool:
    try:
        answer = msgspec.json.decode(payload, type=_StreamAnswer)
    except msgspec.DecodeError:
        return False
    return answer.error is None


def open_conversation(protocol: str, tell: Tell) -> Conversation:
    """A new connection of a protocol: ``resp`` or ``nats``."""
    return RespConversation(tell) if protocol == "resp" else NatsConversation(tell)
