"""The connections between the nodes of a broker, through a proxy where a partition is to cut them.

The nodes need the proxy to find together, and the proxy needs to know where they are. So the ports
of the proxy are chosen when the nodes' own are known, and it is started while the nodes look for
each other.
"""

import asyncio
from pathlib import Path
from typing import Any

from hookbench.brokers.nats_cluster import NODES, ClusterAddresses
from hookbench.brokers.ports import LOOPBACK, free_port
from hookbench.brokers.redis_replica import REPLICATED_NODES, ReplicationPort
from hookbench.brokers.topology import has_nats_cluster, has_redis_replica
from hookbench.cancellation import cancel
from hookbench.clock import Clock
from hookbench.errors import FaultError
from hookbench.faults.base import Fault
from hookbench.faults.partition import Partition
from hookbench.faults.wire.client import ProxyControl, start_proxy
from hookbench.faults.wire.model import LinkSettings, Rule
from hookbench.rehearsal.links import cluster_addresses
from hookbench.rehearsal.roles import broker_of
from hookbench.rehearsal.stage import Stage

__all__ = ["Detours"]

_ROUTES = NODES * (NODES - 1)


class _Detour:
    """What stands between the nodes of one broker.

    Args:
        wanted: how many links there will be.
    """

    def __init__(self, wanted: int) -> None:
        self.links: dict[str, LinkSettings] = {}
        self.ends: dict[str, tuple[str, ...]] = {}
        self.known = asyncio.Event()
        self.proxy: ProxyControl | None = None
        self._wanted = wanted

    def port(self, name: str, ends: tuple[str, ...], upstream_port: int) -> int:
        """Where to connect in place of ``upstream_port``."""
        listen_port = free_port()
        self.links[name] = LinkSettings(
            name=name, protocol="tcp", upstream_port=upstream_port, listen_port=listen_port
        )
        self.ends[name] = ends
        if len(self.links) == self._wanted:
            self.known.set()
        return listen_port


class Detours:
    """Which connections between nodes go through proxies, and what is cut off.

    Args:
        faults: of the run; without a partition among them no connection goes through a proxy.
        topology: of the run.
    """

    def __init__(self, faults: tuple[Fault, ...], topology: str) -> None:
        cut = {broker_of(fault.target) for fault in faults if isinstance(fault, Partition)}
        self._by_broker: dict[str, _Detour] = {}
        if "redis" in cut and has_redis_replica(topology):
            self._by_broker["redis"] = _Detour(REPLICATED_NODES)
        if "nats" in cut and has_nats_cluster(topology):
            self._by_broker["nats"] = _Detour(_ROUTES)
        self._clients = cluster_addresses(faults, topology)
        self._rules: dict[int, tuple[_Detour, list[int]]] = {}

    @property
    def addresses(self) -> ClusterAddresses | None:
        """What the nodes of a NATS cluster are told, ``None`` for the default."""
        if "nats" not in self._by_broker:
            return self._clients
        hidden = self._clients is not None and self._clients.no_advertise
        return ClusterAddresses(route_url=self._route, no_advertise=hidden)

    @property
    def replication(self) -> ReplicationPort | None:
        """Where a Redis replica finds a master, ``None`` for its own port."""
        return self._replication if "redis" in self._by_broker else None

    def _route(self, origin: int, target: int, port: int) -> str:
        ends = (f"nats-{origin + 1}", f"nats-{target + 1}")
        chosen = self._by_broker["nats"].port("-to-".join(ends), ends, port)
        return f"nats://{LOOPBACK}:{chosen}"

    def _replication(self, name: str, port: int) -> int:
        # Whoever of the two is cut off, it is cut off from the other.
        ends = tuple(f"redis-{number}" for number in range(1, REPLICATED_NODES + 1))
        return self._by_broker["redis"].port(f"to-{name}", ends, port)

    async def start(self, opening: "asyncio.Future[Stage]", folder: Path, *, clock: Clock) -> Stage:
        """Start the proxies while the brokers are opened; what ``opening`` comes to.

        Where that goes wrong, what was opened is closed again.

        Raises:
            FaultError: a proxy did not start.
            Exception: what ``opening`` raised.
        """
        try:
            for broker, detour in self._by_broker.items():
                known = asyncio.ensure_future(detour.known.wait())
                either: set[asyncio.Future[Any]] = {known, opening}
                try:
                    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    await cancel(known)
                if opening.done():
                    break  # it failed, or it needs no proxy after all
                logs = folder / f"between-{broker}"
                logs.mkdir()
                links = list(detour.links.values())
                detour.proxy = await start_proxy(logs, links, clock=clock)
            return await opening
        except BaseException:
            await cancel(opening)
            if not opening.cancelled() and opening.exception() is None:
                opening.result().close()
            raise

    def processes(self) -> list[tuple[str, int]]:
        """The proxies."""
        return [
            (f"proxy-{broker}", detour.proxy.pid)
            for broker, detour in self._by_broker.items()
            if detour.proxy is not None
        ]

    async def add(self, fault: Partition) -> int:
        """Cut a node off from the others; the number of the fault's rules."""
        broker = broker_of(fault.target)
        detour = self._by_broker.get(broker or "")
        if detour is None or detour.proxy is None:
            raise FaultError(f"fault {fault.name}: no connection between these nodes is a detour")
        numbers: list[int] = []
        self._rules[id(fault)] = (detour, numbers)
        for name, ends in detour.ends.items():
            if fault.target in ends:
                numbers.append(await detour.proxy.add(Rule(action="partition", link=name)))
        return id(fault)

    def has(self, number: int) -> bool:
        """Whether a number is that of a partition's rules."""
        return number in self._rules

    async def firings(self, number: int) -> int:
        """How often something was lost in a partition."""
        detour, numbers = self._rules[number]
        if detour.proxy is None:
            return 0
        return await detour.proxy.firings(numbers)

    async def remove(self, fault: Partition) -> None:
        """Let the node reach the others again, if it is cut off."""
        detour, numbers = self._rules.pop(id(fault), (None, []))
        if detour is not None and detour.proxy is not None:
            for number in numbers:
                await detour.proxy.remove(number)

    async def close(self) -> None:
        """Stop the proxies.

        Raises:
            FaultError: one was gone already.
        """
        proxies = [item.proxy for item in self._by_broker.values() if item.proxy is not None]
        outcomes = await asyncio.gather(
            *(proxy.stop() for proxy in proxies), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
