"""Three real nats-servers and the simulated cluster are put through the same, and tell the same.

One script, with the same client: leaders are killed and deposed, a quorum is lost and comes back.
Compared is what does not depend on who was elected or when: which errors there are, sequences and
payloads, what a consumer has delivered and waits for, what is delivered again, and as which
delivery. Lengths are only held to the bounds of both.
"""

import asyncio
import contextlib
import json
import random
import time

import nats.errors
import nats.js.errors
import pytest
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig

from hookbench.brokers.durability import Durability
from hookbench.brokers.nats_cluster import NatsCluster as RealCluster
from hookbench.brokers.resolve import resolve_nats
from hookbench.brokers.roles import stop_all
from hookbench.queues.reconnecting import connect_client
from hookbench.sim.nats.cluster import NatsCluster
from hookbench.sim.simulate import simulate
from tests.conftest import eventually
from tests.sim.world import World

ACK_WAIT_S = 3
STREAM, DURABLE = "S", "c"
TAKEN_S = 30.0
"""Longer than an election and two deliveries."""
OPTIONS = {"reconnect_time_wait": 0.05, "max_reconnect_attempts": -1}


class Real:
    """Embedded servers."""

    def __init__(self, group):
        self._group = group
        self.nodes = [node.port for node in group.nodes]

    def _node(self, port):
        return next(node for node in self._group.nodes if node.port == port)

    async def connect(self, port):
        return await connect_client(self._node(port).url, error_cb=_ignore, **OPTIONS)

    async def leader(self):
        return (await self._group.stream_leader(STREAM)).port

    async def current(self):
        await self._group.wait_until_current(STREAM)

    def kill(self, port):
        self._node(port).kill()

    def restart(self, port):
        self._node(port).restart()

    def pause(self, port):
        self._node(port).pause()

    def resume(self, port):
        self._node(port).resume()

    now_s = staticmethod(time.monotonic)


class Simulated:
    """Of the simulator."""

    def __init__(self, loop):
        self._world = World(seed=11)
        self.nodes = ["nats-1:4222", "nats-2:4222", "nats-3:4222"]
        self._cluster = NatsCluster(
            loop, self._world.network, self.nodes, entropy=random.Random(11)
        )
        self.kill = self._cluster.kill
        self.restart = self._cluster.restart
        self.now_s = loop.time

    async def connect(self, name):
        return await self._world.connect_client(f"nats://{name}", error_cb=_ignore, **OPTIONS)

    async def leader(self):
        group = self._cluster.streams[STREAM].group
        await eventually(group.leader, timeout_s=60)
        return group.leader()

    async def current(self):
        await asyncio.sleep(1)

    def pause(self, name):
        self._world.network.node(name).stop()

    def resume(self, name):
        self._world.network.node(name).resume()


async def _ignore(_error):
    """What an outage does to a client is told by its calls."""


async def put(client, number, timeout_s=1.0):
    """How a publish ends."""
    headers = {"Nats-Msg-Id": str(number)}
    try:
        ack = await client.jetstream().publish(
            "s.a", b"%d" % number, timeout=timeout_s, headers=headers
        )
    except (nats.errors.Error, nats.js.errors.APIError, TimeoutError) as error:
        return type(error).__name__
    return ack.seq, bool(ack.duplicate)


async def put_until(side, client, number):
    """The errors until it is accepted, how it is, and how long that took."""
    begun_s, errors = side.now_s(), set()
    while side.now_s() - begun_s < 60:
        told = await put(client, number)
        if not isinstance(told, str):
            return sorted(errors), told, side.now_s() - begun_s
        errors.add(told)
        await asyncio.sleep(0.02)
    raise AssertionError(f"not accepted within 60 s: {errors}")


async def ask(client, subject, body=b"", timeout_s=2.0):
    """What a request is answered: its error, or that there is none."""
    try:
        answer = await client.request(subject, body, timeout=timeout_s)
    except (nats.errors.Error, TimeoutError) as error:
        return type(error).__name__
    error = json.loads(answer.data).get("error")
    return (error["code"], error["err_code"]) if error else "ok"


async def states(client):
    """Of stream and consumer, as soon as both answer."""
    jetstream = client.jetstream(timeout=1)
    for _ in range(40):
        with contextlib.suppress(nats.errors.Error, nats.js.errors.Error, TimeoutError):
            stream = (await jetstream.stream_info(STREAM)).state
            consumer = await jetstream.consumer_info(STREAM, DURABLE)
            return (
                (stream.messages, stream.first_seq, stream.last_seq),
                (consumer.delivered.stream_seq, consumer.delivered.consumer_seq),
                (consumer.num_ack_pending, consumer.num_pending, consumer.num_redelivered),
            )
        await asyncio.sleep(0.5)
    raise AssertionError("no answer within 60 s")


class Puller:
    """Requests messages, and keeps what it is told."""

    def __init__(self, client):
        self._client = client
        self._inbox = client.new_inbox()

    async def open(self):
        self._subscription = await self._client.subscribe(self._inbox)

    async def ask(self, batch, wait_s):
        body = json.dumps({"batch": batch, "expires": int(wait_s * 1e9)}).encode()
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{DURABLE}"
        await self._client.publish(subject, body, reply=self._inbox)

    async def next(self, timeout_s=10.0):
        """A status, or a message with its sequence and which delivery it is."""
        message = await self._subscription.next_msg(timeout_s)
        status = (message.headers or {}).get("Status")
        if status:
            return status, None
        told = message.metadata
        return (told.sequence.stream, told.num_delivered), message

    async def take(self, count):
        """So many messages; a request that nobody leads to answer is made again."""
        found, loop = {}, asyncio.get_running_loop()
        deadline_s = loop.time() + TAKEN_S
        while len(found) < count:
            assert loop.time() < deadline_s, f"of {count} messages only {sorted(found)}"
            told, message = await self.next()
            if message is None:
                await asyncio.sleep(0.05)
                await self.ask(count - len(found), 9.0)
            else:
                found[told] = message
        return found


