"""The Redis copies of what NATS has done, on a real Redis."""

import random

import pytest

from hookbench.errors import BrokerUnreachableError
from hookbench.migration.measures import Measures
from hookbench.migration.phases import Phase
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import StreamSettings
from hookbench.queues.redis_client import connect_redis
from hookbench.task import encode_task
from hookbench.worker import trimming
from hookbench.worker.limits import WorkerTotals
from hookbench.worker.measures import MeasuredParts, MeasureSettings
from hookbench.worker.trimming import Trimmer
from tests.conftest import eventually


class Counting:
    """A client whose pipelines and questions are counted, and fail while they are told to."""

    def __init__(self, client):
        self.client = client
        self.trips = self.questions = 0
        self.away = False

    async def llen(self, key):
        self.questions += 1
        if self.away:
            raise BrokerUnreachableError("away")
        return await self.client.llen(key)

    def pipeline(self, transaction):
        self.trips += 1
        if self.away:
            return Away()
        return self.client.pipeline(transaction=transaction)


class Away:
    def lrem(self, *_arguments):
        pass

    async def execute(self):
        raise BrokerUnreachableError("away")


@pytest.fixture
async def client(redis_broker):
    client = connect_redis(redis_broker.url)
    yield Counting(client)
    await client.aclose()


@pytest.fixture
def key(names):
    return names.pending_key("sync")


@pytest.fixture
async def trimmer(client, names, clock):
    trimmer = Trimmer(client, names=names, task_type="sync", clock=clock)
    yield trimmer
    await trimmer.close()
    await client.client.delete(names.pending_key("sync"))


async def test_copies_are_removed_by_their_bytes_and_in_batches(trimmer, client, key, make_task):
    payloads = [encode_task(make_task()) for _ in range(300)]
    await client.client.lpush(key, *payloads)
    for payload in payloads[:280]:
        trimmer.trim(payload)
    await eventually(lambda: trimmer.trimmed == 280)
    assert await client.client.lrange(key, 0, -1) == payloads[280:][::-1]
    assert client.trips <= 5
    assert trimmer.missed == 0


async def test_of_two_equal_copies_the_older_goes(trimmer, client, key, make_task):
    first, second = (encode_task(make_task()) for _ in range(2))
    await client.client.lpush(key, first, second, first)
    trimmer.trim(first)
    await eventually(lambda: trimmer.trimmed == 1)
    assert await client.client.lrange(key, 0, -1) == [first, second]


async def test_a_copy_that_comes_after_the_look_is_found_by_a_later_one(
    trimmer, client, key, make_task
):
    """The producer writes NATS first: the worker may be faster than the second write."""
    payload = encode_task(make_task())
    trimmer.trim(payload)
    await eventually(lambda: client.trips)
    await client.client.lpush(key, payload)
    await eventually(lambda: trimmer.trimmed == 1)
    assert await client.client.llen(key) == 0


async def test_what_is_waited_for_is_removed_before_a_stop(trimmer, client, key, make_task):
    payloads = [encode_task(make_task()) for _ in range(10)]
    for payload in payloads:
        trimmer.trim(payload)
    await client.client.lpush(key, *payloads)
    await trimmer.close()
    assert (trimmer.trimmed, trimmer.missed) == (10, 0)
    assert await client.client.llen(key) == 0


async def test_where_redis_is_known_to_be_empty_nothing_is_looked_for_once_more(
    trimmer, client, make_task
):
    trimmer.trim(encode_task(make_task()))
    await eventually(lambda: client.trips)
    await trimmer.close(look=False)
    assert (trimmer.trimmed, trimmer.missed) == (0, 1)
    assert client.trips <= 2, "what was under way, and no look after it"


async def test_a_worker_that_comes_back_to_redis_removes_copies_again(
    redis_broker, nats_broker, client, names, key, make_task, clock
):
    """From nats_only; else they pile up there for as long as it lives."""
    payloads = [encode_task(make_task()) for _ in range(2)]
    connections = Connections(
        redis_url=redis_broker.url, nats_url=nats_broker.url, names=names, clock=clock
    )
    parts = MeasuredParts(
        Measures(trim=True, gates=True),
        MeasureSettings(),
        connections,
        names=names,
        task_type="sync",
        stream=StreamSettings(storage="memory"),
        ack_wait_s=5.0,
        clock=clock,
        entropy=random.Random(1),
    )
    totals = WorkerTotals()
    try:
        for payload in payloads:
            trim = (await parts.of(Phase.DUAL_READ, has_redis=True)).trim
            await client.client.lpush(key, payload)
            trim(payload)

            async def removed():
                return await client.client.llen(key) == 0

            await eventually(removed)
            assert (await parts.of(Phase.NATS_ONLY, has_redis=True)).trim is None
    finally:
        await parts.close()
        await connections.close()
    parts.count(totals)
    assert (totals.trimmed, totals.untrimmed) == (2, 0)


async def test_a_copy_that_never_comes_is_given_up_and_counted(
    trimmer, client, make_task, monkeypatch
):
    monkeypatch.setattr(trimming, "_LOOK_AGAIN_S", (0.01, 0.02, 0.03))
    trimmer.trim(encode_task(make_task()))
    await eventually(lambda: trimmer.missed == 1)
    assert (trimmer.trimmed, client.trips, client.questions) == (0, 1, 3)


async def test_a_copy_that_comes_late_is_found_among_others(
    trimmer, client, key, make_task, monkeypatch
):
    """After a look that found nothing it is asked first whether there is anything."""
    monkeypatch.setattr(trimming, "_LOOK_AGAIN_S", (0.01,) * 500)
    payload, other = (encode_task(make_task()) for _ in range(2))
    trimmer.trim(payload)
    await eventually(lambda: client.questions)
    await client.client.lpush(key, other)
    before = client.trips
    await eventually(lambda: client.trips > before + 1)
    await client.client.lpush(key, payload)
    await eventually(lambda: trimmer.trimmed == 1)
    assert await client.client.lrange(key, 0, -1) == [other]


async def test_nothing_is_given_up_while_redis_is_away(
    trimmer, client, key, make_task, monkeypatch
):
    monkeypatch.setattr(trimming, "_AWAY_PAUSE_S", 0.01)
    payload = encode_task(make_task())
    await client.client.lpush(key, payload)
    client.away = True
    trimmer.trim(payload)
    await eventually(lambda: client.trips > 5)
    client.away = False
    await eventually(lambda: trimmer.trimmed == 1)
    assert await client.client.llen(key) == 0
