"""The same work many times at once, in tasks that stay for the next time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

__all__ = ["Lanes"]

_MOST_IDLE = 1_000
"""Tasks that wait for work; what comes back beyond them ends."""

Result = TypeVar("Result")


class _Batch(Generic[Result]):
    __slots__ = ("defect", "ended", "left", "results")

    def __init__(self, count: int, ended: asyncio.Future[None]) -> None:
        self.left = count
        self.ended = ended
        self.results: list[Result] = []
        self.defect: Exception | None = None


class Lanes(Generic[Result]):
    """Runs ``work`` so many times at once, each in a task of its own, as ``asyncio.gather`` does.

    A task that has done its part waits for the next batch. To make a new one for each part, with
    the callbacks of ``gather``, costs as much again as to wake one that is there.

    Args:
        work: a coroutine function.
    """

    def __init__(self, work: Callable[[], Awaitable[Result]]) -> None:
        self._work = work
        self._idle: list[asyncio.Future[_Batch[Result] | None]] = []
        self._busy: set[asyncio.Task[None]] = set()
        self._closed = False

    async def run(self, count: int) -> tuple[list[Result], Exception | None]:
        """All parts, begun in turn; returns with the last one's end.

        Returns:
            Results in the order of their ends, and the first error that a part raised.
        """
        loop = asyncio.get_running_loop()
        batch: _Batch[Result] = _Batch(count, loop.create_future())
        for _ in range(count):
            if self._idle:
                self._idle.pop().set_result(batch)
            else:
                lane = loop.create_task(self._serve(batch))
                self._busy.add(lane)
                lane.add_done_callback(self._busy.discard)
        if count:
            await batch.ended
        return batch.results, batch.defect

    async def _serve(self, batch: _Batch[Result] | None) -> None:
        loop = asyncio.get_running_loop()
        while batch is not None:
            try:
                batch.results.append(await self._work())
            except asyncio.CancelledError:
                batch.ended.cancel()
                raise
            except Exception as error:  # noqa: BLE001 - it is told where the batch was asked for
                batch.defect = batch.defect or error
            batch.left -= 1
            if batch.left == 0 and not batch.ended.done():
                batch.ended.set_result(None)
            if self._closed or len(self._idle) >= _MOST_IDLE:
                return
            batch_comes: asyncio.Future[_Batch[Result] | None] = loop.create_future()
            self._idle.append(batch_comes)
            batch = await batch_comes

    def close(self) -> None:
        """Let tasks that wait end, and those that work as soon as they have done their part."""
        self._closed = True
        idle, self._idle = self._idle, []
        for batch_comes in idle:
            batch_comes.set_result(None)
