"""Requests of NATS whose answers come over one inbox, with one timer for all of them.

nats-py's own has a timer task of each request, and a queue and a task between the socket and all of
them. What is sent, and what an answer or its absence means, is the same; but a question to
JetStream that changes nothing is asked again each second, for one that meets a change of the leader
is never answered.
"""

import asyncio
import math
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import nats.errors

from hookbench.queues.nats_frames import Message, headers_of

if TYPE_CHECKING:
    from hookbench.queues.reconnecting import ReconnectingClient

__all__ = ["Requests"]

_NO_RESPONDERS = "503"
_AGAIN_S = 1.0
_QUESTIONS = tuple(
    f"$JS.API.{name}"
    for name in ("INFO", "STREAM.INFO.", "STREAM.MSG.GET.", "DIRECT.GET.", "CONSUMER.INFO.")
)
_Answer = asyncio.Future[Any]


class _Asked:
    __slots__ = ("again_s", "answer", "payload", "subject", "until_s")

    def __init__(self, answer: _Answer, until_s: float, subject: str, payload: bytes) -> None:
        self.answer = answer
        self.until_s = until_s
        self.again_s = until_s
        self.subject = subject
        self.payload = payload


class Requests:
    """Asks over a connection, and has the answers sent to an inbox of its own."""

    def __init__(self, client: "ReconnectingClient") -> None:
        self._client = client
        self._inbox = ""
        self._opening: asyncio.Future[Any] | None = None
        self._waiting: dict[str, _Asked] = {}
        """By the last token of the reply subject; times are those of the loop."""
        self._numbers = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = math.inf
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(
        self,
        subject: str,
        payload: bytes,
        timeout_s: float,
        headers: dict[str, str] | bytes | None = None,
    ) -> Any:
        """The answer, a message of nats-py's.

        Headers are as of ``ReconnectingClient.send_now``.

        Raises:
            nats.errors.NoRespondersError: nobody listens to the subject.
            nats.errors.TimeoutError: no answer in time.
            nats.errors.Error: the connection did not take it.
        """
        if not self._inbox:
            await self._open()
        token, asked = self._expect(subject, payload, timeout_s, headers)
        reply = f"{self._inbox}.{token}"
        if not self._client.send_now(subject, payload, reply, headers):
            try:
                await self._client.publish(subject, payload, reply, _by_name(headers))
            except BaseException:
                del self._waiting[token]
                raise
        return await asked.answer

    def ask_now(
        self,
        subject: str,
        payload: bytes,
        timeout_s: float,
        headers: dict[str, str] | bytes | None = None,
    ) -> Awaitable[Any]:
        """As ``ask``, without a coroutine where that is not needed."""
        if self._inbox:
            token, asked = self._expect(subject, payload, timeout_s, headers)
            if self._client.send_now(subject, payload, f"{self._inbox}.{token}", headers):
                return asked.answer
            del self._waiting[token]
        return self.ask(subject, payload, timeout_s, headers)

    def _expect(
        self,
        subject: str,
        payload: bytes,
        timeout_s: float,
        headers: dict[str, str] | bytes | None,
    ) -> tuple[str, _Asked]:
        """Wait for an answer; it is forgotten when it comes, or else when its time is over."""
        loop = self._loop
        if loop is None:  # asking for it costs a system call each time
            loop = self._loop = asyncio.get_running_loop()
        token = str(self._numbers)
        self._numbers += 1
        now_s = loop.time()
        asked = _Asked(loop.create_future(), now_s + timeout_s, subject, payload)
        if headers is None and subject.startswith(_QUESTIONS):
            asked.again_s = min(asked.until_s, now_s + _AGAIN_S)
        self._waiting[token] = asked
        if asked.again_s < self._timer_s:
            self._watch(loop, asked.again_s)
        return token, asked

    async def _open(self) -> None:
        """Listen for answers, once for all callers."""
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._listen(self._client.new_inbox()))
        try:
            await asyncio.shield(self._opening)
        except (nats.errors.Error, OSError):
            self._opening = None
            raise

    async def _listen(self, inbox: str) -> None:
        await self._client.subscribe_at_once(f"{inbox}.*", self._on_answer)
        self._inbox = inbox

    def _watch(self, loop: asyncio.AbstractEventLoop, at_s: float) -> None:
        """Look then for what is late: one timer, for one of each request cost a tenth of it."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_s = loop.call_at(at_s, self._expire), at_s

    def _expire(self) -> None:
        self._timer, self._timer_s = None, math.inf
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        next_s = math.inf
        for token, asked in list(self._waiting.items()):
            if asked.until_s <= now_s or asked.answer.done():  # done: nobody waits for it any more
                del self._waiting[token]
                if not asked.answer.done():
                    asked.answer.set_exception(nats.errors.TimeoutError())
                continue
            if asked.again_s <= now_s:
                self._client.send_now(asked.subject, asked.payload, f"{self._inbox}.{token}")
                asked.again_s = min(asked.until_s, now_s + _AGAIN_S)
            next_s = min(next_s, asked.again_s)
        if next_s < math.inf:
            self._watch(loop, next_s)

    def _on_answer(self, msg: Message) -> None:
        asked = self._waiting.pop(msg.subject.rpartition(".")[2], None)
        if asked is None or asked.answer.done():
            return  # too late, or once more: whoever asked was told
        if msg.is_status and (msg.headers or {}).get("Status") == _NO_RESPONDERS:
            asked.answer.set_exception(nats.errors.NoRespondersError())
        else:
            asked.answer.set_result(msg)


def _by_name(headers: dict[str, str] | bytes | None) -> dict[str, str] | None:
    """As nats-py takes them."""
    return headers_of(headers) if isinstance(headers, bytes) else headers
