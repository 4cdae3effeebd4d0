"""What is particular to the queue on a Redis stream."""

import asyncio

import pytest

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_redis
from hookbench.brokers.ports import free_port
from hookbench.brokers.resolve import resolve_redis
from hookbench.errors import (
    BrokerUnreachableError,
    PublishRefusedError,
    PublishUnknownError,
    SettingError,
)
from hookbench.queues.base import Depth
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.redis_stream import GROUP, PAYLOAD_FIELD, RedisStreamQueue
from hookbench.queues.stream_survey import StreamSurvey
from tests.contract.steps import SHORT_S, WAIT_S, is_empty, take

EMPTY = Depth(pending=0, in_flight=0)


@pytest.fixture
async def client(redis_broker):
    client = connect_redis(redis_broker.url)
    yield client
    await client.aclose()


@pytest.fixture
def key(names):
    return names.stream_key("sync")


@pytest.fixture
def open_stream(client, names):
    def open_one(**settings):
        settings = {"min_idle_s": 60.0, "claim_every_s": 0.1, **settings}
        return RedisStreamQueue(client, names=names, **settings)

    return open_one


def test_the_key_shares_the_hash_tag_of_the_prefix(names):
    assert names.stream_key("fsck") == f"{names.prefix}:fsck:stream"
    assert len({names.stream_key("sync"), names.pending_key("sync"), names.work_key("sync")}) == 3


async def test_numbers_grow_and_the_delivery_has_that_of_its_put(open_stream):
    queue = open_stream()
    numbers = [await queue.put(b"x") for _ in range(50)]
    assert numbers == sorted(set(numbers))
    assert [delivery.sequence for delivery in await take(queue, 50)] == numbers


async def test_depth_of_a_queue_that_nobody_opened_creates_nothing(open_stream, client, key):
    queue = open_stream()
    assert await queue.depth() == EMPTY
    assert await client.exists(key) == 0
    await queue.put(b"x")
    assert await queue.depth() == Depth(pending=1, in_flight=0)
    assert await client.xinfo_groups(key) == []


async def test_depth_of_another_kind_of_key_is_an_error(open_stream, client, key):
    await client.lpush(key, b"x")
    with pytest.raises(BrokerUnreachableError, match="WRONGTYPE"):
        await open_stream().depth()


@pytest.mark.parametrize(("delete_acked", "kept"), [(True, 3), (False, 5)])
async def test_what_is_acknowledged_is_deleted_unless_it_is_to_be_kept(
    open_stream, client, key, delete_acked, kept
):
    queue = open_stream(delete_acked=delete_acked)
    for _ in range(5):
        await queue.put(b"x")
    acked, termed, _held = await take(queue, 3)
    await acked.ack()
    await termed.term("no use")
    assert await client.xlen(key) == kept
    assert await queue.depth() == Depth(pending=2, in_flight=1)


@pytest.mark.parametrize(("delete_acked", "kept"), [(True, 2), (False, 12)])
async def test_what_is_acknowledged_together_ends_together(
    open_stream, client, key, delete_acked, kept
):
    async with open_stream(delete_acked=delete_acked) as queue:
        for number in range(12):
            await queue.put(b"%d" % number)
        taken = await queue.receive(12, WAIT_S)
        await asyncio.gather(*(delivery.ack() for delivery in taken[:10]))
        pending = await client.xpending_range(key, GROUP, "-", "+", 20)
        assert [item["times_delivered"] for item in pending] == [1, 1]
        assert await client.xlen(key) == kept


async def test_an_entry_has_the_form_that_other_versions_read(open_stream, client, key):
    """Field and group are written out: what stands in a stream outlives the version that put it."""
    queue = open_stream()
    await queue.put(b"new")
    ((_id, fields),) = await client.xrange(key)
    assert fields == {b"task": b"new"}
    (delivery,) = await take(queue, 1)
    await delivery.ack()
    (group,) = await client.xinfo_groups(key)
    assert group["name"] == b"workers"
    await client.xadd(key, {b"task": b"old"})
    (delivery,) = await take(queue, 1)
    assert delivery.payload == b"old"
    await delivery.ack()


@pytest.mark.parametrize("delete_acked", [True, False])
async def test_depth_is_right_where_redis_knows_no_lag(open_stream, client, key, delete_acked):
    queue = open_stream(delete_acked=delete_acked)
    ids = [await client.xadd(key, {PAYLOAD_FIELD: b"x"}) for _ in range(5)]
    held, last_read = await take(queue, 2)
    await last_read.ack()
    await client.xdel(key, ids[1], ids[2])
    (group,) = await client.xinfo_groups(key)
    assert group["lag"] is None
    assert await queue.depth() == Depth(pending=2, in_flight=1)
    await held.ack()


