import asyncio
import contextlib

import pytest

from hookbench.cancellation import cancel, raise_if_cancelled, run_beside


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again():
    swallowed = 0

    async def stubborn():
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.Event().wait()

    task = asyncio.ensure_future(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await cancel(task)
    assert task.cancelled()
    assert swallowed == 2


async def test_what_a_task_raised_is_not_lost():
    async def broken():
        raise ValueError("of this test")

    task = asyncio.ensure_future(broken())
    await asyncio.sleep(0)
    with pytest.raises(ValueError, match="of this test"):
        await cancel(task)


async def test_a_swallowed_cancellation_is_raised_again():
    async def careless():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        raise_if_cancelled()
        return "went on"

    raise_if_cancelled()
    task = asyncio.ensure_future(careless())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def forever():
    await asyncio.Event().wait()


async def test_companions_end_with_the_work():
    companion, short = asyncio.ensure_future(forever()), asyncio.ensure_future(asyncio.sleep(0))

    async def work():
        await short
        await asyncio.sleep(0)
        return 7

    assert await run_beside(work(), companion, short) == 7
    assert companion.cancelled()


async def test_a_companion_that_fails_ends_the_work():
    ended = []

    async def work():
        try:
            await forever()
        finally:
            ended.append("work")

    async def broken():
        await asyncio.sleep(0)
        raise ValueError("of this test")

    async with asyncio.timeout(10):
        with pytest.raises(ValueError, match="of this test"):
            await run_beside(work(), asyncio.ensure_future(broken()))
    assert ended == ["work"]


async def test_what_the_work_raises_ends_its_companions():
    companion = asyncio.ensure_future(forever())

    async def work():
        raise ValueError("of this test")

    with pytest.raises(ValueError, match="of this test"):
        await run_beside(work(), companion)
    assert companion.cancelled()


async def test_a_cancellation_of_both_waits_for_them():
    ended = []

    async def work():
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            ended.append("work")

    companion = asyncio.ensure_future(forever())
    task = asyncio.ensure_future(run_beside(work(), companion))
    await asyncio.sleep(0.01)
    await cancel(task)
    assert ended == ["work"]
    assert companion.cancelled()
