"""A Redis client over the simulated network: redis-py's commands, with its errors.

The command methods and the way replies are read are redis-py's own; what is simulated is the pool
of connections below them, set up as ``connect_redis`` sets up the real one: no command is repeated,
and a reply that does not come in time, or a caller who does not wait for it, costs the connection.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import redis.asyncio as redis_asyncio
from redis._parsers import BaseParser
from redis.commands import AsyncCoreCommands
from redis.exceptions import RedisError, ResponseError

from hookbench.queues.redis_client import MAX_CONNECTIONS, RedisClient
from hookbench.sim.network import Network
from hookbench.sim.redis.pool import ConnectionLimits, ConnectionPool
from hookbench.sim.redis.replies import CommandError, Reply

__all__ = ["SimulatedPipeline", "SimulatedRedis", "connect_simulated_redis"]

_SOCKET_MARGIN_S = 5.0
_CONNECT_TIMEOUT_S = 3.0
_POOL_WAIT_S = 20.0
_NUMBERS = (int, float)


def connect_simulated_redis(
    network: Network,
    client: str,
    nodes: Sequence[str],
    *,
    block_timeout_secs: float = 5.0,
    max_connections: int = MAX_CONNECTIONS,
) -> RedisClient:
    """What ``connect_redis`` is for a real server.

    Args:
        network: between the client and the nodes.
        client: whose links are used.
        nodes: one, or a master and its replicas in any order.
        block_timeout_secs: the longest wait of a blocking command.
        max_connections: commands at once; more wait for a connection.
    """
    limits = ConnectionLimits(
        socket_timeout_s=block_timeout_secs + _SOCKET_MARGIN_S,
        connect_timeout_s=_CONNECT_TIMEOUT_S,
        pool_wait_s=_POOL_WAIT_S,
        max_connections=max_connections,
    )
    return cast("RedisClient", SimulatedRedis(ConnectionPool(network, client, nodes, limits)))


@functools.cache
def _response_callbacks() -> Mapping[Any, Any]:
    """How redis-py reads each reply; made once, for it takes a client of its own."""
    callbacks: Mapping[Any, Any] = redis_asyncio.Redis(protocol=2).response_callbacks
    return callbacks


class SimulatedRedis(AsyncCoreCommands):
    """Sends each command over a connection of the pool."""

    _event_dispatcher: Any = None

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self.response_callbacks = _response_callbacks()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """The parsed answer to one command.

        Raises:
            redis.exceptions.RedisError: as redis-py raises it.
        """
        (reply,) = await self._pool.request([encode(args)])
        if isinstance(reply, CommandError):
            raise parse_error(reply)
        return self._parse(args[0], reply, options)

    def pipeline(self, transaction: bool = True) -> "SimulatedPipeline":
        """Commands in one write."""
        return SimulatedPipeline(self, self._pool, transaction=transaction)

    async def aclose(self) -> None:
        """Close all connections."""
        self._pool.close()

    def _parse(self, name: Any, reply: Reply, options: dict[str, Any]) -> Any:
        options.pop("keys", None)
        callback = self.response_callbacks.get(name)
        value = exceptions_in(reply)
        return value if callback is None else callback(value, **options)


class SimulatedPipeline(AsyncCoreCommands):
    """Commands that are sent together; a transaction goes between MULTI and EXEC."""

    _event_dispatcher: Any = None

    def __init__(self, client: SimulatedRedis, pool: ConnectionPool, *, transaction: bool) -> None:
        self._client = client
        self._pool = pool
        self._transaction = transaction
        self._stack: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Queue a command."""
        self._stack.append((args, options))
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send, and the answers in order; errors in their places unless one is to be raised.

        Raises:
            redis.exceptions.RedisError: as redis-py raises it.
        """
        stack, self._stack = self._stack, []
        if not stack:
            return []
        commands = [encode(args) for args, _options in stack]
        if self._transaction:
            replies = await self._pool.request([[b"MULTI"], *commands, [b"EXEC"]])
            answers = _of_transaction(replies)
        else:
            answers = await self._pool.request(commands)
        found = []
        for (args, options), reply in zip(stack, answers, strict=True):
            if isinstance(reply, CommandError):
                error = parse_error(reply)
                if raise_on_error:
                    raise error
                found.append(error)
            else:
                found.append(self._client._parse(args[0], reply, options))  # noqa: SLF001 - of one
        return found


def _of_transaction(replies: list[Reply]) -> list[Reply]:
    """What EXEC answered; an error of a command that was not even queued is raised."""
    *queued, executed = replies
    if isinstance(executed, CommandError):
        first = next((reply for reply in queued if isinstance(reply, CommandError)), executed)
        raise parse_error(first)
    return list(executed)


def encode(words: Iterable[Any]) -> list[bytes]:
    """The words of a command as they are sent; a name of two words is two."""
    name, *rest = words
    encoded = name.encode().split() if isinstance(name, str) else [name]
    for word in rest:
        if isinstance(word, bytes):
            encoded.append(word)
        elif isinstance(word, str):
            encoded.append(word.encode())
        elif isinstance(word, _NUMBERS) and not isinstance(word, bool):
            encoded.append(repr(word).encode())
        else:
            raise TypeError(f"{word!r} is nothing that redis-py sends: use bytes, text or a number")
    return encoded


def parse_error(reply: CommandError) -> RedisError:
    """The exception that redis-py makes of an error reply."""
    error = BaseParser.parse_error(reply.text)  # type: ignore[no-untyped-call]  # redis-py's
    return error if isinstance(error, RedisError) else ResponseError(reply.text)


def exceptions_in(reply: Reply) -> Any:
    """A reply with its error values as exceptions, all the way down."""
    if isinstance(reply, list):
        return [exceptions_in(item) for item in reply]
    if isinstance(reply, CommandError):
        return parse_error(reply)
    return reply
