"""Requests of NATS whose answers come over one inbox, with one timer for all of them.

nats-py's own has a timer task of each request, and a queue and a task between the socket and all of
them. What is sent, and what an answer or its absence means, is the same; but a question to
JetStream that changes nothing is asked again each second, for one that meets a change of the leader
is never answered. And where nothing is answered any more, answers are sent to another inbox: a
server that never got to hear of this one would stay silent for as long as the connection stands.
"""

import asyncio
import contextlib
import math
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import msgspec
import nats.errors

from hookbench.queues.nats_frames import Message, headers_of

if TYPE_CHECKING:
    from nats.aio.subscription import Subscription

    from hookbench.queues.reconnecting import ReconnectingClient

__all__ = ["Requests"]

_NO_RESPONDERS = "503"
_AGAIN_S = 1.0
_DEAF_AFTER = 3
"""So many requests in a row without any answer make another inbox."""
_API = "$JS.API."
_QUESTIONS = tuple(
    f"{_API}{name}"
    for name in ("INFO", "STREAM.INFO.", "STREAM.MSG.GET.", "DIRECT.GET.", "CONSUMER.INFO.")
)
_Answer = asyncio.Future[Any]


class _Asked(msgspec.Struct):
    answer: _Answer
    until_s: float
    again_s: float
    subject: str
    payload: bytes


class Requests:
    """Asks over a connection, and has the answers sent to an inbox of its own."""

    def __init__(self, client: "ReconnectingClient") -> None:
        self._client = client
        self._inbox = b""
        """What the reply subjects begin with."""
        self._opening: asyncio.Future[Any] | None = None
        self._subscription: Subscription | None = None
        self._unanswered = 0
        """Requests since the last answer whose time is over."""
        self._waiting: dict[bytes, _Asked] = {}
        """By reply subject; times are those of the loop."""
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
        reply, asked = self._expect(subject, payload, timeout_s, headers)
        if not self._client.send_now(subject, payload, reply, headers):
            try:
                await self._client.publish(subject, payload, reply.decode(), _by_name(headers))
            except BaseException:
                del self._waiting[reply]
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
            reply, asked = self._expect(subject, payload, timeout_s, headers)
            if self._client.send_now(subject, payload, reply, headers):
                return asked.answer
            del self._waiting[reply]
        return self.ask(subject, payload, timeout_s, headers)

    def _expect(
        self,
        subject: str,
        payload: bytes,
        timeout_s: float,
        headers: dict[str, str] | bytes | None,
    ) -> tuple[bytes, _Asked]:
        """Wait for an answer; it is forgotten when it comes, or else when its time is over."""
        loop = self._loop
        if loop is None:  # asking for it costs a system call each time
            loop = self._loop = asyncio.get_running_loop()
        self._numbers += 1
        reply = b"%b%d" % (self._inbox, self._numbers)
        now_s = loop.time()
        until_s = again_s = now_s + timeout_s
        if headers is None and subject.startswith(_API) and subject.startswith(_QUESTIONS):
            again_s = min(until_s, now_s + _AGAIN_S)
        asked = self._waiting[reply] = _Asked(
            loop.create_future(), until_s, again_s, subject, payload
        )
        if again_s < self._timer_s:
            self._watch(loop, again_s)
        return reply, asked

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
        before = self._subscription
        self._subscription = await self._client.subscribe_at_once(f"{inbox}.*", self._on_answer)
        self._inbox = f"{inbox}.".encode()
        if before is not None:
            with contextlib.suppress(nats.errors.Error):  # of a connection that is gone
                await before.unsubscribe()

    def _listen_anew(self) -> None:
        """Have the next request open another inbox; until then this one is listened to."""
        self._inbox, self._opening, self._unanswered = b"", None, 0

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
        for reply, asked in list(self._waiting.items()):
            if asked.until_s <= now_s or asked.answer.done():  # done: nobody waits for it any more
                del self._waiting[reply]
                if not asked.answer.done():
                    asked.answer.set_exception(nats.errors.TimeoutError())
                    self._unanswered += 1
                continue
            if asked.again_s <= now_s:
                self._client.send_now(asked.subject, asked.payload, reply)
                asked.again_s = min(asked.until_s, now_s + _AGAIN_S)
            next_s = min(next_s, asked.again_s)
        if next_s < math.inf:
            self._watch(loop, next_s)
        if self._unanswered >= _DEAF_AFTER:
            self._listen_anew()

    def _on_answer(self, msg: Message) -> None:
        self._unanswered = 0
        asked = self._waiting.pop(msg.raw_subject, None)
        if asked is None or asked.answer.done():
            return  # too late, or once more: whoever asked was told
        if (
            msg.raw_headers
            and msg.is_status
            and (msg.headers or {}).get("Status") == _NO_RESPONDERS
        ):
            asked.answer.set_exception(nats.errors.NoRespondersError())
        else:
            asked.answer.set_result(msg)


def _by_name(headers: dict[str, str] | bytes | None) -> dict[str, str] | None:
    """As nats-py takes them."""
    return headers_of(headers) if isinstance(headers, bytes) else headers
