"""A simulated cluster: what survives whose death, and what is answered without a leader."""

import asyncio
import contextlib
import json
import random

import nats.errors
import nats.js.errors
import pytest
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig

from hookbench.brokers.durability import Durability
from hookbench.errors import BrokerUnreachableError
from hookbench.queues.jetstream import ensure_consumer, ensure_stream
from hookbench.queues.transport import AppTransport
from hookbench.sim.errors import SimulationError
from hookbench.sim.nats.cluster import NatsCluster
from hookbench.sim.nats.disk import Disk
from hookbench.sim.simulate import simulate
from tests.sim.world import World

NODES = ["nats-1:4222", "nats-2:4222", "nats-3:4222"]
FAILURES = (nats.errors.Error, nats.js.errors.Error, TimeoutError)
ACK_WAIT_S = 4
EVERY_S = 0.05


class Scene:
    """A cluster with a stream of three replicas, and a consumer of it."""

    def __init__(self, loop, seed, durability):
        self.loop = loop
        self.world = World(seed=seed)
        self.entropy = random.Random(seed)
        self.cluster = NatsCluster(
            loop,
            self.world.network,
            NODES,
            disk=Disk.of(durability),
            entropy=random.Random(f"cluster:{seed}"),
        )

    async def open(self, *, allow_direct=False):
        self.client = await self.connect(*NODES)
        config = StreamConfig(
            name="S", subjects=["s.>"], num_replicas=3, storage="file", allow_direct=allow_direct
        )
        await self.client.jetstream().add_stream(config)
        consumer = ConsumerConfig(
            durable_name="c", ack_policy=AckPolicy.EXPLICIT, ack_wait=ACK_WAIT_S
        )
        await self.client.jetstream().add_consumer("S", consumer)
        await asyncio.sleep(1)

    async def connect(self, *nodes):
        return await self.world.connect_client(
            [f"nats://{name}" for name in nodes],
            reconnect_time_wait=0.05,
            max_reconnect_attempts=-1,
            ping_interval=1,
            max_outstanding_pings=2,
            error_cb=_ignore,
        )

    @property
    def group(self):
        return self.cluster.streams["S"].group

    @property
    def leader(self):
        return self.group.leader()

    @property
    def followers(self):
        return [name for name in NODES if name != self.leader]

    async def put(self, number, client=None, timeout_s=1.0):
        """The sequence, or the name of the error."""
        jetstream = (client or self.client).jetstream()
        try:
            return (await jetstream.publish("s.a", b"%d" % number, timeout=timeout_s)).seq
        except FAILURES as error:
            return type(error).__name__

    async def put_until(self, number, client=None):
        """The same until it is accepted; the errors, and the time that took."""
        begun_s, errors = self.loop.time(), []
        while not isinstance(told := await self.put(number, client), int):
            errors.append(told)
            await asyncio.sleep(0.01)
        return errors, self.loop.time() - begun_s

    async def held(self):
        """What the stream has, once somebody leads."""
        for _ in range(100):
            with contextlib.suppress(*FAILURES):
                state = (await self.client.jetstream().stream_info("S")).state
                found = [
                    (await self.client.jetstream().get_msg("S", sequence)).data
                    for sequence in range(state.first_seq, state.last_seq + 1)
                    if state.messages
                ]
                return [int(data) for data in found]
            await asyncio.sleep(0.5)
        raise AssertionError("no answer")


async def _ignore(_error):
    """What an outage does to a client is told by its calls."""


def with_cluster(play, *, seed=1, durability=Durability.REPLICATED, allow_direct=False):
    async def main(loop):
        scene = Scene(loop, seed, durability)
        await scene.open(allow_direct=allow_direct)
        return await play(scene)

    return simulate(main)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("leads", [True, False])
def test_what_a_quorum_acknowledged_survives_a_power_cut_of_one_node(seed, leads):
    async def play(scene):
        for number in range(40):
            assert await scene.put(number) == number + 1
        gone = scene.leader if leads else scene.followers[0]
        scene.cluster.lose_power(gone)
        await asyncio.sleep(1)
        scene.cluster.restart(gone)
        await scene.put_until(40)
        await asyncio.sleep(12)
        assert await scene.held() == list(range(41))
        return {name: len(role.log) for name, role in scene.group.roles.items()}

    lengths = with_cluster(play, seed=seed)
    assert len(set(lengths.values())) == 1, "who came back has caught up"


