"""The simulated JetStream and a real one are given the same requests by the same client, nats-py.

What differs by nature is left out: times, the names of servers and inboxes, sizes on the disk.
What depends on time passing is for the contract suite, but for naks, which come back at once.
"""

import asyncio
import contextlib
import json
import math
import random
import uuid

import nats.errors
import nats.js.errors
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, DiscardPolicy, StreamConfig

from hookbench.queues.reconnecting import connect_client
from hookbench.sim.loop import SimulatedLoop
from hookbench.sim.nats.cluster import NatsCluster
from tests.conftest import eventually
from tests.sim.conformance import check_conformance
from tests.sim.world import World

EXAMPLES, STEPS = 25, 25
SUBJECTS = ["a", "b", "c.d"]
STREAMS = ["S", "K"]
CONSUMERS = ["one", "two"]
ACKS = ["ack", "ack_sync", "nak", "term", "in_progress"]
ANSWER_S, SILENCE_S, ADVISED_S = 20.0, 0.2, 5.0


class Side:
    """One server or cluster, and a client of it in a loop of its own.

    After each request it waits for ``settle_s``, so that all nodes have what one of them has.
    """

    def __init__(self, loop, connect, *, replicas=1, settle_s=0.0):
        self.loop = loop
        self.replicas = replicas
        self._settle_s = settle_s
        self.client = loop.run_until_complete(connect())
        self.jetstream = self.client.jetstream(timeout=5)
        self.held = []

    def do(self, request):
        """What a request answers, or how it fails."""
        try:
            return self.loop.run_until_complete(self._done(request))
        except nats.js.errors.APIError as error:
            return "refused", error.code, error.err_code, error.description
        except (nats.errors.Error, TimeoutError) as error:
            return "failed", type(error).__name__

    async def _done(self, request):
        try:
            return await request(self)
        finally:
            if self._settle_s:
                await asyncio.sleep(self._settle_s)

    def close(self):
        self.loop.run_until_complete(self.client.close())
        self.loop.close()


def simulated():
    loop = SimulatedLoop()

    async def connect():
        world = World()
        return await world.connect_client(world.start_nats().url)

    return Side(loop, connect)


def simulated_cluster():
    """Three nodes; streams have three replicas where the other side's have one."""
    loop = SimulatedLoop()

    async def connect():
        world = World()
        names = ["nats-1:4222", "nats-2:4222", "nats-3:4222"]
        cluster = NatsCluster(loop, world.network, names, entropy=random.Random(5))
        return await world.connect_client(cluster.url().split(","))

    return Side(loop, connect, replicas=3, settle_s=0.02)


def real(url):
    return Side(asyncio.SelectorEventLoop(), lambda: connect_client(url))


