"""Connections that only read: they answer as the others do, and refuse to write."""

import contextlib

import pytest

from hookbench.brokers.durability import Durability
from hookbench.errors import WriteRefusedError
from hookbench.queues.authority import DoneRecord
from hookbench.queues.jetstream import StreamSettings, ensure_stream
from hookbench.queues.reading import (
    connect_reading_nats,
    connect_reading_redis,
    is_reading_subject,
)
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.redis_done_store import RedisDoneStore
from hookbench.queues.redis_lists import RedisLists
from hookbench.queues.stream_sample import sample_stream
from hookbench.queues.stream_windows import read_windows
from hookbench.task import encode_task
from tests.integration.topologies import opened


@pytest.fixture
async def reading(redis_broker):
    client = connect_reading_redis(redis_broker.url)
    yield client
    await client.aclose()


@pytest.fixture
async def reading_nats(nats_broker, names, clock):
    async with await connect_reading_nats(nats_broker.url, names=names, clock=clock) as opened:
        yield opened


async def test_redis_is_not_written(reading, names):
    key = names.pending_key("sync")
    with pytest.raises(WriteRefusedError, match="LPUSH"):
        await reading.lpush(key, b"x")
    with pytest.raises(WriteRefusedError, match="PIPELINE"):
        reading.pipeline()
    with pytest.raises(WriteRefusedError, match="script"):
        await reading.eval("return redis.call('DEL', KEYS[1])", 1, key)
    assert await reading.llen(key) == 0


async def check_records(writing, reading, names, make_task):
    store = RedisDoneStore(writing, names=names, retention_s=60.0)
    tasks = [make_task() for _ in range(5)]
    for number, task in enumerate(tasks[:3], 1):
        await store.put_record(DoneRecord(task_id=task.id, token=number, done=True))
    seen = RedisDoneStore(reading, names=names, retention_s=60.0)
    ids = [task.id for task in tasks]
    assert await seen.are_done(ids) == await store.are_done(ids) == set(ids[:3])
    assert await seen.are_done([]) == set()
    assert await seen.log_end() == await store.log_end()
    place = await store.log_end()
    await store.put_record(DoneRecord(task_id=ids[3], token=9, done=True))
    one, other = await seen.changes_after(place), await store.changes_after(place)
    assert one.end == other.end
    assert one.ages_s.keys() == other.ages_s.keys() == {ids[3]}
    assert [part async for part in seen.records()] == [part async for part in store.records()]
    assert await seen.read_mark() == await store.read_mark()
    with pytest.raises(WriteRefusedError):
        await seen.put_record(DoneRecord(task_id=ids[4], token=9, done=True))
    lists = [RedisLists(client, names) for client in (writing, reading)]
    found = [await item.memory() for item in lists]
    assert found[0].policy == found[1].policy
    assert found[0].used_bytes == pytest.approx(found[1].used_bytes, rel=0.2)


async def test_the_done_store_is_read_without_a_script(redis_client, reading, names, make_task):
    await check_records(redis_client, reading, names, make_task)


async def test_a_cluster_likewise(tmp_path, names, make_task):
    async with opened("redis_cluster", tmp_path, Durability.MEMORY) as topology:
        url = topology.redis_url
        clients = [connect(url) for connect in (connect_redis, connect_reading_redis)]
        try:
            await check_records(*clients, names, make_task)
        finally:
            for client in clients:
                await client.aclose()


async def collected(*arguments, **options):
    reading = read_windows(*arguments, **options)
    async with contextlib.aclosing(reading):
        # Either way a time is a float on its way here, and known to the microsecond.
        found = [item async for window in reading for item in window]
        return [item._replace(stored_ns=round(item.stored_ns, -5)) for item in found]


@pytest.mark.parametrize("removed", [(), (1, 4), (2, 3, 4, 5, 6, 7)])
async def test_a_stream_reads_the_same_without_a_consumer(
    transport, reading_nats, names, make_task, removed
):
    await ensure_stream(transport, StreamSettings(storage="memory"))
    for number in range(8):
        kind = "gc" if number % 3 == 2 else "sync"
        await transport.publish(names.subject(kind), encode_task(make_task(task_type=kind)))
    for sequence in removed:
        await transport.jetstream.delete_msg(names.stream, sequence)
    for options in (
        {},
        {"first_sequence": 3},
        {"window": 2},
        {"subject": names.subject("gc")},
        {"first_sequence": 20},
    ):
        by_gets = await collected(reading_nats, names.stream, **options)
        assert by_gets == await collected(transport, names.stream, **options), options
    assert len(await collected(reading_nats, names.stream)) == 8 - len(removed)
    assert await collected(reading_nats, "NO_SUCH") == []
    assert await transport.jetstream.consumers_info(names.stream) == []


async def test_of_a_stream_both_ends_are_read_and_what_lies_before_a_task(
    transport, reading_nats, names, make_task
):
    await ensure_stream(transport, StreamSettings(storage="memory"))
    tasks = [make_task() for _ in range(40)]
    for task in tasks:
        await transport.publish(names.subject("sync"), encode_task(task))
    info = await transport.jetstream.stream_info(names.stream)

    async def read(*places, beyond=()):
        wanted = {tasks[place].id for place in places}
        found = await sample_stream(reading_nats, info, count=3, beyond=beyond, wanted=wanted)
        assert {entry.task_id for entry in found} >= wanted
        return [entry.sequence for entry in found]

    ends = [1, 2, 3, 38, 39, 40]
    assert await read() == ends
    assert await read(1, 38) == ends  # they are among what is read anyway
    assert await read(7) == [*range(1, 9), *ends[3:]]
    assert await read(4, 7, beyond=[19]) == [*range(1, 9), 20, 21, 22, *ends[3:]]


async def test_nats_is_not_written(reading_nats, names):
    with pytest.raises(WriteRefusedError, match=names.subject("sync")):
        await reading_nats.publish(names.subject("sync"), b"x")
    with pytest.raises(WriteRefusedError, match=r"STREAM\.CREATE"):
        await reading_nats.jetstream.add_stream(name="X", subjects=["x"])
    with pytest.raises(WriteRefusedError, match="x"):
        await reading_nats.client.publish("x", b"")
    with pytest.raises(WriteRefusedError, match="CONSUMER"):
        await reading_nats.jetstream.pull_subscribe("x", durable="d", stream=names.stream)


def test_questions_and_orders():
    for subject in ("$JS.API.STREAM.INFO.A", "$JS.API.INFO", "$JS.hub.API.CONSUMER.LIST.A"):
        assert is_reading_subject(subject)
    for subject in (
        "$JS.API.STREAM.MSG.DELETE.A",
        "$JS.API.STREAM.PURGE.A",
        "$JS.API.CONSUMER.MSG.NEXT.A.d",
        "$JS.API.CONSUMER.DURABLE.CREATE.A.d",
        "$JS.ACK.A",
        "$KV.A.b",
        "$JS.API.INFORM",
        "x.$JS.API.INFO",
    ):
        assert not is_reading_subject(subject)