@pytest.mark.parametrize("durability", [Durability.REPLICATED, Durability.FSYNC])
def test_a_power_cut_of_all_takes_what_no_disk_has_synced(durability):
    """Hazard N10: a quorum acknowledges what it has written, and not what it has synced."""

    async def play(scene):
        for number in range(80):
            assert await scene.put(number) == number + 1
            await asyncio.sleep(EVERY_S)
        scene.cluster.lose_power(*NODES)
        await asyncio.sleep(1)
        for name in NODES:
            scene.cluster.restart(name)
        return await scene.held()

    kept = with_cluster(play, durability=durability)
    assert kept == list(range(len(kept)))
    if durability is Durability.FSYNC:
        assert len(kept) == 80
    else:
        assert 80 - 1.2 / EVERY_S <= len(kept) < 80


def test_a_power_cut_of_two_nodes_may_take_what_the_third_still_has():
    """Two of three that have lost the end of their logs are a quorum, too."""

    async def play(scene):
        for number in range(40):
            await scene.put(number)
            await asyncio.sleep(EVERY_S)
        leader, gone = scene.leader, scene.entropy.sample(NODES, 2)
        scene.cluster.lose_power(*gone)
        await asyncio.sleep(1)
        for name in gone:
            scene.cluster.restart(name)
        await scene.put_until(40)
        await asyncio.sleep(12)
        assert len({len(role.log) for role in scene.group.roles.values()}) == 1
        return leader in gone, len(await scene.held()) - 1

    kept = [with_cluster(play, seed=seed) for seed in range(16)]
    assert {count for led, count in kept if not led} == {40}, "a leader that lives on has it all"
    lost = [40 - count for led, count in kept if led]
    assert min(lost) == 0 < max(lost) <= 1.2 / EVERY_S


def test_after_a_power_cut_of_all_a_consumer_may_skip_what_comes_next():
    """The logs of stream and consumer are synced apart, and no replicated consumer is set back.

    On three real servers whose stream was set back from 10 to 5, and the consumer was not, five
    of seven further messages were never delivered, and none was pending.
    """

    async def play(scene):
        for number in range(40):
            await scene.put(number)
            await asyncio.sleep(EVERY_S)
            message = await _one(scene)
            await message.ack_sync()
        scene.cluster.lose_power(*NODES)
        await asyncio.sleep(1)
        for name in NODES:
            scene.cluster.restart(name)
        await asyncio.sleep(15)
        before = len(await scene.held())
        for number in range(100, 130):
            await scene.put_until(number)
        seen = []
        with contextlib.suppress(*FAILURES):
            while True:
                message = await _one(scene, tries=3)
                await message.ack_sync()
                seen.append(int(message.data))
        return before, seen

    skipped = {}
    for seed in range(8):
        before, seen = with_cluster(play, seed=seed)
        news = [number for number in seen if number >= 100]
        assert news == list(range(130 - len(news), 130))
        skipped[seed] = 30 - len(news)
        assert skipped[seed] <= 40 - before
    assert min(skipped.values()) == 0 < max(skipped.values())


async def _asking(scene, batch, wait_s=1.0):
    """A subscription that gets what a request for messages brings."""
    inbox = scene.client.new_inbox()
    subscription = await scene.client.subscribe(inbox)
    body = json.dumps({"batch": batch, "expires": int(wait_s * 1e9)}).encode()
    await scene.client.publish("$JS.API.CONSUMER.MSG.NEXT.S.c", body, reply=inbox)
    return subscription


async def _one(scene, tries=40):
    """The next message of the consumer."""
    for _ in range(tries):
        subscription = await _asking(scene, 1)
        with contextlib.suppress(*FAILURES):
            message = await subscription.next_msg(1.5)
            if "Status" not in (message.headers or {}):
                return message
        await subscription.unsubscribe()
        await asyncio.sleep(0.2)
    raise TimeoutError


