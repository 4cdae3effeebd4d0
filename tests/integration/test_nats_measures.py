"""Confirmed acknowledgements, types, slots and advisories on a real NATS."""

import asyncio
import json
import subprocess
import sys
import uuid

import pytest

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats
from hookbench.brokers.resolve import resolve_nats
from hookbench.errors import BrokerUnreachableError, BrokerUnsuitableError
from hookbench.ledger.events import Broker
from hookbench.queues.advisories import ensure_advisory_stream, read_advisories
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import (
    ConsumerSettings,
    StreamSettings,
    ensure_consumer,
    ensure_dead_stream,
    ensure_stream,
)
from hookbench.queues.nats_measures import NatsMeasures
from hookbench.queues.sized_pending import SlotBook, pending_for
from hookbench.queues.stream_windows import read_windows
from hookbench.queues.task_types import types_in_redis, types_in_stream, types_without_consumer
from hookbench.queues.transport import AppTransport
from hookbench.task import encode_task
from hookbench.worker.dead_letters import DeadLetter, NatsDeadLetters
from hookbench.worker.scan import OpenState, scan_stream
from tests.conftest import eventually
from tests.fake_done_store import FakeDoneStore

STREAM = StreamSettings(storage="memory")


@pytest.fixture
async def hook_queue(transport, names):
    await ensure_stream(transport, STREAM)
    await ensure_dead_stream(transport, storage="memory")
    yield transport
    found = {info.config.name for info in await transport.jetstream.streams_info()}
    for stream in found & set(names.streams):
        await transport.jetstream.delete_stream(stream)


@pytest.fixture
async def put(hook_queue, make_task):
    async def put_tasks(count, **changes):
        tasks = [make_task(**changes) for _ in range(count)]
        for task in tasks:
            subject = hook_queue.names.subject(task.task_type)
            await hook_queue.publish(subject, encode_task(task))
        return tasks

    return put_tasks


def opened(nats_broker, names, clock, redis_url=None, **measures):
    return Connections(
        redis_url=redis_url,
        nats_url=nats_broker.url,
        names=names,
        clock=clock,
        stream=STREAM,
        measures=NatsMeasures(**measures),
    )


async def in_flight(transport, durable):
    info = await transport.jetstream.consumer_info(transport.names.stream, durable)
    return info.num_ack_pending


async def test_what_is_confirmed_is_acknowledged(hook_queue, put, nats_broker, names):
    await put(300)
    await ensure_consumer(hook_queue, ConsumerSettings(max_ack_pending=1000))
    measures = NatsMeasures(confirmed_acks=True)
    async with await AppTransport.connect(nats_broker.url, names=names, measures=measures) as own:
        messages = []
        while len(messages) < 300:
            messages += await own.pull(names.subject("sync"), 300, 1.0)
        assert await in_flight(hook_queue, names.consumer) == 300
        before = own.client._subs.keys()
        confirmed = [await message.send_ack() for message in messages]
        assert len(own.client._subs) <= len(before) + 1
        async with asyncio.timeout(20):
            await asyncio.gather(*confirmed)
        assert await in_flight(hook_queue, names.consumer) == 0


async def test_an_ack_that_the_server_never_got_is_not_confirmed(
    hook_queue, put, nats_broker, names
):
    await put(1)
    await ensure_consumer(hook_queue)
    measures = NatsMeasures(confirmed_acks=True)
    async with await AppTransport.connect(nats_broker.url, names=names, measures=measures) as own:
        (message,) = await own.pull(names.subject("sync"), 1, 1.0)
        await hook_queue.jetstream.delete_consumer(names.stream, names.consumer)
        confirmed = await message.send_ack()
    with pytest.raises(BrokerUnreachableError, match="closed before"):
        await confirmed


async def test_each_type_has_its_own_consumer(hook_queue, put, nats_broker, names, clock):
    (sync,), (fsck,) = await put(1), await put(1, task_type="fsck")
    assert await types_in_stream(hook_queue) == {"sync": 1, "fsck": 1}
    connections = opened(nats_broker, names, clock, consumer_per_type=True)
    try:
        own = await connections.nats_for_reading("sync")
        assert await types_without_consumer(hook_queue) == {"fsck": 1}
        await connections.nats_for_reading("fsck")
        assert await types_without_consumer(hook_queue) == {}
        for task in (sync, fsck):
            (message,) = await own.pull(names.subject(task.task_type), 5, 1.0)
            assert message.payload == encode_task(task)
    finally:
        await connections.close()
    found = {info.name for info in await hook_queue.jetstream.consumers_info(names.stream)}
    assert found == {"hook-sync-worker", "hook-fsck-worker"}


