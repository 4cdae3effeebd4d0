"""Three nats-servers in one cluster, with JetStream.

Two of three are a quorum. Clients are told of all nodes unless ``ClusterAddresses`` says otherwise,
for what is behind proxies must not learn the real addresses.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import (
    START_ATTEMPTS,
    EmbeddedBroker,
    launch,
    lost_ports,
    nats_configuration,
    wait_until_up,
)
from hookbench.brokers.nats_nodes import ask_node, ask_roles, is_healthy, meta_state
from hookbench.brokers.ports import LOOPBACK, free_port
from hookbench.brokers.resolve import Resolved
from hookbench.brokers.roles import READY_TIMEOUT_S, Role, stop_all, wait_until
from hookbench.errors import BrokerUnreachableError, SettingError

__all__ = ["ClusterAddresses", "NatsCluster", "RouteUrl"]

NODES = 3
_NOWHERE = f"{LOOPBACK}:1"  # nothing listens there: a route that gossip tells of leads nowhere

RouteUrl = Callable[[int, int, int], str]
"""``(from, to, port) -> url``: how node ``from`` (an index) is to reach node ``to``, whose routes
really are at ``port``. Called once for each pair before any node runs, so a proxy can be opened."""

ClientAddress = Callable[[int, int], str]
"""``(index, port) -> host:port``: what clients are told of a node that really is at ``port``."""


class ClusterAddresses(msgspec.Struct, frozen=True, kw_only=True):
    """What the nodes and their clients are told of where the nodes are.

    Attributes:
        route_url: URLs of the routes, by default the real ones. With others, each node advertises
            an address to which no route can be made: gossip would go around the proxies.
        client_address: what clients are told instead of a node's real address.
        no_advertise: clients are told of no node but the one that they are connected to.
    """

    route_url: RouteUrl | None = None
    client_address: ClientAddress | None = None
    no_advertise: bool = False


class _Ports(msgspec.Struct, frozen=True):
    client: int
    monitor: int
    routes: int


class NatsCluster:
    """Three nodes, ``nats-1`` to ``nats-3``.

    Attributes:
        url: the real addresses of all nodes, separated by commas, for ``AppTransport.connect``.
    """

    def __init__(self, nodes: Sequence[EmbeddedBroker], durability: Durability) -> None:
        self.nodes = list(nodes)
        self.description = f"cluster of {len(self.nodes)} nodes"
        self.durability = durability
        self.url = ",".join(node.url for node in self.nodes)

    @classmethod
    async def start(
        cls,
        resolved: Resolved,
        folder: Path,
        durability: Durability,
        *,
        addresses: ClusterAddresses | None = None,
    ) -> Self:
        """Start the nodes, and wait until they have a meta leader and all are current.

        Raises:
            BrokerUnreachableError: a node did not come up, or they did not find together.
        """
        addresses = addresses or ClusterAddresses()
        nodes = _start_together(resolved, folder, durability, addresses)
        group = cls(nodes, durability)
        try:
            await group.wait_until_ready()
        except BaseException:
            stop_all(nodes)
            raise
        return group

    def node(self, server_name: str) -> EmbeddedBroker:
        """The node that the servers call ``server_name``."""
        for node in self.nodes:
            if server_name == _server_name(node):
                return node
        known = ", ".join(map(_server_name, self.nodes))
        raise SettingError(
            f"no node of the NATS cluster is called {server_name!r} (known: {known})"
        )

    async def roles(self) -> dict[str, Role]:
        """Who leads the cluster's meta group, who follows, who is silent."""
        return await ask_roles(self.nodes)

    async def wait_until_ready(self) -> None:
        """Wait until all nodes agree on one meta leader, and each says that it is current.

        A node is healthy when its streams and consumers have what their leaders have, see
        https://docs.nats.io/running-a-nats-service/nats_admin/monitoring, ``/healthz``.
        """
        await wait_until(self._missing, "nats cluster")

    async def _missing(self) -> str | None:
        leaders = set()
        away: set[str] = set()
        for node in self.nodes:
            state = await meta_state(node)
            if state is None:
                return f"{node.name} is silent"
            if state.get("cluster_size") != len(self.nodes):
                return f"{node.name} knows {state.get('cluster_size')} nodes"
            leaders.add(state.get("leader") or "")
            # The leader, which alone tells, places no stream on a peer that it has not heard of.
            away |= {peer["name"] for peer in state.get("replicas") or [] if peer.get("offline")}
            if not await is_healthy(node):
                return f"{node.name} is not current"
        if len(leaders) != 1 or "" in leaders:
            return f"meta leaders are {sorted(leaders)}"
        return f"{', '.join(sorted(away))} is away in the leader's eyes" if away else None

    async def stream_leader(
        self, stream: str, *, timeout_s: float = READY_TIMEOUT_S
    ) -> EmbeddedBroker:
        """The node that leads ``stream``, as the servers say; waits while there is none.

        Raises:
            BrokerUnreachableError: none within ``timeout_s``, or there is no such stream.
        """
        found: list[EmbeddedBroker] = []

        async def missing() -> str | None:
            info = await self._stream_info(stream)
            name = (info.get("cluster") or {}).get("leader")
            leader = self.node(name) if name else None
            if leader is None or not leader.running:
                return f"no leader ({info.get('error') or info.get('cluster') or 'no answer'})"
            found.append(leader)
            return None

        await wait_until(missing, f"leader of stream {stream}", timeout_s=timeout_s)
        return found[-1]

    async def kill_leader(self, stream: str) -> EmbeddedBroker:
        """SIGKILL the node that leads ``stream``; which one it was."""
        leader = await self.stream_leader(stream)
        leader.kill()
        return leader

    async def wait_until_current(self, stream: str) -> None:
        """Wait until the cluster is ready and every replica of ``stream`` has all of it."""
        await self.wait_until_ready()

        async def missing() -> str | None:
            info = await self._stream_info(stream)
            cluster = info.get("cluster") or {}
            replicas = cluster.get("replicas") or []
            wanted = (info.get("config") or {}).get("num_replicas")
            if not cluster.get("leader") or wanted != len(replicas) + 1:
                return f"leader {cluster.get('leader')}, {len(replicas)} replicas beside it"
            behind = [
                peer["name"] for peer in replicas if not peer["current"] or peer.get("offline")
            ]
            return f"{', '.join(behind)} lags behind" if behind else None

        await wait_until(missing, f"replicas of stream {stream}")

    async def _stream_info(self, stream: str) -> dict[str, Any]:
        """What STREAM.INFO answers to the first node that gets an answer, empty if none does."""
        for node in self.nodes:
            if node.running:
                try:
                    return await ask_node(node, f"$JS.API.STREAM.INFO.{stream}")
                except BrokerUnreachableError:
                    continue  # paused, or it knows no leader yet
        return {}


