"""What is particular to Redis work lists with an owner and a lease."""

import asyncio
import contextlib
import itertools

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from hookbench.brokers.probe import check_redis_unused
from hookbench.errors import (
    BrokerInUseError,
    BrokerUnreachableError,
    LeaseLostError,
    SettingError,
)
from hookbench.ledger.events import NO_TASK, Event
from hookbench.queues.base import Depth
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.redis_leased import RedisLeasedQueue
from hookbench.queues.redis_list import RedisListQueue
from hookbench.queues.redis_reaper import RedisSurvey
from hookbench.task import decode_task, encode_task, with_retry
from tests.conftest import eventually
from tests.contract.steps import SHORT_S, WAIT_S, depth_is, is_empty, take
from tests.fakes import MemoryRecorder

LEASE_S = 0.4
LONG_S = 30.0


@pytest.fixture
async def client(redis_broker):
    client = connect_redis(redis_broker.url)
    yield client
    await client.aclose()


@pytest.fixture
def recorder():
    return MemoryRecorder()


@pytest.fixture
def open_leased(client, names, recorder):
    """Workers of the same queue; none renews its lease but by receiving."""
    numbers = itertools.count()

    def open_one(lease_s=LEASE_S, redis=client, **options):
        return RedisLeasedQueue(
            redis,
            owner=f"worker-{next(numbers)}",
            names=names,
            lease_s=lease_s,
            recorder=recorder,
            **options,
        )

    return open_one


@contextlib.asynccontextmanager
async def kept(queue):
    """A worker that lives: its lease is kept."""
    stopping = asyncio.Event()
    keeping = asyncio.ensure_future(queue.keep(stopping))
    try:
        yield queue
    finally:
        stopping.set()
        await keeping


async def tend_until(queue, condition):
    """Let time pass for a worker that has all hands full."""

    async def fulfilled():
        await queue.tend()
        return await condition()

    await eventually(fulfilled)


async def fill(queue, *tasks):
    for task in tasks:
        await queue.put(encode_task(task))


def payloads(deliveries):
    return [delivery.payload for delivery in deliveries]


async def test_the_tasks_of_a_dead_worker_are_read_next_the_oldest_first(open_leased, client):
    dead, living = open_leased(), open_leased()
    for payload in (b"1", b"2", b"3"):
        await dead.put(payload)
    await take(dead, 3)
    await dead.put(b"4")
    await tend_until(living, lambda: depth_is(living, pending=4, in_flight=0))
    deliveries = await take(living, 4)
    assert payloads(deliveries) == [b"1", b"2", b"3", b"4"]
    assert [delivery.attempt for delivery in deliveries] == [2, 2, 2, 1]
    for delivery in deliveries:
        await delivery.ack()
    assert await client.exists(living._attempts) == 0, "a count outlives its task"


async def test_two_reapers_put_back_each_task_once_and_say_so(
    open_leased, client, recorder, make_task
):
    dead = open_leased()
    tasks = [make_task() for _ in range(250)]
    await fill(dead, *tasks)
    await take(dead, 250)
    reapers = [open_leased() for _ in range(3)]

    async def reaped():
        await asyncio.gather(*(reaper.tend() for reaper in reapers))
        return await depth_is(dead, pending=250, in_flight=0)

    await eventually(reaped)
    await asyncio.gather(*(reaper.tend() for reaper in reapers))
    assert recorder.count(Event.REQUEUED) == 250
    assert {task for _event, task, *_ in recorder.events} == {task.id.bytes for task in tasks}
    assert set(await client.hvals(dead._attempts)) == {b"1"}


async def test_a_reaper_looks_itself_whether_a_lease_has_ended(open_leased, client):
    queue, other = open_leased(LONG_S), open_leased(LONG_S)
    await queue.put(b"x")
    (delivery,) = await take(queue, 1)
    await other._lease.reaper.reap(
        [queue.owner.encode()]
    )  # as told a moment ago, before the renewal
    assert await depth_is(queue, pending=0, in_flight=1)
    await client.zadd(queue._lease.key, {queue.owner: 1})
    await other._lease.reaper.reap([queue.owner.encode()])
    assert await depth_is(queue, pending=1, in_flight=0)
    with pytest.raises(LeaseLostError):
        await delivery.ack()


