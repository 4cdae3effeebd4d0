"""Requests of many coroutines in one round trip, without anybody waiting for company."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Batches"]

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Batches(Generic[Request, Answer]):
    """Sends what is asked in one turn of the event loop together, and what comes meanwhile next.

    One batch is under way at a time: a request that comes alone goes at once, and under load
    batches grow by themselves.

    Args:
        send: one round trip; as many answers as requests, in their order.
        limit: the most requests of one batch.
    """

    def __init__(
        self, send: Callable[[Sequence[Request]], Awaitable[Sequence[Answer]]], *, limit: int
    ) -> None:
        self._send = send
        self._limit = limit
        self._waiting: deque[tuple[Request, asyncio.Future[Answer]]] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def ask(self, request: Request) -> Answer:
        """The answer to one request; whatever ``send`` raises is raised to all of its batch."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send_all())
        return await answer

    async def _send_all(self) -> None:
        while self._waiting:
            count = min(self._limit, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(count)]
            batch = [pair for pair in batch if not pair[1].done()]  # its caller was cancelled
            if not batch:
                continue
            try:
                answers = await self._send([request for request, _answer in batch])
            except BaseException as error:
                for _request, answer in batch:
                    if not answer.done():
                        _fail(answer, error)
                if not isinstance(error, Exception):
                    self._abandon()
                    raise
            else:
                for (_request, answer), value in zip(batch, answers, strict=True):
                    if not answer.done():
                        answer.set_result(value)

    def _abandon(self) -> None:
        while self._waiting:
            self._waiting.popleft()[1].cancel()


def _fail(answer: "asyncio.Future[Answer]", error: BaseException) -> None:
    if isinstance(error, Exception):
        answer.set_exception(error)
    else:
        answer.cancel()
