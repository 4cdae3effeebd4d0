"""Cancellation that is not lost.

``asyncio.wait_for`` of Python 3.11 swallows a cancellation that arrives together with the result
it waits for (https://github.com/python/cpython/issues/86296, mended in 3.12), and nats-py awaits
every answer through it. A task that was cancelled there simply goes on.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["cancel", "raise_if_cancelled", "run_beside"]

Result = TypeVar("Result")

_PATIENCE_S = 2.0
"""Longer than a task needs to clean up, which another cancellation would cut short."""


async def cancel(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel tasks, again if they go on, and wait until all have ended.

    Raises:
        BaseException: what a task raised other than its cancellation.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _done, pending = await asyncio.wait(pending, timeout=_PATIENCE_S)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


async def run_beside(
    work: Coroutine[Any, Any, Result], *companions: "asyncio.Future[Any]"
) -> Result:
    """What ``work`` returns, with companions that end with it.

    One that fails before ends it: a process that no longer follows its phase, say, is of no use,
    and who watches it starts another one.

    Raises:
        BaseException: what ``work`` raised, or a companion.
    """
    task = asyncio.ensure_future(work)
    pending: set[asyncio.Future[Any]] = {task, *companions}
    try:
        while not task.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for item in done - {task}:
                item.result()
        return task.result()
    finally:
        await cancel(task, *companions)


def raise_if_cancelled() -> None:
    """Raise the cancellation that the current task was sent and that somebody swallowed."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
