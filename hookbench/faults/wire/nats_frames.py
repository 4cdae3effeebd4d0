"""The NATS client protocol, both ways.

Source: https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from hookbench.faults.wire.frames import Frame, FrameError

__all__ = ["REPLY_VERBS", "REQUEST_VERBS", "NatsScanner"]

REQUEST_VERBS = frozenset([b"CONNECT", b"PUB", b"HPUB", b"SUB", b"UNSUB", b"PING", b"PONG"])
REPLY_VERBS = frozenset([b"INFO", b"MSG", b"HMSG", b"PING", b"PONG", b"+OK", b"-ERR"])

_CRLF = b"\r\n"
_MAX_LINE_BYTES = 1024 * 1024  # INFO of a large cluster; the server takes 4 KiB from a client
_MAX_VERB_BYTES = 8
_MAX_DIGITS = 12
# verb -> words behind it without the optional reply subject, and how many of them are sizes
_PAYLOADS = {b"PUB": (2, 1), b"HPUB": (3, 2), b"MSG": (3, 1), b"HMSG": (4, 2)}


def _is_size(word: bytes) -> bool:
    return word.isdigit() and len(word) <= _MAX_DIGITS


class NatsScanner:
    """One direction of a connection.

    Args:
        verbs: what can be said in this direction.
    """

    def __init__(self, verbs: frozenset[bytes]) -> None:
        self.need_bytes = 0
        self._verbs = verbs

    def scan(self, data: bytes, at: int) -> Frame | None:
        """See ``Scanner``."""
        line_end = data.find(_CRLF, at)
        if line_end < 0:
            self._check_beginning(data, at)
            return None
        words = data[at:line_end].split(None, 1)
        verb = words[0].upper() if words else b""
        if verb not in self._verbs:
            raise FrameError(f"{data[at : at + 16]!r} is no NATS verb of this direction")
        if verb in _PAYLOADS:
            return self._with_payload(data, at, line_end, verb, words[1:])
        subject = words[1].split(None, 1)[0] if verb == b"SUB" and len(words) > 1 else b""
        return Frame(at, line_end + 2, verb, subject)

    def _with_payload(
        self, data: bytes, at: int, line_end: int, verb: bytes, rest: list[bytes]
    ) -> Frame | None:
        count, sizes = _PAYLOADS[verb]
        words = rest[0].split() if rest else []
        numbers = words[-sizes:]
        if len(words) - count not in (0, 1) or not all(map(_is_size, numbers)):
            raise FrameError(f"{data[at : min(line_end, at + 80)]!r} is no {verb.decode()}")
        begin = line_end + 2
        end = begin + int(numbers[-1])
        header_bytes = int(numbers[0]) if sizes > 1 else 0
        if begin + header_bytes > end:
            raise FrameError(f"{data[at : min(line_end, at + 80)]!r}: more headers than bytes")
        if len(data) < end + 2:
            self.need_bytes = end + 2 - at
            return None
        self.need_bytes = 0
        if data[end : end + 2] != _CRLF:
            raise FrameError(f"{data[end : end + 2]!r} stands where a payload must end with CRLF")
        reply_to = words[-sizes - 1] if len(words) > count else b""
        return Frame(at, end + 2, verb, words[0], reply_to=reply_to, body=begin + header_bytes)

    def _check_beginning(self, data: bytes, at: int) -> None:
        """Bytes that can become no frame are not held back until a line ends."""
        if len(data) - at > _MAX_LINE_BYTES:
            raise FrameError(f"a line of more than {_MAX_LINE_BYTES} bytes")
        words = data[at : at + _MAX_VERB_BYTES].split(None, 1)
        start = words[0].upper() if words else b""
        if not any(verb.startswith(start) for verb in self._verbs):
            raise FrameError(f"{data[at : at + 16]!r} is no NATS verb of this direction")
