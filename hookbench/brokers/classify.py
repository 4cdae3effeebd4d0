"""What a broker's settings, as it tells them itself, mean for the durability class."""

import enum
from collections.abc import Mapping, Sequence

import msgspec

from hookbench.brokers.durability import Durability
from hookbench.clock import NS_PER_S

__all__ = [
    "NATS_SETTINGS",
    "NO_STREAM",
    "REDIS_SETTINGS",
    "REPLICATION",
    "UNKNOWN_VERSION",
    "BrokerReport",
    "FoundDurability",
    "changed_settings",
    "classify_nats",
    "classify_redis",
    "name_durability",
    "unlike_asked",
]

REDIS_SETTINGS = ("appendonly", "appendfsync", "save", "maxmemory", "maxmemory-policy")
NATS_SETTINGS = ("sync_interval_ns", "sync_always")
REPLICATION = "replication."
"""What a Redis tells of its replication begins with this. It is a state, and no setting: it changes
with a promotion, and while a node is down."""
_REPLICATION_STATE = ("replication.replicas", "replication.link")
_STREAM_SETTINGS = ("stream.storage", "stream.replicas", "stream.persist_mode")
NO_STREAM = "none"
"""Value of the setting ``stream`` where the server holds no hook stream."""

UNKNOWN_VERSION = "-"

_REDIS_SHIPPED_SAVE = "3600 1 300 100 60 10000"  # redis.conf since 6.2
_REPLICATED_REPLICAS = str(Durability.REPLICATED.stream_replicas)
_NATS_LAZY_NS = 1_000_000_000
_NATS_SHIPPED_NS = 120_000_000_000  # https://docs.nats.io/nats-concepts/jetstream, sync_interval


class FoundDurability(enum.StrEnum):
    """The class of a broker as it was read back; the first four are those of ``Durability``.

    - ``as_shipped``: the broker's defaults (Redis: snapshots only; JetStream: sync every 2 min);
    - ``unlike``: none of the classes, so comparable with nothing;
    - ``unused``: there is no hook stream, so nothing was stored;
    - ``unreadable``: the broker does not tell what the class depends on.
    """

    MEMORY = "memory"
    LAZY = "lazy"
    FSYNC = "fsync"
    REPLICATED = "replicated"
    AS_SHIPPED = "as_shipped"
    UNLIKE = "unlike"
    UNUSED = "unused"
    UNREADABLE = "unreadable"


class BrokerReport(msgspec.Struct, frozen=True, kw_only=True):
    """One broker as it described itself.

    Attributes:
        name: ``redis`` or ``nats``, with a number where it is a node of several.
        version: as the server says, ``-`` where it does not answer.
        origin: binary and where it comes from, or the URL without its password.
        configuration: settings in the broker's own words and values, with the unit last in the
            names of numbers; ``stream.`` and ``consumer.`` are those of the hook stream, and
            ``replication.`` is how a Redis stands to its master or its replicas.
        durability: their class.
        problem: what could not be read, and why; ``None`` if all was.
        counters: bytes and messages as the broker counted them since its start. NATS counts
            payloads and headers, not its protocol, so these are not the bytes on the wire.
    """

    name: str
    version: str
    origin: str
    configuration: dict[str, str] = {}
    durability: FoundDurability = FoundDurability.UNREADABLE
    problem: str | None = None
    counters: dict[str, int] = {}

    @property
    def line(self) -> str:
        """``redis 8.2.3: durability lazy, read back: appendonly yes, appendfsync everysec``."""
        return f"{self.name} {self.version}: durability {self.durability}, {self.evidence}"

    @property
    def evidence(self) -> str:
        """The settings that the class was made from, and what could not be read."""
        told = ", ".join(
            _show(name, self.configuration[name])
            for name in (
                *REDIS_SETTINGS,
                *_REPLICATION_STATE,
                *NATS_SETTINGS,
                *_STREAM_SETTINGS,
            )
            if name in self.configuration
        )
        read_back = f"read back: {told}" if told else ""
        return "; ".join(part for part in (read_back, self.problem) if part)


def _show(name: str, value: str) -> str:
    if name.endswith("_ns"):
        return f"{name.removesuffix('_ns')} {int(value) / NS_PER_S:g} s"
    return f"{name} {value or 'off'}"


