"""What every queue promises, whatever the broker behind it."""

import asyncio

import pytest

from hookbench.errors import OversizeError
from hookbench.task import decode_task, encode_task
from tests.conftest import eventually
from tests.contract.conftest import OVERSIZE_BYTES
from tests.contract.steps import (
    SHORT_S,
    WAIT_S,
    attempt_of,
    depth_is,
    is_empty,
    share,
    take,
)


async def test_a_task_comes_out_as_it_went_in(queue, make_task):
    task = make_task(payload={"text": "grüße", "list": [1, None, True]})
    number = await queue.put(encode_task(task))
    (delivery,) = await take(queue, 1)
    assert number >= 1
    assert decode_task(delivery.payload) == task
    assert delivery.attempt == 1
    await delivery.ack()
    await eventually(lambda: is_empty(queue))


async def test_order_and_batches(queue, make_task):
    tasks = [make_task() for _ in range(25)]
    for task in tasks:
        await queue.put(encode_task(task))
    deliveries = await take(queue, 25)
    assert [decode_task(delivery.payload) for delivery in deliveries] == tasks
    for delivery in deliveries:
        await delivery.ack()
    await eventually(lambda: is_empty(queue))


async def test_a_batch_is_never_larger_than_its_limit(queue, make_task):
    for _ in range(5):
        await queue.put(encode_task(make_task()))
    first = await queue.receive(2, WAIT_S)
    assert 1 <= len(first) <= 2
    rest = await take(queue, 5 - len(first))
    for delivery in (*first, *rest):
        await delivery.ack()


async def test_a_waiting_receive_gets_the_task_when_it_comes(queue, make_task):
    loop = asyncio.get_running_loop()
    waiting = asyncio.ensure_future(queue.receive(100, 30.0))
    await asyncio.sleep(0.05)
    started = loop.time()
    await queue.put(encode_task(make_task()))
    (delivery,) = await waiting
    assert loop.time() - started < 10.0, "it waited for a full batch or for its whole wait"
    await delivery.ack()


async def test_an_empty_queue_answers_nothing_after_the_wait(queue):
    assert await queue.receive(3, SHORT_S) == []


async def test_depth_counts_pending_and_in_flight(queue, make_task):
    for _ in range(3):
        await queue.put(encode_task(make_task()))
    assert (await queue.depth()).pending == 3
    (delivery,) = await take(queue, 1)
    await eventually(lambda: depth_is(queue, pending=2, in_flight=1))
    await delivery.ack()
    await eventually(lambda: depth_is(queue, pending=2, in_flight=0))


async def test_every_nak_brings_the_task_back_as_the_next_attempt(queue, make_task):
    task = make_task()
    await queue.put(encode_task(task))
    for attempt in (1, 2, 3):
        (delivery,) = await take(queue, 1)
        assert decode_task(delivery.payload).id == task.id
        assert attempt_of(delivery) == attempt
        if attempt < 3:
            await delivery.nak()
    await delivery.ack()
    await eventually(lambda: is_empty(queue))
    assert await queue.receive(1, SHORT_S) == []


async def test_a_delayed_nak_waits(queue, needs, make_task):
    needs("delayed_nak")
    await queue.put(encode_task(make_task()))
    (first,) = await take(queue, 1)
    await first.nak(0.5)
    assert await queue.receive(1, SHORT_S) == []
    (second,) = await take(queue, 1)
    assert second.attempt == 2
    await second.ack()


async def test_what_is_never_acknowledged_is_delivered_again(
    queue, needs, after_silence, make_task
):
    needs("redelivery")
    task = make_task()
    await queue.put(encode_task(task))
    await take(queue, 1)
    (second,) = await take(after_silence, 1)
    assert decode_task(second.payload) == task
    assert second.attempt == 2
    await second.ack()


