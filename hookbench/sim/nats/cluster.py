"""A simulated NATS cluster: servers, routes, and JetStream over Raft groups.

What a node knows of the others' subscriptions it knows at once; messages, proposals and answers
take the routes. Who leads what decides who answers, as in server/jetstream_api.go of 2.15 (see
``cluster_api``); publishes, pulls and acknowledgements have no responder while nobody leads.
"""

import json
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from hookbench.brokers.durability import Durability
from hookbench.sim.clock import SimulatedClock
from hookbench.sim.errors import SimulationError
from hookbench.sim.loop import SimulatedLoop
from hookbench.sim.nats.assets import Asset, ConsumerAsset, Lease, StreamAsset, Syncs
from hookbench.sim.nats.cluster_api import ClusterApi
from hookbench.sim.nats.cluster_node import ClusterServer
from hookbench.sim.nats.consumer import Host
from hookbench.sim.nats.disk import Crash, Disk
from hookbench.sim.nats.errors import StreamError
from hookbench.sim.nats.frames import Headers, headers_of, status_headers
from hookbench.sim.nats.jetstream import JetStream, stored_headers
from hookbench.sim.nats.raft import Group
from hookbench.sim.nats.raft_role import Machine
from hookbench.sim.nats.routes import Routes
from hookbench.sim.nats.stream import Stored
from hookbench.sim.network import Network

__all__ = ["NatsCluster"]

_ACK, _NEXT = "$JS.ACK.", "$JS.API.CONSUMER.MSG.NEXT."
_DIRECT, _API = "$JS.API.DIRECT.GET.", "$JS.API."
_NOT_FOUND = "404 Message Not Found"
_ID = "Nats-Msg-Id"
_IN_FLIGHT = (409, 10158, "duplicate message id is in process")