def _server_name(node: EmbeddedBroker) -> str:
    return f"hookbench-{node.port}"


def _start_together(
    resolved: Resolved, folder: Path, durability: Durability, addresses: ClusterAddresses
) -> list[EmbeddedBroker]:
    """All nodes on ports that are free, with all ports new when one was taken meanwhile."""
    if resolved.binary is None:
        raise SettingError(f"{resolved.label} is not ours to start")
    for attempt in range(1, START_ATTEMPTS + 1):
        ports = [_Ports(free_port(), free_port(), free_port()) for _ in range(NODES)]
        nodes: list[EmbeddedBroker] = []
        begins = {}
        try:
            for index in range(NODES):
                log = folder / f"nats-{index + 1}.log"
                begins[log] = log.stat().st_size if log.exists() else 0
                nodes.append(_start_node(resolved, folder, durability, addresses, ports, index))
            for node in nodes:
                wait_until_up("nats", node.child, node.port, node.log)
        except BrokerUnreachableError:
            stop_all(nodes)
            lost = any(lost_ports(log, begin) for log, begin in begins.items())
            if attempt == START_ATTEMPTS or not lost:
                raise
            # Nodes are called after their ports: the old names would stay in the cluster.
            for node in nodes:
                shutil.rmtree(node.data)
        except BaseException:
            stop_all(nodes)
            raise
        else:
            return nodes
    raise BrokerUnreachableError(f"nats cluster found no free ports in {START_ATTEMPTS} tries")


def _start_node(
    resolved: Resolved,
    folder: Path,
    durability: Durability,
    addresses: ClusterAddresses,
    ports: list[_Ports],
    index: int,
) -> EmbeddedBroker:
    name = f"nats-{index + 1}"
    data = folder / name
    data.mkdir(parents=True, exist_ok=True)
    own = ports[index]
    more = _cluster_lines(addresses, ports, index)
    configuration = folder / f"{name}.conf"
    configuration.write_text(
        nats_configuration(own.client, data, durability, monitor_port=own.monitor, more=more)
    )
    log = folder / f"{name}.log"
    command = [str(resolved.binary), "-c", str(configuration)]
    return EmbeddedBroker(
        kind="nats",
        name=name,
        resolved=resolved,
        durability=durability,
        url=f"nats://{LOOPBACK}:{own.client}",
        port=own.client,
        monitor_port=own.monitor,
        data=data,
        log=log,
        command=command,
        child=launch("nats", command, log),
    )


def _cluster_lines(addresses: ClusterAddresses, ports: list[_Ports], index: int) -> list[str]:
    own = ports[index]
    route_url = addresses.route_url or (lambda _from, _to, port: f"nats://{LOOPBACK}:{port}")
    routes = [
        json.dumps(route_url(index, other, ports[other].routes))
        for other in range(NODES)
        if other != index
    ]
    # A name of its own: a node of another cluster, whose routes lead to ports that are ours by now,
    # is turned away by it.
    name = "-".join(str(node.routes) for node in ports)
    lines = [
        "cluster {",
        f"  name: hookbench-{name}",
        f"  listen: {json.dumps(f'{LOOPBACK}:{own.routes}')}",
        f"  routes: [{', '.join(routes)}]",
    ]
    if addresses.no_advertise:
        lines.append("  no_advertise: true")
    if addresses.route_url is not None:
        lines.append(f"  advertise: {json.dumps(_NOWHERE)}")
    lines.append("}")
    if addresses.client_address is not None:
        told = addresses.client_address(index, own.client)
        lines.append(f"client_advertise: {json.dumps(told)}")
    return lines
