"""The brokers of a rehearsal: embedded, or somebody else's under the rules for those."""

import asyncio
import datetime as dt
from collections.abc import Awaitable
from pathlib import Path

from hookbench.brokers.classify import BrokerReport
from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import EmbeddedBroker, start_nats, start_redis
from hookbench.brokers.nats_cluster import ClusterAddresses
from hookbench.brokers.nats_nodes import SingleNats
from hookbench.brokers.probe import (
    check_nats_unused,
    check_redis_unused,
    probe_nats,
    probe_redis,
)
from hookbench.brokers.readback import check_monitor_url, read_back_nats, read_back_redis
from hookbench.brokers.redis_nodes import SingleRedis
from hookbench.brokers.redis_replica import ReplicationPort
from hookbench.brokers.resolve import Resolved, resolve_nats, resolve_redis
from hookbench.brokers.roles import stop_all
from hookbench.brokers.topology import (
    SINGLE,
    NatsGroup,
    RedisGroup,
    check_topology,
    open_topology,
)
from hookbench.errors import SettingError
from hookbench.queues.addresses import nats_nodes, redis_nodes
from hookbench.queues.jetstream import StreamSettings
from hookbench.task import Names

__all__ = ["Stage", "open_stage", "utc_now_label"]


class Stage:
    """Two brokers, each of one node or several, and the names that the run uses on them.

    Args:
        redis: the nodes that were started here, or somebody else's Redis.
        nats: likewise.
        names: what is used on both.
        lines: one per broker, for a person.
        durability: the class that the run was asked for.
        nats_monitor_url: where a NATS server that was not started here tells its settings; of
            several nodes their URLs in the same order, separated by commas.
    """

    def __init__(
        self,
        redis: RedisGroup | Resolved,
        nats: NatsGroup | Resolved,
        names: Names,
        lines: list[str],
        *,
        durability: Durability = Durability.LAZY,
        nats_monitor_url: str | None = None,
    ) -> None:
        self.redis = redis
        self.nats = nats
        self.names = names
        self.lines = lines
        self._durability = durability
        self._nats_monitor_url = nats_monitor_url

    @property
    def redis_url(self) -> str:
        """Where the Redis is, for ``connect_redis``."""
        return self.redis.url or ""

    @property
    def nats_url(self) -> str:
        """Where the NATS server is, for ``AppTransport.connect``."""
        return self.nats.url or ""

    @property
    def stream(self) -> StreamSettings:
        """The hook stream as the durability class of this NATS wants it."""
        found = self._durability if isinstance(self.nats, Resolved) else self.nats.durability
        return StreamSettings(storage=found.stream_storage, replicas=found.stream_replicas)

    def processes(self) -> list[tuple[str, int]]:
        """Name and process id of each node that was started here and runs."""
        return [(node.name, node.pid) for node in self._started() if node.running]

    async def read_back(self) -> list[BrokerReport]:
        """Every node as it describes itself now, Redis first; see ``brokers/readback.py``.

        A node that does not answer within a few seconds is a report that says so.
        """
        return await asyncio.gather(*self._read_redis(), *self._read_nats())

    @property
    def monitor_urls(self) -> str:
        """Monitoring of the NATS nodes, separated by commas; empty where none is known."""
        if isinstance(self.nats, Resolved):
            return self._nats_monitor_url or ""
        return ",".join(node.monitor_url or "" for node in self.nats.nodes)

    def _read_redis(self) -> list[Awaitable[BrokerReport]]:
        if isinstance(self.redis, Resolved):
            urls = redis_nodes(self.redis_url)
            return [
                read_back_redis(url, origin=self.redis.label, name=name)
                for name, url in zip(_names("redis", len(urls)), urls, strict=True)
            ]
        return [
            read_back_redis(node.url, origin=node.resolved.label, name=node.name)
            for node in self.redis.nodes
        ]

    def _read_nats(self) -> list[Awaitable[BrokerReport]]:
        if isinstance(self.nats, Resolved):
            urls = nats_nodes(self.nats_url)
            monitors = _monitors(self._nats_monitor_url, len(urls))
            return [
                read_back_nats(
                    url, origin=self.nats.label, monitor_url=monitor, names=self.names, name=name
                )
                for name, url, monitor in zip(
                    _names("nats", len(urls)), urls, monitors, strict=True
                )
            ]
        return [
            read_back_nats(
                node.url,
                origin=node.resolved.label,
                monitor_url=node.monitor_url,
                names=self.names,
                name=node.name,
            )
            for node in self.nats.nodes
        ]

    def asked_durability(self) -> dict[str, Durability]:
        """The class that each node was started for; somebody else's broker has no entry."""
        return {
            node.name: group.durability
            for group in (self.redis, self.nats)
            if not isinstance(group, Resolved)
            for node in group.nodes
        }

    async def wait_until_ready(self) -> None:
        """Wait until every node of a broker of several serves again, and none lags behind.

        A broker of one node that is gone stays visible in what it is asked next.

        Raises:
            BrokerUnreachableError: not in time; the text says who lacks what.
        """
        for group in (self.redis, self.nats):
            if not isinstance(group, Resolved) and len(group.nodes) > 1:
                await group.wait_until_ready()

    def nodes(self, name: str) -> list[EmbeddedBroker]:
        """The nodes of ``redis`` or ``nats``, in the order of their numbers.

        Raises:
            SettingError: it is somebody else's: no fault is ever aimed at it.
        """
        group = self.redis if name == "redis" else self.nats
        if isinstance(group, Resolved):
            raise SettingError(
                f"fault target {name}: this run did not start it ({group.label}): faults are aimed"
                " at embedded brokers only; leave its URL out"
            )
        return list(group.nodes)

    @property
    def foreign(self) -> bool:
        """Whether one of the brokers was not started here."""
        return isinstance(self.redis, Resolved) or isinstance(self.nats, Resolved)

    def _started(self) -> list[EmbeddedBroker]:
        return [
            node
            for group in (self.redis, self.nats)
            if not isinstance(group, Resolved)
            for node in group.nodes
        ]

    def close(self) -> None:
        """Stop what was started here, and nothing else."""
        stop_all(self._started())


