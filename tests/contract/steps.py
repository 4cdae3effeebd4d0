"""What tests of a queue do again and again."""

import asyncio
import contextlib

from hookbench.errors import BrokerUnreachableError, DecodeError
from hookbench.queues.base import Depth
from hookbench.task import decode_task

WAIT_S = 5.0
SHORT_S = 0.1
DEADLINE_S = 30.0


async def take(queue, count, wait_s=WAIT_S):
    """``count`` deliveries, in order."""
    deliveries = []
    while len(deliveries) < count:
        batch = await queue.receive(count - len(deliveries), wait_s)
        assert batch, f"{len(deliveries)} of {count} tasks came"
        deliveries += batch
    return deliveries


async def share(receivers, count, *, limit):
    """What the receivers get and acknowledge until it is ``count``, and a moment longer."""
    deliveries = []

    async def receive_all(queue):
        while len(deliveries) < count:
            for delivery in await queue.receive(limit, SHORT_S):
                deliveries.append(delivery)
                await delivery.ack()
        deliveries.extend(await queue.receive(limit, SHORT_S))

    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*map(receive_all, receivers))
    return deliveries


async def drain_until(queue, wanted):
    """Receive and acknowledge, over outages, until the set ``wanted`` came; the set of all ids."""
    came = set()
    async with asyncio.timeout(DEADLINE_S):
        while not wanted <= came:
            try:
                batch = await queue.receive(10, 0.25)
            except BrokerUnreachableError:
                await asyncio.sleep(0.02)
                continue
            for delivery in batch:
                came.add(decode_task(delivery.payload).id)
                with contextlib.suppress(BrokerUnreachableError):
                    await delivery.ack()
    return came


def attempt_of(delivery):
    """The attempt as a worker counts it: by the broker, or by the retries in the task."""
    try:
        return max(delivery.attempt, decode_task(delivery.payload).retry_count + 1)
    except DecodeError:
        return delivery.attempt


async def is_empty(queue):
    return await queue.depth() == Depth(pending=0, in_flight=0)


async def depth_is(queue, *, pending, in_flight):
    return await queue.depth() == Depth(pending=pending, in_flight=in_flight)