def classify_redis(configuration: Mapping[str, str]) -> FoundDurability:
    """The class of ``CONFIG GET`` answers, and of what ``INFO replication`` says.

    Snapshots beside an AOF change nothing: what is on the disk when a write is acknowledged is
    decided by ``appendfsync``. A Redis that may evict lists is in no class. A master is replicated
    while a replica is online, a replica while its link to the master is up.
    """
    if any(name not in configuration for name in REDIS_SETTINGS):
        return FoundDurability.UNREADABLE
    evicts = configuration["maxmemory-policy"].startswith("allkeys")
    if evicts and configuration["maxmemory"] != "0":
        return FoundDurability.UNLIKE
    if configuration["appendonly"] == "yes":
        lazy = (
            FoundDurability.REPLICATED if _has_other_node(configuration) else FoundDurability.LAZY
        )
        return {"everysec": lazy, "always": FoundDurability.FSYNC}.get(
            configuration["appendfsync"], FoundDurability.UNLIKE
        )
    return {"": FoundDurability.MEMORY, _REDIS_SHIPPED_SAVE: FoundDurability.AS_SHIPPED}.get(
        configuration["save"], FoundDurability.UNLIKE
    )


def _has_other_node(configuration: Mapping[str, str]) -> bool:
    if configuration.get("replication.role") == "slave":
        return configuration.get("replication.link") == "up"
    return configuration.get("replication.replicas", "0") != "0"


def classify_nats(configuration: Mapping[str, str]) -> FoundDurability:
    """The class of a server's sync settings and its hook stream.

    Memory storage needs no sync settings. Two replicas are no better quorum than one, so that a
    stream with them, one with replicas in memory, and one that acknowledges before it writes
    (``persist_mode: async``, NATS 2.12), are in no class.
    """
    storage = configuration.get("stream.storage")
    if storage is None:
        missing = configuration.get("stream") == NO_STREAM
        return FoundDurability.UNUSED if missing else FoundDurability.UNREADABLE
    plain_mode = configuration.get("stream.persist_mode", "default") == "default"
    replicas = configuration.get("stream.replicas", "1")
    if replicas not in ("1", _REPLICATED_REPLICAS) or not plain_mode:
        return FoundDurability.UNLIKE
    if storage == "memory":
        return FoundDurability.MEMORY if replicas == "1" else FoundDurability.UNLIKE
    if any(name not in configuration for name in NATS_SETTINGS):
        return FoundDurability.UNREADABLE
    by_sync = _classify_sync(configuration)
    if replicas == "1":
        return by_sync
    lazy = by_sync is FoundDurability.LAZY
    return FoundDurability.REPLICATED if lazy else FoundDurability.UNLIKE


def _classify_sync(configuration: Mapping[str, str]) -> FoundDurability:
    if configuration["sync_always"] == "yes":
        return FoundDurability.FSYNC
    return {
        _NATS_LAZY_NS: FoundDurability.LAZY,
        _NATS_SHIPPED_NS: FoundDurability.AS_SHIPPED,
    }.get(int(configuration["sync_interval_ns"]), FoundDurability.UNLIKE)


def name_durability(reports: Sequence[BrokerReport]) -> str:
    """One class for all brokers that stored something, or each one's beside its name.

    The nodes of a broker are named one by one only where they differ from each other.
    """
    used = [report for report in reports if report.durability is not FoundDurability.UNUSED]
    classes = {report.durability for report in used}
    if len(classes) == 1:
        return classes.pop()
    by_broker: dict[str, list[BrokerReport]] = {}
    for report in used:
        by_broker.setdefault(report.name.partition("-")[0], []).append(report)
    parts = []
    for broker, nodes in by_broker.items():
        alike = len({node.durability for node in nodes}) == 1
        shown = [(broker, nodes[0])] if alike else [(node.name, node) for node in nodes]
        parts += [f"{name} {node.durability}" for name, node in shown]
    return ", ".join(parts)


def unlike_asked(report: BrokerReport, asked: Durability) -> str | None:
    """Why a broker that was started here is not what was asked for, ``None`` if it is.

    One that is replicated is lazy as well, see ``Durability``.
    """
    found = report.durability
    if found in (FoundDurability.UNUSED, asked.value):
        return None
    if (asked, found) == (Durability.LAZY, FoundDurability.REPLICATED):
        return None
    if found is FoundDurability.UNREADABLE:
        return f"{report.name}: durability {asked} could not be read back ({report.problem})"
    return (
        f"{report.name}: durability {asked} was asked for and is {found} in fact"
        f" ({report.evidence})"
    )


def changed_settings(before: BrokerReport, after: BrokerReport) -> list[str]:
    """Settings of a broker that are not what they were; one that was not read is no change."""
    first, second = before.configuration, after.configuration
    return [
        f"{after.name}: {name} changed during the run, {first[name]!r} before, {second[name]!r} now"
        for name in sorted(first.keys() & second.keys())
        if first[name] != second[name] and not name.startswith(REPLICATION)
    ]
