"""Epochs of the NATS consumer: agreed on by all workers, from the watermark."""

import asyncio

import nats.errors
import pytest
from nats.js.api import ConsumerConfig

from hookbench.clock import SystemClock
from hookbench.errors import BrokerUnreachableError
from hookbench.ledger.events import Broker
from hookbench.migration.measures import Measures
from hookbench.migration.phases import Phase
from hookbench.queues.connections import Connections
from hookbench.queues.epoch_reading import make_epoch_consume
from hookbench.queues.epochs import (
    Entry,
    close_epoch,
    consumer_drift,
    current_consumer,
    epoch_consumer_name,
    open_epoch,
    read_epoch,
)
from hookbench.queues.jetstream import (
    ConsumerSettings,
    StreamSettings,
    ensure_dead_stream,
    ensure_stream,
)
from hookbench.queues.nats_measures import NatsMeasures
from hookbench.queues.transport import AppTransport
from hookbench.queues.watermark import find_watermark
from hookbench.task import encode_task
from hookbench.worker.dead_letters import DeadLetter, NatsDeadLetters, RedisDeadLetters
from hookbench.worker.ended import EndedTasks
from hookbench.worker.service import WorkerService, WorkerSettings
from tests.conftest import eventually
from tests.fake_done_store import FakeDoneStore

STREAM = StreamSettings(storage="memory")
CONSUMER = ConsumerSettings()


@pytest.fixture
async def hook_queue(transport, names):
    await ensure_stream(transport, STREAM)
    yield transport
    for stream in names.streams:
        try:
            await transport.jetstream.delete_stream(stream)
        except Exception:  # noqa: BLE001, S112 - not every test makes every stream
            continue


@pytest.fixture
async def put(hook_queue, make_task):
    async def put_tasks(count, **changes):
        tasks = [make_task(**changes) for _ in range(count)]
        for task in tasks:
            subject = hook_queue.names.subject(task.task_type)
            await hook_queue.publish(subject, encode_task(task))
        return tasks

    return put_tasks


async def begin(transport, *, entry=Entry(), ended=None):  # noqa: B008 - frozen
    return await open_epoch(transport, CONSUMER, entry=entry, ended=ended, stream=STREAM)


async def delivered(transport, number, count):
    """What the consumer of an epoch hands out, up to ``count``, acknowledged."""
    name = epoch_consumer_name(transport, "sync", number)
    async with await AppTransport.connect(
        transport.client.connected_url.geturl(),
        names=transport.names,
        consumers={transport.names.subject("sync"): name},
    ) as own:
        got = []
        while len(got) < count:
            messages = await own.pull(own.names.subject("sync"), count, 0.3)
            if not messages:
                break
            for message in messages:
                await message.ack()
                got.append(message.payload)
        await own.client.flush()
        return got


@pytest.mark.parametrize("window", [2, 3, 256])
@pytest.mark.parametrize("done", [0, 1, 3, 6])
async def test_the_watermark_is_the_first_that_has_not_ended(hook_queue, put, window, done):
    tasks = await put(6)
    store = FakeDoneStore(task.id for task in tasks[:done])
    mark = await find_watermark(hook_queue, "sync", store.are_done, window=window)
    assert (mark.sequence, mark.ended) == (done + 1, done)
    assert max(store.asked) <= window


async def test_a_gap_stops_the_watermark(hook_queue, put):
    tasks = await put(6)
    store = FakeDoneStore(task.id for task in tasks if task is not tasks[2])
    assert (await find_watermark(hook_queue, "sync", store.are_done)).sequence == 3


async def test_other_types_and_junk_do_not_mislead_the_watermark(hook_queue, put, names):
    await put(2, task_type="fsck")
    tasks = await put(1)
    store = FakeDoneStore([tasks[0].id])
    assert (await find_watermark(hook_queue, "sync", store.are_done)).sequence == 4
    await hook_queue.publish(names.subject("sync"), b"junk")
    assert (await find_watermark(hook_queue, "sync", store.are_done)).sequence == 4
    assert (await find_watermark(hook_queue, "gc", store.are_done)).sequence == 5


