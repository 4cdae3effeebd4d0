"""The reference producer beside the bare clients on the same brokers.

Closed loop: a round is over when each of its sends is acknowledged. Tasks and, for the bare
clients, their bytes are made outside of the timed part.
"""

import asyncio
import itertools
import uuid
from typing import NamedTuple

import nats
import pytest
import redis.asyncio as redis_asyncio
from nats.js.api import StreamConfig

from hookbench.migration.metrics import HookMetrics
from hookbench.migration.phases import Phase
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import StreamSettings
from hookbench.task import Names, encode_task
from tests.bench.conftest import TALKS

AT_ONCE = 200
IN_TURN = 10
ROUNDS = {AT_ONCE: 20, IN_TURN: 100}
PHASES = {"redis": Phase.REDIS_ONLY, "jetstream": Phase.NATS_ONLY, "both": Phase.DUAL_WRITE}


async def at_once(send, items):
    return await asyncio.gather(*map(send, items))


async def in_turn(send, items):
    return [await send(item) for item in items]


WAYS = {f"{AT_ONCE} at once": (at_once, AT_ONCE), f"{IN_TURN} in turn": (in_turn, IN_TURN)}
CASES = [
    pytest.param(
        route,
        *WAYS[way],
        id=f"{route}, {way}",
        marks=pytest.mark.benchmark(group=f"producer: {route}, {way}, beside the bare client"),
    )
    for route in PHASES
    for way in WAYS
]


class Bare(NamedTuple):
    redis: redis_asyncio.Redis
    nats: nats.NATS


@pytest.fixture(scope="session")
def redis_url(redis_broker):
    """A connection for each send in flight, on both sides: a plain pool refuses more than 100."""
    return f"{redis_broker.url}?max_connections={AT_ONCE + 1}"


@pytest.fixture
def connections(loop, redis_url, nats_broker, names, clock):
    """The reference's own; the stream is there, and gone afterwards."""
    opened = Connections(
        redis_url=redis_url,
        nats_url=nats_broker.url,
        names=names,
        clock=clock,
        stream=StreamSettings(storage="memory"),
    )
    transport = loop.run_until_complete(opened.nats())

    async def clean_up():
        await transport.jetstream.delete_stream(names.stream)
        await opened.redis().delete(names.pending_key("sync"))
        await opened.close()

    yield opened
    loop.run_until_complete(clean_up())


@pytest.fixture
def bare(loop, redis_url, nats_broker):
    """Each client as its own documentation opens it."""

    async def connect():
        return Bare(redis_asyncio.Redis.from_url(redis_url), await nats.connect(nats_broker.url))

    async def close():
        await clients.redis.aclose()
        await clients.nats.close()

    clients = loop.run_until_complete(connect())
    yield clients
    loop.run_until_complete(close())


@pytest.fixture
def stored(loop, connections, names):
    """How many tasks each broker holds."""

    async def count():
        length = await connections.redis().llen(names.pending_key("sync"))
        transport = await connections.nats()
        info = await transport.jetstream.stream_info(names.stream)
        return {"redis": length, "jetstream": info.state.messages}

    return lambda: loop.run_until_complete(count())


def wanted(route, count):
    return {name: count if route in (name, "both") else 0 for name in ("redis", "jetstream")}


@pytest.fixture
def bare_names():
    """The bare clients' own queue, which the reference does not see."""
    return Names.for_run(uuid.uuid4().hex[:12])


@pytest.fixture
def bare_send(loop, bare, bare_names):
    """The same writes by the bare clients, on a stream and a list of their own."""
    key, subject = bare_names.pending_key("sync"), bare_names.subject("sync")
    jetstream = bare.nats.jetstream()
    loop.run_until_complete(
        jetstream.add_stream(
            StreamConfig(name=bare_names.stream, subjects=[subject], storage="memory")
        )
    )

    async def lpush(data):
        return await bare.redis.lpush(key, data)

    async def publish_and_lpush(data):
        await jetstream.publish(subject, data)
        return await bare.redis.lpush(key, data)

    async def publish_only(data):
        return (await jetstream.publish(subject, data)).seq

    async def clean_up():
        await jetstream.delete_stream(bare_names.stream)
        await bare.redis.delete(key)

    yield {"redis": lpush, "jetstream": publish_only, "both": publish_and_lpush}
    loop.run_until_complete(clean_up())


@pytest.mark.parametrize(("route", "way", "count"), CASES)
def test_send(
    beside, loop, connections, bare_send, stored, names, make_task, payload, route, way, count
):
    metrics = HookMetrics()
    service = loop.run_until_complete(
        open_service(PHASES[route], connections, names, metrics=metrics)
    )
    rounds = itertools.count(1)
    sent = 0

    def batch():
        nonlocal sent
        sent = next(rounds) * count
        return ([make_task(payload=payload) for _ in range(count)],)

    receipts, answers = beside(
        lambda tasks: loop.run_until_complete(way(service.send, tasks)),
        lambda items: loop.run_until_complete(way(bare_send[route], items)),
        rounds=ROUNDS[count],
        least_effect=TALKS,
        prepare=batch,
        prepare_yardstick=lambda: (
            [encode_task(make_task(payload=payload)) for _ in range(count)],
        ),
    )
    assert stored() == wanted(route, sent)
    last = set(range(sent - count + 1, sent + 1))
    assert set(answers) == last
    assert len(receipts) == count
    numbers = {
        "jetstream": {receipt.sequence for receipt in receipts},
        "redis": {receipt.redis_length for receipt in receipts},
    }
    assert numbers == {
        name: last if written else {None} for name, written in wanted(route, sent).items()
    }
    counted = {
        "redis": metrics.value("hook_task_queued_total", "redis"),
        "jetstream": metrics.value("hook_task_queued_total", "nats"),
    }
    assert counted == wanted(route, sent)