async def test_a_worker_whose_lease_was_reaped_learns_it_and_puts_nothing_back(
    open_leased, make_task
):
    stale, other = open_leased(), open_leased()
    await fill(stale, make_task(), make_task(), make_task())
    acked, naked, termed = await take(stale, 3)
    await tend_until(other, lambda: depth_is(other, pending=3, in_flight=0))
    held = await take(other, 2)
    with pytest.raises(LeaseLostError, match="longer lease"):
        await acked.ack()
    with pytest.raises(LeaseLostError):
        await naked.nak()
    with pytest.raises(LeaseLostError):
        await termed.term("no use")
    with pytest.raises(LeaseLostError):
        await termed.ensure_held()
    assert await depth_is(other, pending=1, in_flight=2), "a stale worker moved a task"
    for delivery in held:
        await delivery.ack()


async def test_a_worker_that_lost_its_lease_goes_on_under_another(open_leased):
    queue, other = open_leased(), open_leased()
    await queue.put(b"x")
    (first,) = await take(queue, 1)
    await tend_until(other, lambda: depth_is(other, pending=1, in_flight=0))
    (second,) = await take(queue, 1)
    assert (second.payload, second.attempt) == (b"x", 2)
    with pytest.raises(LeaseLostError):
        await first.ack()
    assert await depth_is(queue, pending=0, in_flight=1), "the first took the second's place"
    await second.ensure_held()
    await second.ack()
    assert await is_empty(queue)


async def test_a_lease_that_is_kept_never_ends(open_leased, client):
    queue, other = open_leased(), open_leased()
    await queue.put(b"x")
    (delivery,) = await take(queue, 1)
    ends = set()

    async def renewed_often():
        await other.tend()
        ends.add(await client.zscore(queue._lease.key, queue.owner))
        return len(ends) > 8  # more than two leases

    async with kept(queue):
        await eventually(renewed_often)
        assert await depth_is(queue, pending=0, in_flight=1)
        await delivery.ack()


async def test_what_acknowledges_late_but_was_not_reaped_is_fine(open_leased, client):
    queue = open_leased(0.1)
    await queue.put(b"x")
    (delivery,) = await take(queue, 1)

    async def ended():
        seconds, micros = await client.time()
        return await client.zscore(queue._lease.key, queue.owner) < seconds * 1e3 + micros / 1e3

    await eventually(ended)
    await delivery.ack()
    assert await is_empty(queue)


async def test_after_an_outage_nobody_takes_what_others_still_work_on(open_leased, client):
    queues = [open_leased() for _ in range(2)]
    for queue in queues:
        await queue.put(b"x")
        await take(queue, 1)
    # As if Redis had been away for longer than a lease.
    await client.zadd(queues[0]._lease.key, {queue.owner: 1 for queue in queues})
    for queue in queues:
        queue._lease.make_due()
        await queue.tend()
    assert await depth_is(queues[0], pending=0, in_flight=2)


async def test_a_task_of_a_lost_reply_is_found_by_its_worker(open_leased, client, recorder):
    queue = open_leased(LONG_S)
    await queue.put(b"held")
    (held,) = await take(queue, 1)
    task_id = "0192f3a0-0000-7000-8000-000000000001"
    lost = b'{"id":"%s"}' % task_id.encode()
    await queue.put(lost)
    # What the server does for a read whose reply is lost.
    await client.lmove(queue._pending, queue.work_key, "RIGHT", "LEFT")
    queue._lease.make_due()
    (found,) = await take(queue, 1)
    assert (found.payload, found.attempt) == (lost, 1)
    assert recorder.count(Event.REQUEUED) == 1
    await held.ack()
    await found.ack()
    assert await is_empty(queue)


async def test_a_worker_that_reads_no_more_gives_lost_replies_back(open_leased, client):
    queue = open_leased()
    await queue.put(b"x")
    async with kept(queue):
        await eventually(lambda: client.zscore(queue._lease.key, queue.owner))
        await client.lmove(queue._pending, queue.work_key, "RIGHT", "LEFT")
        await eventually(lambda: depth_is(queue, pending=1, in_flight=0))


async def test_an_acknowledgement_on_its_way_is_no_stray(open_leased, client):
    queue = open_leased(LONG_S)
    await queue.put(b"x")
    (delivery,) = await take(queue, 1)
    lrange = client.lrange

    async def acknowledged_in_between(*args):
        lying = await lrange(*args)
        await delivery.ack()
        return lying

    client.lrange = acknowledged_in_between
    queue._strays = True
    assert await queue.receive(1, SHORT_S) == []
    assert await is_empty(queue)


async def test_a_cancelled_read_goes_on_and_the_next_one_gets_its_task(open_leased):
    queue = open_leased(LONG_S)
    for number in range(20):
        reading = asyncio.ensure_future(queue.receive(1, WAIT_S))
        await asyncio.sleep(0.001 * (number % 3))
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        await queue.put(b"%d" % number)
        (delivery,) = await take(queue, 1)
        assert (delivery.payload, delivery.attempt) == (b"%d" % number, 1)
        await delivery.ack()
    assert await is_empty(queue)


