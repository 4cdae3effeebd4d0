"""The guide's hook queue on Redis lists: LPUSH, BLMOVE, LREM, and a Lua retry.

Keys: ``{hook}:{task_type}`` holds tasks not yet read, ``{hook}:{task_type}:work`` those in
flight. Nothing reads the work list, so a worker that dies leaves its tasks there (hazard R3).
"""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, Self, cast

import redis.asyncio as redis_asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from hookbench.errors import (
    BrokerUnreachableError,
    DecodeError,
    OversizeError,
    PublishRefusedError,
    PublishUnknownError,
    SettingError,
)
from hookbench.ledger.events import Broker
from hookbench.queues.base import Capabilities, Delivery, Depth
from hookbench.task import Names, decode_task, encode_task, with_retry

__all__ = ["RedisClient", "RedisListQueue", "RedisPipeline", "broker_errors", "connect_redis"]

# Redis' proto-max-bulk-len: a larger string is refused (https://redis.io, redis.conf).
MAX_BULK_BYTES = 512 * 1024 * 1024
_SOCKET_MARGIN_S = 5.0
_CONNECT_TIMEOUT_S = 3.0
MAX_CONNECTIONS = 100
_POOL_WAIT_S = 20.0

# The guide's retry: LREM from the work list, LPUSH to the queue. ARGV[4] = '1' pushes only what
# was held; the guide pushes in any case (hazard R5).
_REQUEUE = """
local held = redis.call('LREM', KEYS[1], tonumber(ARGV[3]), ARGV[1])
if held == 0 and ARGV[4] == '1' then return 0 end
redis.call('LPUSH', KEYS[2], ARGV[2])
return held
"""


class RedisPipeline(Protocol):
    """Commands sent in one write; the answers come back together."""

    def lmove(self, first_list: str, second_list: str, src: str, dest: str) -> Any:
        """Queue LMOVE."""
        ...

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send, and the answers in order."""
        ...


class RedisClient(Protocol):
    """The Redis commands that the queue uses; ``redis.asyncio.Redis`` has them."""

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

    def delete(self, *names: str) -> Awaitable[int]:
        """Number of keys removed."""
        ...

    def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Awaitable[Any]:
        """Run a Lua script."""
        ...

    def pipeline(self, transaction: bool = True) -> RedisPipeline:
        """Start a pipeline."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


def connect_redis(
    url: str, *, block_timeout_secs: float = 5.0, max_connections: int = MAX_CONNECTIONS
) -> RedisClient:
    """A client whose socket outlives the longest block and whose library never repeats a command.

    redis-py's defaults (5 s socket timeout, retries) turn a long BLMOVE into an error and a lost
    reply to LPUSH into two entries (hazards R9 and R8). A command that finds all connections busy
    waits for one, for a plain pool would fail it at once.

    Raises:
        SettingError: the URL is no redis URL.
    """
    try:
        pool = redis_asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=max_connections,
            timeout=_POOL_WAIT_S,
            socket_timeout=block_timeout_secs + _SOCKET_MARGIN_S,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            retry_on_timeout=False,
            retry_on_error=[],
            health_check_interval=0,
            decode_responses=False,
        )
    except ValueError as error:
        raise SettingError(f"Redis URL {url!r}: {error}") from error
    return cast("RedisClient", redis_asyncio.Redis.from_pool(pool))


def _never_sent(error: BaseException | None) -> bool:
    """Whether there was no connection, so that no command can have reached the broker."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError | MaxConnectionsError):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def broker_errors(what: str) -> Iterator[None]:
    """A command without a usable answer, as an error that callers above the client know."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise BrokerUnreachableError(f"Redis did not answer {what}: {error}") from error


