"""The brokers of a simulated site, as a durability class has them, and what is done to them."""

import asyncio
import random
from typing import Protocol

from hookbench.brokers.durability import Durability
from hookbench.queues.addresses import REPLICA_SCHEME
from hookbench.queues.jetstream import StreamSettings
from hookbench.sim.clock import SimulatedClock
from hookbench.sim.loop import SimulatedLoop
from hookbench.sim.nats.cluster import NatsCluster
from hookbench.sim.nats.disk import Disk
from hookbench.sim.nats.monitor import MONITOR_PORT
from hookbench.sim.nats.server import NatsServer
from hookbench.sim.network import Network
from hookbench.sim.redis.log import LogEntry, survivors
from hookbench.sim.redis.replication import Replica, promote
from hookbench.sim.redis.scripts import ScriptEngine
from hookbench.sim.redis.server import RedisServer
from hookbench.sim.redis.settings import Persistence, RedisSettings

__all__ = [
    "NATS",
    "REDIS",
    "Broker",
    "ClusteredNats",
    "RedisBroker",
    "SingleNats",
    "open_nats",
    "stream_settings",
]

REDIS, NATS = "redis:6379", "nats:4222"
"""Where the one node of each runs; with ``replicated`` the Redis that is the master at first."""
_REDIS_REPLICA = "redis-replica:6379"
_NATS_NODES = ("nats-1:4222", "nats-2:4222", "nats-3:4222")
_PERSISTENCE = {
    Durability.MEMORY: Persistence.NONE,
    Durability.LAZY: Persistence.EVERYSEC,
    Durability.FSYNC: Persistence.ALWAYS,
    Durability.REPLICATED: Persistence.EVERYSEC,
}


def _monitors(*nodes: str) -> str:
    """Where the nodes of a NATS tell about themselves, as a process is told it."""
    return ",".join(f"http://{node.partition(':')[0]}:{MONITOR_PORT}" for node in nodes)


class Broker(Protocol):
    """One broker, of one node or several.

    Attributes:
        url: for its clients.
        nodes: their names in the network.
    """

    url: str
    nodes: tuple[str, ...]

    def is_up(self) -> bool:
        """Whether the node that ``kill`` is aimed at runs."""
        ...

    def leader(self) -> str:
        """The node that faults are aimed at: the one that leads, or else one of those that run."""
        ...

    def kill(self) -> str:
        """SIGKILL of one node, the one that leads; which it was."""
        ...

    def cut_power(self, nodes: tuple[str, ...] = ()) -> None:
        """Nodes, by default all, are gone with what they had not synced; no client is told."""
        ...

    def start(self) -> None:
        """Start whatever does not run, on what its disk has."""
        ...