async def test_depth_counts_page_by_page(open_stream, client, key, monkeypatch):
    monkeypatch.setattr("hookbench.queues.redis_stream._COUNT_PAGE", 2)
    queue = open_stream(delete_acked=False)
    for unread in range(1, 6):
        await client.delete(key)
        ids = [await client.xadd(key, {PAYLOAD_FIELD: b"x"}) for _ in range(unread + 2)]
        await client.xgroup_create(key, GROUP, id=ids[0])
        await client.xdel(key, ids[1])
        assert (await client.xinfo_groups(key))[0]["lag"] is None
        assert await queue.depth() == Depth(pending=unread, in_flight=0)


async def test_a_nak_waits_for_a_lease_at_most(open_stream):
    queue = open_stream(min_idle_s=0.3)
    assert queue.max_nak_delay_s == 0.3
    await queue.put(b"x")
    (first,) = await take(queue, 1)
    await first.nak(3600.0)
    assert await queue.receive(1, SHORT_S) == []
    (second,) = await take(queue, 1)
    assert second.attempt == 2


async def test_what_is_given_back_comes_before_what_is_new(open_stream):
    queue = open_stream()
    await queue.put(b"first")
    (first,) = await take(queue, 1)
    await queue.put(b"new")
    await first.nak()
    assert [(d.payload, d.attempt) for d in await queue.receive(5, WAIT_S)] == [
        (b"first", 2),
        (b"new", 1),
    ]


async def test_a_batch_of_given_back_and_new_tasks_keeps_its_limit(open_stream):
    queue = open_stream()
    for number in range(6):
        await queue.put(b"%d" % number)
    for delivery in await take(queue, 4):
        await delivery.nak()
    batches = [[d.payload for d in await queue.receive(3, WAIT_S)] for _ in range(2)]
    assert batches == [[b"0", b"1", b"2"], [b"3", b"4", b"5"]]


async def test_what_is_given_back_is_found_among_many_in_flight(open_stream):
    queue = open_stream()
    for _ in range(100):  # XAUTOCLAIM looks at 10 entries per entry asked for
        await queue.put(b"x")
    deliveries = await take(queue, 100)
    for position in (99, 0, 50):
        await deliveries[position].nak()
        (again,) = await queue.receive(1, SHORT_S)
        assert (again.sequence, again.attempt) == (deliveries[position].sequence, 2)


async def test_a_worker_that_lost_its_task_cannot_give_back_or_keep_that_of_another(open_stream):
    stale_queue, queue = open_stream(), open_stream(consumer="other")
    await stale_queue.put(b"x")
    (stale,) = await take(stale_queue, 1)
    await stale.nak()
    (current,) = await take(queue, 1)
    await stale.nak()
    assert await queue.receive(1, SHORT_S) == [], "a stale nak gave it to a third worker"
    await current.nak(0.0)
    await stale.in_progress()
    (third,) = await take(queue, 1)
    assert third.attempt == 3
    await stale.ack()  # the task is finished, whoever says so
    assert await is_empty(queue)
    await third.ack()
    assert await is_empty(queue)


async def test_an_ack_twice_is_one(open_stream):
    queue = open_stream()
    await queue.put(b"x")
    (delivery,) = await take(queue, 1)
    for _ in range(2):
        await delivery.ack()
    await delivery.nak()
    assert await queue.receive(1, SHORT_S) == []
    assert await queue.depth() == EMPTY


async def test_an_entry_that_somebody_deleted_is_not_delivered_again(open_stream, client, key):
    queue = open_stream()
    entry_id = await client.xadd(key, {PAYLOAD_FIELD: b"x"})
    (delivery,) = await take(queue, 1)
    await delivery.nak()
    await client.xdel(key, entry_id)
    assert await queue.receive(1, SHORT_S) == []
    assert await queue.depth() == EMPTY


async def test_an_entry_of_somebody_elses_is_no_task(open_stream, client, key):
    queue = open_stream()
    await client.xadd(key, {b"other": b"field"})
    (delivery,) = await take(queue, 1)
    assert delivery.payload == b""
    await delivery.term("no task")
    assert await queue.depth() == EMPTY


async def test_a_group_that_is_gone_is_made_again(open_stream, client, key):
    queue = open_stream()
    assert await queue.receive(1, SHORT_S) == []
    await client.delete(key)
    await queue.put(b"before the group")
    assert [delivery.payload for delivery in await take(queue, 1)] == [b"before the group"]


async def test_a_stream_removed_under_a_waiting_receive_is_made_again(open_stream, client, key):
    queue = open_stream(claim_every_s=5.0)
    waiting = asyncio.ensure_future(queue.receive(1, 5.0))
    await asyncio.sleep(0.05)
    await client.delete(key)
    await queue.put(b"x")
    assert [delivery.payload for delivery in await waiting] == [b"x"]


