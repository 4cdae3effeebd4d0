"""The connections of a run's processes to its brokers, through a proxy where a fault needs one.

Of a broker with several nodes each has a link of its own, and a rule is put on all of them.
"""

from collections import Counter
from pathlib import Path

import msgspec

from hookbench.brokers.nats_cluster import ClusterAddresses
from hookbench.brokers.ports import LOOPBACK
from hookbench.brokers.topology import REDIS_CLUSTER, has_nats_cluster
from hookbench.clock import Clock
from hookbench.errors import FaultError, SettingError
from hookbench.faults.base import Fault
from hookbench.faults.wire.client import ProxyControl, start_proxy
from hookbench.faults.wire.model import LinkSettings
from hookbench.faults.wire_fault import Wire
from hookbench.queues.addresses import REPLICA_SCHEME
from hookbench.rehearsal.stage import Stage
from hookbench.results.store import write_aside

__all__ = ["Links", "check_links", "cluster_addresses", "open_links"]


class Links:
    """Where producers and workers find the brokers.

    Args:
        stage: the brokers themselves.
        proxy: of the links that faults are aimed at; ``None`` if there is none.
        nodes: the names of the proxy's links to each node, by the name that faults use.
    """

    def __init__(
        self, stage: Stage, proxy: ProxyControl | None, nodes: dict[str, list[str]] | None = None
    ) -> None:
        self._stage = stage
        self._proxy = proxy
        self._nodes = nodes or {}
        self._rules: dict[int, list[int]] = {}

    def url(self, role: str, broker: str) -> str:
        """Where the processes of a role (``producers``, ``workers``) find ``redis`` or ``nats``."""
        link = f"{role}-{broker}"
        if self._proxy is None or link not in self._nodes:
            return self._stage.redis_url if broker == "redis" else self._stage.nats_url
        hosts = [f"{LOOPBACK}:{self._proxy.ports[name]}" for name in self._nodes[link]]
        if broker == "redis" and len(hosts) > 1:
            return f"{REPLICA_SCHEME}://{','.join(hosts)}"
        return ",".join(f"{broker}://{host}" for host in hosts)

    def processes(self) -> list[tuple[str, int]]:
        """The proxy, if there is one."""
        return [] if self._proxy is None else [("proxy", self._proxy.pid)]

    async def add(self, fault: Wire) -> int:
        """Put the fault's rule to work on every node of its link; the number of the fault's rules.

        Each node's link counts its own matches: ``nth`` is the n-th on one of them.
        """
        proxy = self._running()
        numbers = self._rules.setdefault(id(fault), [])
        for name in self._nodes[fault.target]:
            numbers.append(await proxy.add(msgspec.structs.replace(fault.rule, link=name)))
        return id(fault)

    async def firings(self, number: int) -> int:
        """How often the rules of a fault have fired, all nodes together."""
        return await self._running().firings(self._rules[number])

    async def remove(self, fault: Wire) -> None:
        """End the fault's rules; with the last one, also what it left half open."""
        numbers = self._rules.pop(id(fault), None)
        if numbers is None:
            return
        for number in numbers:
            await self._running().remove(number)
        if not self._rules:
            await self._running().heal()

    def _running(self) -> ProxyControl:
        if self._proxy is None:
            raise FaultError("no link of this run goes through a proxy")
        return self._proxy

    async def troubles(self) -> list[str]:
        """Why a rule may have done less than it promised."""
        if self._proxy is None:
            return []
        stats = await self._proxy.stats()
        counts = Counter(
            f"link {link.name}: {trouble.text}" for link in stats.links for trouble in link.troubles
        )
        return [f"{text} ({count} times)" for text, count in counts.items()]

    async def keep_stats(self, path: Path) -> None:
        """Write down what every link and every rule counted, for whoever asks why one did not fire.

        Nothing is written where there is no proxy.
        """
        if self._proxy is not None:
            write_aside(path, msgspec.json.encode(await self._proxy.stats()) + b"\n")

    async def close(self) -> None:
        """Stop the proxy.

        Raises:
            FaultError: it was gone already.
        """
        if self._proxy is not None:
            await self._proxy.stop()


def _targets(faults: tuple[Fault, ...]) -> list[str]:
    return sorted({fault.target for fault in faults if isinstance(fault, Wire)})


def _broker(link: str) -> str:
    return link.rpartition("-")[2]


def cluster_addresses(faults: tuple[Fault, ...], topology: str) -> ClusterAddresses | None:
    """What the nodes of a NATS cluster tell their clients, ``None`` for what they tell by default.

    Where a link goes through proxies, nobody is told of other nodes: whose proxies they should be
    told of depends on who they are, and each of them is given all of its nodes anyway.
    """
    proxied = any(_broker(link) == "nats" for link in _targets(faults))
    return ClusterAddresses(no_advertise=True) if proxied and has_nats_cluster(topology) else None


def check_links(faults: tuple[Fault, ...], topology: str) -> None:
    """Refuse a fault on a link that cannot go through a proxy.

    Raises:
        SettingError: a Redis Cluster tells its clients the real addresses of its nodes.
    """
    for link in _targets(faults):
        if topology == REDIS_CLUSTER and _broker(link) == "redis":
            raise SettingError(
                f"fault target {link}: the nodes of topology {topology} tell their clients real"
                " addresses, which lead around a proxy; use single or redis_replica"
            )


async def open_links(
    faults: tuple[Fault, ...], stage: Stage, folder: Path, *, clock: Clock
) -> Links:
    """Start a proxy for the links that faults are aimed at, and for no other.

    Raises:
        SettingError: a broker at the end of such a link was not started by the run.
        FaultError: the proxy did not start.
    """
    settings: list[LinkSettings] = []
    by_link: dict[str, list[str]] = {}
    for link in _targets(faults):
        broker = _broker(link)
        protocol = "resp" if broker == "redis" else "nats"
        for node in stage.nodes(broker):
            name = f"{link}{node.name.removeprefix(broker)}"
            by_link.setdefault(link, []).append(name)
            settings.append(LinkSettings(name=name, protocol=protocol, upstream_port=node.port))
    if not settings:
        return Links(stage, None)
    return Links(stage, await start_proxy(folder, settings, clock=clock), by_link)
