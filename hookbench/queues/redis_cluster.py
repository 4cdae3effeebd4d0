"""A client of a Redis Cluster with the commands that the queues use.

redis-py's cluster client does what they need, but for what is mended here: it queues
the commands of a transaction in a new thread with a new event loop each, it fails a command that
finds all connections busy, and what it raises before it sends anything, or on a connection that
another command has closed, is no ``RedisError``.
All keys of a queue must be in one slot, which their tag in braces sees to.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from redis.asyncio.cluster import ClusterNode, ClusterPipeline, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands import AsyncRedisClusterCommands
from redis.exceptions import ClusterDownError, ClusterError, RedisClusterException
from redis.exceptions import ConnectionError as RedisConnectionError

from hookbench.queues.addresses import is_encrypted, parse_redis_nodes
from hookbench.queues.closed_transport import is_closed_transport
from hookbench.queues.redis_errors import NeverSentError

__all__ = ["ClusterClient", "connect_cluster"]

EMPTY: Mapping[str, Any] = MappingProxyType({})
# Pipelines take connections beside the commands that wait for their turn.
_PIPELINE_CONNECTIONS = 100


def connect_cluster(
    url: str,
    *,
    socket_timeout_s: float,
    connect_timeout_s: float,
    max_connections: int,
    pool_wait_s: float,
    access: Mapping[str, Any] = EMPTY,
) -> "ClusterClient":
    """A client that repeats no command; it looks for the cluster at the first one.

    Args:
        url: see ``parse_redis_nodes``: some nodes of the cluster, which tell the others.
        socket_timeout_s: for an answer.
        connect_timeout_s: for a connection.
        max_connections: commands at once; more wait.
        pool_wait_s: how long they wait.
        access: user, password and certificates, see ``redis_access``.

    Raises:
        SettingError: the URL is no cluster URL.
    """
    client = ClusterClient(
        startup_nodes=[ClusterNode(host, port) for host, port in parse_redis_nodes(url)],
        max_connections=max_connections + _PIPELINE_CONNECTIONS,
        socket_timeout=socket_timeout_s,
        socket_connect_timeout=connect_timeout_s,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        decode_responses=False,
        ssl=is_encrypted(url),
        **access,
    )
    client.limit(max_connections, pool_wait_s)
    return client


@contextmanager
def _known_errors() -> Iterator[None]:
    """What redis-py raises beside ``RedisError``: for no node, or for redirections only, say."""
    try:
        yield
    except ClusterDownError:
        raise  # an answer of the server
    except (RedisClusterException, ClusterError) as error:
        raise NeverSentError(f"{type(error).__name__}: {error}") from error
    except RuntimeError as error:
        if not is_closed_transport(error):
            raise
        raise NeverSentError(f"the connection was closed before: {error}") from error
    except AttributeError as error:
        if error.obj is not None or error.name is None:
            raise
        # One command closes the connections of a node that another one is about to use.
        raise RedisConnectionError(f"the connection was closed meanwhile: {error}") from error


class ClusterClient(RedisCluster):
    """redis-py's client; see the module."""

    def limit(self, max_commands: int, wait_s: float) -> None:
        """Let commands wait for one another, as they do in a blocking pool."""
        self._turns = asyncio.Semaphore(max_commands)
        self._wait_s = wait_s

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """Run one command in its turn."""
        try:
            async with asyncio.timeout(self._wait_s):
                await self._turns.acquire()
        except TimeoutError as error:
            raise NeverSentError(f"no connection became free within {self._wait_s} s") from error
        try:
            with _known_errors():
                if args[0] == "XREADGROUP" and "target_nodes" not in kwargs:
                    kwargs["target_nodes"] = [await self.owner(args[args.index(b"STREAMS") + 1])]
                return await super().execute_command(*args, **kwargs)
        finally:
            self._turns.release()

    async def owner(self, key: str) -> ClusterNode:
        """The node of a key.

        redis-py would ask another node where the key of XREADGROUP stands, for each one.
        """
        await self.initialize()
        return self.nodes_manager.get_node_from_slot(self.keyslot(key))

    def pipeline(self, transaction: Any | None = None, shard_hint: Any | None = None) -> Any:
        """Commands in one write to the node of their slot."""
        del shard_hint  # redis-py's, and always None
        # redis-py's mixins declare an attribute that its own pipeline does not have either.
        if transaction:
            return _Transaction(self)  # type: ignore[abstract]
        return _Pipeline(self)  # type: ignore[abstract]

    async def aclose(self) -> None:
        """Close all connections, also those of a client that has to look for the cluster again."""
        await super().aclose()
        if self._lock is None:
            return  # it never looked for the cluster
        async with self._lock:
            if self._initialize:
                await self.nodes_manager.aclose()
                await self.nodes_manager.aclose("startup_nodes")


class _Pipeline(ClusterPipeline):
    """redis-py's pipeline with its errors translated."""

    async def execute(
        self, raise_on_error: bool = True, allow_redirections: bool = True
    ) -> list[Any]:
        with _known_errors():
            return await super().execute(raise_on_error, allow_redirections)


class _Transaction(AsyncRedisClusterCommands):
    """MULTI, commands and EXEC in one write: a pipeline keeps their order on one connection."""

    def __init__(self, client: ClusterClient) -> None:
        self._client = client
        self._commands: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """Queue a command whose first argument is its key."""
        self._commands.append((args, kwargs))
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send, and the answers in order.

        Raises:
            NeverSentError: no node is known for the slot.
            RedisError: no answer, or the transaction was refused as a whole; with
                ``raise_on_error`` also the first error among the answers.
        """
        with _known_errors():
            nodes = [await self._client.owner(self._commands[0][0][1])]
            pipeline = self._client.pipeline()
            pipeline.execute_command("MULTI", target_nodes=nodes)
            for args, _options in self._commands:
                pipeline.execute_command(*args, target_nodes=nodes)
            pipeline.execute_command("EXEC", target_nodes=nodes)
            # A redirected command would run by itself, outside of the transaction.
            *queued, answers = await pipeline.execute(
                raise_on_error=False, allow_redirections=False
            )
        if isinstance(answers, Exception):
            reasons = [answer for answer in queued if isinstance(answer, Exception)]
            raise (reasons or [answers])[0]
        return [
            self._read(*pair, raise_on_error) for pair in zip(self._commands, answers, strict=True)
        ]

    def _read(
        self, command: tuple[tuple[Any, ...], dict[str, Any]], answer: Any, raise_on_error: bool
    ) -> Any:
        if isinstance(answer, Exception):
            if raise_on_error:
                raise answer
            return answer
        args, options = command
        parse = self._client.response_callbacks.get(args[0])
        return parse(answer, **options) if parse is not None else answer
