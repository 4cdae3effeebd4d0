"""A task from its put to its acknowledgement, on each queue and in each phase, one after another.

``test_round_trip`` is timed beside the bare clients; ``test_counts`` counts what one task costs,
which is the same in every run: it is what tells one more round trip.
"""

import contextlib
import itertools
import uuid

import pytest
import redis.asyncio as redis_asyncio

from hookbench.task import encode_task
from tests.bench.conftest import TALKS
from tests.bench.round_trips import WAYS, Bare, Reference, remove_names
from tests.evidence.turns import PRODUCER, WORKER, Meter

TASKS = 5
ROUNDS = 60
COUNTED = 50
WARM_UP = 10
TIMED = [
    pytest.param(
        name,
        id=name,
        marks=pytest.mark.benchmark(group=f"round trip: {name}, beside the bare client"),
    )
    for name in WAYS
]
OWN_COMMANDS = ("cmdstat_info",)
"""Redis' own count has those that ask for it."""


@pytest.fixture
def open_reference(loop, redis_broker, nats_broker, names, clock, make_task, payload):
    """A function that opens the reference on a way, until the test ends."""
    stack = contextlib.AsyncExitStack()

    def open_way(name):
        reference = Reference(WAYS[name], redis_broker.url, nats_broker.url, names, clock)
        reference.last_task = make_task(payload=payload)
        return loop.run_until_complete(stack.enter_async_context(reference.open()))

    yield open_way
    loop.run_until_complete(stack.aclose())
    loop.run_until_complete(remove_names(redis_broker.url, nats_broker.url, names))


@pytest.fixture
def open_bare(loop, redis_broker, nats_broker):
    """The same of the bare clients."""
    stack = contextlib.AsyncExitStack()
    opened = []

    def open_way(name):
        bare = Bare(WAYS[name], redis_broker.url, nats_broker.url, uuid.uuid4().hex[:12])
        opened.append(bare)
        return loop.run_until_complete(stack.enter_async_context(bare.open()))

    yield open_way
    loop.run_until_complete(stack.aclose())
    for bare in opened:
        loop.run_until_complete(remove_names(redis_broker.url, nats_broker.url, bare.names))


@pytest.mark.parametrize("name", TIMED)
def test_round_trip(beside, loop, open_reference, open_bare, make_task, payload, name):
    reference, bare = open_reference(name), open_bare(name)
    batches = itertools.count(1)
    sent = given = 0

    def batch():
        nonlocal sent
        sent = next(batches) * TASKS
        return ([make_task(payload=payload) for _ in range(TASKS)],)

    def payloads():
        nonlocal given
        given = [encode_task(make_task(payload=payload)) for _ in range(TASKS)]
        return (given,)

    _none, taken = beside(
        lambda tasks: loop.run_until_complete(reference.in_turn(tasks)),
        lambda items: loop.run_until_complete(bare.in_turn(items)),
        rounds=ROUNDS,
        least_effect=TALKS,
        prepare=batch,
        prepare_yardstick=payloads,
    )
    assert taken == given
    assert reference.ends.acknowledged == sent
    assert reference.ends.wrong == []


@pytest.fixture
def executed(loop, redis_broker):
    """How many commands Redis has executed, those of its scripts included."""

    async def ask():
        async with redis_asyncio.Redis.from_url(redis_broker.url) as client:
            stats = await client.info("commandstats")
        return sum(item["calls"] for name, item in stats.items() if name not in OWN_COMMANDS)

    return lambda: loop.run_until_complete(ask())


@pytest.mark.benchmark(group=f"counts per task: {COUNTED} tasks in turn")
@pytest.mark.parametrize("name", WAYS)
def test_counts(
    benchmark, loop, open_reference, note_counts, executed, make_task, payload, name,
    redis_broker, nats_broker,
):  # fmt: skip
    meter = Meter({redis_broker.port: "redis", nats_broker.port: "nats"})
    with meter.counting():
        reference = open_reference(name)

        def tasks(count):
            return [
                make_task(payload=payload, repo_id=f"repo-{number:03}") for number in range(count)
            ]

        loop.run_until_complete(reference.in_turn(tasks(WARM_UP)))
        own = executed()
        own = executed() - own  # what the asking itself costs: a connection of its own
        before = {role: meter.read(role) for role in (PRODUCER, WORKER)}
        commands = executed()
        items = tasks(COUNTED)
        benchmark.pedantic(lambda: loop.run_until_complete(reference.in_turn(items)), rounds=1)
        commands = executed() - commands - own
        both = [meter.read(role).less(before[role]) for role in before]
    total = both[0].plus(both[1]).per(COUNTED)
    note_counts(
        redis_turns=total.redis_turns,
        redis_commands=commands / COUNTED,
        nats_messages_out=total.nats_out,
        nats_messages_in=total.nats_in,
        wire_bytes=total.wire_bytes,
    )
    way = WAYS[name]
    assert reference.ends.acknowledged == WARM_UP + COUNTED
    assert (total.redis_turns > 0) == way.writes_redis
    assert (total.nats_out > 0) == way.writes_nats
