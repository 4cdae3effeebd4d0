"""Connections that only read, for brokers that are somebody else's: a write is refused here.

On Redis no script is run, for a script would stay in the server's cache: what the reading scripts
of the done-store ask is asked by plain commands. On JetStream no consumer is made: a stream is read
message by message, by sequence.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, cast

from nats.aio.client import Client
from redis.exceptions import NoScriptError, ResponseError

from hookbench.clock import Clock
from hookbench.errors import WriteRefusedError
from hookbench.queues.addresses import is_cluster
from hookbench.queues.dialing import NetworkDialer, RedisProbe
from hookbench.queues.reconnecting import WEB_SOCKET, ReconnectingClient, connect_or_abandon
from hookbench.queues.redis_client import RedisClient, connect_redis
from hookbench.queues.redis_done_scripts import LOG, LOG_END, READ
from hookbench.queues.redis_lists import MEMORY
from hookbench.queues.stream_survey import DEPTH
from hookbench.queues.transport import AppTransport
from hookbench.task import Names

__all__ = [
    "READ_COMMANDS",
    "ReadingDialer",
    "ReadingRedis",
    "connect_reading_nats",
    "connect_reading_redis",
    "is_reading_subject",
]

READ_COMMANDS = frozenset(
    (
        *("GET", "INFO", "LLEN", "LRANGE", "MGET", "SCAN", "TIME"),
        *("XLEN", "XPENDING", "XRANGE", "XREVRANGE", "ZRANGE"),
    )
)
"""All that is ever sent to Redis, beside what opens a connection; no KEYS, which blocks it."""

_READ_SUBJECTS = re.compile(
    r"\$JS(\.[^.]+)?\.API\.(INFO|STREAM\.(INFO|LIST|NAMES|MSG\.GET)|DIRECT\.GET"
    r"|CONSUMER\.(INFO|LIST|NAMES))(\.|$)"
)
_US_PER_S = 1_000_000


def is_reading_subject(subject: str) -> bool:
    """Whether a request to this subject changes nothing."""
    return _READ_SUBJECTS.match(subject) is not None


class ReadingRedis:
    """The commands of ``RedisClient`` that read; any other one is refused.

    Args:
        client: of redis-py, for one server or for a cluster.
        is_cluster: which of both.
    """

    def __init__(self, client: Any, *, is_cluster: bool) -> None:
        self._client = client
        self._is_cluster = is_cluster
        self._scripts: dict[str, Callable[[Sequence[Any], Sequence[Any]], Awaitable[Any]]] = {
            READ: self._read,
            LOG: self._log,
            LOG_END: self._log_end,
            MEMORY: self._memory,
            DEPTH: self._depth,
        }

    async def _send(self, *command: Any, **options: Any) -> Any:
        if command[0] not in READ_COMMANDS:
            raise WriteRefusedError(f"Redis command {command[0]}: this connection only reads")
        return await self._client.execute_command(*command, **options)

    async def llen(self, name: str) -> int:
        """Length of a list."""
        return int(await self._send("LLEN", name))

    async def lrange(self, name: str, start: int, end: int) -> list[bytes]:
        """Elements of a list."""
        return list(await self._send("LRANGE", name, start, end))

    async def zrange(self, name: str) -> list[bytes]:
        """Members of a sorted set."""
        return list(await self._send("ZRANGE", name, 0, -1))

    async def xrange(
        self, name: str, low: bytes, high: bytes, count: int
    ) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """Entries of a stream."""
        return list(await self._send("XRANGE", name, low, high, "COUNT", count))

    async def info(self, section: str) -> dict[str, Any]:
        """What the server says of itself."""
        return dict(await self._send("INFO", section))

    async def time(self) -> None:
        """Ask the server, or every node of a cluster, for anything: who answers is there."""
        await self._send("TIME")

    async def get(self, name: str) -> bytes | None:
        """The value of a key."""
        return cast("bytes | None", await self._send("GET", name))

    def scan_iter(self, match: str, count: int) -> AsyncIterator[bytes]:
        """Keys that match a pattern, by SCAN on every node."""
        found: AsyncIterator[bytes] = self._client.scan_iter(match=match, count=count)
        return found

    async def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any:
        """No script is known by its digest: callers send its text then.

        Raises:
            NoScriptError: always.
        """
        del numkeys, keys_and_args
        raise NoScriptError(f"{sha}: this connection runs no scripts")

    async def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any:
        """What a script that reads would answer, asked by plain commands.

        Raises:
            WriteRefusedError: it is another one.
        """
        ask = self._scripts.get(script)
        if ask is None:
            raise WriteRefusedError("a Redis script: this connection only reads")
        return await ask(keys_and_args[:numkeys], keys_and_args[numkeys:])

    async def _now_us(self, key: Any) -> int:
        # The server of the key, whose clock the records are of.
        seconds, micros = await self._send("TIME", **await self._node(key))
        return int(seconds) * _US_PER_S + int(micros)

    async def _node(self, key: Any) -> dict[str, Any]:
        if not self._is_cluster:
            return {}
        return {"target_nodes": [await self._client.owner(key)]}

    async def _read(self, keys: Sequence[Any], _arguments: Sequence[Any]) -> list[Any]:
        now_us = await self._now_us(keys[0]) if keys else 0
        values = await self._send("MGET", *keys) if keys else []
        return [now_us, *(value or b"" for value in values)]

    async def _log(self, keys: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
        first, last, count = arguments
        entries = await self._send("XRANGE", keys[0], first, last, "COUNT", count)
        return [await self._now_us(keys[0]), _as_lists(entries)]

    async def _log_end(self, keys: Sequence[Any], _arguments: Sequence[Any]) -> list[Any]:
        return _as_lists(await self._send("XREVRANGE", keys[0], "+", "-", "COUNT", 1))

    async def _memory(self, keys: Sequence[Any], _arguments: Sequence[Any]) -> bytes:
        """Parsed by redis-py: put together again as the server writes it."""
        found = await self._send("INFO", "memory", **await self._node(keys[0]))
        return "".join(f"{name}:{value}\r\n" for name, value in found.items()).encode()

    async def _depth(self, keys: Sequence[Any], arguments: Sequence[Any]) -> list[int]:
        """Not at one moment, as the script is: what is read between both counts as in flight."""
        length = int(await self._send("XLEN", keys[0]))
        try:
            held = await self._send("XPENDING", keys[0], arguments[0])
        except ResponseError:  # a stream that nobody has read has no group yet
            return [length, 0]
        return [length, min(length, int(held["pending"]))]

    def __getattr__(self, name: str) -> Any:
        """Every other command."""
        raise WriteRefusedError(f"Redis command {name.upper()}: this connection only reads")

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()


def _as_lists(entries: Any) -> list[Any]:
    """Entries of a stream as a script answers them, and not as redis-py has parsed them."""
    return [
        [entry, [part for pair in fields.items() for part in pair]]
        for entry, fields in entries
        if fields is not None
    ]


def connect_reading_redis(url: str) -> RedisClient:
    """A client that only reads.

    Raises:
        SettingError: see ``connect_redis``.
    """
    client = connect_redis(url, pipelined=False)
    return cast("RedisClient", ReadingRedis(client, is_cluster=is_cluster(url)))


class ReadingDialer(NetworkDialer):
    """Whose looks at a Redis node refuse to write as well."""

    def probe(self, url: str) -> RedisProbe:
        """See ``Dialer``."""
        return ReadingRedis(super().probe(url), is_cluster=False)


class _Reads(Client):
    """nats-py's client; what it publishes must be a question to JetStream."""

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        reply: str = "",
        headers: dict[str, Any] | None = None,
    ) -> None:
        """As nats-py's."""
        _check(subject)
        await super().publish(subject, payload, reply, headers)


class ReadingClient(_Reads, ReconnectingClient):
    """Likewise of the client that goes on reconnecting."""

    def send_now(
        self,
        subject: str,
        payload: bytes = b"",
        reply: bytes = b"",
        headers: dict[str, str] | bytes | None = None,
    ) -> bool:
        """As ``ReconnectingClient``."""
        _check(subject)
        return super().send_now(subject, payload, reply, headers)


def _check(subject: str) -> None:
    if not is_reading_subject(subject):
        raise WriteRefusedError(f"NATS subject {subject}: this connection only reads")


async def _connect_client(servers: str | list[str], **options: Any) -> Client:
    first = servers if isinstance(servers, str) else servers[0]
    client = _Reads() if first.startswith(WEB_SOCKET) else ReadingClient()
    await connect_or_abandon(client, servers, **options)
    return client


async def connect_reading_nats(url: str, *, names: Names, clock: Clock) -> AppTransport:
    """A connection that only reads.

    Raises:
        BrokerUnreachableError, SettingError: see ``AppTransport.connect``.
    """
    transport = await AppTransport.connect(url, names=names, clock=clock, connect=_connect_client)
    transport.reads_only = True
    return transport