class RedisBroker:
    """A Redis, with a replica where tasks are to survive its node, or where it is wanted.

    A master that comes back is the master again, with what its disk has; its replica takes the
    whole of that, also where it had more. To keep what the replica has it must be promoted.

    Attributes:
        master: the node that takes writes.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        network: Network,
        engine: ScriptEngine,
        durability: Durability,
        *,
        maxmemory_bytes: int = 0,
        policy: str = "noeviction",
        replica: bool = False,
    ) -> None:
        replicated = replica or durability is Durability.REPLICATED
        self.nodes: tuple[str, ...] = (REDIS, _REDIS_REPLICA) if replicated else (REDIS,)
        self.url = (
            f"{REPLICA_SCHEME}://{','.join(self.nodes)}" if replicated else f"redis://{REDIS}"
        )
        self.master = REDIS
        self._loop = loop
        self._network = network
        self._engine = engine
        self._settings = RedisSettings(
            persistence=_PERSISTENCE[durability], maxmemory_bytes=maxmemory_bytes, policy=policy
        )
        self._clock = SimulatedClock(loop)
        self._servers: dict[str, RedisServer] = {}
        self._replicas: dict[str, Replica] = {}
        self._logs: dict[str, list[LogEntry]] = {name: [] for name in self.nodes}
        self.start()

    def is_up(self) -> bool:
        """Whether the master runs."""
        return self._network.node(self.master).up

    def leader(self) -> str:
        """The master."""
        return self.master

    def _keep(self, name: str, cut_us: int | None) -> None:
        log = self._servers[name].log
        self._logs[name] = log[: survivors(log, self._settings.persistence, cut_us=cut_us)]

    def kill(self) -> str:
        """SIGKILL of the master; what its AOF has is there when it is started again."""
        self._keep(self.master, None)
        self._network.node(self.master).kill()
        return self.master

    def cut_power(self, nodes: tuple[str, ...] = ()) -> None:
        """See ``Broker``."""
        for name in nodes or self.nodes:
            if self._network.node(name).up:
                self._keep(name, self._clock.wall_ns() // 1_000)
                self._network.node(name).lose_power()

    def start(self) -> None:
        """See ``Broker``; a replica that runs learns that its master is back."""
        if not self.is_up():
            self._serve(self.master)
            for replica in self._replicas.values():
                replica.find_out()
        self.rejoin()

    def rejoin(self) -> None:
        """Start the nodes that are not the master; they follow it from its beginning."""
        for name in self.nodes:
            if name != self.master and not self._network.node(name).up:
                self._replicas[name] = Replica(self._serve(name), self._network, self.master)

    def _serve(self, name: str) -> RedisServer:
        node = self._network.node(name)
        server = RedisServer(
            self._loop, node, self._engine, settings=self._settings, log=self._logs[name]
        )
        self._servers[name] = server
        node.start(server)
        return server

    async def fail_over(self, *, pause_s: float) -> bool:
        """Kill the master and promote its replica; nothing, where there is none or one is down.

        Args:
            pause_s: for so long before nothing gets to the replica.

        Returns:
            Whether it was done.
        """
        old, new = self.master, next((name for name in self.nodes if name != self.master), "")
        if not new:
            return False
        link = self._network.link(new, old)
        if pause_s:
            self._network.cut(link)
            await asyncio.sleep(pause_s)
        possible = all(self._network.node(name).up for name in self.nodes)
        if possible:
            self.kill()
            await promote(self._replicas.pop(new))
            self.master = new
        self._network.heal(link)
        return possible


class SingleNats:
    """One nats-server.

    Attributes:
        monitor_urls: of the monitoring of each node.
    """

    nodes: tuple[str, ...] = (NATS,)
    url: str = f"nats://{NATS}"
    monitor_urls: str = _monitors(NATS)

    def __init__(
        self, loop: SimulatedLoop, network: Network, disk: Disk, entropy: random.Random
    ) -> None:
        self._loop = loop
        self._node = network.node(NATS)
        self._disk = disk
        self._entropy = entropy
        self._server: NatsServer | None = None
        self.start()

    def is_up(self) -> bool:
        """Whether it runs."""
        return self._node.up

    def leader(self) -> str:
        """It."""
        return NATS

    def kill(self) -> str:
        """SIGKILL; see ``Disk`` for what that takes."""
        self._node.kill()
        return NATS

    def cut_power(self, nodes: tuple[str, ...] = ()) -> None:  # noqa: ARG002 - it has one
        """See ``Broker``."""
        if self._node.up:
            self._node.lose_power()

    def start(self) -> None:
        """See ``Broker``."""
        if self._node.up:
            return
        self._server = NatsServer(
            self._loop, self._node, before=self._server, disk=self._disk, entropy=self._entropy
        )
        self._node.start(self._server)


class ClusteredNats:
    """Three nodes; ``cluster`` has what is done to one of them.

    Attributes:
        monitor_urls: of the monitoring of each node.
    """

    nodes: tuple[str, ...] = _NATS_NODES
    monitor_urls: str = _monitors(*_NATS_NODES)

    def __init__(
        self,
        loop: SimulatedLoop,
        network: Network,
        stream: str,
        disk: Disk,
        entropy: random.Random,
    ) -> None:
        self.cluster = NatsCluster(loop, network, list(_NATS_NODES), disk=disk, entropy=entropy)
        self.url = self.cluster.url()
        self._network = network
        self._stream = stream

    def is_up(self) -> bool:
        """Whether any node runs."""
        return any(self._network.node(name).up for name in self.nodes)

    def leader(self) -> str:
        """Who leads the hook stream; without one the first node that runs, or the first."""
        asset = self.cluster.streams.get(self._stream)
        leader = "" if asset is None else asset.group.leader()
        return leader or next(iter(self.cluster.running(list(self.nodes))), self.nodes[0])

    def kill(self) -> str:
        """SIGKILL of the node that leads the hook stream."""
        leader = self.leader()
        self.cluster.kill(leader)
        return leader

    def cut_power(self, nodes: tuple[str, ...] = ()) -> None:
        """See ``Broker``."""
        self.cluster.lose_power(*self.cluster.running(list(nodes or self.nodes)))

    def start(self) -> None:
        """See ``Broker``."""
        for name in self.nodes:
            if not self._network.node(name).up:
                self.cluster.restart(name)


def open_nats(
    loop: SimulatedLoop,
    network: Network,
    durability: Durability,
    stream: str,
    entropy: random.Random,
    *,
    sync_interval_s: float | None = None,
) -> SingleNats | ClusteredNats:
    """The NATS of a durability class.

    Args:
        loop: of the run.
        network: between it and its clients.
        durability: the class.
        stream: the hook stream, whose leader is the one that is killed.
        entropy: of elections, places and syncs.
        sync_interval_s: of the disks, if it is not that of the class; 0 for always.
    """
    disk = Disk.of(durability)
    if sync_interval_s is not None:
        disk = Disk(sync_interval_s=sync_interval_s)
    if durability is Durability.REPLICATED:
        return ClusteredNats(loop, network, stream, disk, entropy)
    return SingleNats(loop, network, disk, entropy)


def stream_settings(durability: Durability) -> StreamSettings:
    """What the streams of a durability class are made with."""
    return StreamSettings(storage=durability.stream_storage, replicas=durability.stream_replicas)