async def test_junk_holds_the_watermark_until_a_letter_has_it(hook_queue, put, names):
    store = FakeDoneStore()
    store.done.update(task.id for task in await put(2))
    await hook_queue.publish(names.subject("sync"), b"junk")
    await hook_queue.publish(names.subject("sync"), b"")
    store.done.update(task.id for task in await put(1))

    async def mark():
        found = await find_watermark(hook_queue, "sync", store.are_done)
        return found.sequence, found.ended

    assert await mark() == (3, 2)
    await ensure_dead_stream(hook_queue, storage="memory")
    assert await mark() == (3, 2)
    letters = NatsDeadLetters(hook_queue)
    for payload, sequence in ((b"junk", 0), (b"other", 3), (b"", 3), (b"junk", 4)):
        await letters.bury(junk_letter(payload, sequence))
        assert await mark() == (3, 2)  # of another time, or of a stream that was there before
    await letters.bury(junk_letter(b"junk", 3))
    assert await mark() == (4, 3)
    await letters.bury(junk_letter(b"", 4))
    assert await mark() == (6, 5)
    assert (await find_watermark(hook_queue, "fsck", store.are_done)).sequence == 6


async def test_of_junk_that_was_too_long_the_letter_has_the_beginning(hook_queue, names):
    await hook_queue.publish(names.subject("sync"), b"x" * 100)
    await ensure_dead_stream(hook_queue, storage="memory")
    await NatsDeadLetters(hook_queue).bury(junk_letter(b"x" * 60, 1))
    assert (await find_watermark(hook_queue, "sync", FakeDoneStore().are_done)).sequence == 2


async def test_a_worker_writes_down_where_junk_lay(hook_queue, put, names, clock, nats_broker):
    """So that a new epoch does not deliver all that came after it."""
    (task,) = await put(1)
    await hook_queue.publish(names.subject("sync"), b"junk")
    store = FakeDoneStore([task.id])
    settings = WorkerSettings(
        nats_url=nats_broker.url,
        phase=Phase.NATS_ONLY,
        names=names,
        stream=STREAM,
        measures=Measures(ack_after=True),
        block_timeout_secs=0.2,
    )

    async def noop(_task, _execution):
        pass

    service = WorkerService(settings, noop, clock=clock)
    run = asyncio.ensure_future(service.run())

    async def marked():
        return (await find_watermark(hook_queue, "sync", store.are_done)).sequence == 3

    try:
        await eventually(marked)
    finally:
        service.request_stop()
        await run


async def test_the_next_search_goes_on_where_the_last_one_ended(hook_queue, put, names):
    """A stream keeps its tasks for days: they are not all looked at again with each entry."""
    first = await put(5)
    store = FakeDoneStore(task.id for task in first[:3])
    mark = await find_watermark(hook_queue, "sync", store.are_done)
    assert (mark.sequence, mark.anchor.sequence) == (4, 3)
    store.done |= {task.id for task in first}
    await put(1, task_type="fsck")
    later = await put(2)
    store.asked.clear()
    again = await find_watermark(hook_queue, "sync", store.are_done, anchor=mark.anchor)
    assert (again.sequence, again.ended, again.anchor.sequence) == (7, 2, 5)
    assert sum(store.asked) == 4  # two of the first, and the later ones
    store.done |= {task.id for task in later}
    store.done -= {task.id for task in first}  # their records are too old by now
    last = await find_watermark(hook_queue, "sync", store.are_done, anchor=again.anchor)
    assert (last.sequence, last.anchor.sequence) == (9, 8)
    await hook_queue.jetstream.purge_stream(names.stream, seq=9)  # too old as well
    await put(1)
    assert (
        await find_watermark(hook_queue, "sync", store.are_done, anchor=last.anchor)
    ).sequence == 9


@pytest.mark.parametrize("tasks", [2, 6])
async def test_another_stream_is_searched_from_its_beginning(hook_queue, put, names, tasks):
    """One that lost its end in a power cut gives other tasks the same sequences."""
    done = await put(4)
    store = FakeDoneStore(task.id for task in done)
    mark = await find_watermark(hook_queue, "sync", store.are_done)
    assert (mark.sequence, mark.anchor.sequence) == (5, 4)
    await hook_queue.jetstream.delete_stream(names.stream)
    await ensure_stream(hook_queue, STREAM)
    others = await put(tasks)
    store.done |= {others[0].id}
    again = await find_watermark(hook_queue, "sync", store.are_done, anchor=mark.anchor)
    assert (again.sequence, again.anchor.sequence) == (2, 1)