class RedisListQueue:
    """One task type of the hook queue on Redis.

    Args:
        client: the commands; connections are the client's business.
        names: prefix of the keys.
        task_type: which pair of lists.
        lrem_count: 0 as in the guide removes every equal payload (hazard R4), 1 only one.
        requeue_only_held: requeue only what the work list still held; the guide does not look.
    """

    name = "redis_list"
    capabilities = Capabilities(
        redelivery=False, delayed_nak=False, in_progress=False, attempts=False, ordered=True
    )

    def __init__(
        self,
        client: RedisClient,
        *,
        names: Names | None = None,
        task_type: str = "sync",
        lrem_count: int = 0,
        requeue_only_held: bool = False,
    ) -> None:
        names = names or Names()
        self._client = client
        self._pending = names.pending_key(task_type)
        self._work = names.work_key(task_type)
        self._lrem_count = lrem_count
        self._requeue_only_held = requeue_only_held
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def put(self, payload: bytes) -> int:
        """LPUSH; the length of the list afterwards."""
        if len(payload) > MAX_BULK_BYTES:
            raise OversizeError(f"task of {len(payload)} bytes: Redis takes {MAX_BULK_BYTES}")
        try:
            return await self._client.lpush(self._pending, payload)
        except ResponseError as error:
            raise PublishRefusedError(f"Redis refused LPUSH {self._pending}: {error}") from error
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            if _never_sent(error):
                raise PublishRefusedError(f"Redis is not reachable: {error}") from error
            raise PublishUnknownError(f"no answer to LPUSH {self._pending}: {error}") from error

    async def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        """BLMOVE for the first task, then one pipeline of LMOVE for what else is there.

        It must not be cancelled: a reply that arrives for a cancelled call is lost (hazard R2).
        The wait is on the server, and ``close`` lets it end by itself.
        """
        if wait_s <= 0:
            raise SettingError(f"wait of {wait_s} s: BLMOVE needs more than 0 (0 waits for ever)")
        if self._closed:
            return []
        self._idle.clear()
        try:
            with broker_errors(f"BLMOVE {self._pending}"):
                first = await self._client.blmove(
                    self._pending, self._work, wait_s, "RIGHT", "LEFT"
                )
            if first is None:
                return []
            payloads = [first]
            if limit > 1:
                payloads += await self._move(limit - 1)
            return [RedisListDelivery(self, payload) for payload in payloads]
        finally:
            self._idle.set()

    async def _move(self, limit: int) -> list[bytes]:
        pipeline = self._client.pipeline(transaction=False)
        for _ in range(limit):
            pipeline.lmove(self._pending, self._work, "RIGHT", "LEFT")
        try:
            answers = await pipeline.execute(raise_on_error=False)
        except RedisError:
            # The first task is in hand and must reach the worker; whatever this pipeline moved
            # without an answer lies in the work list, as with any lost reply (hazard R1).
            return []
        return [answer for answer in answers if isinstance(answer, bytes)]

    async def remove(self, payload: bytes) -> int:
        """LREM from the work list; how many entries went."""
        with broker_errors(f"LREM {self._work}"):
            return await self._client.lrem(self._work, self._lrem_count, payload)

    async def requeue(self, payload: bytes, replacement: bytes) -> int:
        """The guide's Lua retry; how many entries the work list held."""
        with broker_errors(f"retry from {self._work}"):
            held = await self._client.eval(
                _REQUEUE,
                2,
                self._work,
                self._pending,
                payload,
                replacement,
                self._lrem_count,
                "1" if self._requeue_only_held else "0",
            )
        return int(held)

    async def depth(self) -> Depth:
        """LLEN of both lists."""
        with broker_errors(f"LLEN {self._pending}"):
            pending = await self._client.llen(self._pending)
            work = await self._client.llen(self._work)
        return Depth(pending=pending, in_flight=work)

    async def contents(self) -> tuple[list[bytes], list[bytes]]:
        """All payloads of the pending and of the work list, for observers."""
        with broker_errors(f"LRANGE {self._pending}"):
            pending = await self._client.lrange(self._pending, 0, -1)
            work = await self._client.lrange(self._work, 0, -1)
        return pending, work

    async def close(self) -> None:
        """Take nothing more, and wait for a blocked BLMOVE to run out on the server."""
        self._closed = True
        await self._idle.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()


class RedisListDelivery:
    """A task in the work list."""

    broker = Broker.REDIS
    sequence = 0
    attempt = 1  # the broker does not count; the task carries its retries
    __slots__ = ("_queue", "payload")

    def __init__(self, queue: RedisListQueue, payload: bytes) -> None:
        self._queue = queue
        self.payload = payload

    async def ack(self) -> None:
        """LREM from the work list."""
        await self._queue.remove(self.payload)

    async def nak(self, delay_s: float = 0.0) -> None:  # noqa: ARG002 - see capabilities
        """Back to the queue at once with one more retry counted; a list cannot delay."""
        try:
            replacement = encode_task(with_retry(decode_task(self.payload)))
        except DecodeError:
            replacement = self.payload
        await self._queue.requeue(self.payload, replacement)

    async def term(self, reason: str) -> None:  # noqa: ARG002 - the dead letter holds it
        """LREM: the dead letter is stored already."""
        await self._queue.remove(self.payload)

    async def in_progress(self) -> None:
        """Nothing to put off: a list does not deliver again."""
