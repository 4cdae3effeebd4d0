"""The frames of NATS' client protocol, read without a coroutine and a pattern for each.

Whoever listens to a subscription of ``ReconnectingClient.subscribe_at_once`` is called for each
message, in their order. All other frames are nats-py's to read.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ProtocolError
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

if TYPE_CHECKING:
    from hookbench.queues.reconnecting import ReconnectingClient

__all__ = [
    "MAX_LINE_BYTES",
    "MAX_MESSAGE_BYTES",
    "FrameParser",
    "Listener",
    "Message",
    "headers_of",
]

_END = b"\r\n"
_PLAIN, _WITH_HEADERS = b"MSG", b"HMSG"
_LEAST_WORDS = 4
MAX_LINE_BYTES = 1024 * 1024
"""Of a line without an end: INFO of a large cluster has some ten KiB."""
MAX_MESSAGE_BYTES = 64 * 1024 * 1024 + MAX_LINE_BYTES
"""The largest max_payload that a server takes, and room for what it says itself."""
_VERSION_BYTES = len("NATS/1.0")
_SPACE = ord(" ")


class Message(Msg):
    """A message of nats-py's, of which nothing is read that nobody asks for.

    Attributes:
        raw_subject: the subject, as it came.
        raw_headers: likewise the headers; empty if there are none.
    """

    _read_headers: dict[str, str] | None = None

    def __init__(
        self,
        client: "ReconnectingClient",
        sid: int,
        subject: bytes,
        reply: bytes,
        data: bytes,
        raw_headers: bytes,
    ) -> None:
        self._client = client
        self._sid = sid
        self.raw_subject = subject
        self._raw_reply = reply
        self.data = data
        self.raw_headers = raw_headers

    @property
    def subject(self) -> str:  # type: ignore[override]  # a field there
        """The subject."""
        return self.raw_subject.decode(errors="replace")

    @property
    def reply(self) -> str:  # type: ignore[override]  # a field there
        """Where an answer goes; empty for nowhere."""
        return self._raw_reply.decode(errors="replace")

    @property
    def headers(self) -> dict[str, str] | None:  # type: ignore[override]  # a field there
        """By name; those of a server's status have ``Status`` and ``Description``."""
        if self._read_headers is None and self.raw_headers:
            self._read_headers = headers_of(self.raw_headers)
        return self._read_headers

    @property
    def is_status(self) -> bool:
        """Whether the server says something of its own, and has no message."""
        raw = self.raw_headers
        return len(raw) > _VERSION_BYTES and raw[_VERSION_BYTES] == _SPACE


Listener = Callable[[Message], None]
"""Is given each message of a subscription, and waits for nothing."""


def headers_of(raw: bytes) -> dict[str, str] | None:
    """What nats-py makes of the headers of a message; ``None`` if there are none.

    The first line has the version, and behind it a status where the server says something itself
    (NATS ADR-4).
    """
    first, _, lines = raw.partition(_END)
    found: dict[str, str] = {}
    status, _, description = first[_VERSION_BYTES:].strip().partition(b" ")
    if status.isdigit():
        found["Status"] = status.decode()
    if description:
        found["Description"] = description.decode(errors="replace")
    found.update(Client._parse_header_lines(lines))  # noqa: SLF001 - as nats-py reads them
    return found or None


class FrameParser(Parser):
    """nats-py's parser, which leaves to it what is no message for a ``Listener``."""

    nc: "ReconnectingClient"

    def __init__(self, client: "ReconnectingClient") -> None:
        self._missing = 0
        super().__init__(client)

    def reset(self) -> None:
        """Forget what was read of a connection that is gone."""
        super().reset()
        self._missing = 0

    async def parse(self, data: bytes = b"") -> None:
        """Read what has arrived.

        Raises:
            ProtocolError: it is no frame, or a larger one than any server sends. The client closes
                the connection then, and makes another one.
        """
        if self.state != AWAITING_CONTROL_LINE:
            await self._by_nats_py(data)
            return
        if self.buf:
            self.buf += data
            self._missing -= len(data)
            if self._missing > 0:
                return  # of a frame whose size is known
            data = bytes(self.buf)
            self.buf.clear()
        failures: list[Exception] = []
        try:
            end, is_ours = self._hand_out(data, failures)
        except ValueError as error:
            raise ProtocolError("nats: malformed MSG") from error
        self.buf += data[end:]
        for failure in failures:
            await self.nc.tell_error(failure)
        if not is_ours and self.buf:
            await self._by_nats_py()

    async def _by_nats_py(self, data: bytes = b"") -> None:
        """Let nats-py read, whose loop would end for good with an error that it does not know."""
        try:
            await super().parse(data)
        except (ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
            raise ProtocolError(f"nats: no frame ({type(error).__name__})") from error
        if self.state != AWAITING_CONTROL_LINE:
            if self.needed > MAX_MESSAGE_BYTES or self.header_needed > self.needed:
                raise ProtocolError(f"nats: a message of {self.needed} bytes")
        elif len(self.buf) > MAX_LINE_BYTES:
            raise ProtocolError(f"nats: a line of more than {MAX_LINE_BYTES} bytes")

    def _hand_out(self, data: bytes, failures: list[Exception]) -> tuple[int, bool]:
        """Call the listeners; the end of what was read, and whether the rest is for them too."""
        client, size, start = self.nc, len(data), 0
        listeners = client.listeners
        count = payload_bytes = 0
        is_ours = True
        while start < size:
            line_end = data.find(_END, start)
            words = data[start:line_end].split() if line_end > 0 else []
            if len(words) < _LEAST_WORDS:
                is_ours = False
                break
            extra = words[0] == _WITH_HEADERS
            if not extra and words[0] != _PLAIN:
                is_ours = False
                break
            sid = int(words[2])
            listener = listeners.get(sid)
            if listener is None:
                is_ours = False
                break
            body, total = line_end + 2, int(words[-1])
            end = body + total
            split = body + int(words[-2]) if extra else body
            if total > MAX_MESSAGE_BYTES or not body <= split <= end:
                raise ProtocolError(f"nats: a message of {total} bytes, headers of {split - body}")
            if end + 2 > size:
                self._missing = end + 2 - size
                break
            reply = words[3] if len(words) > _LEAST_WORDS + extra else b""
            start = end + 2
            count += 1
            payload_bytes += end - split
            try:
                listener(Message(client, sid, words[1], reply, data[split:end], data[body:split]))
            except Exception as error:  # noqa: BLE001 - as nats-py does with what a callback raises
                failures.append(error)
        client.stats["in_msgs"] += count
        client.stats["in_bytes"] += payload_bytes
        return start, is_ours