async def test_a_dead_receivers_tasks_are_shared_out_and_none_goes_to_two(
    queue, needs, open_more, make_task
):
    needs("redelivery")
    tasks = [make_task() for _ in range(20)]
    for task in tasks:
        await queue.put(encode_task(task))
    await take(queue, 20)
    receivers = [await open_more() for _ in range(4)]
    deliveries = await share(receivers, 20, limit=3)
    came = sorted(decode_task(delivery.payload).id for delivery in deliveries)
    assert came == sorted(task.id for task in tasks)
    assert {delivery.attempt for delivery in deliveries} == {2}
    await eventually(lambda: is_empty(queue))


async def test_many_receivers_share_without_loss_or_repeat(queue, open_more, make_task):
    tasks = [make_task() for _ in range(200)]
    receivers = [queue, *[await open_more() for _ in range(3)]]
    sharing = asyncio.ensure_future(share(receivers, 200, limit=7))
    for task in tasks:
        await queue.put(encode_task(task))
    deliveries = await sharing
    came = sorted(decode_task(delivery.payload).id for delivery in deliveries)
    assert came == sorted(task.id for task in tasks)
    assert {delivery.attempt for delivery in deliveries} == {1}
    await eventually(lambda: is_empty(queue))


async def test_in_progress_puts_the_redelivery_off(queue, needs, make_task):
    needs("in_progress")
    await queue.put(encode_task(make_task()))
    (delivery,) = await take(queue, 1)
    for _ in range(8):  # 2 s in all, twice the AckWait
        await delivery.in_progress()
        assert await queue.receive(1, 0.25) == []
    await delivery.ack()
    await eventually(lambda: is_empty(queue))


async def test_in_progress_is_no_attempt(queue, needs, after_silence, make_task):
    needs("in_progress")
    await queue.put(encode_task(make_task()))
    (first,) = await take(queue, 1)
    for _ in range(3):
        await first.in_progress()
    (second,) = await take(after_silence, 1)
    assert second.attempt == 2
    await second.ack()


async def test_term_ends_the_task(queue, make_task):
    await queue.put(encode_task(make_task()))
    (delivery,) = await take(queue, 1)
    await delivery.term("no use")
    await eventually(lambda: is_empty(queue))
    assert await queue.receive(1, SHORT_S) == []


async def test_the_same_task_put_twice_is_two_deliveries(queue, make_task):
    data = encode_task(make_task())
    await queue.put(data)
    await queue.put(data)
    deliveries = await take(queue, 2)
    assert [delivery.payload for delivery in deliveries] == [data, data]


async def test_an_ack_ends_one_of_two_equal_tasks(queue, kind, make_task):
    if kind in ("redis_list", "redis_list_alone"):
        pytest.skip("redis_list as in the guide removes both (R4): see test_redis_list.py")
    data = encode_task(make_task())
    await queue.put(data)
    await queue.put(data)
    first, second = await take(queue, 2)
    await first.ack()
    await eventually(lambda: depth_is(queue, pending=0, in_flight=1))
    await second.ack()
    await eventually(lambda: is_empty(queue))


@pytest.mark.parametrize("junk", [b"", b"\x00\xff\xfe", b"{", b"[]", b"not json at all"])
async def test_bytes_that_are_no_task_pass_through(queue, junk):
    await queue.put(junk)
    (delivery,) = await take(queue, 1)
    assert delivery.payload == junk
    await delivery.term("no task")
    await eventually(lambda: is_empty(queue))


async def test_close_ends_a_blocked_receive_and_loses_nothing(queue):
    waiting = asyncio.ensure_future(queue.receive(1, 0.5))
    await asyncio.sleep(0.05)
    await queue.close()
    async with asyncio.timeout(5.0):
        assert await waiting == []
    assert await queue.receive(1, SHORT_S) == []


async def test_oversize_is_refused_and_nothing_is_stored(queue, kind, make_task):
    size_bytes = OVERSIZE_BYTES[kind]
    with pytest.raises(OversizeError, match=f"{size_bytes} bytes"):
        await queue.put(bytes(size_bytes))
    assert await is_empty(queue)
    await queue.put(encode_task(make_task()))
    (delivery,) = await take(queue, 1)
    await delivery.ack()
