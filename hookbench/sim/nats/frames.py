"""The NATS protocol, one frame at a time (https://docs.nats.io/reference/reference-protocols)."""

import json
from typing import Any

import msgspec

__all__ = ["Frame", "Headers", "headers_of", "message_frame", "parse_frame", "status_headers"]

Headers = dict[str, str]
_LINE = b"NATS/1.0"
_END = b"\r\n"


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One command of a client.

    Attributes:
        verb: such as ``PUB``.
        words: what stands behind it.
        headers: as they were sent, with their first line; empty for none.
        payload: the bytes.
    """

    verb: bytes
    words: list[bytes]
    headers: bytes = b""
    payload: bytes = b""

    def settings(self) -> dict[str, Any]:
        """What a CONNECT says."""
        told: dict[str, Any] = json.loads(b" ".join(self.words))
        return told


def parse_frame(data: bytes) -> Frame:
    """A frame of a client; nats-py hands them over one by one."""
    line, _, rest = data.partition(_END)
    verb, *words = line.split()
    verb = verb.upper()
    if verb == b"PUB":
        return Frame(verb, words, b"", rest[: int(words[-1])])
    if verb == b"HPUB":
        size, total = int(words[-2]), int(words[-1])
        return Frame(verb, words, rest[:size], rest[size:total])
    return Frame(verb, words)


def headers_of(block: bytes) -> Headers:
    """The headers of a frame by name."""
    found = {}
    for line in block.split(_END)[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            found[name.decode()] = value.strip().decode()
    return found


def status_headers(status: str, headers: Headers | None = None) -> bytes:
    """The headers of a status, such as ``404 No Messages``."""
    lines = [_LINE + b" " + status.encode()]
    lines += [f"{name}: {value}".encode() for name, value in (headers or {}).items()]
    return _END.join(lines) + _END + _END


def message_frame(subject: str, sid: bytes, reply: str, headers: bytes, payload: bytes) -> bytes:
    """MSG, or HMSG where there are headers."""
    front = f"{subject} {sid.decode()} {reply} " if reply else f"{subject} {sid.decode()} "
    if headers:
        sizes = f"{len(headers)} {len(headers) + len(payload)}"
        return f"HMSG {front}{sizes}\r\n".encode() + headers + payload + _END
    return f"MSG {front}{len(payload)}\r\n".encode() + payload + _END
