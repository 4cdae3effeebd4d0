"""A Redis that is full: what is in it can be taken out, and nothing more comes in (hazard R6)."""

import pytest
from redis.exceptions import OutOfMemoryError

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_redis
from hookbench.brokers.redis_memory import RedisMemory, check_redis_memory, read_redis_memory
from hookbench.brokers.resolve import resolve_redis
from hookbench.errors import (
    BrokerUnreachableError,
    BrokerUnsuitableError,
    PublishRefusedError,
    SettingError,
)
from hookbench.migration.measures import Measures
from hookbench.migration.phases import Phase
from hookbench.migration.preflight import check_brokers
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.redis_leased import RedisLeasedQueue
from hookbench.queues.redis_list import RedisListQueue
from hookbench.task import encode_task
from tests.contract.steps import SHORT_S, WAIT_S, attempt_of, is_empty, take

KINDS = {"list": RedisListQueue, "leased": RedisLeasedQueue}


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory):
    """Other tests must not find their server full."""
    broker = start_redis(
        resolve_redis(env={"PATH": ""}), tmp_path_factory.mktemp("full"), Durability.MEMORY
    )
    yield broker
    broker.stop()


@pytest.fixture
async def client(own_redis):
    client = connect_redis(own_redis.url)
    yield client
    await client.config_set("maxmemory", 0)
    await client.config_set("maxmemory-policy", "noeviction")
    await client.aclose()


def open_queue(kind, client, names, *, allow_oom=True):
    options = {"owner": "worker"} if kind == "leased" else {}
    if kind == "list":
        options = {"lrem_count": 1, "requeue_only_held": True}
    return KINDS[kind](client, names=names, allow_oom=allow_oom, **options)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_full_redis_is_drained_and_takes_nothing(kind, client, names, make_task):
    queue = open_queue(kind, client, names)
    for _ in range(10):
        await queue.put(encode_task(make_task()))
    await client.config_set("maxmemory", 1)
    with pytest.raises(PublishRefusedError, match="maxmemory"):
        await queue.put(encode_task(make_task()))
    again, *deliveries = await take(queue, 4)
    await again.nak()
    deliveries += await take(queue, 7)
    assert [attempt_of(delivery) for delivery in deliveries] == [1] * 9 + [2]
    for delivery in deliveries:
        await delivery.ack()
    assert await queue.receive(1, SHORT_S) == []
    assert await is_empty(queue)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_read_that_waits_at_maxmemory_goes_on_with_room(kind, client, names):
    queue = open_queue(kind, client, names)
    await client.config_set("maxmemory", 1)
    assert await queue.receive(1, SHORT_S) == []
    await client.config_set("maxmemory", 0)
    await queue.put(b"x")
    (delivery,) = await queue.receive(1, WAIT_S)
    await delivery.ack()


@pytest.mark.parametrize("kind", KINDS)
async def test_without_the_flag_a_full_redis_cannot_be_drained(kind, client, names):
    queue = open_queue(kind, client, names, allow_oom=False)
    await queue.put(b"x")
    await client.config_set("maxmemory", 1)
    with pytest.raises(BrokerUnreachableError, match="maxmemory"):
        await queue.receive(1, SHORT_S)


async def test_what_a_dead_worker_had_is_put_back_at_maxmemory(client, names):
    dead = RedisLeasedQueue(client, owner="dead", names=names, lease_s=0.1, allow_oom=True)
    living = RedisLeasedQueue(client, owner="living", names=names, allow_oom=True)
    await dead.put(b"x")
    await take(dead, 1)
    await living.tend()
    await client.zadd(living._lease.key, {dead.owner: 1})
    await client.config_set("maxmemory", 1)
    living._lease.make_due()
    await living.tend()
    (delivery,) = await take(living, 1)
    assert delivery.attempt == 2
    await delivery.ack()


async def test_lmove_is_refused_there(client, names):
    """Else none of this were needed."""
    await client.lpush(names.pending_key("sync"), b"x")
    await client.config_set("maxmemory", 1)
    with pytest.raises(OutOfMemoryError):
        await client.lmove(names.pending_key("sync"), names.work_key("sync"), "RIGHT", "LEFT")


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-ttl"])
async def test_nobody_starts_on_a_redis_that_evicts(policy, own_redis, client, names, clock):
    measures = Measures(oom_claims=True)
    where = {"redis_url": own_redis.url, "nats_url": None}
    await check_brokers(Phase.REDIS_ONLY, **where, measures=measures)
    await client.config_set("maxmemory-policy", policy)
    await check_brokers(Phase.REDIS_ONLY, **where)  # the guide does not look
    with pytest.raises(BrokerUnsuitableError, match=f"{policy}.*set maxmemory-policy noeviction"):
        await check_brokers(Phase.REDIS_ONLY, **where, measures=measures)
    connections = Connections(**where, names=names, clock=clock)
    try:
        await open_service(Phase.REDIS_ONLY, connections, names)
        with pytest.raises(BrokerUnsuitableError, match=policy):
            await open_service(Phase.REDIS_ONLY, connections, names, measures=measures)
    finally:
        await connections.close()


async def test_a_producer_starts_without_an_answer(names, clock):
    connections = Connections(
        redis_url="redis://127.0.0.1:1", nats_url=None, names=names, clock=clock
    )
    await open_service(Phase.REDIS_ONLY, connections, names, measures=Measures(oom_claims=True))
    with pytest.raises(BrokerUnreachableError, match="how full"):
        await read_redis_memory("redis://127.0.0.1:1")


def memory(**changes):
    values = {
        "url": "redis://there",
        "version": "8.2.3",
        "policy": "noeviction",
        "used_bytes": 95,
        "maxmemory_bytes": 100,
    }
    return RedisMemory(**(values | changes))


async def test_a_redis_without_script_flags_is_refused(monkeypatch):
    found = [memory(version="6.2.14")]

    async def read(_url, **_options):
        return found

    monkeypatch.setattr("hookbench.brokers.redis_memory.read_redis_memory", read)
    with pytest.raises(BrokerUnsuitableError, match=r"6\.2\.14.*oom_claims off"):
        await check_redis_memory("redis://there")
    found[:] = [memory(version="7.0.15")]
    await check_redis_memory("redis://there")


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({}, "95 of 100 bytes"),
        ({"used_bytes": 90}, ""),
        ({"used_bytes": 200, "maxmemory_bytes": 0}, ""),
        ({"policy": "allkeys-lfu", "maxmemory_bytes": 0}, "evicts"),
    ],
)
def test_what_is_told_of_memory(changes, warning):
    told = memory(**changes).warning
    assert warning in told
    assert bool(told) == bool(warning)


async def test_an_empty_url_is_a_setting(names, clock):
    connections = Connections(redis_url=None, nats_url=None, names=names, clock=clock)
    assert connections.redis_replicas == 0
    with pytest.raises(SettingError, match="--redis-url"):
        assert connections.redis_url
