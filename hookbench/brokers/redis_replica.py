"""A Redis master with one replica, and promotion by hand.

Replication is asynchronous: the master acknowledges what the replica may not have yet (hazard R7).
``min-replicas-to-write`` is not set, so that a master goes on without its replica, as shipped.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import EmbeddedBroker, start_redis_node
from hookbench.brokers.ports import LOOPBACK
from hookbench.brokers.redis_nodes import (
    ask_node,
    ask_role,
    ask_roles,
    ask_when_loaded,
    role_of,
)
from hookbench.brokers.resolve import Resolved
from hookbench.brokers.roles import Role, stop_all, wait_until
from hookbench.errors import BrokerUnreachableError, BrokerUnsuitableError
from hookbench.queues.addresses import REPLICA_SCHEME

__all__ = ["REPLICATED_NODES", "RedisReplica", "ReplicationPort"]

REPLICATED_NODES = 2

ReplicationPort = Callable[[str, int], int]
"""``(node, port) -> port``: where a replica finds the node of that name, which really is at
``port``. Called once for each node before any of them is a replica, so a proxy can be opened."""

# By default a master waits 5 s for more replicas before it sends its snapshot to the first.
_SYNC_AT_ONCE = ("--repl-diskless-sync-delay", "0")
_PAUSE_MS = 3_600_000  # CLIENT PAUSE needs an end; no rehearsal is that long


class RedisReplica:
    """Two nodes, ``redis-1`` and ``redis-2``; the first is the master at the start.

    Who is the master is asked from the nodes, never remembered.

    Attributes:
        url: ``redis+replica://`` and the addresses of both, for ``connect_redis``: its connections
            follow a promotion.
    """

    def __init__(
        self,
        nodes: Sequence[EmbeddedBroker],
        durability: Durability,
        *,
        replication_port: ReplicationPort | None = None,
    ) -> None:
        self.nodes = list(nodes)
        find = replication_port or (lambda _name, port: port)
        self._ports = {node.name: find(node.name, node.port) for node in self.nodes}
        self.description = "master and replica"
        self.durability = durability
        self.url = f"{REPLICA_SCHEME}://" + ",".join(f"{LOOPBACK}:{node.port}" for node in nodes)
        self._plain_commands = {node.name: list(node.command) for node in self.nodes}

    @classmethod
    async def start(
        cls,
        resolved: Resolved,
        folder: Path,
        durability: Durability,
        *,
        replication_port: ReplicationPort | None = None,
    ) -> Self:
        """Start both, and wait until the replica has what the master has.

        Args:
            resolved: the binary.
            folder: for data folders and logs.
            durability: of each node.
            replication_port: by default the nodes' own ports.

        Raises:
            BrokerUnreachableError: a node did not come up, or the replica did not connect.
        """
        nodes: list[EmbeddedBroker] = []
        try:
            for number in range(1, REPLICATED_NODES + 1):
                node = start_redis_node(
                    resolved,
                    folder,
                    durability,
                    name=f"redis-{number}",
                    options=lambda: _SYNC_AT_ONCE,
                )
                nodes.append(node)
            group = cls(nodes, durability, replication_port=replication_port)
            await group._follow(nodes[1], nodes[0])
            await group.wait_until_ready()
        except BaseException:
            stop_all(nodes)
            raise
        return group

    async def roles(self) -> dict[str, Role]:
        """Each node's ROLE."""
        return await ask_roles(self.nodes)

    async def master(self) -> EmbeddedBroker:
        """The node that says it is the master.

        Raises:
            BrokerUnreachableError: none does.
            BrokerUnsuitableError: both do, as after a promotion while the old one was paused.
        """
        return await self._only(Role.MASTER)

    async def replica(self) -> EmbeddedBroker:
        """The node that says it is the replica; errors as of ``master``."""
        return await self._only(Role.REPLICA)

    async def _only(self, role: Role) -> EmbeddedBroker:
        roles = await self.roles()
        found = [node for node in self.nodes if roles[node.name] is role]
        told = ", ".join(f"{name} {told}" for name, told in roles.items())
        if not found:
            raise BrokerUnreachableError(f"no Redis node is {role} ({told}): promote or rejoin one")
        if len(found) > 1:
            raise BrokerUnsuitableError(f"two Redis nodes are {role} ({told}): rejoin one of them")
        return found[0]

    async def promote(self) -> EmbeddedBroker:
        """Make the replica the master, and the old master its replica if that answers.

        What the master acknowledged and the replica had not read is gone. An old master that is
        dead comes up as a replica when it is restarted; one that is paused is a second master from
        the moment it is resumed until ``rejoin``.

        Returns:
            The new master.
        """
        new = await self.replica()
        await ask_node(new, "REPLICAOF", "NO", "ONE")
        # Only now, for a replica that goes on reads what its master sent during the pause.
        await ask_node(new, "CLIENT", "UNPAUSE")
        self._will_start(new, master=None)
        (old,) = (node for node in self.nodes if node is not new)
        self._will_start(old, master=new)
        if await ask_role(old):
            await self._follow(old, new)
        return new

    async def rejoin(self, node: EmbeddedBroker) -> None:
        """Let ``node`` follow the other, restarted if it is dead; wait until it has everything.

        What ``node`` has and the other has not is thrown away.

        Raises:
            BrokerUnsuitableError: the other is no master.
            BrokerUnreachableError: ``node`` did not come up, or did not get everything in time.
        """
        (master,) = (other for other in self.nodes if other is not node)
        role = role_of(await ask_role(master))
        if role is not Role.MASTER:
            raise BrokerUnsuitableError(
                f"{node.name} cannot follow {master.name}, which is {role}: promote it first"
            )
        self._will_start(node, master=master)
        if not node.running:
            node.restart()
        await self._follow(node, master)
        await self.wait_until_ready()

    async def pause_replication(self) -> None:
        """Let the replica apply nothing more; its connection stays, and its data can be read.

        ``CLIENT PAUSE WRITE`` on the replica holds back what its master sends as well, and a
        promotion throws that away. SIGSTOP does not: what lies in the socket is applied by a
        replica that goes on, so whether a write is lost is left to chance.
        """
        await ask_node(await self.replica(), "CLIENT", "PAUSE", _PAUSE_MS, "WRITE")

    async def resume_replication(self) -> None:
        """Let the replica apply what was held back."""
        await ask_node(await self.replica(), "CLIENT", "UNPAUSE")

    async def wait_until_ready(self) -> None:
        """Wait until one is the master and the other has all that this had, on its disk too."""
        await wait_until(self._missing, "redis with a replica")

    async def _missing(self) -> str | None:
        answers: list[list[Any]] = await asyncio.gather(*map(ask_role, self.nodes))
        roles = [role_of(answer) for answer in answers]
        if sorted(roles) != [Role.MASTER, Role.REPLICA]:
            return f"roles are {', '.join(roles)}"
        master, replica = sorted(answers, key=role_of)
        _word, _host, port, state, offset = replica
        if port != self._ports[self.nodes[answers.index(master)].name]:
            return f"the replica follows port {port}"
        if state != b"connected":
            return f"the replica's link is {state.decode()}"
        if offset < master[1]:
            return f"the replica is at {offset} of {master[1]}"
        # A replica that has just copied its master writes its file anew. Until that is done it has
        # none, and refuses to stop.
        persistence = await ask_node(self.nodes[answers.index(replica)], "INFO", "persistence")
        busy = persistence["aof_rewrite_in_progress"] or persistence["aof_rewrite_scheduled"]
        return "the replica writes its append-only file" if busy else None

    async def _follow(self, node: EmbeddedBroker, master: EmbeddedBroker) -> None:
        await ask_when_loaded(node, "REPLICAOF", LOOPBACK, self._ports[master.name])
        self._will_start(node, master=master)

    def _will_start(self, node: EmbeddedBroker, *, master: EmbeddedBroker | None) -> None:
        """What a restart makes of it: with no moment in which an old master is one again."""
        follow = [] if master is None else ["--replicaof", LOOPBACK, str(self._ports[master.name])]
        node.command = [*self._plain_commands[node.name], *follow]