class NatsCluster:
    """Nodes of one cluster, all of which run at first.

    Args:
        loop: of the simulation.
        network: between clients and nodes.
        names: of the nodes, as clients reach them.
        disk: how they sync; by default as the class ``replicated`` does.
        entropy: what elections, places and syncs are drawn from.

    Attributes:
        streams: by name.
        consumers: by stream and name.
        meta: the group that decides what there is.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        network: Network,
        names: list[str],
        *,
        disk: Disk | None = None,
        entropy: random.Random,
    ) -> None:
        self.names = list(names)
        self.streams: dict[str, StreamAsset] = {}
        self.consumers: dict[tuple[str, str], ConsumerAsset] = {}
        self.entropy = entropy
        self.loop = loop
        self._nodes = {name: network.node(name) for name in names}
        self._clock = SimulatedClock(loop)
        self._disk = disk or Disk.of(Durability.REPLICATED)
        self.routes = Routes(loop, list(self._nodes.values()), entropy)
        self.routes.on_change = self._look
        self.sites = {
            name: JetStream(self._host(name, Lease()), Disk(sync_interval_s=0), entropy)
            for name in names
        }
        self._crashes: dict[str, Crash] = {}
        self._ghosts: dict[str, list[Asset]] = {}
        self.api = ClusterApi(self)
        for name in names:
            self._nodes[name].on_pause = self._look
            self._start(name)
        self.meta_syncs = self.syncs(self.names)
        self.meta = self.found(self.names, Machine(self.api.apply, self.api.reset, self.api.lead))

    def url(self) -> str:
        """Of all nodes, for a client."""
        return ",".join(f"nats://{name}" for name in self.names)

    def found(self, members: list[str], machine: Machine) -> Group:
        """A group whose first leader is drawn from the members that run."""
        running = self.running(members)
        if not running:
            raise SimulationError(f"a group of {', '.join(members)}: none of them runs")
        return Group(
            self.loop,
            self.routes,
            members,
            machine,
            self.entropy,
            self._clock.wall_ns,
            first=self.entropy.choice(running),
        )

    def running(self, names: list[str]) -> list[str]:
        """Those of the nodes that run."""
        return [name for name in names if self._nodes[name].up]

    def syncs(self, members: list[str]) -> Syncs:
        """Of the logs of a new group."""
        syncs = Syncs(self._disk, self.entropy)
        for name in members:
            syncs.open(name, self._clock.wall_ns())
        return syncs

    def _start(self, name: str) -> None:
        node = self._nodes[name]
        node.on_end.append(lambda power: self._end(name, power=power))
        node.start(ClusterServer(self.loop, node, self, self.sites[name], self._disk))

    def wall_ns(self) -> int:
        """The clock of all nodes."""
        return self._clock.wall_ns()

    def server(self, name: str) -> ClusterServer:
        """The server of a node that runs, or ran last."""
        server = self._nodes[name].server
        if not isinstance(server, ClusterServer):
            raise SimulationError(f"node {name} has no server of a cluster")
        return server

    def assets(self) -> list[Asset]:
        """All streams and consumers."""
        return [*self.streams.values(), *self.consumers.values()]

    def _look(self) -> None:
        self.meta.look()
        for asset in self.assets():
            asset.group.look()

    def _end(self, name: str, *, power: bool) -> None:
        """A process has ended: it leads nothing more, and has on its disk what was written."""
        self._crashes[name] = Crash(self._clock.wall_ns(), power)
        mine = [asset for asset in self.assets() if name in asset.members]
        self._ghosts[name] = [asset for asset in mine if asset.group.serves(name)]
        self.meta.end(name)
        for asset in mine:
            asset.group.end(name)
        self.routes.went(name, silently=power)

    def kill(self, name: str) -> None:
        """SIGKILL of one node; its clients and the other nodes are told."""
        self._nodes[name].kill()

    def lose_power(self, *names: str) -> None:
        """Nodes are gone at one moment, with what was not synced; nobody is told."""
        for name in names:
            self._nodes[name].lose_power()

    def restart(self, name: str) -> None:
        """Start a node on what its disk has."""
        crash = self._crashes.pop(name, None)
        if crash is None:
            raise SimulationError(f"node {name} has not ended")
        self._ghosts.pop(name, None)
        self._start(name)
        self._begin(self.meta, name, "file", self.meta_syncs, crash)
        for asset in self.assets():
            if name in asset.members:
                self._begin(asset.group, name, asset.storage, asset.syncs, crash)
        self.routes.came(name)

    def _begin(self, group: Group, name: str, storage: str, syncs: Syncs, crash: Crash) -> None:
        log = group.roles[name].log
        group.begin(name, 0 if storage == "memory" else syncs.of(name).kept(log, crash))
        syncs.open(name, self._clock.wall_ns())

    def step_down(self, stream: str, consumer: str = "") -> str:
        """Have the leader of a stream, or of a consumer of it, give up; who it was, if any."""
        group = (self.consumers[stream, consumer] if consumer else self.streams[stream]).group
        leader = group.leader()
        if leader:
            group.step_down(leader)
        return leader

    def _host(self, name: str, lease: Lease) -> Host:
        def after(delay_ns: int, call: Callable[[], None]) -> Any:
            return self.server(name).after(delay_ns, lambda: call() if lease.holds else None)

        return Host(
            now_ns=lambda: self.loop.now_ns,
            wall_ns=self._clock.wall_ns,
            after=after,
            has_interest=lambda subject: self.has_interest(name, subject),
            deliver=lambda *message: self.deliver(name, *message),
            status=lambda *told: self.tell(name, *told),
            advise=lambda *told: self.advise(name, *told),
        )

    def host_of(self, name: str, asset: ConsumerAsset, lease: Lease) -> Host:
        """What a consumer that runs at a node needs; deliveries go out once a quorum has them."""
        host = self._host(name, lease)

        def settled(call: Callable[[], None]) -> None:
            asset.group.when_committed(name, call)

        def deliver(*message: Any) -> None:
            settled(lambda: host.deliver(*message))

        return Host(
            now_ns=host.now_ns,
            wall_ns=host.wall_ns,
            after=host.after,
            has_interest=host.has_interest,
            deliver=deliver,
            status=host.status,
            advise=host.advise,
            settled=settled if len(asset.members) > 1 else None,
        )

    def has_interest(self, name: str, subject: str) -> bool:
        """Whether a client of any node that this one knows subscribes to it."""
        return any(
            self.server(other).has_local_interest(subject)
            for other in self.names
            if self.routes.knows(name, other)
        )

    def deliver(
        self, name: str, inbox: str, subject: str, reply: str, headers: bytes, payload: bytes
    ) -> None:
        """Send a message from a node to clients of all."""
        for other in self.names:
            server = self.server(other)
            if self.routes.knows(name, other) and server.has_local_interest(inbox):
                send = partial(server.deliver_here, inbox, subject, reply, headers, payload)
                self._at(name, other, send)

    def _at(self, name: str, other: str, call: Callable[[], None]) -> None:
        """Do something at a node, for another one."""
        if name == other:
            call()
        else:
            self.routes.send(name, other, call)

    def tell(self, name: str, inbox: str, status: str, headers: Headers) -> None:
        """Send a status."""
        self.deliver(name, inbox, inbox, "", status_headers(status, headers), b"")

    def answer(self, name: str, reply: str, answer: dict[str, Any]) -> None:
        """Send an answer of the API, if somebody wants one."""
        if reply:
            self.deliver(name, reply, reply, "", b"", json.dumps(answer).encode())

    def advise(self, name: str, what: str, told: dict[str, Any]) -> None:
        """Publish an advisory about a consumer."""
        subject = f"$JS.EVENT.ADVISORY.CONSUMER.{what}"
        self.publish(name, subject, "", b"", json.dumps(told).encode())

    def publish(self, name: str, subject: str, reply: str, headers: bytes, payload: bytes) -> bool:
        """What a client of a node, or the node itself, has published; whether anybody takes it."""
        if subject.startswith(_ACK):
            tokens = subject.split(".")
            asset = self.consumers.get((tokens[2], tokens[3]))
            return self._to_leader(name, asset, self._acknowledge, subject, reply, payload)
        if subject.startswith(_NEXT):
            stream, _, consumer = subject.removeprefix(_NEXT).partition(".")
            asset = self.consumers.get((stream, consumer))
            return self._to_leader(name, asset, self._ask, subject, reply, payload)
        if subject.startswith(_DIRECT):
            return self._direct(name, subject.removeprefix(_DIRECT), reply)
        if subject.startswith(_API):
            for other in self.names:
                if self.routes.knows(name, other):
                    self._at(name, other, partial(self.api.ask, other, subject, reply, payload))
            return True
        taken = self.has_interest(name, subject)
        if taken:
            self.deliver(name, subject, subject, reply, headers, payload)
        return self._store(name, subject, reply, headers, payload) or taken

    def _leaders(self, name: str, asset: Asset | None) -> list[str]:
        """Who leads, as far as a node knows: also one that went without a word."""
        if asset is None:
            return []
        return [
            other
            for other in asset.members
            if self.routes.knows(name, other)
            and (asset.group.serves(other) or asset in self._ghosts.get(other, ()))
        ]

    def _to_leader(
        self, name: str, asset: Asset | None, deal: Callable[..., None], *message: Any
    ) -> bool:
        leaders = self._leaders(name, asset)
        for other in leaders:
            self._at(name, other, partial(deal, other, asset, *message))
        return bool(leaders)

    def _store(self, name: str, subject: str, reply: str, headers: bytes, payload: bytes) -> bool:
        for stream, asset in self.streams.items():
            if self.sites[asset.members[0]].streams()[stream].takes(subject):
                return self._to_leader(
                    name, asset, self._propose, stream, subject, reply, headers, payload
                )
        return False

    def _propose(
        self,
        name: str,
        asset: StreamAsset,
        stream: str,
        subject: str,
        reply: str,
        headers: bytes,
        payload: bytes,
    ) -> None:
        """A publish has reached the leader of its stream."""
        if not asset.group.serves(name):
            return
        ident = headers_of(headers).get(_ID, "") if headers else ""
        if ident:
            known = self.sites[name].streams()[stream].sequence_of(ident)
            if known is not None:
                self.answer(name, reply, {"stream": stream, "seq": known, "duplicate": True})
                return
            if ident in asset.in_flight:
                error = StreamError(*_IN_FLIGHT).told()
                self.answer(name, reply, {"stream": stream, "seq": 0, "error": error})
                return
            asset.in_flight.add(ident)

        def stored(answer: Any) -> None:
            asset.in_flight.discard(ident)
            self.answer(name, reply, answer)

        change = Stored(self._clock.wall_ns(), subject, headers, payload)
        asset.group.propose(name, change, stored)

    def _acknowledge(
        self, name: str, asset: ConsumerAsset, subject: str, reply: str, word: bytes
    ) -> None:
        """A word about a delivery has reached the leader of its consumer.

        It is confirmed once a quorum has it, and not at all for what was not delivered.
        """
        group = asset.group
        if not group.serves(name):
            return
        before = len(group.roles[name].log)
        confirmed = self.sites[name].acknowledge(subject, word)
        if not confirmed or not reply:
            return
        if len(group.roles[name].log) == before:
            group.propose(name, None)
        group.when_committed(name, lambda: self.deliver(name, reply, reply, "", b"", b""))

    def _ask(
        self, name: str, asset: ConsumerAsset, subject: str, reply: str, payload: bytes
    ) -> None:
        if asset.group.serves(name):
            self.sites[name].ask(subject, reply, payload)

    def _direct(self, name: str, what: str, reply: str) -> bool:
        """A read of the last message of a subject, by a replica: its own, or else another's."""
        stream, _, subject = what.partition(".")
        asset = self.streams.get(stream)
        known = [] if asset is None else [m for m in asset.members if self.routes.knows(name, m)]
        if not known or not self.sites[known[0]].direct(stream, subject)[0]:
            return False
        other = name if name in known else known[0]

        def read() -> None:
            _allowed, message = self.sites[other].direct(stream, subject)
            if message is None:
                self.tell(other, reply, _NOT_FOUND, {})
            else:
                told = stored_headers(stream, message)
                self.deliver(other, reply, reply, "", told, message.payload)

        if reply:
            self._at(name, other, read)
        return True
