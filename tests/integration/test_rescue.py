"""Tasks that are about to be too old for the stream, rescued on a real NATS; the clock is moved."""

import asyncio

import pytest

from hookbench.clock import SystemClock
from hookbench.ledger.events import Broker, Event
from hookbench.queues.jetstream import (
    ConsumerSettings,
    StreamSettings,
    ensure_consumer,
    ensure_dead_stream,
    ensure_stream,
)
from hookbench.task import encode_task
from hookbench.worker.dead_letters import DeadLetter, NatsDeadLetters
from hookbench.worker.letter_ids import dead_in_nats
from hookbench.worker.rescue import AgeLimits, Rescue
from tests.fake_done_store import FakeDoneStore
from tests.fakes import MemoryRecorder

MAX_AGE_S = 1000.0
STREAM = StreamSettings(storage="memory", max_age_s=MAX_AGE_S)


class LaterClock(SystemClock):
    """The machine's clock, moved on by hand."""

    later_s = 0.0

    def wall_ns(self):
        return super().wall_ns() + int(self.later_s * 1e9)


@pytest.fixture
async def hook_queue(transport, names):
    await ensure_stream(transport, STREAM)
    await ensure_dead_stream(transport, storage="memory")
    await ensure_consumer(transport, ConsumerSettings())
    yield transport
    for stream in (names.stream, names.dead_stream):
        await transport.jetstream.delete_stream(stream)


@pytest.fixture
async def put(hook_queue, make_task):
    async def put_tasks(count):
        tasks = [make_task() for _ in range(count)]
        for task in tasks:
            await hook_queue.publish(hook_queue.names.subject("sync"), encode_task(task))
        return tasks

    return put_tasks


@pytest.fixture
def later():
    return LaterClock()


@pytest.fixture
def recorder():
    return MemoryRecorder()


@pytest.fixture
def rescue_of(hook_queue, later, recorder):
    def make(done=None):
        return Rescue(
            hook_queue,
            AgeLimits(max_age_s=MAX_AGE_S),
            task_type="sync",
            done=done,
            clock=later,
            recorder=recorder,
        )

    return make


async def held(transport):
    names = transport.names
    info = await transport.jetstream.stream_info(names.stream)
    letters = await transport.jetstream.stream_info(names.dead_stream)
    return info.state.messages, letters.state.messages


async def test_nothing_is_done_before_its_time(hook_queue, put, rescue_of, later):
    await put(3)
    totals = await rescue_of().look()
    assert (totals.aging, totals.rescued) == (0, 0)
    later.later_s = 0.6 * MAX_AGE_S
    totals = await rescue_of().look()
    assert (totals.aging, totals.rescued) == (3, 0)
    assert totals.oldest_s >= 600
    assert await held(hook_queue) == (3, 0)


async def test_what_is_too_old_is_a_dead_letter_once(hook_queue, put, rescue_of, later, recorder):
    tasks = await put(3)
    later.later_s = 0.85 * MAX_AGE_S
    totals = await rescue_of().look()
    assert (totals.aging, totals.rescued) == (3, 3)
    assert await dead_in_nats(hook_queue) == {task.id for task in tasks}
    assert await held(hook_queue) == (0, 3)
    assert [task for _event, task, *_ in recorder.events] == [task.id.bytes for task in tasks]
    assert recorder.count(Event.DEAD) == 3
    assert (await rescue_of().look()).rescued == 0


async def test_two_that_rescue_at_once_leave_one_letter(hook_queue, put, rescue_of, later):
    await put(20)
    later.later_s = 0.9 * MAX_AGE_S
    await asyncio.gather(rescue_of().look(), rescue_of().look())
    assert await held(hook_queue) == (0, 20)


async def test_a_crash_behind_the_letter_is_made_up_for(
    hook_queue, put, rescue_of, later, monkeypatch
):
    await put(2)
    later.later_s = 0.9 * MAX_AGE_S

    async def crash(*_arguments):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Rescue, "_remove", crash)
        with pytest.raises(RuntimeError):
            await rescue_of().look()
    assert await held(hook_queue) == (2, 1)
    assert (await rescue_of().look()).rescued == 1
    assert await held(hook_queue) == (0, 2)


