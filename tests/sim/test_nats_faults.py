"""What JetStream does over time, and what a lost answer or a silent server does to nats-py."""

import asyncio
import random

import pytest

from hookbench.errors import BrokerUnreachableError, PublishUnavailableError, PublishUnknownError
from hookbench.queues.advisories import ensure_advisory_stream, read_advisories
from hookbench.queues.jetstream import (
    ConsumerSettings,
    JetStreamQueue,
    StreamSettings,
    ensure_consumer,
    ensure_stream,
)
from hookbench.queues.nats_measures import NatsMeasures
from hookbench.sim.connection import Direction
from hookbench.sim.dialer import SimulatedDialer
from hookbench.sim.simulate import simulate
from hookbench.sim.wire_rules import WireAction, WireRule
from tests.conftest import eventually
from tests.sim.world import World

SUBJECT = "queue.hook.sync"


def with_stream(scene, *, stream=None, consumer=None, measures=None):
    """Run a scene with a broker, and a transport whose stream and consumer exist."""

    async def main(_loop):
        world = World()
        broker = world.start_nats()
        dialer = SimulatedDialer(world.network, "client", random.Random(7))
        transport = await dialer.nats(
            broker.url, clock=world.clock, measures=measures or NatsMeasures()
        )
        settings = StreamSettings(**(stream or {}))
        await ensure_stream(transport, settings)
        await ensure_advisory_stream(transport, settings)
        await ensure_consumer(transport, ConsumerSettings(**(consumer or {})))
        link = world.network.link("client", broker.url.partition("://")[2])
        try:
            return await scene(world, broker, transport, link)
        finally:
            await transport.close()

    return simulate(main)


def test_the_duplicate_window_forgets():
    """Hazard N2."""

    async def scene(_world, _broker, transport, _link):
        acks = []
        for pause_s in (0.0, 9.0, 2.0):
            await asyncio.sleep(pause_s)
            acks.append(await transport.publish(SUBJECT, b"{}", msg_id="one"))
        return [(ack.sequence, ack.duplicate) for ack in acks]

    assert with_stream(scene, stream={"duplicate_window_s": 10.0}) == [
        (1, False),
        (1, True),
        (2, False),
    ]


def test_what_is_too_old_is_gone_also_for_the_consumer():
    """Hazard P7."""

    async def scene(_world, _broker, transport, _link):
        queue = JetStreamQueue(transport)
        await queue.put(b"old")
        await asyncio.sleep(4)
        await queue.put(b"new")
        await asyncio.sleep(1.5)
        info = await transport.jetstream.stream_info(transport.names.stream)
        taken = [delivery.payload for delivery in await queue.receive(5, 1.0)]
        return taken, info.state.messages, info.state.first_seq

    stream = {"max_age_s": 5.0, "duplicate_window_s": 5.0}
    assert with_stream(scene, stream=stream) == ([b"new"], 1, 2)


def test_a_lost_acknowledgement_of_a_publish_is_unknown_and_stored():
    """Hazard P4."""

    async def scene(_world, _broker, transport, link):
        link.rules.append(
            WireRule(
                WireAction.LOSE, Direction.TO_CLIENT, matches=lambda frame: b'"seq":1' in frame
            )
        )
        with pytest.raises(PublishUnknownError):
            await transport.publish(SUBJECT, b"{}", msg_id="one")
        again = await transport.publish(SUBJECT, b"{}", msg_id="one")
        return again.sequence, again.duplicate

    assert with_stream(scene) == (1, True)


def test_max_deliver_gives_a_task_up_and_says_so_when_a_later_pull_comes():
    """Hazard N3."""

    async def scene(_world, _broker, transport, _link):
        queue = JetStreamQueue(transport)
        await queue.put(b"{}")
        attempts = [(await queue.receive(1, 10.0))[0].attempt for _ in range(2)]
        await asyncio.sleep(20)
        before = await read_advisories(transport)
        assert await queue.receive(1, 5.0) == []
        (told,) = (await read_advisories(transport))[1]
        info = await transport.jetstream.stream_info(transport.names.stream)
        depth = await queue.depth()
        return attempts, before, told.deliveries, info.state.messages, depth.in_flight

    found = with_stream(scene, consumer={"ack_wait_s": 2.0, "max_deliver": 2})
    assert found == ([1, 2], {}, 2, 1, 0)


@pytest.mark.parametrize(("short_pings", "least_s", "most_s"), [(True, 4, 9), (False, 240, 490)])
def test_a_stopped_server_is_given_up_after_some_pings(short_pings, least_s, most_s):
    """Hazard N9."""

    async def scene(world, broker, transport, _link):
        broker.pause()
        begun = world.loop.time()
        await eventually(lambda: not transport.client.is_connected, timeout_s=1000)
        gone_s = world.loop.time() - begun
        with pytest.raises(PublishUnavailableError, match="not connected"):
            await transport.publish(SUBJECT, b"{}")
        broker.resume()
        await eventually(lambda: transport.client.is_connected)
        assert (await transport.publish(SUBJECT, b"{}")).sequence == 1
        return gone_s

    gone_s = with_stream(scene, measures=NatsMeasures(short_pings=short_pings))
    assert least_s <= gone_s <= most_s


def test_a_restarted_server_has_its_streams_on_disk_and_none_in_memory():
    async def scene(_world, broker, transport, _link):
        await transport.publish(SUBJECT, b"{}")
        broker.kill()
        await asyncio.sleep(2)
        with pytest.raises((PublishUnavailableError, BrokerUnreachableError)):
            await transport.publish(SUBJECT, b"{}")
        broker.restart()
        await asyncio.sleep(2)
        try:
            return (await transport.publish(SUBJECT, b"{}")).sequence
        except PublishUnavailableError as error:
            return str(error)

    assert with_stream(scene, stream={"storage": "file"}) == 2
    assert "no stream takes" in with_stream(scene, stream={"storage": "memory"})
