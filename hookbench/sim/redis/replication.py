"""A replica that follows a master over the network, and what an operator does to both."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from hookbench.sim.network import Network
from hookbench.sim.redis.log import LogEntry
from hookbench.sim.redis.replies import CommandError
from hookbench.sim.redis.server import RedisServer
from hookbench.sim.redis.session import Acknowledge, FullSync, Sync

if TYPE_CHECKING:
    from hookbench.sim.connection import Connection

__all__ = ["Replica", "promote"]

_RETRY_S = 1.0
_CONNECT_S = 3.0


class Replica:
    """Makes a server follow another one, again whenever the connection is lost.

    A replica takes the whole database each time: there is no partial synchronisation, which would
    come to the same keys.

    Args:
        server: the one that follows.
        network: between them.
        master: name of the node that it follows.
    """

    def __init__(self, server: RedisServer, network: Network, master: str) -> None:
        self.server = server
        self._network = network
        self._master = master
        self._connection: Connection | None = None
        self._lost = asyncio.Event()
        server.is_master = False
        server.fail_waiters(
            CommandError(
                "UNBLOCKED force unblock from blocking operation, instance state changed"
                " (master -> replica?)"
            )
        )
        self._task = network.loop.create_task(self._follow(), name=f"replica {server.node.name}")

    async def end(self) -> None:
        """Follow no more."""
        self._task.cancel()
        await asyncio.wait([self._task])
        if self._connection is not None:
            self._connection.close()

    def find_out(self) -> None:
        """What it sends is answered by a reset: its master had lost its power, and is back."""
        if self._connection is not None:
            self._connection.close()
        self._lost.set()

    async def _follow(self) -> None:
        name = self.server.node.name
        while self.server.node.server is self.server:
            lost = self._lost = asyncio.Event()
            try:
                connection = await self._network.connect(name, self._master, timeout_s=_CONNECT_S)
            except OSError:
                await asyncio.sleep(_RETRY_S)
                continue
            self._connection = connection
            connection.on_message(self._on_message)
            connection.on_lost = partial(_set, lost)
            connection.send(Sync())
            await lost.wait()
            await asyncio.sleep(_RETRY_S)

    def _on_message(self, message: Any) -> None:
        server, connection = self.server, self._connection
        if server.node.stopped:
            server.node.waiting.append(lambda: self._on_message(message))
            return
        if not server.node.up or server.node.server is not server or connection is None:
            return
        if isinstance(message, FullSync):
            server.follow_from_start(message.log)
        elif isinstance(message, LogEntry):
            server.follow_entry(message)
        if connection.is_open:
            connection.send(Acknowledge(len(server.log)))


async def promote(replica: Replica) -> None:
    """REPLICAOF NO ONE: it takes writes from now on, and has what it has."""
    await replica.end()
    replica.server.is_master = True


def _set(event: asyncio.Event, _error: OSError) -> None:
    event.set()
