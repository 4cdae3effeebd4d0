"""What the queues on Redis share: the commands they use, and a client for them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, cast

import redis.asyncio as redis_asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from hookbench.errors import (
    SettingError,
)
from hookbench.queues.access import redis_access
from hookbench.queues.addresses import is_cluster, is_replicated
from hookbench.queues.closed_transport import is_closed_transport
from hookbench.queues.redis_errors import NeverSentError
from hookbench.secrets import unreadable_url

__all__ = [
    "ClosedForGood",
    "PooledConnection",
    "RedisClient",
    "RedisPipeline",
    "ServerWaits",
    "StreamEntry",
    "closed_is_never_sent",
    "connect_redis",
]

_SOCKET_MARGIN_S = 5.0
_CONNECT_TIMEOUT_S = 3.0
MAX_CONNECTIONS = 100
_POOL_WAIT_S = 20.0

StreamEntry = tuple[bytes, dict[bytes, bytes]]
"""Id and fields of an entry of a stream."""


class _ClosedIsNeverSent:
    """Mixed into a connection of redis-py: a write to a closed connection is an error it knows."""

    async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        """As redis-py's.

        Raises:
            NeverSentError: the connection was closed already.
        """
        try:
            await super().send_packed_command(*args, **kwargs)  # type: ignore[misc]  # redis-py's
        except RuntimeError as error:
            if not is_closed_transport(error):
                raise
            raise NeverSentError(f"the connection was closed before: {error}") from error


class ClosedForGood(redis_asyncio.BlockingConnectionPool):
    """A pool that opens no connection any more once it is closed.

    redis-py's would, for whoever still sends: an acknowledgement that is tried again, or a read
    that must not be cancelled. Nobody would close that connection.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kind = self.connection_class
        bases = (PooledConnection, _ClosedIsNeverSent, kind)
        self.connection_class = type(kind.__name__, bases, {"pool_closed": self._is_closed})
        self._closed = False

    def _is_closed(self) -> bool:
        return self._closed

    async def aclose(self) -> None:
        """Close all connections."""
        self._closed = True
        await super().aclose()


class PooledConnection:
    """Mixed into a connection of redis-py: it ends with its pool, and its socket can be lent."""

    pool_closed: Callable[[], bool]
    _reader: asyncio.StreamReader | None
    _writer: asyncio.StreamWriter | None

    def lend(self, protocol: asyncio.Protocol) -> asyncio.WriteTransport:
        """See ``redis_pipelined``.

        Raises:
            NeverSentError: the connection has ended already.
        """
        if self._reader is None or self._writer is None or self._reader.at_eof():
            raise NeverSentError("the connection was closed as soon as it was made")
        transport = self._writer.transport
        if transport.is_closing():
            raise NeverSentError("the connection was closed as soon as it was made")
        transport.set_protocol(protocol)
        return transport

    async def connect(self) -> None:
        """As redis-py's.

        Raises:
            NeverSentError: the pool was closed.
        """
        if not type(self).pool_closed():
            await super().connect()  # type: ignore[misc]  # redis-py's
        if type(self).pool_closed():
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]  # redis-py's
            raise NeverSentError("this client was closed")


class RedisPipeline(Protocol):
    """Commands sent in one write; the answers come back together."""

    def lmove(self, first_list: str, second_list: str, src: str, dest: str) -> Any:
        """Queue LMOVE."""
        ...

    def lpush(self, name: str, *values: bytes) -> Any:
        """Queue LPUSH."""
        ...

    def wait(self, num_replicas: int, timeout: int) -> Any:
        """Queue WAIT, with its timeout in ms."""
        ...

    def blmove(self, first_list: str, second_list: str, timeout: float, src: str, dest: str) -> Any:
        """Queue BLMOVE."""
        ...

    def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Queue a Lua script."""
        ...

    def lrem(self, name: str, count: int, value: bytes) -> Any:
        """Queue LREM."""
        ...

    def xack(self, name: str, groupname: str, *ids: bytes) -> Any:
        """Queue XACK."""
        ...

    def xdel(self, name: str, *ids: bytes) -> Any:
        """Queue XDEL."""
        ...

    def xlen(self, name: str) -> Any:
        """Queue XLEN."""
        ...

    def xinfo_groups(self, name: str) -> Any:
        """Queue XINFO GROUPS."""
        ...

    def xpending_range(
        self,
        name: str,
        groupname: str,
        min: bytes,  # noqa: A002 - redis-py's name
        max: bytes,  # noqa: A002 - redis-py's name
        count: int,
    ) -> Any:
        """Queue XPENDING over a range of ids."""
        ...

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send, and the answers in order."""
        ...


