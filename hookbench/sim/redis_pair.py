"""A Redis master with a replica: who is who, and a failover."""

import asyncio
from typing import TYPE_CHECKING

from hookbench.sim.network import Network
from hookbench.sim.redis.replication import Replica, promote
from hookbench.sim.redis.server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RedisPair"]


class RedisPair:
    """Two nodes, one of which follows the other.

    Args:
        network: between them.
        master: the node that is the master at first.
        replica: the node that follows it.
        serve: makes a server on a node, empty or on what a log has.
    """

    def __init__(
        self,
        network: Network,
        master: str,
        replica: str,
        serve: "Callable[[str], RedisServer]",
    ) -> None:
        self.master, self._other = master, replica
        self._network = network
        self._serve = serve
        self._replica = self._follow(replica, master)

    def _follow(self, name: str, master: str) -> Replica:
        return Replica(self._serve(name), self._network, master)

    async def fail_over(self, *, pause_s: float) -> RedisServer | None:
        """Kill the master and promote the replica; the server that is the master then.

        Args:
            pause_s: for so long before nothing gets to the replica.

        Returns:
            ``None`` where one of them is down: nothing is done.
        """
        link = self._network.link(self._other, self.master)
        if pause_s:
            self._network.cut(link)
            await asyncio.sleep(pause_s)
        old = self._network.node(self.master)
        if not (old.up and self._network.node(self._other).up):
            self._network.heal(link)
            return None
        old.kill()
        await promote(self._replica)
        self._network.heal(link)
        self.master, self._other = self._other, self.master
        return self._replica.server

    def master_is_back(self) -> None:
        """It was started again: its replica learns of it by its next word, and follows anew."""
        self._replica.find_out()

    def rejoin(self) -> None:
        """The old master comes back, and follows the new one from its beginning."""
        self._replica = self._follow(self._other, self.master)
