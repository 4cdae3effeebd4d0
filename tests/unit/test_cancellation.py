import asyncio
import contextlib

import pytest

from hookbench.cancellation import cancel, raise_if_cancelled


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