async def test_what_a_cancelled_read_brought_is_given_back_at_close(open_leased, client, names):
    queue = open_leased(LONG_S)
    reading = asyncio.ensure_future(queue.receive(2, WAIT_S))
    await eventually(lambda: client.zscore(queue._lease.key, queue.owner))
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await client.lpush(queue._pending, b"1", b"2", b"3")
    await eventually(lambda: queue._reading is None or queue._reading.done())
    await queue.close()
    assert await client.lrange(queue._pending, 0, -1) == [b"3", b"2", b"1"]
    assert await depth_is(queue, pending=3, in_flight=0)
    await queue.release()
    assert await client.keys(f"{names.prefix}*") == [queue._pending.encode()]


async def test_a_stop_gives_everything_back_and_leaves_no_lease(open_leased, client, recorder):
    queue = open_leased(LONG_S)
    for payload in (b"1", b"2", b"3"):
        await queue.put(payload)
    first, *_rest = await take(queue, 3)
    await first.ack()
    await queue.close()
    await queue.release()
    assert await client.lrange(queue._pending, 0, -1) == [b"3", b"2"]
    assert await client.exists(queue._lease.key) == 0
    assert [task for event, task, *_ in recorder.events if event is Event.REQUEUED] == [NO_TASK] * 2


async def test_old_entries_of_the_shared_list_are_put_back_and_new_ones_left(
    open_leased, client, names, make_task
):
    old_worker = RedisListQueue(client, names=names)
    task = make_task()
    await fill(old_worker, task)
    await old_worker.put(b"finished in time")
    _orphan, finished = await take(old_worker, 2)
    queue, seen = open_leased(adopt_after_s=LONG_S), names.seen_key("sync")
    await tend_until(queue, lambda: client.hlen(seen))
    await finished.ack()

    async def looked_again():
        return await client.hlen(seen) == 1  # what is finished is not remembered

    await tend_until(queue, looked_again)
    assert await depth_is(queue, pending=0, in_flight=1), "an entry was taken too early"
    (digest,) = await client.hkeys(seen)
    await client.hincrby(seen, digest, -round(LONG_S * 1000))
    await tend_until(queue, lambda: depth_is(queue, pending=1, in_flight=0))
    assert await client.exists(seen) == 0
    (again,) = await take(queue, 1)
    assert decode_task(again.payload) == task
    assert again.attempt == 2
    await again.ack()
    await old_worker.put(b"new")
    await take(old_worker, 1)
    queue._lease.make_due()
    await queue.tend()
    assert await depth_is(queue, pending=0, in_flight=1), "an entry was taken at first sight"


async def test_workers_of_both_kinds_share_without_loss_or_repeat(
    open_leased, client, names, make_task
):
    tasks = [make_task() for _ in range(100)]
    workers = [open_leased(LONG_S), RedisListQueue(client, names=names), open_leased(LONG_S)]
    await fill(workers[0], *tasks)
    came = []

    async def work(queue):
        while len(came) < 100:
            for delivery in await queue.receive(3, SHORT_S):
                came.append(decode_task(delivery.payload).id)
                await delivery.ack()

    await asyncio.gather(*map(work, workers))
    assert sorted(came) == sorted(task.id for task in tasks)
    assert await is_empty(workers[0])


async def test_a_retry_of_an_old_worker_keeps_the_count_of_its_task(
    open_leased, client, names, make_task
):
    task = make_task()
    queue, old_worker = open_leased(LONG_S), RedisListQueue(client, names=names)
    await fill(queue, task)
    for _ in range(2):
        (delivery,) = await take(queue, 1)
        await delivery.nak()
    (delivery,) = await take(old_worker, 1)
    await delivery.nak()
    (delivery,) = await take(queue, 1)
    assert decode_task(delivery.payload) == with_retry(task)
    assert delivery.attempt == 3
    await delivery.ack()


async def test_an_ack_without_an_answer_is_owed_until_it_gets_one(open_leased, client):
    queue = open_leased(LONG_S)
    for payload in (b"1", b"2", b"3"):
        await queue.put(payload)
    deliveries = await take(queue, 3)
    lrem = client.lrem

    async def lost_request(*_args):
        raise RedisConnectionError("gone")

    async def lost_reply(*args):
        await lrem(*args)
        raise RedisConnectionError("gone")

    for delivery, failure in zip(deliveries, (lost_request, lost_reply, lost_reply), strict=True):
        client.lrem = failure
        with pytest.raises(BrokerUnreachableError):
            await delivery.ack()
    client.lrem = lrem
    await deliveries[2].ack()  # the worker's own second try: the first one was done
    queue._lease.make_due()
    await queue.tend()
    assert await is_empty(queue)
    await queue.release()
    assert await is_empty(queue), "a finished task was given back"


