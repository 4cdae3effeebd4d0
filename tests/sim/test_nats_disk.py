"""What SIGKILL and a power cut take of a JetStream of one node, by durability class."""

import asyncio
import random

import pytest
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig

from hookbench.brokers.durability import Durability
from hookbench.sim.nats.disk import Crash, Disk, SyncTimes, state_kept
from hookbench.sim.nats.server import NatsServer
from hookbench.sim.nats.stream import Removed, Stored
from hookbench.sim.simulate import simulate
from tests.sim.world import World

NODE = "nats:4222"
EVERY_S = 0.05


class Broker:
    """One server on its disk, and a client of it."""

    def __init__(self, world, disk, *, seed=1):
        self.world, self.disk = world, disk
        self.node = world.network.node(NODE)
        self._entropy = random.Random(seed)
        self._server = None
        self.start()

    def start(self):
        self._server = NatsServer(
            self.world.loop,
            self.node,
            before=self._server,
            disk=self.disk,
            entropy=self._entropy,
        )
        self.node.start(self._server)

    async def again(self, *, power, for_s=0.5):
        """End it, and start it on what is left."""
        if power:
            self.node.lose_power()
        else:
            self.node.kill()
        await asyncio.sleep(for_s)
        self.start()

    async def connect(self):
        return await self.world.connect_client(
            f"nats://{NODE}", reconnect_time_wait=0.05, max_reconnect_attempts=-1, error_cb=_ignore
        )


async def _ignore(_error):
    """Of a connection that is to end."""


def with_broker(scene, disk, **options):
    async def main(_loop):
        return await scene(Broker(World(), disk, **options))

    return simulate(main)


async def publishing(client, count, *, storage="file"):
    jetstream = client.jetstream()
    await jetstream.add_stream(StreamConfig(name="S", subjects=["s.>"], storage=storage))
    for number in range(count):
        await jetstream.publish("s.a", b"%d" % number)
        await asyncio.sleep(EVERY_S)


async def held(broker):
    """Payloads in the stream, read by a new client; ``None`` without a stream."""
    client = await broker.connect()
    jetstream = client.jetstream()
    try:
        state = (await jetstream.stream_info("S")).state
    except Exception as error:  # noqa: BLE001 - the test looks at it
        return str(error)
    found = [
        (await jetstream.get_msg("S", sequence)).data
        for sequence in range(state.first_seq, state.last_seq + 1)
    ]
    return [int(data) for data in found]


def left_by(durability, *, power, count=80, seed=1):
    async def scene(broker):
        client = await broker.connect()
        await publishing(client, count, storage=durability.stream_storage)
        await broker.again(power=power)
        return await held(broker)

    return with_broker(scene, Disk.of(durability), seed=seed)


@pytest.mark.parametrize("power", [False, True])
def test_memory_keeps_nothing(power):
    assert "stream not found" in left_by(Durability.MEMORY, power=power)


@pytest.mark.parametrize("durability", [Durability.LAZY, Durability.FSYNC])
def test_a_kill_takes_no_message_of_a_stream_on_disk(durability):
    assert left_by(durability, power=False) == list(range(80))


@pytest.mark.parametrize("seed", range(5))
def test_lazy_loses_acknowledged_publishes_of_the_last_interval_and_no_others(seed):
    kept = left_by(Durability.LAZY, power=True, seed=seed)
    assert kept == list(range(len(kept))), "a beginning"
    assert 80 - 1.05 / EVERY_S <= len(kept) < 80


def test_fsync_loses_nothing():
    assert left_by(Durability.FSYNC, power=True) == list(range(80))


def test_as_shipped_half_a_minute_may_be_lost():
    """Hazard N10: nobody syncs for two minutes, but the kernel writes back what is old."""

    async def scene(broker):
        client = await broker.connect()
        await publishing(client, 800)
        await broker.again(power=True)
        return await held(broker)

    kept = with_broker(scene, Disk())
    assert kept == list(range(len(kept)))
    assert 800 - len(kept) == pytest.approx(30 / EVERY_S, rel=0.02)


