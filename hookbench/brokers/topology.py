"""The brokers of a rehearsal, by the name of how many there are and how they hang together."""

import difflib
from pathlib import Path

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import EmbeddedBroker, start_nats, start_redis
from hookbench.brokers.nats_cluster import ClusterAddresses, NatsCluster
from hookbench.brokers.nats_nodes import SingleNats
from hookbench.brokers.redis_cluster import RedisCluster
from hookbench.brokers.redis_nodes import SingleRedis
from hookbench.brokers.redis_replica import RedisReplica, ReplicationPort
from hookbench.brokers.resolve import Resolved, resolve_nats, resolve_redis
from hookbench.brokers.roles import Role, stop_all
from hookbench.errors import SettingError
from hookbench.queues.jetstream import StreamSettings

__all__ = [
    "REDIS_CLUSTER",
    "SINGLE",
    "TOPOLOGIES",
    "NatsGroup",
    "RedisGroup",
    "Topology",
    "check_topology",
    "has_nats_cluster",
    "has_redis_replica",
    "open_topology",
]

RedisGroup = SingleRedis | RedisReplica | RedisCluster
NatsGroup = SingleNats | NatsCluster

_ONE, _REPLICA, _CLUSTER = "one", "replica", "cluster"
SINGLE = "single"
REDIS_CLUSTER = "redis_cluster"
_GROUPS = {
    SINGLE: (_ONE, _ONE),
    "redis_replica": (_REPLICA, _ONE),
    REDIS_CLUSTER: (_CLUSTER, _ONE),
    "nats_cluster": (_ONE, _CLUSTER),
    "replicated": (_REPLICA, _CLUSTER),
}
TOPOLOGIES = tuple(_GROUPS)
"""Names of topologies. Only ``replicated`` gives both brokers the class ``replicated``."""


class Topology:
    """A Redis and a NATS, each of one node or several.

    Attributes:
        name: one of ``TOPOLOGIES``.
        redis: the nodes of Redis, and what can be done with them together.
        nats: the nodes of NATS, likewise.
    """

    def __init__(self, name: str, redis: RedisGroup, nats: NatsGroup) -> None:
        self.name = name
        self.redis = redis
        self.nats = nats

    @property
    def redis_url(self) -> str:
        """For ``connect_redis``; of a master with a replica, a URL that follows a promotion."""
        return self.redis.url

    @property
    def nats_url(self) -> str:
        """For ``AppTransport.connect``: of a cluster the nodes' URLs, separated by commas."""
        return self.nats.url

    @property
    def nodes(self) -> list[EmbeddedBroker]:
        """Every node, those of Redis first."""
        return [*self.redis.nodes, *self.nats.nodes]

    @property
    def durabilities(self) -> dict[str, Durability]:
        """The class of each broker: one of a single node is not replicated by the other's nodes."""
        return {"redis": self.redis.durability, "nats": self.nats.durability}

    @property
    def stream(self) -> StreamSettings:
        """The hook stream as the class of NATS wants it."""
        durability = self.nats.durability
        return StreamSettings(
            storage=durability.stream_storage, replicas=durability.stream_replicas
        )

    def node(self, name: str) -> EmbeddedBroker:
        """The node of that name, such as ``nats-2``.

        Raises:
            SettingError: there is none; the text has the nearest name.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise SettingError(_unknown("node", name, [node.name for node in self.nodes]))

    async def roles(self) -> dict[str, Role]:
        """Each node's name and what it says that it is now."""
        return await self.redis.roles() | await self.nats.roles()

    async def wait_until_ready(self) -> None:
        """Wait until every node serves, and none lags behind.

        Raises:
            BrokerUnreachableError: not in time; the text says who lacks what.
        """
        await self.redis.wait_until_ready()
        await self.nats.wait_until_ready()

    def stop(self) -> None:
        """Stop every node, also paused ones."""
        stop_all(self.nodes)


def check_topology(name: str) -> str:
    """``name`` unchanged.

    Raises:
        SettingError: there is no such topology; the text has the nearest name.
    """
    if name not in _GROUPS:
        raise SettingError(_unknown("topology", name, TOPOLOGIES))
    return name


def has_nats_cluster(name: str) -> bool:
    """Whether NATS has several nodes in a topology."""
    return _GROUPS[check_topology(name)][1] == _CLUSTER


def has_redis_replica(name: str) -> bool:
    """Whether Redis is a master with a replica in a topology."""
    return _GROUPS[check_topology(name)][0] == _REPLICA


def _unknown(what: str, name: str, known: list[str] | tuple[str, ...]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"unknown {what} {name!r}: did you mean {nearest[0]}? (known: {', '.join(known)})"


async def open_topology(
    name: str,
    folder: Path,
    durability: Durability,
    *,
    redis: Resolved | None = None,
    nats: Resolved | None = None,
    addresses: ClusterAddresses | None = None,
    replication: ReplicationPort | None = None,
) -> Topology:
    """Start the brokers of a topology and wait until they are ready.

    Must be called on a thread that lives as long as the brokers should, see ``spawn``.

    Args:
        name: one of ``TOPOLOGIES``.
        folder: for data folders, configurations and logs, called as the nodes are.
        durability: the class. ``replicated`` leaves a broker of one node ``lazy``, which its
            ``Topology.durabilities`` says.
        redis: the binary, by default the one that ``resolve_redis`` finds.
        nats: likewise.
        addresses: of a NATS cluster that is behind proxies.
        replication: where a Redis replica finds its master, if behind a proxy.

    Raises:
        SettingError: no such topology, none of its brokers can have the class, or a broker is
            somebody else's.
        BrokerNotFoundError: there is no binary.
        BrokerUnreachableError: a node did not come up, or they did not find together in time.
    """
    redis_kind, nats_kind = _GROUPS[check_topology(name)]
    _check(name, durability, addresses)
    redis = redis or resolve_redis()
    nats = nats or resolve_nats()
    opened = await _open_redis(redis_kind, redis, folder, durability, replication)
    try:
        return Topology(
            name, opened, await _open_nats(nats_kind, nats, folder, durability, addresses)
        )
    except BaseException:
        stop_all(opened.nodes)
        raise


def _check(name: str, durability: Durability, addresses: ClusterAddresses | None) -> None:
    redis_kind, nats_kind = _GROUPS[name]
    replicas = redis_kind == _REPLICA or nats_kind == _CLUSTER
    if durability is Durability.REPLICATED and not replicas:
        raise SettingError(
            f"durability {durability}: topology {name} has no replicas; use redis_replica,"
            " nats_cluster or replicated, or another durability"
        )
    if addresses is not None and nats_kind != _CLUSTER:
        raise SettingError(f"topology {name} has no NATS cluster whose addresses could be set")


async def _open_redis(
    kind: str,
    resolved: Resolved,
    folder: Path,
    durability: Durability,
    replication: ReplicationPort | None,
) -> RedisGroup:
    if kind == _REPLICA:
        return await RedisReplica.start(resolved, folder, durability, replication_port=replication)
    if kind == _CLUSTER:
        return await RedisCluster.start(resolved, folder, durability)
    return SingleRedis(start_redis(resolved, folder, durability.of_one_node))


async def _open_nats(
    kind: str,
    resolved: Resolved,
    folder: Path,
    durability: Durability,
    addresses: ClusterAddresses | None,
) -> NatsGroup:
    if kind == _CLUSTER:
        return await NatsCluster.start(resolved, folder, durability, addresses=addresses)
    return SingleNats(start_nats(resolved, folder, durability.of_one_node))