async def test_close_waits_for_every_slice_and_no_longer(open_stream):
    queue = open_stream()
    waiting = [asyncio.ensure_future(queue.receive(1, 60.0)) for _ in range(3)]
    await asyncio.sleep(0.05)
    async with asyncio.timeout(10.0):
        await queue.close()
    assert all(receive.done() for receive in waiting)
    assert [receive.result() for receive in waiting] == [[], [], []]
    assert await queue.receive(1, SHORT_S) == []


@pytest.mark.parametrize("settings", [{"min_idle_s": 0.0}, {"claim_every_s": -1.0}])
def test_times_that_redis_cannot_count_are_refused(open_stream, settings):
    with pytest.raises(SettingError, match=next(iter(settings))):
        open_stream(**settings)


async def test_a_wait_of_nothing_is_refused(open_stream):
    with pytest.raises(SettingError, match="wait of 0 s"):
        await open_stream().receive(1, 0)


async def test_a_url_that_asks_for_the_newer_protocol_gets_the_same_answers(redis_broker, names):
    client = connect_redis(f"{redis_broker.url}?protocol=3")
    async with RedisStreamQueue(client, names=names, claim_every_s=0.1) as queue:
        await queue.put(b"x")
        (first,) = await take(queue, 1)
        await first.nak()
        (second,) = await take(queue, 1)
        assert (second.payload, second.attempt) == (b"x", 2)
        assert await queue.depth() == Depth(pending=0, in_flight=1)
    await client.aclose()


async def test_a_put_without_a_server_is_refused(names):
    client = connect_redis(f"redis://127.0.0.1:{free_port()}")
    queue = RedisStreamQueue(client, names=names)
    with pytest.raises(PublishRefusedError, match="not reachable"):
        await queue.put(b"x")
    with pytest.raises(BrokerUnreachableError):
        await queue.receive(1, SHORT_S)
    with pytest.raises(BrokerUnreachableError):
        await queue.depth()
    await client.aclose()


async def test_a_put_without_an_answer_is_unknown_and_may_be_stored(tmp_path, names):
    broker = start_redis(resolve_redis(env={"PATH": ""}), tmp_path, Durability.MEMORY)
    client = connect_redis(broker.url, block_timeout_secs=-4.5)  # a socket timeout of 0.5 s
    queue = RedisStreamQueue(client, names=names, claim_every_s=0.1)
    try:
        await queue.put(b"first")
        broker.pause()
        with pytest.raises(PublishUnknownError, match="no answer to XADD"):
            await queue.put(b"second")
        broker.resume()
        assert [d.payload for d in await take(queue, 2)] == [b"first", b"second"]
    finally:
        await client.aclose()
        broker.stop()


async def test_a_full_redis_refuses_tasks_and_hands_out_what_it_has(tmp_path, names):
    broker = start_redis(resolve_redis(env={"PATH": ""}), tmp_path, Durability.MEMORY)
    client = connect_redis(broker.url)
    queue = RedisStreamQueue(client, names=names, min_idle_s=60.0, claim_every_s=0.1)
    try:
        for number in range(3):
            await queue.put(b"%d" % number)
        (held,) = await take(queue, 1)
        await client.config_set("maxmemory", 1)
        with pytest.raises(PublishRefusedError, match="maxmemory"):
            await queue.put(b"x")
        await held.nak()
        for delivery in await take(queue, 3):
            await delivery.ack()
        assert await queue.depth() == EMPTY
    finally:
        await client.aclose()
        broker.stop()


async def test_a_put_that_looks_adds_once(open_stream, client, key):
    queue = open_stream()
    numbers = await asyncio.gather(*(queue.put_if_absent(b"once") for _ in range(5)))
    assert len(set(numbers)) == 1
    others = [await queue.put(b"%d" % number) for number in range(250)]
    assert others == sorted(others)
    assert await queue.put_if_absent(b"once") == numbers[0]
    assert await queue.put_if_absent(b"other") > others[-1]
    assert await client.xlen(key) == 252


async def test_a_survey_tells_what_is_unread_and_what_is_pending(open_stream, client, names):
    survey = StreamSurvey(client, names=names)
    assert await survey.depth() == EMPTY
    assert await survey.contents() == ([], [])
    queue = open_stream()
    for number in range(1203):
        await queue.put(b"%d" % number)
    assert await survey.depth() == Depth(pending=1203, in_flight=0)
    held = await take(queue, 3)
    await held[0].ack()
    unread, pending = await survey.contents()
    assert (len(unread), unread[0], unread[-1]) == (1200, b"3", b"1202")
    assert pending == [b"1", b"2"]
    assert await survey.depth() == Depth(pending=1200, in_flight=2)
    assert await client.xinfo_consumers(survey.key, GROUP) != []


async def test_a_survey_of_another_kind_of_key_is_an_error(client, key, names):
    await client.lpush(key, b"x")
    with pytest.raises(BrokerUnreachableError, match="WRONGTYPE"):
        await StreamSurvey(client, names=names).depth()