def test_what_was_written_after_a_power_cut_is_lost_by_the_next_one_only():
    async def scene(broker):
        client = await broker.connect()
        await publishing(client, 80)
        await broker.again(power=True)
        first = await held(broker)
        await asyncio.sleep(2)
        await broker.again(power=True)
        return first, await held(broker)

    first, second = with_broker(scene, Disk.of(Durability.LAZY))
    assert len(first) < 80
    assert second == first


@pytest.mark.parametrize("durability", [Durability.LAZY, Durability.FSYNC])
def test_a_kill_takes_confirmed_acknowledgements_of_the_last_tenth_of_a_second(durability):
    """Of a consumer with one replica, however messages are synced."""

    async def scene(broker):
        client = await broker.connect()
        await publishing(client, 60)
        jetstream = client.jetstream()
        await jetstream.add_consumer(
            "S", ConsumerConfig(durable_name="c", ack_policy=AckPolicy.EXPLICIT, ack_wait=60)
        )
        subscription = await jetstream.pull_subscribe_bind("c", "S")
        confirmed = {}
        for _ in range(60):
            (message,) = await subscription.fetch(1, timeout=1)
            await message.ack_sync()
            confirmed[int(message.data)] = broker.world.loop.time()
            await asyncio.sleep(0.01)
        ended_s = broker.world.loop.time()
        await broker.again(power=False)
        await asyncio.sleep(1)
        again = await (await jetstream.pull_subscribe_bind("c", "S")).fetch(60, timeout=1)
        return [ended_s - confirmed[int(message.data)] for message in again]

    ages_s = with_broker(scene, Disk.of(durability))
    assert 0 < len(ages_s) < 15
    assert max(ages_s) < 0.12


@pytest.mark.parametrize(("age_s", "least_s", "most_s"), [(0.0, 2.0, 4.1), (6.0, 0.0, 1.0)])
def test_after_a_restart_ack_wait_counts_from_when_a_message_was_stored(age_s, least_s, most_s):
    async def scene(broker):
        client = await broker.connect()
        await publishing(client, 1)
        jetstream = client.jetstream()
        await jetstream.add_consumer(
            "S", ConsumerConfig(durable_name="c", ack_policy=AckPolicy.EXPLICIT, ack_wait=4)
        )
        await asyncio.sleep(age_s)
        subscription = await jetstream.pull_subscribe_bind("c", "S")
        await subscription.fetch(1, timeout=1)
        taken_s = broker.world.loop.time()
        await asyncio.sleep(0.3)
        await broker.again(power=False, for_s=0.05)
        await asyncio.sleep(0.2)
        subscription = await (await broker.connect()).jetstream().pull_subscribe_bind("c", "S")
        (message,) = await subscription.fetch(1, timeout=8)
        return broker.world.loop.time() - taken_s, message.metadata.num_delivered

    after_s, attempt = with_broker(scene, Disk.of(Durability.FSYNC))
    assert attempt == 2
    assert least_s <= after_s <= most_s


def test_the_file_of_a_consumer_is_written_ten_times_a_second():
    changes = [Removed(at_ms * 1_000_000, 1) for at_ms in (0, 10, 90, 110, 190, 500, 505, 600)]

    def kept(at_ms, disk):
        return state_kept(changes, disk, Crash(at_ms * 1_000_000, power=False))

    always = Disk(sync_interval_s=0)
    assert [kept(at_ms, always) for at_ms in (0, 99, 100, 199, 200, 499, 501, 599, 600)] == [
        1, 1, 3, 3, 5, 5, 6, 6, 8,
    ]  # fmt: skip
    assert state_kept(changes, always, Crash(600_000_000, power=True)) == 8
    assert state_kept(changes, Disk.of(Durability.LAZY), Crash(600_000_000, power=True)) == 0


def test_a_store_is_first_synced_in_the_second_half_of_its_interval():
    disk, written = Disk(sync_interval_s=10), [Stored(1, "s", b"", b"")]
    firsts = []
    for seed in range(20):
        times = SyncTimes(disk, 0, random.Random(seed))
        first_s = next(at_s for at_s in range(20) if times.last_ns(at_s * 10**9))
        firsts.append(first_s)
        assert times.kept(written, Crash((first_s - 1) * 10**9, power=True)) == 0
        assert times.kept(written, Crash(first_s * 10**9, power=True)) == 1
    assert 5 <= min(firsts) < max(firsts) <= 10
