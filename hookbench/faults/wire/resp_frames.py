"""RESP2, the protocol of Redis: requests and replies.

Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from hookbench.faults.wire.frames import Frame, FrameError

__all__ = ["RespReplyScanner", "RespRequestScanner"]

_CRLF = b"\r\n"
_MAX_HEADER_BYTES = 24  # a type byte, the digits of 64 bits, a sign, CRLF
_MAX_LINE_BYTES = 64 * 1024  # Redis' own limit of an inline command
_MAX_ELEMENTS = 1024 * 1024  # Redis' own limit of a request's arguments
_STAR, _DOLLAR = b"*$"
_LINES = frozenset(b"+-:")
_SCRIPTS = frozenset([b"EVAL", b"EVALSHA", b"EVAL_RO", b"EVALSHA_RO", b"FCALL", b"FCALL_RO"])
_FIRST_SCRIPT_KEY = 3
_STREAM_READS = frozenset([b"XREAD", b"XREADGROUP"])

Span = tuple[int, int]


def _header(data: bytes, at: int) -> tuple[int, int] | None:
    """Value and end of ``*3`` or ``$5`` with its CRLF; ``None`` while it is not whole."""
    line_end = data.find(_CRLF, at, at + _MAX_HEADER_BYTES)
    if line_end < 0:
        digits = data[at + 1 : at + _MAX_HEADER_BYTES].removesuffix(b"\r")
        if len(data) - at >= _MAX_HEADER_BYTES or (digits and not _is_number(digits, partial=True)):
            raise FrameError(f"{data[at : at + _MAX_HEADER_BYTES]!r} is no length")
        return None
    digits = data[at + 1 : line_end]
    if not _is_number(digits):
        raise FrameError(f"{data[at:line_end]!r} is no length")
    return int(digits), line_end + 2


def _is_number(digits: bytes, *, partial: bool = False) -> bool:
    return digits.isdigit() or digits == b"-1" or (partial and digits == b"-")


def _check_bulk_end(data: bytes, end: int) -> None:
    if data[end : end + 2] != _CRLF:
        raise FrameError(f"{data[end : end + 2]!r} stands where a string must end with CRLF")


class RespRequestScanner:
    """Arrays of bulk strings, and inline commands."""

    def __init__(self) -> None:
        self.need_bytes = 0
        self._missing = -1  # arguments; -1 before the array's header
        self._at = 0
        self._arguments: list[Span] = []

    def scan(self, data: bytes, at: int) -> Frame | None:
        """See ``Scanner``."""
        if self._missing < 0:
            if data[at] != _STAR:
                return self._inline(data, at)
            header = _header(data, at)
            if header is None:
                return None
            count, begin = header
            if count > _MAX_ELEMENTS:
                raise FrameError(f"a request of {count} arguments")
            if count <= 0:  # Redis ignores it
                return Frame(at, begin, unanswered=True)
            self._missing = count
            self._at = begin - at
        return self._array(data, at)

    def _array(self, data: bytes, at: int) -> Frame | None:
        position = at + self._at
        arguments = self._arguments
        size = len(data)
        while self._missing:
            header = _header(data, position) if position < size else None
            if header is None:
                break
            length, begin = header
            if data[position] != _DOLLAR or length < 0:
                raise FrameError(f"{data[position:begin]!r} stands where an argument must begin")
            end = begin + length
            if size < end + 2:
                self._at = position - at
                self.need_bytes = end + 2 - at
                return None
            _check_bulk_end(data, end)
            arguments.append((begin - at, end - at))
            position = end + 2
            self._missing -= 1
        self._at = position - at
        self.need_bytes = 0
        if self._missing:
            return None
        self._missing = -1
        self._arguments = []
        first, last = arguments[0]
        command = data[at + first : at + last].upper()
        return Frame(at, position, command, _key(data, at, command, arguments))

    def _inline(self, data: bytes, at: int) -> Frame | None:
        line_end = data.find(b"\n", at, at + _MAX_LINE_BYTES)
        if line_end < 0:
            line = data[at : at + _MAX_LINE_BYTES]
            if len(line) == _MAX_LINE_BYTES or not _is_text(line):
                raise FrameError(f"{line[:16]!r} is no command")
            return None
        line = data[at:line_end]
        if not _is_text(line):
            raise FrameError(f"{line[:16]!r} is no command")
        words = line.split(None, 2)
        if not words:
            return Frame(at, line_end + 1, unanswered=True)
        return Frame(at, line_end + 1, words[0].upper(), words[1] if len(words) > 1 else b"")


def _is_text(line: bytes) -> bool:
    """Whether a person may have typed it: a letter first, nothing that no terminal sends."""
    text = line.strip(b" \t\r")
    if not text:
        return True
    return text[:1].isalpha() and all(byte >= 0x20 or byte == 0x09 for byte in text)  # noqa: PLR2004


def _key(data: bytes, at: int, command: bytes, arguments: list[Span]) -> bytes:
    """The first key of a command; its first argument where the command is not known better."""
    place = 1
    if command in _SCRIPTS:
        place = _FIRST_SCRIPT_KEY
    elif command in _STREAM_READS:
        words = [data[at + first : at + last].upper() for first, last in arguments]
        place = words.index(b"STREAMS") + 1 if b"STREAMS" in words else len(words)
    if place >= len(arguments):
        return b""
    first, last = arguments[place]
    return data[at + first : at + last]


class RespReplyScanner:
    """Lines, numbers, errors, bulk strings, and arrays of them. RESP3 is none of these."""

    def __init__(self) -> None:
        self.need_bytes = 0
        self._missing = 1
        self._at = 0

    def scan(self, data: bytes, at: int) -> Frame | None:
        """See ``Scanner``."""
        position, missing, size = at + self._at, self._missing, len(data)
        self.need_bytes = 0
        while missing and position < size:
            element = self._element(data, at, position)
            if element is None:
                break
            position, more = element
            missing += more - 1
        if missing:
            self._at = position - at
            self._missing = missing
            return None
        self._at = 0
        self._missing = 1
        return Frame(at, position)

    def _element(self, data: bytes, at: int, position: int) -> tuple[int, int] | None:
        """End of an element without its parts, and how many parts follow; ``None`` if not whole."""
        kind = data[position]
        if kind in _LINES:
            end = data.find(_CRLF, position, position + _MAX_LINE_BYTES)
            if end < 0 and len(data) - position >= _MAX_LINE_BYTES:
                raise FrameError(f"a line of more than {_MAX_LINE_BYTES} bytes")
            return None if end < 0 else (end + 2, 0)
        if kind not in (_DOLLAR, _STAR):
            raise FrameError(f"{data[position : position + 16]!r} is no RESP2 reply")
        header = _header(data, position)
        if header is None:
            return None
        length, begin = header
        if kind == _STAR:
            return begin, max(length, 0)
        if length < 0:
            return begin, 0
        end = begin + length
        if len(data) < end + 2:
            self.need_bytes = end + 2 - at
            return None
        _check_bulk_end(data, end)
        return end + 2, 0