async def test_each_epoch_knows_where_the_search_of_the_next_begins(hook_queue, put, names):
    tasks = await put(4)
    store = FakeDoneStore(task.id for task in tasks[:3])
    assert (await begin(hook_queue, ended=store.are_done)).anchor.sequence == 3
    recorded, _ = await read_epoch(hook_queue, "sync")
    assert recorded.anchor.sequence == 3
    await hook_queue.jetstream.delete_consumer(names.stream, f"{names.consumer}-e1")
    store.asked.clear()
    epoch = await begin(hook_queue, ended=store.are_done)
    assert (epoch.number, epoch.start_sequence, epoch.anchor) == (2, 4, recorded.anchor)
    assert sum(store.asked) == 1


async def test_of_an_empty_stream_it_is_what_comes_next(hook_queue, put):
    store = FakeDoneStore()
    assert (await find_watermark(hook_queue, "sync", store.are_done)).sequence == 1
    await put(2)
    await hook_queue.jetstream.purge_stream(hook_queue.names.stream)
    assert (await find_watermark(hook_queue, "sync", store.are_done)).sequence == 3
    (task,) = await put(1)
    epoch = await begin(hook_queue, ended=FakeDoneStore([task.id]).are_done)
    assert epoch.start_sequence == 4
    (later,) = await put(1)
    assert await delivered(hook_queue, 1, 5) == [encode_task(later)]


async def test_without_anybody_who_knows_all_is_delivered(hook_queue, put):
    tasks = await put(3)
    assert (await begin(hook_queue)).start_sequence == 1
    assert await delivered(hook_queue, 1, 5) == [encode_task(task) for task in tasks]


class LaterClock(SystemClock):
    """The machine's clock, moved on by hand."""

    later_ns = 0

    def monotonic_ns(self):
        return super().monotonic_ns() + self.later_ns


def junk_letter(payload, sequence):
    return DeadLetter.of(
        payload,
        task_type="sync",
        reason="no task",
        broker=Broker.NATS,
        attempts=1,
        died_at_ns=0,
        sequence=sequence,
    )


def letter_about(task):
    return DeadLetter.of(
        encode_task(task),
        task_type="sync",
        reason="x",
        broker=Broker.NATS,
        attempts=3,
        died_at_ns=0,
    )


async def test_a_dead_task_has_ended(hook_queue, put, redis_client):
    on_nats, on_redis, waiting = await put(3)
    names, clock = hook_queue.names, LaterClock()
    await ensure_dead_stream(hook_queue, storage="memory")
    await NatsDeadLetters(hook_queue).bury(letter_about(on_nats))
    await RedisDeadLetters(redis_client, names).bury(letter_about(on_redis))
    ended = EndedTasks(FakeDoneStore(), hook_queue, clock=clock, redis=redis_client)
    try:
        assert (await begin(hook_queue, ended=ended)).start_sequence == 3
        assert await delivered(hook_queue, 1, 5) == [encode_task(waiting)]
        await NatsDeadLetters(hook_queue).bury(letter_about(waiting))
        assert await ended([waiting.id]) == set()  # what was read a moment ago
        clock.later_ns = 10 * 10**9
        assert await ended([waiting.id]) == {waiting.id}
    finally:
        await redis_client.delete(names.dead_key("sync"))


async def test_all_workers_of_a_fleet_mean_the_same_consumer(hook_queue, put, nats_broker, names):
    tasks = await put(40)
    store = FakeDoneStore(task.id for task in tasks[:30])
    transports = [await AppTransport.connect(nats_broker.url, names=names) for _ in range(5)]
    try:
        epochs = await asyncio.gather(
            *[begin(item, entry=Entry(step=2, redis_step=1), ended=store.are_done)
              for item in transports]
        )  # fmt: skip
    finally:
        for item in transports:
            await item.close()
    assert {(epoch.number, epoch.start_sequence) for epoch in epochs} == {(1, 31)}
    consumers = await hook_queue.jetstream.consumers_info(names.stream)
    assert [info.name for info in consumers] == [f"{names.consumer}-e1"]
    assert consumers[0].config.opt_start_seq == 31
    assert await delivered(hook_queue, 1, 40) == [encode_task(task) for task in tasks[30:]]


