"""Publishes to a stream, many at a time: the acknowledgements of all come over one inbox.

nats-py's ``JetStreamContext.publish`` makes a request of each, with a timer task and a queue of its
own. Here the answer completes a future as soon as it is read. What is sent, and what an answer or
its absence means, is the same.
"""

import asyncio
from typing import Any

import msgspec
import nats.errors
import nats.js.errors

from hookbench.queues.reconnecting import ReconnectingClient

__all__ = ["StreamAnswer", "StreamPublisher"]

_NO_RESPONDERS = "503"
_NOBODY = (None, 0.0)


class StreamAnswer(msgspec.Struct):
    """What the stream says.

    Attributes:
        seq: the sequence, from 1 on; 0 with an error.
        duplicate: the stream knew the ``Nats-Msg-Id`` already.
        error: why it did not take it: ``code``, ``err_code`` and ``description``.
    """

    seq: int = 0
    duplicate: bool = False
    error: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(StreamAnswer)


class StreamPublisher:
    """Publishes on a connection, and has the stream's answers sent to an inbox of its own."""

    def __init__(self, client: ReconnectingClient) -> None:
        self._client = client
        self._inbox = ""
        self._opening: asyncio.Future[Any] | None = None
        self._waiting: dict[str, tuple[asyncio.Future[StreamAnswer], float]] = {}
        """By the last token of the reply subject, and until when by the loop's clock."""
        self._numbers = 0
        self._timer: asyncio.TimerHandle | None = None

    async def publish(
        self,
        subject: str,
        payload: bytes,
        *,
        timeout: float,  # noqa: ASYNC109 - nats-py's name
        headers: dict[str, str] | None = None,
    ) -> StreamAnswer:
        """Publish, and wait for the stream's answer.

        Raises:
            nats.js.errors.NoStreamResponseError: no stream listens to the subject.
            nats.js.errors.APIError: the stream said no.
            TimeoutError: no answer in time.
            nats.errors.Error: the connection did not take it, or the answer makes no sense.
        """
        if not self._inbox:
            await self._open()
        token = str(self._numbers)
        self._numbers += 1
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[StreamAnswer] = loop.create_future()
        until_s = loop.time() + timeout
        self._waiting[token] = (answer, until_s)
        if self._timer is None or until_s < self._timer.when():
            self._watch(until_s)
        try:
            reply = f"{self._inbox}.{token}"
            if headers or not self._client.send_now(subject, payload, reply):
                await self._client.publish(subject, payload, reply, headers)
            return await answer
        finally:
            self._waiting.pop(token, None)

    async def _open(self) -> None:
        """Listen for answers, once for all callers."""
        if self._opening is None:
            inbox = self._client.new_inbox()
            self._opening = asyncio.ensure_future(self._listen(inbox))
        try:
            await asyncio.shield(self._opening)
        except (nats.errors.Error, OSError):
            self._opening = None
            raise

    async def _listen(self, inbox: str) -> None:
        await self._client.subscribe_at_once(f"{inbox}.*", self._on_answer)
        self._inbox = inbox

    def _watch(self, at_s: float) -> None:
        """Look for what is late then: one timer, for one of each publish cost a tenth of it."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(at_s, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now_s = asyncio.get_running_loop().time()
        next_s = None
        for answer, until_s in self._waiting.values():
            if until_s > now_s:
                next_s = until_s if next_s is None else min(next_s, until_s)
            elif not answer.done():
                answer.set_exception(TimeoutError("no acknowledgement in time"))
        if next_s is not None:
            self._watch(next_s)

    async def _on_answer(self, msg: Any) -> None:
        answer, _until_s = self._waiting.get(msg.subject.rpartition(".")[2], _NOBODY)
        if answer is None or answer.done():
            return  # too late: its caller was told that the outcome is unknown
        if msg.headers and msg.headers.get("Status") == _NO_RESPONDERS:
            answer.set_exception(nats.js.errors.NoStreamResponseError())
            return
        try:
            found = _decoder.decode(msg.data)
        except msgspec.MsgspecError as error:
            answer.set_exception(nats.errors.Error(f"an answer that makes no sense: {error}"))
            return
        if found.error is not None:
            try:
                nats.js.errors.APIError.from_error(found.error)
            except nats.js.errors.APIError as error:
                answer.set_exception(error)
        elif found.seq == 0:
            answer.set_exception(nats.errors.Error(f"an answer without a sequence: {msg.data!r}"))
        else:
            answer.set_result(found)
