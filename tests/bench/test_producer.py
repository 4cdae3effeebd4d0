"""The reference producer beside the bare clients on the same brokers.

Closed loop: a round is over when each of its sends is acknowledged. Tasks and, for the bare
clients, their bytes are made outside of the timed part.
"""

import asyncio
from typing import NamedTuple

import nats
import pytest
import redis.asyncio as redis_asyncio

from hookbench.migration.metrics import HookMetrics
from hookbench.migration.phases import Phase
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import StreamSettings
from hookbench.task import encode_task

AT_ONCE = 200
IN_TURN = 50
ROUNDS = 30
WARMUP_ROUNDS = 2
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
        marks=pytest.mark.benchmark(group=f"producer: {route}, {way}"),
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
def measure(benchmark, loop, make_task, payload):
    """Measure rounds of ``count`` sends; the answers of the last, and how many were sent in all."""

    def run(way, count, send, prepare):
        sent = 0

        def batch():
            nonlocal sent
            sent += count
            return ([prepare(make_task(payload=payload)) for _ in range(count)],), {}

        def send_all(items):
            return loop.run_until_complete(way(send, items))

        benchmark.extra_info["tasks_per_round"] = count
        answers = benchmark.pedantic(
            send_all, setup=batch, rounds=ROUNDS, warmup_rounds=WARMUP_ROUNDS
        )
        return answers, sent

    return run


@pytest.mark.parametrize(("route", "way", "count"), CASES)
def test_send(measure, loop, connections, stored, names, route, way, count):
    metrics = HookMetrics()
    service = loop.run_until_complete(
        open_service(PHASES[route], connections, names, metrics=metrics)
    )
    receipts, sent = measure(way, count, service.send, lambda task: task)
    assert stored() == wanted(route, sent)
    assert len(receipts) == count
    last = set(range(sent - count + 1, sent + 1))
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


@pytest.mark.parametrize(("route", "way", "count"), CASES)
def test_yardstick_bare_client(measure, bare, stored, names, route, way, count):
    key, subject = names.pending_key("sync"), names.subject("sync")
    publish = bare.nats.jetstream().publish

    async def lpush(data):
        return await bare.redis.lpush(key, data)

    async def publish_and_lpush(data):
        await publish(subject, data)
        return await bare.redis.lpush(key, data)

    async def publish_only(data):
        return await publish(subject, data)

    send = {"redis": lpush, "jetstream": publish_only, "both": publish_and_lpush}[route]
    answers, sent = measure(way, count, send, encode_task)
    assert len(answers) == count
    assert stored() == wanted(route, sent)