class Conformance(RuleBasedStateMachine):
    """Both are asked the same, and must answer the same."""

    url = ""
    asked = 0
    simulated = staticmethod(simulated)
    partial_end = "404"
    looks_at_id_last = True

    def __init__(self):
        super().__init__()
        self.sides = [real(self.url), self.simulated()]
        self.run = uuid.uuid4().hex[:8]

    def both(self, request, *, what=""):
        return self.agree(*(side.do(request) for side in self.sides), what)

    def agree(self, real, simulated, what):
        type(self).asked += 1
        assert simulated == real, f"{what}: simulated {simulated!r}, real {real!r}"
        return real

    def subject(self, name):
        return f"{self.run}.{name}"

    def stream(self, name):
        return f"{name}_{self.run}"

    @initialize()
    def has_streams(self):
        """One as the hook stream is, and one as the bucket of done-records is."""
        configs = [
            StreamConfig(name=self.stream("S"), subjects=[f"{self.run}.>"], storage="memory"),
            StreamConfig(
                name=self.stream("K"),
                subjects=[f"k{self.run}.>"],
                storage="memory",
                max_msgs_per_subject=1,
                discard=DiscardPolicy.NEW,
                allow_direct=True,
            ),
            StreamConfig(
                name=self.stream("ADV"),
                subjects=[
                    f"$JS.EVENT.ADVISORY.CONSUMER.{kind}.{self.stream('S')}.>"
                    for kind in ("MAX_DELIVERIES", "MSG_TERMINATED")
                ],
                storage="memory",
            ),
        ]
        for config in configs:
            self.both(lambda side, config=config: _created(side, config), what="create")

    @rule(
        name=st.sampled_from(SUBJECTS),
        bucket=st.booleans(),
        ident=st.sampled_from([None, None, "x", "y"]),
        expected=st.sampled_from([None, None, 0, 1, 3]),
    )
    def publish(self, name, bucket, ident, expected):
        headers = {"Nats-Msg-Id": ident} if ident else {}
        if expected is not None and (self.looks_at_id_last or not ident):
            headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
        subject = f"k{self.run}.{name}" if bucket else self.subject(name)

        async def put(side):
            ack = await side.jetstream.publish(subject, b"data", headers=headers or None)
            return ack.seq, bool(ack.duplicate)

        self.both(put, what=f"publish {headers}")

    @rule()
    def publish_where_nobody_listens(self):
        self.both(lambda side: side.jetstream.publish(f"nobody{self.run}", b""))

    @rule(
        name=st.sampled_from(CONSUMERS),
        subject=st.sampled_from(SUBJECTS),
        start=st.sampled_from([None, 1, 3]),
        max_deliver=st.sampled_from([-1, 2]),
        max_ack_pending=st.sampled_from([1, 2, 100]),
    )
    def create_consumer(self, name, subject, start, max_deliver, max_ack_pending):
        policy = DeliverPolicy.ALL if start is None else DeliverPolicy.BY_START_SEQUENCE
        config = ConsumerConfig(
            durable_name=name,
            deliver_policy=policy,
            opt_start_seq=start,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=3600,
            max_deliver=max_deliver,
            max_ack_pending=max_ack_pending,
            filter_subject=self.subject(subject),
        )

        async def create(side):
            info = await side.jetstream.add_consumer(self.stream("S"), config)
            return _consumer(info)

        self.both(create, what="create consumer")

    @rule(name=st.sampled_from(CONSUMERS))
    def delete_consumer(self, name):
        self.both(lambda side: side.jetstream.delete_consumer(self.stream("S"), name))

    @rule(name=st.sampled_from(CONSUMERS), batch=st.integers(1, 3))
    def pull(self, name, batch):
        """What there is now: a request that does not wait.

        Where the limit of pending acknowledgements is met it stays without an answer. That a real
        server says no more is waited for once the simulated one has said no more.
        """
        path = f"$JS.API.CONSUMER.MSG.NEXT.{self.stream('S')}.{name}"
        real, simulated = self.sides
        found = simulated.do(lambda side: _pull(side, path, batch, math.inf))
        expected = real.do(lambda side: _pull(side, path, batch, len(found)))
        if found[1:] and found[-1] == self.partial_end:
            found[-1] = Conformance.partial_end
        self.agree(expected, found, f"pull {batch} of {name}")

    @rule(at=st.integers(0, 5), how=st.sampled_from(ACKS))
    def answer(self, at, how):
        if at >= len(self.sides[0].held):
            return

        async def tell(side):
            message = side.held[at]
            if how != "in_progress":
                side.held.pop(at)
            with contextlib.suppress(nats.errors.MsgAlreadyAckdError):
                await getattr(message, how)()
            await side.client.flush()
            return True

        self.both(tell, what=how)

    @rule(sequence=st.integers(1, 6), after=st.booleans(), name=st.sampled_from(SUBJECTS))
    def get(self, sequence, after, name):
        async def read(side):
            jetstream, stream = side.jetstream, self.stream("S")
            if after:
                found = await jetstream.get_msg(
                    stream, sequence, subject=self.subject(name), next=True
                )
            else:
                found = await jetstream.get_msg(stream, sequence)
            return found.seq, found.subject, found.data

        self.both(read, what="get")

    @rule(name=st.sampled_from([*SUBJECTS, "*", ">"]), stream=st.sampled_from(STREAMS))
    def get_last(self, name, stream):
        front = "k" if stream == "K" else ""

        async def read(side):
            found = await side.jetstream.get_last_msg(
                self.stream(stream), f"{front}{self.run}.{name}"
            )
            return found.seq, found.subject, found.data

        self.both(read, what="get last")

    @rule(name=st.sampled_from(SUBJECTS), stream=st.sampled_from(STREAMS))
    def get_direct(self, name, stream):
        """Of the one that allows it; the other one does not answer."""
        front = "k" if stream == "K" else ""
        subject = f"{front}{self.run}.{name}"

        async def read(side):
            found = await side.client.request(
                f"$JS.API.DIRECT.GET.{self.stream(stream)}.{subject}", timeout=ANSWER_S
            )
            told = found.headers or {}
            told.pop("Nats-Time-Stamp", None)
            return found.data, told

        self.both(read, what="get direct")

    @rule(sequence=st.integers(1, 6))
    def delete_message(self, sequence):
        """What a consumer waits for ends with it; that is said a moment later."""
        self.both(lambda side: side.jetstream.delete_msg(self.stream("S"), sequence), what="delete")
        real, simulated = self.sides
        expected = simulated.do(lambda side: self._state(side, "ADV"))

        async def said(side):
            async def alike():
                return await self._state(side, "ADV") == expected

            await eventually(alike, timeout_s=ADVISED_S, what=f"the advisories {expected}")

        real.do(said)

    @rule(name=st.sampled_from(SUBJECTS))
    def purge(self, name):
        self.both(
            lambda side: side.jetstream.purge_stream(self.stream("S"), subject=self.subject(name))
        )

    @invariant()
    def states_agree(self):
        for name in (*STREAMS, "ADV"):
            self.both(lambda side, name=name: self._state(side, name), what=f"state of {name}")
        for name in CONSUMERS:
            self.both(lambda side, name=name: self._consumer(side, name), what=f"state of {name}")

    async def _state(self, side, name):
        info = await side.jetstream.stream_info(self.stream(name), subjects_filter=">")
        state = info.state
        return (
            state.messages,
            state.first_seq,
            state.last_seq,
            sorted((state.subjects or {}).items()),
            state.num_deleted or 0,
        )

    async def _consumer(self, side, name):
        return _consumer(await side.jetstream.consumer_info(self.stream("S"), name))

    def teardown(self):
        for side in self.sides:
            for name in (*STREAMS, "ADV"):
                side.do(lambda side, name=name: side.jetstream.delete_stream(self.stream(name)))
            side.close()


