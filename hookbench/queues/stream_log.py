"""Reads the hook stream by sequence, without a consumer: nothing in it changes."""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import nats.errors
import nats.js.errors
from nats.js.api import RawStreamMsg

from hookbench.cancellation import raise_if_cancelled
from hookbench.errors import BrokerUnreachableError, DecodeError
from hookbench.queues.transport import AppTransport
from hookbench.task import task_id_of

__all__ = ["StoredTask", "StreamLog"]

AT_ONCE = 64
"""Requests that are on the way together."""
_MS_PER_S = 1_000


class StoredTask(msgspec.Struct, frozen=True):
    """A task in the stream: its sequence, id, subject and bytes."""

    sequence: int
    task_id: uuid.UUID
    subject: str
    payload: bytes


class StreamLog:
    """The tasks in the stream, by sequence.

    Raises:
        BrokerUnreachableError: no answer, or there is no such stream.
    """

    def __init__(self, transport: AppTransport) -> None:
        self._transport = transport
        self._stream = transport.names.stream

    async def bounds(self) -> tuple[int, int]:
        """The first and the last sequence; the first is above the last in an empty stream."""
        with self._errors():
            info = await self._transport.jetstream.stream_info(self._stream)
        raise_if_cancelled()
        return max(1, info.state.first_seq), info.state.last_seq

    async def read(self, first: int, last: int) -> list[StoredTask]:
        """The tasks from ``first`` to ``last``, both included; what is no task is left out."""
        found: list[StoredTask] = []
        for begin in range(first, last + 1, AT_ONCE):
            sequences = range(begin, min(begin + AT_ONCE, last + 1))
            for message in await asyncio.gather(*(self._get(number) for number in sequences)):
                if message is None:
                    continue
                payload = message.data or b""
                try:
                    task_id = task_id_of(payload)
                except DecodeError:
                    continue
                found.append(StoredTask(message.seq or 0, task_id, message.subject or "", payload))
        return found

    async def first_since(self, wall_ms: int) -> int:
        """A sequence from which on everything lies that was stored at that time or later.

        By halving, so it takes some twenty requests in a stream of a million tasks. Times are of
        the server's wall clock.

        Args:
            wall_ms: Unix milliseconds.
        """
        low, high = await self.bounds()
        while low < high:
            middle = (low + high) // 2
            message = await self._next(middle, high)
            if message is None or message.time is None:
                high = middle  # nothing is kept from there on, so it cannot be older
            elif message.time.timestamp() * _MS_PER_S < wall_ms:
                low = (message.seq or middle) + 1
            else:
                high = middle
        return low

    async def _next(self, first: int, last: int) -> RawStreamMsg | None:
        """The first message from a sequence on."""
        for number in range(first, last + 1):
            message = await self._get(number)
            if message is not None:
                return message
        return None

    async def _get(self, sequence: int) -> RawStreamMsg | None:
        with self._errors():
            try:
                message: RawStreamMsg = await self._transport.jetstream.get_msg(
                    self._stream, sequence
                )
            except nats.js.errors.NotFoundError:
                return None  # removed by hand, or too old by now
        raise_if_cancelled()
        return message

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerUnreachableError(f"stream {self._stream}: {error!r}") from error