def _names(kind: str, count: int) -> list[str]:
    return [kind] if count == 1 else [f"{kind}-{number}" for number in range(1, count + 1)]


def _monitors(url: str | None, count: int) -> list[str | None]:
    """The monitoring URL of each of ``count`` nodes.

    Raises:
        SettingError: there are more or fewer of them, or one is none.
    """
    if url is None:
        return [None] * count
    urls = nats_nodes(url)
    for item in urls:
        check_monitor_url(item)
    if len(urls) != count:
        raise SettingError(
            f"{len(urls)} NATS monitoring URLs for {count} nodes: give one for each, in their order"
        )
    return [*urls]


async def open_stage(
    redis_url: str | None,
    nats_url: str | None,
    *,
    folder: Path,
    durability: Durability,
    own_names: bool,
    allow_existing: bool,
    run: str,
    nats_monitor_url: str | None = None,
    topology: str = SINGLE,
    addresses: ClusterAddresses | None = None,
    replication: ReplicationPort | None = None,
) -> Stage:
    """Resolve, check and start the brokers.

    A broker that was not started here gets names of the run's own, unless the real ones are asked
    for, and is refused when it holds a hook queue already.

    Args:
        redis_url: somebody else's Redis; ``None`` for the environment's, or an embedded one.
        nats_url: likewise.
        folder: of the embedded brokers.
        durability: the class.
        own_names: see above.
        allow_existing: see above.
        run: names the run's own names.
        nats_monitor_url: see ``Stage``.
        topology: one of ``TOPOLOGIES``; another than ``single`` needs both brokers embedded.
        addresses: of a NATS cluster that is behind proxies.
        replication: where a Redis replica finds its master, if behind a proxy.

    Raises:
        SettingError: no such topology, or one of several nodes beside a URL.
        HookbenchError: see ``resolve_redis``, ``probe_redis``, ``check_redis_unused`` and
            ``start_redis``, and the same for NATS; ``open_topology``.
    """
    check_topology(topology)
    redis = resolve_redis(redis_url)
    nats = resolve_nats(nats_url)
    _monitors(nats_monitor_url, len(nats_nodes(nats.url or "")))
    foreign = [broker for broker in (redis, nats) if broker.url is not None]
    if foreign and topology != SINGLE:
        raise SettingError(
            f"topology {topology}: {foreign[0].label} is somebody else's, and as it is: leave its"
            f" URL out, or use topology {SINGLE} with URLs of all its nodes"
        )
    if not foreign:
        opened = await open_topology(
            topology,
            folder,
            durability,
            redis=redis,
            nats=nats,
            addresses=addresses,
            replication=replication,
        )
        lines = [_line(opened.redis), _line(opened.nats)]
        return Stage(opened.redis, opened.nats, Names(), lines, durability=durability)
    names = Names.for_run(run) if own_names else Names()
    lines = await _check_foreign(redis, nats, names, allow_existing=allow_existing)
    chosen_redis: RedisGroup | Resolved = redis
    chosen_nats: NatsGroup | Resolved = nats
    if redis.url is None:
        chosen_redis = SingleRedis(start_redis(redis, folder, durability))
        lines.append(_line(chosen_redis))
    if nats.url is None:
        chosen_nats = SingleNats(start_nats(nats, folder, durability))
        lines.append(_line(chosen_nats))
    return Stage(
        chosen_redis,
        chosen_nats,
        names,
        lines,
        durability=durability,
        nats_monitor_url=nats_monitor_url,
    )


async def _check_foreign(
    redis: Resolved, nats: Resolved, names: Names, *, allow_existing: bool
) -> list[str]:
    """A line for each broker that is somebody else's, and may be used."""
    lines = []
    if redis.url is not None:
        info = await probe_redis(redis.url)
        lines.append(f"{redis.label}, version {info.version}, durability as it is configured")
        if not allow_existing:
            await check_redis_unused(redis.url, names)
    if nats.url is not None:
        info = await probe_nats(nats.url)
        lines.append(f"{nats.label}, version {info.version}, durability as it is configured")
        if not allow_existing:
            await check_nats_unused(nats.url, names)
    return lines


def _line(group: RedisGroup | NatsGroup) -> str:
    label = group.nodes[0].resolved.label
    return f"{label}, {group.description}, durability {group.durability}"


def utc_now_label(wall_ns: int) -> str:
    """A wall-clock label: ``2026-01-31T12:00:00Z``."""
    moment = dt.datetime.fromtimestamp(wall_ns // 1_000_000_000, tz=dt.UTC)
    return moment.isoformat().replace("+00:00", "Z")
