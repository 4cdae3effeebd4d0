"""What a simulated cluster has: streams and consumers, each with a Raft group of its own."""

import random
from collections.abc import Callable
from typing import Any

import msgspec

from hookbench.sim.nats.consumer import Consumer, Host
from hookbench.sim.nats.consumer_config import ConsumerConfig
from hookbench.sim.nats.consumer_state import ConsumerChange, ConsumerState
from hookbench.sim.nats.disk import Disk, SyncTimes
from hookbench.sim.nats.jetstream import JetStream
from hookbench.sim.nats.raft import Group
from hookbench.sim.nats.raft_role import Entry, Machine

__all__ = ["Asset", "ConsumerAsset", "Found", "Lease", "StreamAsset", "Syncs"]

Found = Callable[[list[str], Machine], Group]
"""Makes a group of these nodes."""


class Syncs:
    """When the log of a group is synced on each node; again from the start of each process."""

    def __init__(self, disk: Disk, entropy: random.Random) -> None:
        self._disk = disk
        self._entropy = entropy
        self._times: dict[str, SyncTimes] = {}

    def open(self, name: str, now_ns: int) -> None:
        """The log of a node is opened."""
        self._times[name] = SyncTimes(self._disk, now_ns, self._entropy)

    def of(self, name: str) -> SyncTimes:
        """Of a node."""
        return self._times[name]


class Asset:
    """A stream or a consumer.

    Attributes:
        members: names of the nodes that have it.
        storage: ``file`` or ``memory``.
        entry: number of the meta entry that made it.
        syncs: of the logs.
        group: that replicates it.
    """

    group: Group

    def __init__(self, members: list[str], storage: str, entry: int, syncs: Syncs) -> None:
        self.members = members
        self.storage = storage
        self.entry = entry
        self.syncs = syncs

    def told(self, name: str, current: Callable[[str], bool]) -> dict[str, Any]:
        """The part ``cluster`` of an answer of a node."""
        leader = name if self.group.serves(name) else ""
        told: dict[str, Any] = {
            "name": "simulated",
            "replicas": [
                {
                    "name": other,
                    "current": current(other),
                    "active": 0,
                    "offline": not current(other),
                }
                for other in self.members
                if other != leader
            ],
        }
        return {**told, "leader": leader} if leader else told


class StreamAsset(Asset):
    """A stream, of which each member has a replica.

    Attributes:
        in_flight: ids of messages that are proposed, and not committed yet.
    """

    def __init__(
        self,
        name: str,
        members: list[str],
        storage: str,
        entry: int,
        syncs: Syncs,
        sites: dict[str, JetStream],
        found: Found,
    ) -> None:
        super().__init__(members, storage, entry, syncs)
        self.in_flight: set[str] = set()

        def apply(site: str, entry: Entry) -> Any:
            return sites[site].carry_out(name, entry.what)

        def reset(site: str, entries: list[Entry]) -> None:
            sites[site].replace(name, [entry.what for entry in entries if entry.what is not None])

        def follow(_site: str) -> None:
            self.in_flight.clear()

        self.group = found(members, Machine(apply, reset, follow=follow))


class ConsumerAsset(Asset):
    """A consumer: a state on each member, and a running one where it is led.

    Attributes:
        config: its settings.
        orphans: where requests are answered that the last leader left.
    """

    def __init__(
        self,
        stream: str,
        config: ConsumerConfig,
        members: list[str],
        storage: str,
        entry: int,
        syncs: Syncs,
        sites: dict[str, JetStream],
        host_of: "Callable[[str, ConsumerAsset, Lease], Host]",
        found: Found,
    ) -> None:
        super().__init__(members, storage, entry, syncs)
        self.config = config
        self.stream = stream
        self.name = config.durable_name or config.name
        self.orphans: list[str] = []
        self._sites = sites
        self._host_of = host_of
        self._base = ConsumerState()
        self._states: dict[str, ConsumerState] = {}
        self._lease = Lease()
        machine = Machine(self._apply, self._reset, self._lead, self._follow)
        self.group = found(members, machine)
        consumer = self._open(self.group.leader())
        self._base = consumer.kept()
        self._states = {name: self._copy() for name in members}

    def running(self, site: str) -> Consumer | None:
        """The consumer that runs at a node."""
        return self._sites[site].consumer(self.stream, self.name)

    def _copy(self) -> ConsumerState:
        return ConsumerState(next_sequence=self._base.next_sequence)

    def _apply(self, site: str, entry: Entry) -> None:
        self._states[site].apply(entry.what)

    def _reset(self, site: str, entries: list[Entry]) -> None:
        state = self._states[site] = self._copy()
        for entry in entries:
            if entry.what is not None:
                state.apply(entry.what)

    def _open(self, site: str) -> Consumer:
        lease = self._lease = Lease()

        def record(change: ConsumerChange) -> None:
            if lease.holds:
                self.group.propose(site, change)

        host = self._host_of(site, self, lease)
        return self._sites[site].open_consumer(self.stream, self.config, host, record)

    def _lead(self, site: str) -> None:
        self._open(site).restore(self._states[site])
        host = self._host_of(site, self, self._lease)
        orphans, self.orphans = self.orphans, []
        for reply in dict.fromkeys(orphans):
            host.status(reply, "409 Leadership Change", {})

    def _follow(self, site: str) -> None:
        self._lease.holds = False
        consumer = self.running(site)
        if consumer is not None:
            self.orphans += consumer.who_waits()
            self._sites[site].close_consumer(self.stream, self.name)


class Lease(msgspec.Struct):
    """Whether a running consumer still is one: its timers do nothing afterwards."""

    holds: bool = True
