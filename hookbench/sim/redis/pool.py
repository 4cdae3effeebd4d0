"""The connections of a simulated Redis client, with the errors of redis-py's."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from hookbench.queues.redis_errors import NeverSentError
from hookbench.sim.connection import Connection
from hookbench.sim.loop import SimulatedLoop
from hookbench.sim.network import Network
from hookbench.sim.redis.replies import CommandError, Reply

__all__ = ["ConnectionLimits", "ConnectionPool"]

_ROLE_TIMEOUT_S = 1.0
_CLOSED = "Connection closed by server."


class ConnectionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of a pool.

    Attributes:
        socket_timeout_s: how long a reply may take.
        connect_timeout_s: how long a connection may take.
        pool_wait_s: how long a command waits for a connection when all are busy.
        max_connections: how many there may be.
    """

    socket_timeout_s: float
    connect_timeout_s: float
    pool_wait_s: float
    max_connections: int


class _Wire:
    """One connection, and the requests whose replies are under way."""

    def __init__(self, connection: Connection, loop: SimulatedLoop) -> None:
        self.connection = connection
        self._loop = loop
        self.demoted = False
        self._replies: deque[Reply] = deque()
        self._waiting: asyncio.Future[None] | None = None
        connection.on_message(self._on_message)
        connection.on_lost = self._on_lost

    async def request(self, commands: list[list[bytes]], timeout_s: float) -> list[Reply]:
        """Send commands in one write; their replies.

        Raises:
            redis.exceptions.RedisError: as redis-py raises it; the connection is closed then.
        """
        node = self.connection.node.name
        try:
            self.connection.send(commands)
        except BrokenPipeError as error:
            raise NeverSentError(f"the connection was closed before: {error}") from error
        loop = self._loop
        found: list[Reply] = []
        try:
            while len(found) < len(commands):
                if not self._replies:
                    if not self.connection.is_open:
                        raise RedisConnectionError(_CLOSED)
                    self._waiting = waiting = loop.create_future()
                    timer = loop.call_later(timeout_s, _give_up, waiting, node)
                    try:
                        await waiting
                    finally:
                        timer.cancel()
                        self._waiting = None
                found.append(self._replies.popleft())
        except BaseException:
            self.connection.close()
            raise
        return found

    def _on_message(self, replies: list[Reply]) -> None:
        self._replies.extend(replies)
        self.demoted = self.demoted or any(map(_is_read_only, replies))
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _on_lost(self, _error: OSError) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(RedisConnectionError(_CLOSED))


def _give_up(waiting: "asyncio.Future[None]", node: str) -> None:
    if not waiting.done():
        waiting.set_exception(RedisTimeoutError(f"Timeout reading from {node}"))


def _is_read_only(reply: Reply) -> bool:
    return isinstance(reply, CommandError) and reply.text.startswith("READONLY")


class ConnectionPool:
    """Connections to one node, or to whichever of several says that it is the master.

    Args:
        network: between the client and the nodes.
        client: whose links are used.
        nodes: one, or more, of which each new connection asks ROLE.
        limits: the bounds.
    """

    def __init__(
        self, network: Network, client: str, nodes: Sequence[str], limits: ConnectionLimits
    ) -> None:
        self._network = network
        self._client = client
        self._nodes = list(nodes)
        self._limits = limits
        self._idle: list[_Wire] = []
        self._busy: dict[_Wire, None] = {}
        self._opening = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._closed = False

    async def request(self, commands: list[list[bytes]]) -> list[Reply]:
        """Send commands over one connection; their replies.

        Raises:
            redis.exceptions.RedisError: as redis-py raises it.
        """
        wire = self._ready() or await self._open()
        self._busy[wire] = None
        try:
            return await wire.request(commands, self._limits.socket_timeout_s)
        finally:
            del self._busy[wire]
            if wire.connection.is_open:
                if self._closed or (wire.demoted and len(self._nodes) > 1):
                    wire.connection.close()
                else:
                    self._idle.append(wire)
            self._next()

    def close(self) -> None:
        """Close all connections, also those in use, and open none any more."""
        self._closed = True
        for wire in [*self._idle, *self._busy]:
            wire.connection.close()
            wire._on_lost(ConnectionAbortedError())  # noqa: SLF001 - of one
        self._idle.clear()

    def _ready(self) -> _Wire | None:
        while self._idle:
            wire = self._idle.pop()
            if wire.connection.is_open:
                return wire
        return None

    async def _open(self) -> _Wire:
        if self._is_closed():
            raise NeverSentError("this client was closed")
        while len(self._busy) + self._opening >= self._limits.max_connections:
            await self._wait_for_room()
            wire = self._ready()
            if wire is not None:
                return wire
        self._opening += 1
        try:
            wire = await (self._to_master() if len(self._nodes) > 1 else self._to(self._nodes[0]))
        finally:
            self._opening -= 1
        if self._is_closed():
            wire.connection.close()
            raise NeverSentError("this client was closed")
        return wire

    def _is_closed(self) -> bool:
        return self._closed

    async def _wait_for_room(self) -> None:
        room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(room)
        try:
            async with asyncio.timeout(self._limits.pool_wait_s):
                await room
        except TimeoutError as error:
            raise RedisConnectionError("No connection available.") from error
        finally:
            if room in self._queue:
                self._queue.remove(room)

    def _next(self) -> None:
        while self._queue:
            room = self._queue.popleft()
            if not room.done():
                room.set_result(None)
                return

    async def _to(self, node: str) -> _Wire:
        try:
            connection = await self._network.connect(
                self._client, node, timeout_s=self._limits.connect_timeout_s
            )
        except ConnectionRefusedError as error:
            raise RedisConnectionError(f"Error {error.errno} connecting to {node}.") from error
        except TimeoutError as error:
            raise RedisTimeoutError("Timeout connecting to server") from error
        return _Wire(connection, self._network.loop)

    async def _to_master(self) -> _Wire:
        """As ``MasterConnection``: the first that says it is the master, the last one first."""
        told = []
        for node in list(self._nodes):
            role: Any = None
            try:
                async with asyncio.timeout(_ROLE_TIMEOUT_S):
                    wire = await self._to(node)
                    try:
                        ((role, *_rest),) = await wire.request([[b"ROLE"]], _ROLE_TIMEOUT_S)
                    except BaseException:
                        wire.connection.close()
                        raise
            except (RedisConnectionError, RedisTimeoutError, TimeoutError) as error:
                told.append(f"{node} {error or 'silent'}")
                continue
            if role == b"master":
                self._nodes = [node, *(item for item in self._nodes if item != node)]
                return wire
            wire.connection.close()
            told.append(f"{node} {role.decode()}")
        raise NeverSentError(f"no Redis node is the master ({'; '.join(told)}): promote one")
