"""Connections that go to whichever of several Redis nodes says that it is the master.

Each connection asks ROLE (https://redis.io/docs/latest/commands/role/) before its first command, so
a client follows a promotion when it next connects. It connects anew when its node is gone, silent
for longer than the socket's timeout, or refuses a write because it is a replica now.
"""

import asyncio
from typing import Any

import redis.asyncio as redis_asyncio
from redis.exceptions import ReadOnlyError, RedisError

from hookbench.queues.addresses import is_encrypted, parse_redis_nodes
from hookbench.queues.redis_client import ClosedForGood
from hookbench.queues.redis_errors import NeverSentError

__all__ = ["EncryptedMasterConnection", "MasterConnection", "master_pool"]

ROLE_TIMEOUT_S = 1.0
_Address = tuple[str, int]


class _Nodes:
    """The addresses, that of the last master first.

    Two nodes may say that they are the master, after a promotion while the old one was paused.
    Without a third party nobody can tell which is right: whoever was it last is asked first.
    """

    def __init__(self, addresses: list[_Address]) -> None:
        self._addresses = addresses

    @property
    def in_order(self) -> list[_Address]:
        """A copy, for it changes while a connection goes through it."""
        return list(self._addresses)

    def found(self, master: _Address) -> None:
        """Ask this one first from now on."""
        self._addresses = [master, *(item for item in self._addresses if item != master)]


class _ToMaster:
    """Mixed into a connection of redis-py: it goes to the master.

    Args:
        nodes: shared by the connections of a pool.
        options: as of redis-py's connection.
    """

    host: str
    port: int
    is_connected: bool
    disconnect: Any
    send_command: Any

    def __init__(self, *, nodes: _Nodes, **options: Any) -> None:
        super().__init__(**options)
        self._nodes = nodes
        self._demoted = False

    async def connect(self) -> None:
        """Connect to the first node that says it is the master.

        Raises:
            NeverSentError: none does; the text has what each of them said.
        """
        if self._demoted:
            await self.disconnect()
            self._demoted = False
        if self.is_connected:
            return
        told = []
        for address in self._nodes.in_order:
            self.host, self.port = address
            try:
                role = await self._ask_role()
            except (RedisError, OSError, TimeoutError) as error:
                role = str(error) or f"silent for {ROLE_TIMEOUT_S} s"
            if role == "master":
                self._nodes.found(address)
                return
            await self.disconnect(nowait=True)
            told.append(f"{self.host}:{self.port} {role}")
        raise NeverSentError(f"no Redis node is the master ({'; '.join(told)}): promote one")

    async def _ask_role(self) -> str:
        try:
            async with asyncio.timeout(ROLE_TIMEOUT_S):
                await super().connect()  # type: ignore[misc]  # redis-py's
                await self.send_command("ROLE", check_health=False)
                word = (await self.read_response())[0]
        except BaseException:
            # An answer that comes later would be taken for that of the next command.
            await self.disconnect(nowait=True)
            raise
        return word.decode() if isinstance(word, bytes) else str(word)

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """As redis-py's; a node that became a replica is left before the next command."""
        try:
            return await super().read_response(*args, **kwargs)  # type: ignore[misc]  # redis-py's
        except ReadOnlyError:
            self._demoted = True
            raise


class MasterConnection(_ToMaster, redis_asyncio.Connection):
    """A connection to the master."""


class EncryptedMasterConnection(_ToMaster, redis_asyncio.SSLConnection):
    """Likewise over TLS."""


def master_pool(url: str, **options: Any) -> ClosedForGood:
    """A pool of connections to the master among the nodes of a ``redis+replica://`` URL.

    Args:
        url: see ``parse_redis_nodes``.
        options: of the pool and of its connections.

    Raises:
        SettingError: the URL is none.
    """
    nodes = _Nodes(parse_redis_nodes(url))
    kind = EncryptedMasterConnection if is_encrypted(url) else MasterConnection
    return ClosedForGood(connection_class=kind, nodes=nodes, **options)
