"""Publishes to a stream in batches, as newer servers have it, in place of ``StreamPublisher``.

Both send what is published in one turn of the event loop together and have one answer to all of it.
They are variants for measuring: ``docs/evidence.md`` has what they cost and what they guarantee.
The protocol is that of https://github.com/nats-io/nats-architecture-and-design, ADR-50.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import nats.errors
import nats.js.errors

from hookbench.queues.batches import Batches
from hookbench.queues.nats_frames import Message
from hookbench.queues.reconnecting import ReconnectingClient
from hookbench.queues.stream_publisher import StreamAnswer, StreamPublisher, answer_of

__all__ = ["MOST_OF_A_BATCH", "AtomicBatches", "FastIngest"]

MOST_OF_A_BATCH = 1000
"""Messages of an atomic batch, by the server's default."""
_START, _ADD, _COMMIT = 0, 1, 2
"""What a message of a fast batch is."""


class _Put(NamedTuple):
    subject: str
    payload: bytes
    timeout_s: float
    headers: dict[str, str] | None


class _BatchPublisher(ABC):
    """Sends what is put in one turn together; a put that is alone is published as ever.

    Args:
        client: the connection.
        limit: messages of a batch, at most.
    """

    def __init__(self, client: ReconnectingClient, *, limit: int = MOST_OF_A_BATCH) -> None:
        self._client = client
        self._one = StreamPublisher(client)
        self._batches: Batches[_Put, StreamAnswer] = Batches(self._send, limit=limit)
        self._name = client.new_inbox().rpartition(".")[2]
        self._sent = 0

    async def publish(
        self,
        subject: str,
        payload: bytes,
        timeout: float,  # noqa: ASYNC109 - nats-py's name
        *,
        headers: dict[str, str] | None = None,
    ) -> StreamAnswer:
        """As ``StreamPublisher.publish``; the errors as well, each for a whole batch.

        Raises:
            nats.errors.Error: as there, and when a batch was not stored whole.
        """
        return await self._batches.ask(_Put(subject, payload, timeout, headers))

    async def _send(self, puts: Sequence[_Put]) -> Sequence[StreamAnswer]:
        if len(puts) == 1:
            return [await self._publish_one(puts[0], puts[0].headers)]
        self._sent += 1
        # The stream knows a batch by this alone, whatever connection its messages come from.
        answer = await self._send_batch(f"{self._name}-{self._sent}", puts)
        if answer.count != len(puts):
            raise nats.errors.Error(f"a batch of {len(puts)} messages, and {answer.count} stored")
        return self._answers(answer)

    @abstractmethod
    async def _send_batch(self, batch: str, puts: Sequence[_Put]) -> StreamAnswer:
        """Send all of them, and wait for the answer to the last."""

    @abstractmethod
    def _answers(self, answer: StreamAnswer) -> list[StreamAnswer]:
        """To each put, from that to the last."""

    async def _publish_one(self, put: _Put, headers: dict[str, str] | None) -> StreamAnswer:
        return await self._one.publish(
            put.subject, put.payload, timeout=put.timeout_s, headers=headers
        )

    async def _send_on(self, put: _Put, reply: str, headers: dict[str, str] | None) -> None:
        if not self._client.send_now(put.subject, put.payload, reply.encode(), headers):
            await self._client.publish(put.subject, put.payload, reply, headers)


class AtomicBatches(_BatchPublisher):
    """Publishes atomic batches: each is stored whole, in one piece of the stream, or not at all.

    Needs a server from 2.12 on, and a stream with ``allow_atomic``. Puts of one batch share its
    fate: what the stream refuses of one, it refuses of all.
    """

    async def _send_batch(self, batch: str, puts: Sequence[_Put]) -> StreamAnswer:
        *others, last = puts
        for number, put in enumerate(others, 1):
            await self._send_on(put, "", _headers(put.headers, batch, number))
        headers = _headers(last.headers, batch, len(puts))
        return await self._publish_one(last, {**headers, "Nats-Batch-Commit": "1"})

    def _answers(self, answer: StreamAnswer) -> list[StreamAnswer]:
        first = answer.seq - answer.count + 1
        return [StreamAnswer(seq=first + index) for index in range(answer.count)]


def _headers(own: dict[str, str] | None, batch: str, number: int) -> dict[str, str]:
    return {**(own or {}), "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}


class FastIngest(_BatchPublisher):
    """Publishes fast batches: each message is stored as it comes, and the last one's answer is all.

    Needs a server from 2.14 on, and a stream with ``allow_batched``. Others' messages may lie
    between those of a batch, so only the sequence of its last one is told: that of the others is 0.
    If a batch comes to no end, some of its messages may be stored, and all of its puts are
    uncertain.
    """

    def __init__(self, client: ReconnectingClient, *, limit: int = MOST_OF_A_BATCH) -> None:
        super().__init__(client, limit=limit)
        self._inbox = ""
        self._batch = ""
        self._end: asyncio.Future[bytes] | None = None

    async def _send_batch(self, batch: str, puts: Sequence[_Put]) -> StreamAnswer:
        if not self._inbox:
            inbox = self._client.new_inbox()
            await self._client.subscribe_at_once(f"{inbox}.>", self._on_answer)
            self._inbox = inbox
        self._batch, self._end = batch, asyncio.get_running_loop().create_future()
        replies = f"{self._inbox}.{batch}.{len(puts)}.fail"
        for number, put in enumerate(puts, 1):
            operation = _START if number == 1 else _COMMIT if number == len(puts) else _ADD
            await self._send_on(put, f"{replies}.{number}.{operation}.$FI", put.headers)
        try:
            async with asyncio.timeout(min(put.timeout_s for put in puts)):
                return answer_of(await self._end)
        except TimeoutError as error:
            raise nats.errors.TimeoutError from error

    def _answers(self, answer: StreamAnswer) -> list[StreamAnswer]:
        return [*(StreamAnswer() for _ in range(answer.count - 1)), StreamAnswer(seq=answer.seq)]

    def _on_answer(self, msg: Message) -> None:
        """The end of the batch under way, or that it has none; that it goes on is of no use."""
        batch = msg.subject.removeprefix(f"{self._inbox}.").partition(".")[0]
        end = self._end
        if end is None or end.done() or batch != self._batch:
            return
        if msg.is_status:
            end.set_exception(nats.js.errors.NoStreamResponseError())
        elif b'"type":"gap"' in msg.data:
            end.set_exception(nats.errors.Error(f"a message was lost: {msg.data.decode()}"))
        elif b'"type":"ack"' not in msg.data:
            end.set_result(msg.data)