async def test_types_that_only_redis_has_need_a_consumer_too(
    hook_queue, redis_broker, redis_client, names
):
    await redis_client.lpush(names.pending_key("gc"), b"x", b"y")
    await redis_client.lpush(names.work_key("sync"), b"x")
    await redis_client.lpush(names.dead_key("sync"), b"x")
    try:
        assert await types_in_redis(redis_broker.url, names) == {"gc": 2}
        assert await types_without_consumer(hook_queue, redis_broker.url) == {"gc": 2}
    finally:
        keys = (names.pending_key("gc"), names.work_key("sync"), names.dead_key("sync"))
        await redis_client.delete(*keys)


@pytest.mark.parametrize(
    ("slots", "floor", "pending"),
    [(0, 100, 100), (80, 100, 100), (100, 100, 125), (101, 1, 127), (10**6, 100, 100_000)],
)
def test_pending_is_the_slots_with_headroom(slots, floor, pending):
    assert pending_for(slots, floor=floor) == pending


def slot_book(transport, clock, slots, **settings):
    return SlotBook(
        transport,
        ConsumerSettings(**settings),
        STREAM,
        worker=uuid.uuid4().hex,
        slots=slots,
        clock=clock,
    )


async def test_max_ack_pending_follows_the_announced_slots(hook_queue, put, names, clock):
    await put(2)
    await ensure_consumer(hook_queue)
    (message, *_) = await hook_queue.pull(names.subject("sync"), 1, 1.0)
    assert await slot_book(hook_queue, clock, 64).adjust() == 100
    assert await slot_book(hook_queue, clock, 100).adjust() == 205
    assert await slot_book(hook_queue, clock, 64).adjust() == 285
    info = await hook_queue.jetstream.consumer_info(names.stream, names.consumer)
    assert info.config.max_ack_pending == 285
    assert info.config.max_deliver == 3
    assert (info.delivered.stream_seq, info.num_ack_pending) == (1, 1)  # it is the same consumer
    await message.ack()


async def test_it_shrinks_when_workers_are_gone(hook_queue, names, clock):
    await ensure_consumer(hook_queue)
    await slot_book(hook_queue, clock, 1000).adjust()
    await hook_queue.jetstream.purge_stream(names.workers_stream)
    assert await slot_book(hook_queue, clock, 501).adjust() == 1250  # not yet twice too much
    await hook_queue.jetstream.purge_stream(names.workers_stream)
    assert await slot_book(hook_queue, clock, 200).adjust() == 250


async def test_a_deleted_consumer_is_not_made_anew_by_its_bound(
    hook_queue, names, clock, monkeypatch
):
    await ensure_consumer(hook_queue)
    ask = SlotBook._ask

    async def delete_in_between(self, request, body=None):
        answer = await ask(self, request, body)
        if body is None:
            await hook_queue.jetstream.delete_consumer(names.stream, names.consumer)
        return answer

    monkeypatch.setattr(SlotBook, "_ask", delete_in_between)
    with pytest.raises(BrokerUnsuitableError, match="consumer does not exist"):
        await slot_book(hook_queue, clock, 1000).adjust()
    assert await hook_queue.jetstream.consumers_info(names.stream) == []


@pytest.mark.usefixtures("hook_queue")
async def test_the_settings_of_a_sized_consumer_are_no_drift(nats_broker, names, clock):
    for _ in range(2):
        connections = opened(nats_broker, names, clock, consumer_per_type=True, sized_pending=True)
        try:
            own = await connections.nats_for_reading("sync")
            await slot_book(own, clock, 200).adjust()
        finally:
            await connections.close()


async def given_up(transport, put, names):
    """Three tasks that were delivered once too often, and one that is waiting."""
    tasks = await put(4)
    settings = ConsumerSettings(ack_wait_s=0.2, max_deliver=1)
    await ensure_consumer(transport, settings)
    got = []
    while len(got) < 3:
        got += await transport.pull(names.subject("sync"), 3 - len(got), 1.0)
    return tasks, got


async def test_advisories_are_kept_and_the_scan_lists_what_was_given_up(
    hook_queue, put, names, clock
):
    await ensure_advisory_stream(hook_queue, STREAM)
    tasks, _got = await given_up(hook_queue, put, names)

    async def captured():
        # The server looks at what is overdue when somebody pulls.
        for message in await hook_queue.pull(names.subject("sync"), 1, 0.1):
            await message.ack()
        return len(await read_advisories(hook_queue)) == 3

    await eventually(captured)
    (first, *_), *_ = (await read_advisories(hook_queue)).values()
    assert (first.kind, first.consumer, first.deliveries) == ("MAX_DELIVERIES", names.consumer, 1)

    alone = await scan_stream(hook_queue, done=None, clock=clock)
    assert alone.open == {OpenState.GIVEN_UP: 3}
    assert [item.task_id for item in alone.examples] == [task.id for task in tasks[:3]]
    assert not alone.done_known

    store = FakeDoneStore([tasks[0].id])
    letter = DeadLetter.of(
        encode_task(tasks[1]),
        task_type="sync",
        reason="x",
        broker=Broker.NATS,
        attempts=1,
        died_at_ns=0,
    )
    await NatsDeadLetters(hook_queue).bury(letter)
    report = await scan_stream(hook_queue, done=store, clock=clock, window=2)
    assert (report.tasks, report.done, report.dead, report.advisories) == (4, 1, 1, 3)
    # The fourth was acknowledged, and nobody says that it is done.
    assert report.open_count == 2
    states = {item.task_id: item.state for item in report.examples}
    assert states[tasks[2].id] is OpenState.GIVEN_UP
    assert states[tasks[3].id] in (OpenState.ACKNOWLEDGED, OpenState.IN_HAND)
    assert max(store.asked) <= 2


