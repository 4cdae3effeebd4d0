"""A Redis Cluster of three masters without replicas.

The hook queue does not spread over it: all of its keys carry the tag ``{hook}``, so they are in one
slot, and its owner is the only node that the queue uses.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import EmbeddedBroker, start_redis_node
from hookbench.brokers.ports import LOOPBACK, free_port
from hookbench.brokers.redis_join import assign_slots, slots_missing
from hookbench.brokers.redis_nodes import ask_node, ask_roles
from hookbench.brokers.resolve import Resolved
from hookbench.brokers.roles import Role, stop_all, wait_until
from hookbench.errors import BrokerUnreachableError, SettingError
from hookbench.queues.addresses import CLUSTER_SCHEME

__all__ = ["RedisCluster"]

NODES = 3
NODE_TIMEOUT_S = 2.0
_MINIMUM_MAJOR = 7  # CLUSTER ADDSLOTSRANGE and --cluster-port


class RedisCluster:
    """Three nodes, ``redis-1`` to ``redis-3``, each the master of a third of the slots.

    Attributes:
        url: ``redis+cluster://`` and the addresses of all nodes, for ``connect_redis``.
    """

    def __init__(self, nodes: Sequence[EmbeddedBroker], durability: Durability) -> None:
        self.nodes = list(nodes)
        self.description = f"cluster of {len(self.nodes)} masters"
        self.durability = durability
        self.url = f"{CLUSTER_SCHEME}://" + ",".join(f"{LOOPBACK}:{node.port}" for node in nodes)

    @classmethod
    async def start(
        cls,
        resolved: Resolved,
        folder: Path,
        durability: Durability,
        *,
        node_timeout_s: float = NODE_TIMEOUT_S,
    ) -> Self:
        """Start the nodes, assign the slots, and wait until every node has all of them.

        Args:
            resolved: the binary, of Redis 7 or newer.
            folder: for data folders and logs.
            durability: of each node.
            node_timeout_s: ``cluster-node-timeout``: a node that is silent for longer is failed,
                and the cluster with it. As shipped it is 15 s, long for a rehearsal.

        Raises:
            SettingError: the server is too old, or the class needs replicas.
            BrokerUnreachableError: a node did not come up, or they did not find together.
        """
        _check(resolved, durability)

        def options() -> list[str]:
            timeout_ms = round(node_timeout_s * 1000)
            return [
                *("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"),
                *("--cluster-port", str(free_port()), "--cluster-node-timeout", str(timeout_ms)),
            ]

        nodes: list[EmbeddedBroker] = []
        try:
            for number in range(1, NODES + 1):
                name = f"redis-{number}"
                nodes.append(
                    start_redis_node(resolved, folder, durability, name=name, options=options)
                )
            group = cls(nodes, durability)
            await group._join()
            await group.wait_until_ready()
        except BaseException:
            stop_all(nodes)
            raise
        return group

    async def _join(self) -> None:
        await assign_slots(self.nodes, among=self.nodes)
        for node in self.nodes[1:]:
            bus_port = node.command[node.command.index("--cluster-port") + 1]
            await ask_node(self.nodes[0], "CLUSTER", "MEET", LOOPBACK, node.port, bus_port)

    async def roles(self) -> dict[str, Role]:
        """All are masters; one that does not answer is silent."""
        return await ask_roles(self.nodes)

    async def owner(self, key: str) -> EmbeddedBroker:
        """The node whose slot ``key`` is in, as the nodes say.

        Raises:
            BrokerUnreachableError: no node answers, or the slot has no owner among the nodes.
        """
        for node in self.nodes:
            try:
                slot = await ask_node(node, "CLUSTER", "KEYSLOT", key)
                ranges = await ask_node(node, "CLUSTER", "SLOTS")
            except BrokerUnreachableError:
                continue  # another node knows as well
            for first, last, (_host, port, *_rest), *_replicas in ranges:
                owners = [other for other in self.nodes if other.port == port]
                if first <= slot <= last and owners:
                    return owners[0]
            raise BrokerUnreachableError(f"slot {slot} of key {key!r} has no owner: rejoin a node")
        raise BrokerUnreachableError(f"no node of the Redis cluster answers about key {key!r}")

    async def wait_until_ready(self) -> None:
        """Wait until every node says that the cluster is ok and all slots are assigned."""
        await wait_until(self._missing, "redis cluster")

    async def states(self) -> dict[str, str]:
        """``cluster_state`` as each node sees it: ``ok``, ``fail``, or ``silent``."""
        infos = await asyncio.gather(*map(self._info, self.nodes))
        return {
            node.name: info.get("cluster_state", Role.SILENT.value)
            for node, info in zip(self.nodes, infos, strict=True)
        }

    async def _missing(self) -> str | None:
        for node in self.nodes:
            lack = slots_missing(node.name, await self._info(node), NODES)
            if lack is not None:
                return lack
        return None

    async def _info(self, node: EmbeddedBroker) -> dict[str, str]:
        """CLUSTER INFO of a node, empty if it is silent."""
        if not node.running:
            return {}
        try:
            answer: bytes = await ask_node(node, "CLUSTER", "INFO")
        except BrokerUnreachableError:
            return {}
        pairs = (line.partition(":") for line in answer.decode().splitlines())
        return {name: value for name, _colon, value in pairs}


def _check(resolved: Resolved, durability: Durability) -> None:
    if durability is Durability.REPLICATED:
        raise SettingError(
            f"durability {durability}: the masters of redis_cluster have no replicas; use the"
            " topology redis_replica, or another durability"
        )
    major = (resolved.version or "").partition(".")[0]
    if major.isdigit() and int(major) < _MINIMUM_MAJOR:
        raise SettingError(
            f"{resolved.label}: redis_cluster needs Redis {_MINIMUM_MAJOR} or newer; put another"
            " redis-server on PATH"
        )