def test_elections_take_four_to_nine_seconds_and_nobody_listens_meanwhile():
    gaps_s = []

    async def play(scene):
        await scene.put(0)
        leader, other = scene.leader, await scene.connect(scene.followers[0])
        scene.cluster.kill(leader)
        await asyncio.sleep(0.01)
        errors, gap_s = await scene.put_until(1, other)
        assert set(errors) == {"NoStreamResponseError"}
        assert scene.leader not in ("", leader)
        gaps_s.append(gap_s)

    for seed in range(20):
        with_cluster(play, seed=seed)
    assert 3.9 < min(gaps_s) < 5.0
    assert 6.0 < max(gaps_s) < 9.1


def test_a_publish_to_a_leader_without_power_is_in_doubt_until_its_place_is_taken():
    async def play(scene):
        leader, other = scene.leader, await scene.connect(scene.followers[0])
        scene.cluster.lose_power(leader)
        errors, gap_s = await scene.put_until(1, other)
        return set(errors), gap_s

    errors, gap_s = with_cluster(play)
    assert errors == {"TimeoutError"}
    assert gap_s > 3.9


def test_two_nodes_lost_is_no_answer_and_not_a_wrong_one():
    async def play(scene):
        for number in range(10):
            await scene.put(number)
        alone = await scene.connect(scene.leader)
        dead = scene.followers
        for name in dead:
            scene.cluster.kill(name)
        told = []
        for number in range(10, 50):
            told.append(await scene.put(number, alone))
            await asyncio.sleep(1)
        state = (await alone.jetstream().stream_info("S")).state
        assert (state.messages, state.last_seq) == (10, 10), "nothing that is not committed"
        with pytest.raises(nats.js.errors.ServiceUnavailableError):
            await alone.jetstream().consumer_info("S", "c")
        for name in dead:
            scene.cluster.restart(name)
        await scene.put_until(50)
        return told, await scene.held()

    told, held = with_cluster(play)
    assert set(told) == {"TimeoutError", "NoStreamResponseError"}
    assert told[0] == "TimeoutError"
    assert told[-1] == "NoStreamResponseError", "it has given up"
    assert held[:10] == list(range(10))
    assert held[-1] == 50
    doubtful = {number for number, how in enumerate(told, 10) if how == "TimeoutError"}
    assert set(held[10:-1]) <= doubtful, "what was refused is not there"


@pytest.mark.parametrize("reached", [True, False])
def test_what_was_not_acknowledged_is_there_if_a_survivor_has_it(reached):
    """Hazard P4: the caller is in doubt, in both cases."""

    async def play(scene):
        await scene.put(0)
        leader, followers = scene.leader, scene.followers
        client = await scene.connect(leader)
        for name in followers:
            pair = (name, leader) if reached else (leader, name)
            scene.cluster.routes.cut(*pair)
        assert await scene.put(1, client) == "TimeoutError"
        scene.cluster.lose_power(leader)
        scene.cluster.routes.heal()
        await scene.put_until(2)
        scene.cluster.restart(leader)
        await asyncio.sleep(10)
        assert len({len(role.log) for role in scene.group.roles.values()}) == 1
        return await scene.held()

    assert with_cluster(play) == ([0, 1, 2] if reached else [0, 2])


def test_who_lags_behind_does_not_become_leader():
    async def play(scene):
        leader, (behind, ahead) = scene.leader, scene.followers
        scene.cluster.routes.cut(leader, behind)
        client = await scene.connect(leader)
        for number in range(5):
            assert await scene.put(number, client) == number + 1
        assert len(scene.group.roles[behind].log) < len(scene.group.roles[ahead].log)
        scene.cluster.lose_power(leader)
        scene.cluster.routes.heal()
        await scene.put_until(5)
        assert scene.leader == ahead
        return await scene.held()

    for seed in range(6):
        assert with_cluster(play, seed=seed) == list(range(6))


