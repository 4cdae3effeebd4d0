"""What is particular to the queue on Redis lists."""

import asyncio

import pytest

from hookbench.queues.base import Depth
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.redis_list import RedisListQueue
from tests.contract.steps import take


@pytest.fixture
async def client(redis_broker):
    client = connect_redis(redis_broker.url)
    yield client
    await client.aclose()


@pytest.mark.parametrize(("lrem_count", "left"), [(0, 0), (1, 1)])
async def test_r4_the_guides_ack_removes_equal_tasks_too(client, names, lrem_count, left):
    async with RedisListQueue(client, names=names, lrem_count=lrem_count) as queue:
        await queue.put(b"a task without an id")
        await queue.put(b"a task without an id")
        first, _second = await take(queue, 2)
        await first.ack()
        assert await queue.depth() == Depth(pending=0, in_flight=left)


async def test_close_waits_for_every_receive(client, names):
    queue = RedisListQueue(client, names=names)
    waiting = [asyncio.ensure_future(queue.receive(1, wait_s)) for wait_s in (0.2, 0.6)]
    await asyncio.sleep(0.05)
    await queue.close()
    assert all(receive.done() for receive in waiting)
    assert [receive.result() for receive in waiting] == [[], []]


async def test_the_oldest_are_taken_only_while_they_are_the_oldest(client, names):
    queue = RedisListQueue(client, names=names)
    for payload in (b"1", b"2", b"3"):
        await queue.put(payload)
    assert await queue.oldest(2) == [b"1", b"2"]
    assert await queue.take_oldest([]) == []
    assert await queue.take_oldest([b"2"]) == []
    taken = await queue.take_oldest([b"1", b"2", b"another"])
    assert [delivery.payload for delivery in taken] == [b"1", b"2"]
    assert await queue.contents() == ([b"3"], [b"2", b"1"])
    await taken[0].ack()
    assert await queue.contents() == ([b"3"], [b"2"])
    await queue.close()
    assert await queue.take_oldest([b"3"]) == []