async def _pull(side, path, batch, count):
    """What a request that does not wait is answered, of which ``count`` answers are expected."""
    inbox = side.client.new_inbox()
    subscription = await side.client.subscribe(inbox)
    request = json.dumps({"batch": batch, "no_wait": True}).encode()
    await side.client.publish(path, request, reply=inbox)
    found = []
    while len(found) < batch:
        try:
            message = await subscription.next_msg(ANSWER_S if len(found) < count else SILENCE_S)
        except nats.errors.TimeoutError:
            break
        status = (message.headers or {}).get("Status")
        if status is not None:
            found.append(status)
            break
        told = message.metadata
        sequence = told.sequence.stream, told.sequence.consumer
        found.append((message.subject, *sequence, told.num_delivered, told.num_pending))
        side.held.append(message)
    await subscription.unsubscribe()
    await side.client.flush()
    return found


async def _created(side, config):
    info = await side.jetstream.add_stream(config.evolve(num_replicas=side.replicas))
    kept = info.config
    return (
        kept.subjects,
        kept.max_msgs,
        kept.max_msgs_per_subject,
        kept.max_age,
        kept.duplicate_window,
        kept.discard,
        kept.num_replicas == side.replicas,
        info.state.messages,
    )


def _consumer(info):
    return (
        info.config.deliver_policy,
        info.config.max_deliver,
        info.config.max_ack_pending,
        info.config.ack_wait,
        info.config.filter_subject,
        info.num_pending,
        info.num_ack_pending,
        info.delivered.stream_seq,
        info.delivered.consumer_seq,
    )


@pytest.mark.timeout(600)
def test_the_same_requests_have_the_same_answers(nats_broker):
    check_conformance(Conformance, nats_broker.url, examples=EXAMPLES, steps=STEPS)


class ClusterConformance(Conformance):
    """Three nodes without a fault must answer as one does, but where three real ones do not.

    The end of a request that does not wait and has got some of what it asked for is 408 there, and
    404 of one. A publish with a known id and a wrong expected sequence is a duplicate there, and
    refused by one.
    """

    simulated = staticmethod(simulated_cluster)
    partial_end = "408"
    looks_at_id_last = False


@pytest.mark.timeout(600)
def test_a_cluster_without_faults_answers_as_one_server_does(nats_broker):
    check_conformance(ClusterConformance, nats_broker.url, examples=EXAMPLES, steps=STEPS)


@pytest.mark.parametrize("kind", [Conformance, ClusterConformance])
def test_what_few_random_runs_come_to_is_the_same(nats_broker, kind):
    """A request that gets some of what it asked for, and a message that is deleted in hand."""
    machine = type("Asked", (kind,), {"url": nats_broker.url})()
    machine.has_streams()
    machine.create_consumer("one", "a", None, -1, 2)
    machine.publish("a", bucket=False, ident=None, expected=None)
    machine.pull("one", 2)
    machine.states_agree()
    machine.delete_message(1)
    machine.states_agree()
    machine.teardown()


def test_who_asks_beyond_the_limit_of_pending_acknowledgements_is_kept_waiting(nats_broker):
    """Of three messages one may be out: the rest of the request stays, and others are refused."""
    machine = type("Asked", (Conformance,), {"url": nats_broker.url})()
    machine.has_streams()
    machine.create_consumer("one", "a", None, -1, 1)
    for _ in range(3):
        machine.publish("a", bucket=False, ident=None, expected=None)
    path = f"$JS.API.CONSUMER.MSG.NEXT.{machine.stream('S')}.one"

    async def ask_twice(side):
        inbox = side.client.new_inbox()
        kept = await side.client.subscribe(inbox)
        request = json.dumps({"batch": 5, "no_wait": True}).encode()
        await side.client.publish(path, request, reply=inbox)
        first = await kept.next_msg(ANSWER_S)
        refused = await _pull(side, path, 1, 1)
        answers = []
        while not answers or answers[-1] != "404":
            await first.ack()
            first = await kept.next_msg(ANSWER_S)
            answers.append((first.headers or {}).get("Status", first.subject))
        return refused, answers

    refused, answers = machine.both(ask_twice, what="ask twice")
    assert refused == ["408"]
    assert answers == [machine.subject("a")] * 2 + ["404"]
    machine.teardown()
