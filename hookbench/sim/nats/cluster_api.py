"""JetStream's API in a cluster: every node hears a request, and who it concerns answers.

Where nobody is concerned there is no answer; where a node knows of no leader it says that JetStream
is not available now (503, 10008). Which of the two follows server/jetstream_api.go of 2.15 and was
looked at with a leader without its followers: STREAM.INFO was answered all the time, at last
without a leader; CONSUMER.INFO not at all for up to 5 s and then with 10008; a publish with nothing
for 20 s, and then by nobody.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from hookbench.clock import NS_PER_MS
from hookbench.sim.nats.assets import Asset, ConsumerAsset, StreamAsset
from hookbench.sim.nats.consumer_config import ConsumerConfig
from hookbench.sim.nats.errors import StreamError
from hookbench.sim.nats.jetstream import NO_CONSUMER, NO_STREAM, Answer, read_config
from hookbench.sim.nats.raft import Group
from hookbench.sim.nats.raft_role import Entry
from hookbench.sim.nats.stream import Purged, Removed, StreamConfig

if TYPE_CHECKING:
    from hookbench.sim.nats.cluster import NatsCluster

__all__ = ["ClusterApi"]

_API = "$JS.API."
_TYPE = "io.nats.jetstream.api.v1."
_NOT_AVAILABLE = (503, 10008, "JetStream system temporarily unavailable")
_NO_PEERS = (400, 10005, "no suitable peers for placement")
_DELAY_NS = 500 * NS_PER_MS
_META = (
    "STREAM.CREATE",
    "STREAM.UPDATE",
    "STREAM.DELETE",
    "CONSUMER.CREATE",
    "CONSUMER.DURABLE.CREATE",
    "CONSUMER.DELETE",
)
_OF_META_LEADER = ("INFO", "CONSUMER.LIST")
_OF_STREAM = ("STREAM.INFO", "STREAM.MSG.GET", "STREAM.PURGE", "STREAM.MSG.DELETE")
_STEPS = ("STREAM.LEADER.STEPDOWN", "CONSUMER.LEADER.STEPDOWN", "META.LEADER.STEPDOWN")
_VERBS = (*_META, *_OF_META_LEADER, *_OF_STREAM, *_STEPS, "CONSUMER.INFO")


class Request(msgspec.Struct, frozen=True, gc=False):
    """A request of the API.

    Attributes:
        number: of the request, in the order of the proposals.
        verb: such as ``STREAM.INFO``.
        words: what stands behind it.
        subject: all of it.
        reply: where the answer goes.
        payload: the body.
    """

    number: int
    verb: str
    words: list[str]
    subject: str
    reply: str
    payload: bytes

    def body(self) -> Any:
        """The body, read."""
        return json.loads(self.payload) if self.payload else {}

    def answer(self, answer: Answer) -> Answer:
        """With the type that its answers have."""
        kind = f"{_TYPE}{self.verb.lower().replace('.', '_')}_response"
        return {"type": kind, **answer}


class ClusterApi:
    """Answers at each node of a cluster."""

    def __init__(self, cluster: "NatsCluster") -> None:
        self._cluster = cluster
        self._numbers = 0
        self._carried_out: set[int] = set()

    def ask(self, name: str, subject: str, reply: str, payload: bytes) -> None:
        """A request has reached a node."""
        words = subject.removeprefix(_API).split(".")
        for length in (3, 2, 1):
            verb = ".".join(words[:length])
            if verb in _VERBS:
                self._numbers += 1
                request = Request(self._numbers, verb, words[length:], subject, reply, payload)
                self._deal(name, request)
                return

    def _deal(self, name: str, request: Request) -> None:
        verb = request.verb
        if verb in _META or verb in _OF_META_LEADER or verb == "META.LEADER.STEPDOWN":
            self._ask_meta(name, request)
        elif verb in _OF_STREAM or verb == "STREAM.LEADER.STEPDOWN":
            self._ask_stream(name, request)
        else:
            self._ask_consumer(name, request)

    def _is_meta_leaderless(self, name: str) -> bool:
        return self._cluster.meta.is_leaderless(name)

    def _refuse(self, name: str, request: Request, error: tuple[int, int, str]) -> None:
        told = request.answer({"error": StreamError(*error).told()})
        self._cluster.answer(name, request.reply, told)

    def _refuse_later(self, name: str, request: Request) -> None:
        """Whoever leads may be first."""
        self._cluster.server(name).after(
            _DELAY_NS, lambda: self._refuse(name, request, _NOT_AVAILABLE)
        )

    def _ask_meta(self, name: str, request: Request) -> None:
        cluster = self._cluster
        if self._is_meta_leaderless(name):
            if request.verb == "INFO":
                self._refuse_later(name, request)
            else:
                self._refuse(name, request, _NOT_AVAILABLE)
        elif not cluster.meta.serves(name):
            return
        elif request.verb == "INFO":
            told = cluster.sites[name].api(request.subject, b"") or {}
            told["consumers"] = len(cluster.consumers)
            cluster.answer(name, request.reply, told)
        elif request.verb == "CONSUMER.LIST":
            self._list_consumers(name, request)
        elif request.verb == "META.LEADER.STEPDOWN":
            self._step_down(name, cluster.meta, request)
        else:
            cluster.meta.propose(name, request)

    def _list_consumers(self, name: str, request: Request) -> None:
        stream = request.words[0]
        if stream not in self._cluster.streams:
            self._refuse(name, request, NO_STREAM)
            return
        told = [
            self._told_consumer(asset.group.leader(), asset)
            for (owner, _consumer), asset in self._cluster.consumers.items()
            if owner == stream and asset.group.leader()
        ]
        answer = {"total": len(told), "offset": 0, "limit": 256, "consumers": told}
        self._cluster.answer(name, request.reply, request.answer(answer))

    def _step_down(self, name: str, group: Group, request: Request) -> None:
        group.step_down(name)
        self._cluster.answer(name, request.reply, request.answer({"success": True}))

    def _ask_stream(self, name: str, request: Request) -> None:
        cluster, verb = self._cluster, request.verb
        asset = cluster.streams.get(request.words[0])
        if verb != "STREAM.INFO" and self._is_meta_leaderless(name):
            self._refuse(name, request, _NOT_AVAILABLE)
            return
        if asset is None:
            self._miss(name, request, NO_STREAM)
            return
        leaderless = name in asset.members and asset.group.is_leaderless(name)
        if verb == "STREAM.INFO":
            if asset.group.serves(name) or leaderless:
                self._tell_stream(name, request, asset)
            elif self._is_meta_leaderless(name):
                self._refuse_later(name, request)
        elif leaderless:
            self._refuse(name, request, _NOT_AVAILABLE)
        elif asset.group.serves(name):
            self._do_at_leader(name, request, asset)

    def _miss(self, name: str, request: Request, error: tuple[int, int, str]) -> None:
        """There is no such thing: the meta leader says so, or that there is none."""
        if self._cluster.meta.serves(name):
            self._refuse(name, request, error)
        elif self._is_meta_leaderless(name):
            self._refuse_later(name, request)

    def _tell_stream(self, name: str, request: Request, asset: StreamAsset) -> None:
        told = self._cluster.sites[name].api(request.subject, request.payload) or {}
        self._cluster.answer(name, request.reply, self._with_cluster(name, told, asset))

    def _with_cluster(self, name: str, told: Answer, asset: Asset) -> Answer:
        group = asset.group
        length = len(group.roles[name].log)

        def current(other: str) -> bool:
            role = group.roles[other]
            return self._cluster.routes.hears(name, other) and len(role.log) == length

        state = told.get("state")
        if state is not None:
            stream = told["config"]["name"]
            state["consumer_count"] = sum(owner == stream for owner, _ in self._cluster.consumers)
        return {**told, "cluster": asset.told(name, current)}

    def _do_at_leader(self, name: str, request: Request, asset: StreamAsset) -> None:
        cluster, group, body = self._cluster, asset.group, request.body()
        if request.verb == "STREAM.LEADER.STEPDOWN":
            self._step_down(name, group, request)
        elif request.verb == "STREAM.MSG.GET":
            told = cluster.sites[name].api(request.subject, request.payload) or {}
            cluster.answer(name, request.reply, told)
        else:
            wall_ns = cluster.wall_ns()
            change: Purged | Removed
            if request.verb == "STREAM.PURGE":
                below = int(body.get("seq") or 0)
                change = Purged(wall_ns, str(body.get("filter") or ""), below)
            else:
                change = Removed(wall_ns, int(body["seq"]))
            group.propose(name, change, self._answering(name, request))

    def _answering(self, name: str, request: Request) -> Callable[[Answer], None]:
        def answer(told: Answer) -> None:
            self._cluster.answer(name, request.reply, request.answer(told))

        return answer

    def _ask_consumer(self, name: str, request: Request) -> None:
        cluster = self._cluster
        stream, consumer = request.words[:2]
        asset = cluster.consumers.get((stream, consumer))
        if asset is None:
            self._miss(name, request, NO_CONSUMER if stream in cluster.streams else NO_STREAM)
        elif name in asset.members and asset.group.is_leaderless(name):
            self._refuse(name, request, _NOT_AVAILABLE)
        elif asset.group.serves(name):
            if asset.running(name) is None:  # nobody has asked it for too long
                self._drop_consumer(stream, consumer)
                self._refuse(name, request, NO_CONSUMER)
            elif request.verb == "CONSUMER.INFO":
                told = request.answer(self._told_consumer(name, asset))
                cluster.answer(name, request.reply, told)
            else:
                self._step_down(name, asset.group, request)
        elif self._is_meta_leaderless(name):
            self._refuse_later(name, request)

    def _told_consumer(self, name: str, asset: ConsumerAsset) -> Answer:
        running = asset.running(name)
        told = {} if running is None else self._cluster.sites[name].told_consumer(running)
        return self._with_cluster(name, told, asset)

    def apply(self, name: str, entry: Entry) -> None:
        """A change of what there is is committed; it is made once, and by the first who knows."""
        request: Request = entry.what
        if request.number in self._carried_out:
            return
        self._carried_out.add(request.number)
        try:
            answer = self._change(name, request)
        except StreamError as error:
            answer = {"error": error.told()}
        if answer is not None:
            self._cluster.answer(name, request.reply, request.answer(answer))

    def reset(self, name: str, entries: list[Entry]) -> None:
        """A node has lost a part of its log; what there is is decided by who leads next."""

    def lead(self, name: str) -> None:
        """Forget what was made by entries that the leader has not: a quorum of disks lost them."""
        log = self._cluster.meta.roles[name].log
        known = {entry.what.number for entry in log if entry.what is not None}
        for (stream, consumer), asset in list(self._cluster.consumers.items()):
            if asset.entry not in known:
                self._drop_consumer(stream, consumer)
        for stream, asset_of in list(self._cluster.streams.items()):
            if asset_of.entry not in known:
                self._drop_stream(stream)

    def _change(self, name: str, request: Request) -> Answer | None:
        verb = request.verb
        if verb == "STREAM.CREATE":
            return self._create_stream(name, request)
        if request.words[0] not in self._cluster.streams:
            raise StreamError(*NO_STREAM)
        if verb == "STREAM.UPDATE":
            return self._at_all(name, request)
        if verb == "STREAM.DELETE":
            self._drop_stream(request.words[0])
            return {"success": True}
        if verb == "CONSUMER.DELETE":
            if (request.words[0], request.words[1]) not in self._cluster.consumers:
                raise StreamError(*NO_CONSUMER)
            self._drop_consumer(request.words[0], request.words[1])
            return {"success": True}
        return self._create_consumer(request)

    def _at_all(self, name: str, request: Request) -> Answer:
        answers = {
            site: jetstream.api(request.subject, request.payload) or {}
            for site, jetstream in self._cluster.sites.items()
        }
        return answers[name]

    def _create_stream(self, name: str, request: Request) -> Answer:
        cluster = self._cluster
        stream = request.words[0]
        config = read_config(request.body(), StreamConfig)
        asset = cluster.streams.get(stream)
        members = [] if asset else self._draw(cluster.names, config.num_replicas)
        answer = self._at_all(name, request)
        if asset is None and "error" not in answer:
            asset = cluster.streams[stream] = StreamAsset(
                stream,
                members,
                config.storage,
                request.number,
                cluster.syncs(members),
                cluster.sites,
                cluster.found,
            )
        if asset is None or "error" in answer:
            return answer
        return self._with_cluster(asset.group.leader() or asset.members[0], answer, asset)

    def _draw(self, names: list[str], count: int) -> list[str]:
        """Members for something new: of nodes that run."""
        running, wanted = self._cluster.running(names), max(1, count)
        if len(running) < wanted:
            raise StreamError(*_NO_PEERS)
        return sorted(self._cluster.entropy.sample(running, wanted))

    def _create_consumer(self, request: Request) -> Answer | None:
        cluster, body = self._cluster, request.body()
        stream = cluster.streams[request.words[0]]
        config = read_config(body["config"], ConsumerConfig)
        if not (config.durable_name or config.name):
            config.name = f"ephemeral-{request.number}"
        key = (request.words[0], config.durable_name or config.name)
        asset = cluster.consumers.get(key)
        if asset is not None:
            return self._update_consumer(asset, request)
        if body.get("action") == "update":
            raise StreamError(400, 10149, "consumer does not exist")
        members = stream.members
        if config.num_replicas:
            members = self._draw(members, config.num_replicas)
        asset = cluster.consumers[key] = ConsumerAsset(
            key[0],
            config,
            members,
            "memory" if config.mem_storage else stream.storage,
            request.number,
            cluster.syncs(members),
            cluster.sites,
            cluster.host_of,
            cluster.found,
        )
        return self._told_consumer(asset.group.leader(), asset)

    def _update_consumer(self, asset: ConsumerAsset, request: Request) -> Answer | None:
        """By its leader; without one nobody answers."""
        leader = asset.group.leader()
        if not leader:
            return None
        told = self._cluster.sites[leader].api(request.subject, request.payload) or {}
        running = asset.running(leader)
        if running is not None:
            asset.config = running.config
        return told

    def _drop_stream(self, stream: str) -> None:
        cluster = self._cluster
        for owner, consumer in list(cluster.consumers):
            if owner == stream:
                self._drop_consumer(owner, consumer)
        cluster.streams.pop(stream).group.close()
        for jetstream in cluster.sites.values():
            jetstream.api(f"{_API}STREAM.DELETE.{stream}", b"")

    def _drop_consumer(self, stream: str, consumer: str) -> None:
        asset = self._cluster.consumers.pop((stream, consumer))
        asset.group.close()