async def test_one_round_trip_takes_as_many_as_there_are_hands(open_leased, client):
    queue, sent = open_leased(LONG_S), []
    for number in range(160):
        await queue.put(b"%d" % number)
    for name in ("evalsha", "eval", "lrem"):
        command = getattr(client, name)

        async def counted(*args, name=name, command=command):
            sent.append(name)
            return await command(*args)

        setattr(client, name, counted)
    waits, pipeline = [], client.pipeline
    client.pipeline = lambda **options: waits.append(options) or pipeline(**options)
    for _ in range(10):
        deliveries = await queue.receive(16, WAIT_S)
        assert len(deliveries) == 16
        for delivery in deliveries:
            await delivery.ack()
    assert (sent.count("evalsha"), sent.count("lrem")) == (10, 160)
    assert waits == [], "BLMOVE although there is more"
    assert sent.count("eval") <= 2, "the first renewal, and the text of a script not yet known"


async def test_a_survey_sees_every_list_whoever_owns_it(open_leased, client, names):
    queue, old_worker = open_leased(LONG_S), RedisListQueue(client, names=names)
    for payload in (b"1", b"2", b"3", b"4"):
        await queue.put(payload)
    await take(queue, 1)
    await take(old_worker, 1)
    await client.lmove(queue._pending, names.own_work_key("sync", "nobody"), "RIGHT", "LEFT")
    survey = RedisSurvey(client, names=names)
    assert await survey.depth_and_leases() == (Depth(pending=1, in_flight=2), 1)
    pending, work = await survey.contents()
    assert (pending, sorted(work)) == ([b"4"], [b"1", b"2", b"3"])
    await client.delete(*await survey.keys())
    assert await client.keys(f"{names.prefix}*") == []


async def test_a_broker_with_any_key_of_the_leases_is_in_use(
    open_leased, client, names, redis_broker
):
    survey = RedisSurvey(client, names=names)
    queue = open_leased(LONG_S)
    await queue.put(b"x")
    await take(queue, 1)
    for key in (queue.work_key, queue._lease.key):
        kept = await client.dump(key)
        await client.delete(*await survey.keys())
        await client.restore(key, 0, kept)
        with pytest.raises(BrokerInUseError, match=r"hook queue keys"):
            await check_redis_unused(redis_broker.url, names)
        await client.delete(key)
        await queue.put(b"x")
        queue._lease.make_due()
        await take(queue, 1)
    await client.delete(*await survey.keys())


async def test_a_list_that_its_owner_filled_too_late_is_still_found(open_leased, client):
    queue, other = open_leased(), open_leased()
    await take_nothing(queue)
    stale_key, stale_owner = queue.work_key, queue.owner
    await client.zrem(queue._lease.key, stale_owner)  # forgotten, so long was it silent
    await queue.put(b"x")
    # A process that goes on there: its renewal and its BLMOVE are in one write.
    assert await queue._wait(SHORT_S) == b"x"
    assert await queue._claim(0, b"x") == [], "it hands out what is not its own"
    assert await client.llen(stale_key) == 1
    await tend_until(other, lambda: depth_is(other, pending=1, in_flight=0))


async def take_nothing(queue):
    assert await queue.receive(1, SHORT_S) == []


@pytest.mark.parametrize("lease_s", [0.0, 0.05])
def test_a_lease_that_no_renewal_keeps_up_with_is_refused(open_leased, lease_s):
    with pytest.raises(SettingError, match=str(lease_s)):
        open_leased(lease_s)


async def test_only_what_is_still_the_oldest_is_taken_and_it_is_leased(client, open_leased):
    queue = open_leased(LONG_S)
    for payload in (b"1", b"2", b"3"):
        await queue.put(payload)
    assert await queue.oldest(2) == [b"1", b"2"]
    assert await queue.take_oldest([]) == []
    assert await queue.take_oldest([b"2"]) == []
    taken = await queue.take_oldest([b"1", b"2", b"another"])
    assert [item.payload for item in taken] == [b"1", b"2"]
    assert await client.lrange(queue.work_key, 0, -1) == [b"2", b"1"]
    assert await queue.depth() == Depth(pending=1, in_flight=2)
    for item in taken:
        await item.ack()
    assert await queue.depth() == Depth(pending=1, in_flight=0)
    await queue.close()
    assert await queue.take_oldest([b"3"]) == []
