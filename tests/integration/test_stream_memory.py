"""What is remembered of a stream is what a whole look finds, whatever happened to the stream."""

import pytest

from hookbench.clock import SystemClock
from hookbench.queues import stream_memory
from hookbench.queues.jetstream import StreamSettings, ensure_stream
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.redis_list import RedisListQueue
from hookbench.queues.stream_memory import StreamMemory
from hookbench.rehearsal.survey import BrokerSurvey
from hookbench.task import encode_task

LIMIT = 10_000
SETTINGS = StreamSettings(storage="memory")


@pytest.fixture
async def stream(transport):
    await ensure_stream(transport, SETTINGS)
    yield transport
    await transport.jetstream.delete_stream(transport.names.stream)


@pytest.fixture
def put(stream, make_task):
    async def some(count):
        for _ in range(count):
            await stream.publish(stream.names.subject("sync"), encode_task(make_task()))

    return some


async def look(transport, memory, limit=LIMIT):
    info = await transport.jetstream.stream_info(transport.names.stream)
    return await memory.read(transport, info, limit=limit)


@pytest.fixture
def reads(monkeypatch):
    """How many entries each reading got."""
    found = []
    whole = stream_memory.read_windows

    async def counted(*arguments, **named):
        found.append(0)
        async for window in whole(*arguments, **named):
            found[-1] += len(window)
            yield window

    monkeypatch.setattr(stream_memory, "read_windows", counted)
    return found


async def check(stream, memory):
    entries = await look(stream, memory)
    assert entries == await look(stream, StreamMemory())
    return entries


async def test_only_what_is_new_is_read(stream, put, reads):
    memory = StreamMemory()
    assert await look(stream, memory) == []
    await put(20)
    first = await look(stream, memory)
    assert [item.sequence for item in first] == list(range(1, 21))
    assert all(item.task_id is not None and item.task_type == "sync" for item in first)
    await put(5)
    reads.clear()
    assert len(await look(stream, memory)) == 25
    assert reads == [6]  # the last one again, and what is new
    await check(stream, memory)


async def test_junk_is_an_entry_without_an_id(stream):
    await stream.publish(stream.names.subject("sync"), b"no task")
    ((_sequence, _type, task_id, stored_ns),) = await look(stream, StreamMemory())
    assert task_id is None
    assert stored_ns > 0


@pytest.mark.parametrize("gone", [[1, 2, 3], [10], [20], [10, 20], list(range(1, 21))])
async def test_what_is_removed_is_not_remembered(stream, put, gone):
    memory = StreamMemory()
    await put(20)
    await look(stream, memory)
    for sequence in gone:
        await stream.jetstream.delete_msg(stream.names.stream, sequence)
    entries = await check(stream, memory)
    assert [item.sequence for item in entries] == [n for n in range(1, 21) if n not in gone]
    await put(3)
    assert len(await check(stream, memory)) == 23 - len(gone)


@pytest.mark.parametrize("again", [5, 15, 20, 30])
async def test_other_entries_at_the_same_sequences(stream, put, again):
    """As after a power cut that took the end of the stream, or in another one of that name."""
    memory = StreamMemory()
    await put(20)
    await look(stream, memory)
    await stream.jetstream.delete_stream(stream.names.stream)
    await ensure_stream(stream, SETTINGS)
    await put(again)
    assert len(await check(stream, memory)) == again


async def test_a_limit(stream, put):
    memory = StreamMemory()
    await put(20)
    assert 7 <= len(await look(stream, memory, limit=7)) <= 20
    assert len(await look(stream, memory, limit=LIMIT)) == 20
    await check(stream, memory)


async def test_of_what_had_ended_a_survey_asks_no_more(
    stream, make_task, redis_broker, nats_broker
):
    """Until it is put once more, as a dead letter is: on NATS, or on Redis."""
    asked, ended = [], set()

    async def are_done(ids):
        asked.append(set(ids))
        return ended & set(ids)

    tasks = [make_task() for _ in range(4)]
    subject = stream.names.subject("sync")
    for task in tasks:
        await stream.publish(subject, encode_task(task))
    ids = [task.id for task in tasks]
    ended.update(ids[:3])
    survey = BrokerSurvey(
        redis_broker.url, nats_broker.url, stream.names, clock=SystemClock(), are_done=are_done
    )
    client = connect_redis(redis_broker.url)
    try:
        assert (await survey.look()).ended == set(ids[:3])
        assert asked.pop() == set(ids)
        assert (await survey.look()).ended == set(ids[:3])
        assert asked.pop() == {ids[3]}
        ended.clear()
        await stream.publish(subject, encode_task(tasks[0]))
        await RedisListQueue(client, names=stream.names, task_type="sync").put(
            encode_task(tasks[1])
        )
        assert (await survey.look()).ended == {ids[2]}
        assert asked.pop() == {ids[0], ids[1], ids[3]}
    finally:
        await client.delete(stream.names.pending_key("sync"))
        await client.aclose()
        await survey.close()