@pytest.mark.parametrize("kept", [True, False])
async def test_who_reads_has_advisories_kept_by_that_measure(nats_broker, names, clock, kept):
    connections = opened(nats_broker, names, clock, advisories=kept)
    try:
        transport = await connections.nats()
        await ensure_stream(transport, STREAM)
        await connections.nats_for_reading("sync")
        streams = {item.config.name for item in await transport.jetstream.streams_info()}
        assert (names.advisories_stream in streams) is kept
    finally:
        await connections.close()


async def test_a_scan_counts_what_was_not_read_and_what_is_no_task(hook_queue, put, names, clock):
    await ensure_consumer(hook_queue)
    await put(2)
    await hook_queue.publish(names.subject("sync"), b"junk")
    report = await scan_stream(hook_queue, done=FakeDoneStore(), clock=clock)
    assert (report.open, report.junk) == ({OpenState.UNREAD: 2}, 1)
    (message,) = await hook_queue.pull(names.subject("sync"), 1, 1.0)
    report = await scan_stream(hook_queue, done=FakeDoneStore(), clock=clock)
    assert report.open == {OpenState.UNREAD: 1, OpenState.IN_HAND: 1}
    await message.ack()


async def test_a_window_leaves_no_consumer_behind(hook_queue, put, names):
    await put(5)
    seen = [
        [item.sequence for item in stored]
        async for stored in read_windows(hook_queue, names.stream, window=2, first_sequence=2)
    ]
    assert seen == [[2, 3], [4, 5]]
    assert await hook_queue.jetstream.consumers_info(names.stream) == []
    assert [1 async for _ in read_windows(hook_queue, "NO_SUCH_STREAM")] == []


async def test_a_server_that_has_stopped_is_noticed_long_before_the_default_pings(tmp_path, names):
    broker = start_nats(resolve_nats(env={"PATH": ""}), tmp_path, Durability.LAZY)
    measures = NatsMeasures(short_pings=True)
    try:
        async with await AppTransport.connect(
            broker.url, names=names, measures=measures
        ) as transport:
            await ensure_stream(transport, STREAM)
            broker.pause()
            # By default three pings of two minutes would have to be missed.
            await eventually(lambda: not transport.client.is_connected, timeout_s=60)
            broker.resume()
            await eventually(lambda: transport.client.is_connected, timeout_s=60)
            assert (await transport.publish(names.subject("sync"), b"x")).sequence == 1
    finally:
        broker.stop()


async def test_the_verb_says_what_was_given_up_and_which_types_nobody_serves(
    hook_queue, put, nats_broker, names
):
    await ensure_advisory_stream(hook_queue, STREAM)
    (first, *_), _got = await given_up(hook_queue, put, names)
    await put(2, task_type="gc")

    async def captured():
        await hook_queue.pull(names.subject("sync"), 1, 0.1)
        return len(await read_advisories(hook_queue)) >= 3

    await eventually(captured)
    scan = [sys.executable, "-m", "hookbench", "scan", f"--nats-url={nats_broker.url}"]
    own = [f"--stream={names.stream}", f"--subject-root={names.subject_root}"]
    told = await asyncio.to_thread(
        subprocess.run, [*scan, *own, "--json"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 1, told.stderr
    found = json.loads(told.stdout)
    assert found["open"]["given_up"] >= 3
    assert found["types_without_consumer"] == {"gc": 2}
    assert found["examples"][0]["task_id"] == str(first.id)
    shown = await asyncio.to_thread(
        subprocess.run, [*scan, *own], capture_output=True, text=True, check=False
    )
    assert "no consumer for type gc: 2 tasks" in shown.stdout
    assert "MAX_DELIVERIES after 1" in shown.stdout


@pytest.mark.parametrize(
    ("authority", "message"),
    [("etcd", "use one of redis, both, nats"), ("redis", "--redis-url"), ("both", "--redis-url")],
)
def test_a_wrong_authority_is_named_before_anybody_is_asked(authority, message, monkeypatch):
    monkeypatch.delenv("HOOKBENCH_REDIS_URL", raising=False)
    scan = [sys.executable, "-m", "hookbench", "scan", "--nats-url=nats://127.0.0.1:1"]
    told = subprocess.run(
        [*scan, f"--authority={authority}"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 2
    assert message in told.stderr
    assert "does not answer" not in told.stderr
