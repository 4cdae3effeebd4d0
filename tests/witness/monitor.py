"""What Redis was told, from its own ``MONITOR``. Knows nothing of hookbench."""

import re
import uuid
from typing import NamedTuple, Self

import redis

from tests.witness.tap import Tap

__all__ = ["Command", "RedisMonitor", "parse_monitor_line"]

# +1700000000.123456 [0 127.0.0.1:40000] "LPUSH" "key" "value"
_LINE = re.compile(rb'\+\d+\.\d{6} \[(\d+) ([^"]*)\](?= "|$)')
_ARGUMENT = re.compile(rb' "((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_NAMED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}
_FROM_LUA = b"lua"


class Command(NamedTuple):
    """One command: where it came from (an address, or ``lua``), and its arguments."""

    source: bytes
    arguments: tuple[bytes, ...]

    @property
    def name(self) -> str:
        """In capitals."""
        return self.arguments[0].decode(errors="replace").upper()

    @property
    def from_lua(self) -> bool:
        """Whether a script called it, and not a client."""
        return self.source == _FROM_LUA


def _unescape(found: re.Match[bytes]) -> bytes:
    what = found[1]
    if len(what) > 1:
        return bytes([int(what[1:], 16)])
    return _NAMED.get(what, what)


def parse_monitor_line(line: bytes) -> Command:
    """A line of ``MONITOR`` without its line end; the inverse of Redis' ``sdscatrepr``.

    Raises:
        ValueError: it has another form; the text has the line.
    """
    head = _LINE.match(line)
    if head is None:
        raise ValueError(f"no line of MONITOR: {line[:200]!r}")
    arguments = []
    at = head.end()
    while at < len(line):
        found = _ARGUMENT.match(line, at)
        if found is None:
            raise ValueError(f"no line of MONITOR from byte {at} on: {line[:200]!r}")
        arguments.append(_ESCAPE.sub(_unescape, found[1]))
        at = found.end()
    if not arguments:
        raise ValueError(f"a line of MONITOR without a command: {line[:200]!r}")
    return Command(head[2], tuple(arguments))


class RedisMonitor:
    """Listens to every command from ``__enter__`` to ``finish``.

    Whether it heard them all is checked against the server's own counts of two commands.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._buffer = b""
        self._lines: list[bytes] = []
        self._tap = Tap(port, self._hear)
        self._client = redis.Redis(port=port)
        self._before: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._tap.send(b"*1\r\n$7\r\nMONITOR\r\n")
        self._tap.start()
        self._tap.wait_for(lambda: bool(self._lines), "MONITOR of Redis")
        if self._lines[0] != b"+OK":
            raise ConnectionError(f"Redis answered MONITOR with {self._lines[0]!r}")
        self._before = self._counts()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._tap.__exit__()
        self._client.close()

    def _hear(self, data: bytes) -> bytes:
        *whole, self._buffer = (self._buffer + data).split(b"\r\n")
        self._lines += whole
        return b""

    def _counts(self) -> dict[str, int]:
        stats = self._client.info("commandstats")
        return {
            name: stats.get(f"cmdstat_{name.lower()}", {"calls": 0})["calls"]
            for name in ("LPUSH", "LREM")
        }

    def finish(self) -> tuple[list[Command], list[str]]:
        """All commands in order, and what makes the list incomplete, if anything does."""
        mark = f"witness-{uuid.uuid4()}"
        try:
            # MONITOR tells the commands in their order: with this one, all before it were heard.
            self._client.echo(mark)
            end = f'"{mark}"'.encode()
            self._tap.wait_for(lambda: self._lines[-1].endswith(end), "the end of MONITOR")
        except (ConnectionError, redis.RedisError) as error:
            return [], [f"MONITOR of Redis was cut: {error}"]
        commands = [parse_monitor_line(line) for line in self._lines[1:]]
        missed = []
        for name, count in self._counts().items():
            heard = sum(command.name == name for command in commands)
            if heard != (counted := count - self._before[name]):
                missed.append(f"MONITOR told {heard} {name}, Redis counted {counted}")
        return commands, missed