def test_a_direct_read_may_be_answered_by_a_follower_that_lags_behind():
    async def play(scene):
        leader, (behind, _ahead) = scene.leader, scene.followers
        reader = await scene.connect(behind)
        await scene.put(1)
        await asyncio.sleep(0.1)
        scene.cluster.routes.cut(leader, behind)
        assert await scene.put(2, await scene.connect(leader)) == 2
        stale = (await reader.request("$JS.API.DIRECT.GET.S.s.a")).data
        scene.cluster.routes.heal()
        await asyncio.sleep(1)
        return stale, (await reader.request("$JS.API.DIRECT.GET.S.s.a")).data

    assert with_cluster(play, allow_direct=True) == (b"1", b"2")


def test_a_step_down_takes_milliseconds_and_a_waiting_pull_is_told():
    async def play(scene):
        leader = scene.cluster.step_down("S")
        assert leader
        errors, gap_s = await scene.put_until(0)
        assert scene.leader not in ("", leader)
        message = await _one(scene)
        waiting = await _asking(scene, 2, 5.0)
        await asyncio.sleep(0.5)
        scene.cluster.step_down("S", "c")
        assert (await waiting.next_msg(1)).headers["Status"] == "409"
        again = await _one(scene)
        assert again.data == message.data
        return errors, gap_s, again.metadata.num_delivered

    errors, gap_s, attempt = with_cluster(play)
    assert set(errors) <= {"NoStreamResponseError", "TimeoutError"}
    assert gap_s < 1.2
    assert attempt == 2


@pytest.mark.parametrize("old", [True, False])
def test_with_a_new_leader_ack_wait_counts_from_when_a_message_was_stored(old):
    async def play(scene):
        await scene.put(0)
        await asyncio.sleep(ACK_WAIT_S + 1 if old else 0)
        await _one(scene)
        taken_s = scene.loop.time()
        scene.cluster.step_down("S", "c")
        await _one(scene)
        return scene.loop.time() - taken_s

    after_s = with_cluster(play)
    assert after_s < 1.5 if old else ACK_WAIT_S - 1.5 < after_s < ACK_WAIT_S + 1.5


def test_an_acknowledgement_is_confirmed_once_a_quorum_has_it():
    async def play(scene):
        await scene.put(0)
        message = await _one(scene)
        leader = scene.cluster.consumers["S", "c"].group.leader()
        others = [name for name in NODES if name != leader]
        for name in others:
            scene.cluster.routes.cut(leader, name)
        with pytest.raises(FAILURES):
            await message.ack_sync(timeout=2)
        scene.cluster.lose_power(leader)
        scene.cluster.routes.heal()
        again = await _one(scene)
        await again.ack_sync(timeout=2)
        scene.cluster.restart(leader)
        await asyncio.sleep(1)
        scene.cluster.step_down("S", "c")
        await asyncio.sleep(1)
        info = await scene.client.jetstream().consumer_info("S", "c")
        return again.metadata.num_delivered, info.num_ack_pending

    assert with_cluster(play) == (2, 0)


def test_a_client_goes_on_at_another_node():
    async def play(scene):
        first = scene.client.connected_url.netloc
        scene.cluster.kill(first)
        await scene.put_until(0)
        return first, scene.client.connected_url.netloc

    first, second = with_cluster(play)
    assert second in set(NODES) - {first}


def test_a_cluster_without_a_leader_is_out_of_reach_and_not_unsuitable():
    """A worker that looks after its stream meanwhile must try again, and not end."""

    async def play(scene):
        alone = await scene.connect(scene.leader)
        for name in scene.followers:
            scene.cluster.kill(name)
        await asyncio.sleep(30)
        transport = AppTransport(alone, clock=scene.world.clock)
        with pytest.raises(BrokerUnreachableError, match="temporarily unavailable"):
            await ensure_stream(transport)
        with pytest.raises(BrokerUnreachableError, match="temporarily unavailable"):
            await ensure_consumer(transport)

    with_cluster(play)


def test_a_node_that_runs_is_not_started_again():
    async def play(scene):
        with pytest.raises(SimulationError, match="has not ended"):
            scene.cluster.restart(NODES[0])

    with_cluster(play)