async def test_a_worker_that_starts_again_joins(hook_queue, put):
    tasks = await put(4)
    await begin(hook_queue)
    await delivered(hook_queue, 1, 2)
    again = await begin(hook_queue, ended=FakeDoneStore(task.id for task in tasks).are_done)
    assert (again.number, again.start_sequence) == (1, 1)
    late = await begin(hook_queue, entry=Entry(step=3, redis_step=-1))
    assert late.number == 1


async def test_a_crash_before_the_consumer_is_made_up_for(hook_queue, put, monkeypatch):
    tasks = await put(4)
    store = FakeDoneStore(task.id for task in tasks[:2])

    async def crash(*_arguments, **_options):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("hookbench.queues.epochs.ensure_durable", crash)
        with pytest.raises(RuntimeError):
            await begin(hook_queue, ended=store.are_done)
    recorded, _ = await read_epoch(hook_queue, "sync")
    assert (recorded.number, recorded.start_sequence, recorded.made) == (1, 3, False)
    epoch = await begin(hook_queue, ended=FakeDoneStore().are_done)
    assert (epoch.number, epoch.start_sequence) == (1, 3)
    assert (await read_epoch(hook_queue, "sync"))[0].made
    assert await delivered(hook_queue, 1, 5) == [encode_task(task) for task in tasks[2:]]


async def test_a_deleted_consumer_is_followed_by_a_new_epoch_from_the_watermark(hook_queue, put):
    tasks = await put(4)
    await begin(hook_queue)
    assert len(await delivered(hook_queue, 1, 3)) == 3
    stream = hook_queue.names.stream
    await hook_queue.jetstream.delete_consumer(stream, f"{hook_queue.names.consumer}-e1")
    store = FakeDoneStore(task.id for task in tasks[:3])
    epoch = await begin(hook_queue, ended=store.are_done)
    assert (epoch.number, epoch.start_sequence) == (2, 4)
    assert await delivered(hook_queue, 2, 5) == [encode_task(tasks[3])]


@pytest.mark.parametrize("metadata", [None, {"hookbench.epoch": "1"}])
async def test_one_that_somebody_made_anew_is_not_believed(hook_queue, put, metadata):
    tasks = await put(2)
    store = FakeDoneStore(task.id for task in tasks)
    await begin(hook_queue, ended=store.are_done)
    names = hook_queue.names
    await hook_queue.jetstream.delete_consumer(names.stream, f"{names.consumer}-e1")
    await hook_queue.jetstream.add_consumer(
        names.stream,
        ConsumerConfig(
            durable_name=f"{names.consumer}-e1",
            filter_subject=names.subject("sync"),
            metadata=metadata,
        ),
    )
    epoch = await begin(hook_queue, ended=store.are_done)
    assert (epoch.number, epoch.start_sequence) == (2, 3)
    assert await delivered(hook_queue, 2, 5) == []


async def test_a_re_entry_begins_a_new_epoch_and_removes_the_old_consumer(hook_queue, put):
    first = await put(3)
    await begin(hook_queue, entry=Entry(step=2, redis_step=1))
    await delivered(hook_queue, 1, 3)
    await close_epoch(hook_queue, "sync", 1)
    between = await put(2)  # done by Redis
    store = FakeDoneStore(task.id for task in first + between)
    later = await put(1)
    epoch = await begin(hook_queue, entry=Entry(step=4, redis_step=3), ended=store.are_done)
    assert (epoch.number, epoch.start_sequence) == (2, 6)
    assert await delivered(hook_queue, 2, 5) == [encode_task(task) for task in later]
    names = hook_queue.names
    await hook_queue.jetstream.add_consumer(
        names.stream, ConsumerConfig(durable_name="somebody", filter_subject=names.subject("sync"))
    )
    await begin(hook_queue)
    found = {info.name for info in await hook_queue.jetstream.consumers_info(names.stream)}
    assert found == {f"{names.consumer}-e2", "somebody"}
    assert await current_consumer(hook_queue) == f"{names.consumer}-e2"