async def script(side):
    """All of it; what is to be the same on both sides."""
    facts = []
    client = await side.connect(side.nodes[0])
    jetstream = client.jetstream(timeout=5)
    config = StreamConfig(name=STREAM, subjects=["s.>"], num_replicas=3, storage="file")
    info = await jetstream.add_stream(config)
    facts.append(("created", info.config.num_replicas, len(info.cluster.replicas)))
    consumer = ConsumerConfig(
        durable_name=DURABLE, ack_policy=AckPolicy.EXPLICIT, ack_wait=ACK_WAIT_S
    )
    await jetstream.add_consumer(STREAM, consumer)
    await side.current()
    facts.append(("put", [await put(client, number) for number in range(20)]))
    facts += await _leader_dies(side)
    facts += await _leaders_step_down(side, client)
    facts += await _quorum_is_lost(side)
    await client.close()
    return facts


async def _leader_dies(side):
    leader = await side.leader()
    other = await side.connect(next(node for node in side.nodes if node != leader))
    puller = Puller(other)
    await puller.open()
    await puller.ask(6, 5.0)
    taken = await puller.take(6)
    for sequence in (1, 3):
        await taken[sequence, 1].ack_sync()
    before = await states(other)
    side.kill(leader)
    await asyncio.sleep(0.1)
    errors, told, gap_s = await put_until(side, other, 20)
    assert 3.5 < gap_s < 11, gap_s
    after = await states(other)
    await puller.ask(4, 9.0)
    again = await puller.take(4)
    for message in again.values():
        await message.ack_sync()
    facts = [
        ("before", before),
        ("while there is no leader", errors, told),
        ("after", after),
        ("again", sorted(again)),
        ("acknowledged", await states(other)),
        ("a repeat", await put(other, 20)),
    ]
    side.restart(leader)
    await side.current()
    await other.close()
    return facts


async def _leaders_step_down(side, client):
    facts = [("step down", await ask(client, f"$JS.API.STREAM.LEADER.STEPDOWN.{STREAM}"))]
    _errors, told, gap_s = await put_until(side, client, 21)
    assert gap_s < 2, gap_s
    facts.append(("stepped down", told))
    puller = Puller(client)
    await puller.open()
    await puller.ask(2, 5.0)
    taken = await puller.take(2)
    facts.append(("taken", sorted(taken)))
    await asyncio.sleep(0.2)
    waiting = Puller(client)
    await waiting.open()
    await waiting.ask(30, 9.0)
    while (await waiting.next())[0] != (22, 1):
        pass  # all that is there is delivered, and the request waits for more
    asked = await ask(client, f"$JS.API.CONSUMER.LEADER.STEPDOWN.{STREAM}.{DURABLE}")
    status, _none = await waiting.next()
    facts.append(("consumer steps down", asked, status))
    # Stored longer than AckWait ago, they are due at once, however short they have been out.
    deposed_s = side.now_s()
    await waiting.ask(2, 9.0)
    again = await waiting.take(2)
    assert side.now_s() - deposed_s < ACK_WAIT_S / 2
    facts.append(("due at once", sorted(again)))
    return facts


async def _quorum_is_lost(side):
    leader = await side.leader()
    alone = await side.connect(leader)
    others = [node for node in side.nodes if node != leader]
    for node in others:
        side.kill(node)
    facts = [
        ("without a quorum", await put(alone, 22)),
        ("the same again", await put(alone, 22)),
        ("stream info", await ask(alone, f"$JS.API.STREAM.INFO.{STREAM}")),
    ]
    await asyncio.sleep(25)
    subjects = (f"STREAM.INFO.{STREAM}", f"CONSUMER.INFO.{STREAM}.{DURABLE}", "STREAM.INFO.X")
    facts += [(subject, await ask(alone, f"$JS.API.{subject}")) for subject in subjects]
    facts.append(("without a leader", await put(alone, 23)))
    for node in others:
        side.restart(node)
    await side.leader()
    _errors, _told, _gap_s = await put_until(side, alone, 22)
    await put_until(side, alone, 23)
    await side.current()
    messages = [await _message(alone, sequence) for sequence in range(1, 25)]
    facts.append(("messages", messages, (await states(alone))[0]))
    await alone.close()
    return facts


async def _message(client, sequence):
    found = await client.jetstream().get_msg(STREAM, sequence)
    return found.seq, found.data


async def _of_real(folder):
    group = await RealCluster.start(resolve_nats(), folder, Durability.REPLICATED)
    try:
        return await script(Real(group))
    finally:
        stop_all(group.nodes)


async def _of_simulated(loop):
    return await script(Simulated(loop))


@pytest.mark.timeout(240)
def test_a_real_cluster_and_the_simulated_one_tell_the_same(tmp_path):
    simulated = simulate(_of_simulated)
    assert len(simulated) > 15
    assert simulated == asyncio.run(_of_real(tmp_path))