class RedisClient(Protocol):
    """The Redis commands that the queues use.

    ``redis.asyncio.Redis`` has them, and ``ClusterClient`` for a Redis Cluster.
    """

    def lpush(self, name: str, *values: bytes) -> Awaitable[int]:
        """Length after the push."""
        ...

    def blmove(
        self, first_list: str, second_list: str, timeout: float, src: str, dest: str
    ) -> Awaitable[bytes | None]:
        """The element moved, ``None`` after the timeout."""
        ...

    def lrem(self, name: str, count: int, value: bytes) -> Awaitable[int]:
        """Number of elements removed."""
        ...

    def llen(self, name: str) -> Awaitable[int]:
        """Length of a list."""
        ...

    def lrange(self, name: str, start: int, end: int) -> Awaitable[list[bytes]]:
        """Elements of a list."""
        ...

    def xadd(self, name: str, fields: dict[bytes, bytes]) -> Awaitable[bytes]:
        """The id of the new entry."""
        ...

    def xgroup_create(
        self,
        name: str,
        groupname: str,
        id: str,  # noqa: A002 - redis-py's name
        mkstream: bool,
    ) -> Awaitable[bool]:
        """Create a consumer group, and the stream."""
        ...

    def xreadgroup(
        self,
        groupname: str,
        consumername: str,
        streams: dict[str, str],
        count: int,
        block: int | None,
    ) -> Awaitable[list[tuple[bytes, list[StreamEntry]]]]:
        """Entries per stream; an empty list after ``block`` ms."""
        ...

    def xpending_range(
        self,
        name: str,
        groupname: str,
        min: str,  # noqa: A002 - redis-py's name
        max: str,  # noqa: A002 - redis-py's name
        count: int,
    ) -> Awaitable[list[dict[str, Any]]]:
        """Pending entries, oldest first; ids as bytes."""
        ...

    def xautoclaim(
        self,
        name: str,
        groupname: str,
        consumername: str,
        min_idle_time: int,
        start_id: bytes,
        count: int,
    ) -> Awaitable[list[Any]]:
        """Next cursor, entries, and from Redis 7 on ids of deleted entries."""
        ...

    def xack(self, name: str, groupname: str, *ids: bytes) -> Awaitable[int]:
        """Number of entries that were pending."""
        ...

    def xrange(
        self,
        name: str,
        min: bytes,  # noqa: A002 - redis-py's name
        max: bytes,  # noqa: A002 - redis-py's name
        count: int,
    ) -> Awaitable[list[StreamEntry]]:
        """Entries of a stream in order."""
        ...

    def delete(self, *names: str) -> Awaitable[int]:
        """Number of keys removed."""
        ...

    def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Awaitable[Any]:
        """Run a Lua script."""
        ...

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Awaitable[Any]:
        """Run a Lua script that the server knows by the SHA-1 of its text.

        Raises:
            redis.exceptions.NoScriptError: it does not.
        """
        ...

    def scan_iter(self, match: str, count: int) -> AsyncIterator[bytes]:
        """Keys that match a pattern, some more than once."""
        ...

    def pipeline(self, transaction: bool = True) -> RedisPipeline:
        """Start a pipeline."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


def connect_redis(
    url: str,
    *,
    block_timeout_secs: float = 5.0,
    max_connections: int = MAX_CONNECTIONS,
    pipelined: bool = True,
) -> RedisClient:
    """A client whose socket outlives the longest block and whose library never repeats a command.

    redis-py's defaults (5 s socket timeout, retries) turn a long BLMOVE into an error and a lost
    reply to LPUSH into two entries (hazards R9 and R8). A command that finds all connections busy
    waits for one, for a plain pool would fail it at once.

    Args:
        url: ``redis://host:port/database`` as redis-py takes it, or the addresses of some nodes of
            a Redis Cluster: ``redis+cluster://host:port,host:port``, or those of a master and its
            replicas: ``redis+replica://host:port,host:port``. See ``queues/access.py`` for
            credentials and TLS.
        block_timeout_secs: the longest wait of a blocking command.
        max_connections: commands at once; more wait for a connection.
        pipelined: short commands of all callers go over one connection, many in one write, see
            ``redis_pipelined``; else each has a connection to itself while it waits. A Redis
            Cluster has no such connection.

    Raises:
        SettingError: the URL is no redis URL, or see ``redis_access``.
    """
    plain, access = redis_access(url)
    if is_cluster(url):
        from hookbench.queues.redis_cluster import connect_cluster  # noqa: PLC0415 - rarely needed

        cluster = connect_cluster(
            plain,
            socket_timeout_s=block_timeout_secs + _SOCKET_MARGIN_S,
            connect_timeout_s=_CONNECT_TIMEOUT_S,
            max_connections=max_connections,
            pool_wait_s=_POOL_WAIT_S,
            access=access,
        )
        return cast("RedisClient", cluster)
    options: dict[str, Any] = {
        "max_connections": max_connections + int(pipelined),
        "timeout": _POOL_WAIT_S,
        "socket_timeout": block_timeout_secs + _SOCKET_MARGIN_S,
        "socket_connect_timeout": _CONNECT_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "retry_on_error": [],
        "health_check_interval": 0,
        "decode_responses": False,
        **access,
    }
    try:
        if is_replicated(url):
            from hookbench.queues.redis_master import master_pool  # noqa: PLC0415 - rarely needed

            pool = master_pool(plain, **options)
        else:
            pool = ClosedForGood.from_url(plain, **options)
    except ValueError as error:
        raise SettingError(unreadable_url("Redis", url)) from error
    # The stream commands answer in another shape under RESP3, which a URL may ask for.
    pool.connection_kwargs["protocol"] = 2
    if not pipelined:
        return cast("RedisClient", redis_asyncio.Redis.from_pool(pool))
    from hookbench.queues.redis_pipelined import PipelinedRedis  # noqa: PLC0415 - as the others

    timeout_s = block_timeout_secs + _SOCKET_MARGIN_S
    return cast("RedisClient", PipelinedRedis(pool, answer_timeout_s=timeout_s))


def closed_is_never_sent(pool: redis_asyncio.ConnectionPool) -> None:
    """Let a write to a connection that was reset be a ``NeverSentError``, for this pool."""
    kind = pool.connection_class
    pool.connection_class = type(kind.__name__, (_ClosedIsNeverSent, kind), {})


class ServerWaits:
    """Counts the reads that wait on the server, so that ``close`` lets them end by themselves.

    A read that is cancelled instead may lose its reply (hazard R2).
    """

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    def __enter__(self) -> None:
        self._count += 1
        self._none.clear()

    def __exit__(self, *_exc: object) -> None:
        self._count -= 1
        if self._count == 0:
            self._none.set()

    async def ended(self) -> None:
        """Wait until no read waits."""
        await self._none.wait()