async def test_what_a_worker_has_buried_gets_no_second_letter(hook_queue, put, rescue_of, later):
    (task,) = await put(1)
    letter = DeadLetter.of(
        encode_task(task),
        task_type="sync",
        reason="failed 3 times",
        broker=Broker.NATS,
        attempts=3,
        died_at_ns=0,
    )
    await NatsDeadLetters(hook_queue).bury(letter)
    later.later_s = 0.9 * MAX_AGE_S
    totals = await rescue_of(FakeDoneStore()).look()
    assert (totals.aging, totals.rescued) == (0, 0)
    assert (await held(hook_queue))[1] == 1


@pytest.mark.parametrize("max_deliver", [3, -1])
async def test_what_was_given_up_is_rescued_although_it_lies_below_the_ack_floor(
    hook_queue, put, rescue_of, later, names, max_deliver
):
    await hook_queue.jetstream.delete_consumer(names.stream, names.consumer)
    await ensure_consumer(hook_queue, ConsumerSettings(max_deliver=max_deliver))
    (task,) = await put(1)
    (message,) = await hook_queue.pull(names.subject("sync"), 1, 1.0)
    await message.ack()
    await hook_queue.client.flush()
    later.later_s = 0.9 * MAX_AGE_S
    totals = await rescue_of(FakeDoneStore()).look()
    assert totals.rescued == (1 if max_deliver > 0 else 0)
    assert await dead_in_nats(hook_queue) == ({task.id} if max_deliver > 0 else set())


async def test_without_a_done_store_what_was_delivered_is_left_alone(
    hook_queue, put, rescue_of, later, names
):
    tasks = await put(3)
    (message,) = await hook_queue.pull(names.subject("sync"), 1, 1.0)
    later.later_s = 0.9 * MAX_AGE_S
    assert (await rescue_of().look()).rescued == 2
    assert await dead_in_nats(hook_queue) == {task.id for task in tasks[1:]}
    await message.ack()


async def test_the_done_store_says_what_is_done_and_who_has_it(
    hook_queue, put, rescue_of, later, names
):
    done, in_hand, stranded, unread = await put(4)
    for _ in range(3):
        await hook_queue.pull(names.subject("sync"), 1, 1.0)
    store = FakeDoneStore([done.id])
    await store.claim(in_hand.id, "worker", 30.0)
    later.later_s = 0.9 * MAX_AGE_S
    totals = await rescue_of(store).look()
    assert (totals.aging, totals.rescued) == (3, 2)
    assert await dead_in_nats(hook_queue) == {stranded.id, unread.id}
    # No worker is granted what a letter holds.
    assert await held(hook_queue) == (2, 2)
    assert (store.done, store.held) == (
        {done.id, stranded.id, unread.id},
        {in_hand.id: "worker"},
    )


async def test_what_is_settled_is_not_looked_at_again(hook_queue, put, rescue_of, later):
    tasks = await put(5)
    store = FakeDoneStore(task.id for task in tasks[:2])
    await store.claim(tasks[3].id, "worker", 30.0)
    later.later_s = 0.9 * MAX_AGE_S
    rescue = rescue_of(store)
    assert (await rescue.look()).rescued == 2
    store.done.add(tasks[3].id)
    assert (await rescue.look()).aging == 0
    store.asked.clear()
    assert (await rescue.look()).aging == 0
    assert store.asked == []
    assert await held(hook_queue) == (3, 2)


@pytest.mark.parametrize(("max_age_s", "pause_s"), [(1.0, 0.1), (40.0, 1.0), (604_800.0, 60.0)])
def test_a_pass_comes_several_times_before_the_end(max_age_s, pause_s):
    assert AgeLimits(max_age_s=max_age_s).pause_s == pause_s