async def test_the_first_record_counts_also_for_whoever_looked_before_it(
    hook_queue, put, nats_broker, names
):
    tasks = await put(4)
    faster = []

    async def ended(ids):
        if not faster:
            async with await AppTransport.connect(nats_broker.url, names=names) as other:
                store = FakeDoneStore(task.id for task in tasks[:1])
                faster.append(await begin(other, ended=store.are_done))
        return {task.id for task in tasks} & set(ids)  # more are done by now

    epoch = await begin(hook_queue, ended=ended)
    assert (epoch.number, epoch.start_sequence) == (1, 2)
    assert (faster[0].number, faster[0].start_sequence) == (1, 2)


async def test_drift_is_told_of_the_current_consumer_and_nothing_is_made(hook_queue, put):
    await put(1)
    assert await consumer_drift(hook_queue, CONSUMER) == []
    assert await hook_queue.jetstream.consumers_info(hook_queue.names.stream) == []
    await begin(hook_queue)
    assert await consumer_drift(hook_queue, CONSUMER) == []
    other = ConsumerSettings(ack_wait_s=5.0, max_ack_pending=7)
    assert await consumer_drift(hook_queue, other, sized=True) == [
        "ack_wait: wanted 5.0, found 30.0"
    ]
    assert len(await consumer_drift(hook_queue, other)) == 2


async def test_nobody_joins_an_epoch_that_was_left(hook_queue, put):
    await put(1)
    await begin(hook_queue, entry=Entry(step=2, redis_step=1))
    await close_epoch(hook_queue, "sync", 1)
    assert (await begin(hook_queue, entry=Entry(step=4))).number == 2


async def test_an_epoch_that_nobody_could_close_is_known_by_its_step(hook_queue, put):
    await put(1)
    await begin(hook_queue, entry=Entry(step=2, redis_step=1))
    assert (await begin(hook_queue, entry=Entry(step=3, redis_step=1))).number == 1
    assert (await begin(hook_queue, entry=Entry(step=4, redis_step=3))).number == 2


async def test_whoever_leaves_late_does_not_close_the_next_epoch(hook_queue, put):
    await put(1)
    await begin(hook_queue, entry=Entry(step=2, redis_step=1))
    await close_epoch(hook_queue, "sync", 1)
    await begin(hook_queue, entry=Entry(step=4, redis_step=3))
    await close_epoch(hook_queue, "sync", 1)
    epoch, _ = await read_epoch(hook_queue, "sync")
    assert (epoch.number, epoch.closed) == (2, False)


async def test_a_running_worker_moves_on_when_its_consumer_is_deleted(
    hook_queue, put, nats_broker, names, clock
):
    tasks = await put(3)
    store = FakeDoneStore(task.id for task in tasks[:2])
    connections = Connections(
        redis_url=None,
        nats_url=nats_broker.url,
        names=names,
        clock=clock,
        stream=STREAM,
        measures=NatsMeasures(epoch_consumer=True),
    )
    try:
        own = await connections.nats_for_reading("sync", ended=store.are_done)
        consume = make_epoch_consume(connections, own, "sync", wait_s=0.5, ended=store.are_done)
        ((payload, ack),) = await consume(names.subject("sync"), 5)
        assert payload == encode_task(tasks[2])
        await ack()
        store.done.add(tasks[2].id)
        await hook_queue.jetstream.delete_consumer(names.stream, f"{names.consumer}-e1")
        (later,) = await put(1)
        got = []
        async with asyncio.timeout(20):
            while not got:  # no read fails, or the fallback of dual_read would read Redis
                got = await consume(names.subject("sync"), 5)
        assert [payload for payload, _ack in got] == [encode_task(later)]
        assert await current_consumer(hook_queue) == f"{names.consumer}-e2"
    finally:
        await connections.close()


async def test_a_server_that_does_not_answer_is_away_for_the_watermark_too(hook_queue, monkeypatch):
    """An error of another kind would end the worker's change of phase for good."""

    async def silent(*_arguments, **_settings):
        raise nats.errors.TimeoutError

    monkeypatch.setattr(hook_queue.jetstream, "stream_info", silent)
    with pytest.raises(BrokerUnreachableError, match=hook_queue.names.stream):
        await find_watermark(hook_queue, "sync", None)
