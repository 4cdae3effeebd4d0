"""A broker is killed and comes back on the same port and data, while the queue object lives."""

import asyncio

import pytest

from hookbench.errors import BrokerUnreachableError, PublishRefusedError, PublishUnknownError
from hookbench.task import decode_task, encode_task
from tests.conftest import eventually
from tests.contract.conftest import WORKER_LEASES
from tests.contract.steps import drain_until, take

OUTAGE = (PublishRefusedError, PublishUnknownError)


async def puts(queue, task):
    """Whether the task was acknowledged."""
    try:
        await queue.put(encode_task(task))
    except OUTAGE:
        return False
    return True


async def receive_fails(queue):
    try:
        await queue.receive(1, 0.05)
    except BrokerUnreachableError:
        return True
    return False


async def test_nothing_acknowledged_is_lost_and_work_goes_on(
    queue_of_own_broker, own_broker, kind, make_task
):
    queue = queue_of_own_broker
    comes_again = queue.capabilities.redelivery and kind not in WORKER_LEASES
    before = [make_task() for _ in range(6)]
    for task in before:
        await queue.put(encode_task(task))
    finished, held = await take(queue, 2)
    await finished.ack()

    own_broker.kill()
    lost_or_not = make_task()
    with pytest.raises(OUTAGE):
        await queue.put(encode_task(lost_or_not))
    await eventually(lambda: receive_fails(queue), what="an error of receive")
    own_broker.restart()

    after = make_task()
    await eventually(lambda: puts(queue, after), what="an accepted put")
    wanted = {task.id for task in (*before[2:], after)}
    if comes_again:
        wanted.add(decode_task(held.payload).id)
    came = await drain_until(queue, wanted)
    assert came <= {task.id for task in (*before, lost_or_not, after)}
    if not comes_again:  # held, or stuck: but not lost (hazard R3)
        assert (await queue.depth()).in_flight == 1
        await held.ack()
        assert (await queue.depth()).in_flight == 0


async def test_a_waiting_receive_survives_the_kill(queue_of_own_broker, own_broker, make_task):
    queue = queue_of_own_broker
    waiting = asyncio.ensure_future(queue.receive(1, 2.0))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    own_broker.kill()
    async with asyncio.timeout(10.0):
        (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
    assert outcome == [] or isinstance(outcome, BrokerUnreachableError)
    own_broker.restart()
    task = make_task()
    await eventually(lambda: puts(queue, task), what="an accepted put")
    assert await drain_until(queue, {task.id}) == {task.id}
    async with asyncio.timeout(10.0):
        await queue.close()
