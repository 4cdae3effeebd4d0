"""Which node of a broker has a role now, for faults that are aimed at the role."""

import difflib

from hookbench.brokers.embedded import EmbeddedBroker
from hookbench.brokers.nats_cluster import NatsCluster
from hookbench.brokers.redis_cluster import RedisCluster
from hookbench.brokers.redis_replica import RedisReplica
from hookbench.brokers.resolve import Resolved
from hookbench.brokers.roles import Role
from hookbench.errors import BrokerUnreachableError, SettingError
from hookbench.rehearsal.stage import Stage

__all__ = ["BROKERS", "ROLES", "aims", "broker_of", "find_node", "nearest", "node_named"]

BROKERS = ("redis", "nats")
ROLES = {
    "stream_leader": "nats",
    "meta_leader": "nats",
    "redis_master": "redis",
    "redis_replica": "redis",
}
"""Roles, and the broker whose nodes have them. A role is taken up by whoever has it when a fault
fires: ``redis_master`` of a Redis Cluster is the owner of the hook queue's slot, and of a broker of
one node each role but ``redis_replica`` is that node's."""


def broker_of(target: str) -> str | None:
    """``redis`` or ``nats`` for a node, a role or a broker; ``None`` for what is neither."""
    if target in ROLES:
        return ROLES[target]
    kind, dash, number = target.partition("-")
    return kind if kind in BROKERS and (not dash or number.isdigit()) else None


def aims(stage: Stage) -> list[str]:
    """Nodes and roles that a fault of a process may be aimed at; none of somebody else's broker."""
    names: list[str] = []
    for broker, group in zip(BROKERS, (stage.redis, stage.nats), strict=True):
        if isinstance(group, Resolved):
            continue
        names += [node.name for node in group.nodes]
        names += [
            role
            for role, of in ROLES.items()
            if of == broker and (role != "redis_replica" or isinstance(group, RedisReplica))
        ]
    return names


def nearest(name: str, known: list[str]) -> str:
    """`` (did you mean 'nats-1'?)``, empty where nothing is near."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def node_named(stage: Stage, name: str) -> EmbeddedBroker:
    """The node ``redis``, ``nats-2``.

    Raises:
        SettingError: there is none, or this run did not start it.
    """
    broker = broker_of(name)
    for node in stage.nodes(broker) if broker is not None else []:
        if node.name == name:
            return node
    known = aims(stage)
    raise SettingError(
        f"fault target {name!r}: there is none{nearest(name, known)}; there are {', '.join(known)}"
    )


async def find_node(stage: Stage, role: str) -> EmbeddedBroker:
    """The node that has a role now.

    Raises:
        SettingError: nobody can have it here, or this run did not start the broker.
        BrokerUnreachableError: nobody has it now.
        BrokerUnsuitableError: more than one has it.
    """
    nodes = stage.nodes(ROLES[role])
    group = stage.redis if ROLES[role] == "redis" else stage.nats
    if isinstance(group, RedisReplica):
        return await (group.replica() if role == "redis_replica" else group.master())
    if role == "redis_replica":
        raise SettingError("fault target redis_replica: no Redis of this run has a replica")
    if isinstance(group, RedisCluster):
        return await group.owner(stage.names.pending_key("sync"))
    if isinstance(group, NatsCluster) and role == "stream_leader":
        return await group.stream_leader(stage.names.stream)
    if isinstance(group, NatsCluster):
        roles = await group.roles()
        for node in nodes:
            if roles[node.name] is Role.LEADER:
                return node
        told = ", ".join(f"{name} {told}" for name, told in roles.items())
        raise BrokerUnreachableError(f"no NATS node is the meta leader ({told})")
    return nodes[0]
