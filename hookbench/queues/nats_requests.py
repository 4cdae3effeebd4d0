"""Requests of NATS whose answers come over one inbox, with one timer for all of them.

nats-py's own has a timer task of each request, and a queue and a task between the socket and all of
them. What is sent, and what an answer or its absence means, is the same.
"""

import asyncio
from typing import TYPE_CHECKING, Any

import nats.errors

if TYPE_CHECKING:
    from hookbench.queues.reconnecting import ReconnectingClient

__all__ = ["Requests"]

_NO_RESPONDERS = "503"
_NOBODY = (None, 0.0)
_Answer = asyncio.Future[Any]


class Requests:
    """Asks over a connection, and has the answers sent to an inbox of its own."""

    def __init__(self, client: "ReconnectingClient") -> None:
        self._client = client
        self._inbox = ""
        self._opening: asyncio.Future[Any] | None = None
        self._waiting: dict[str, tuple[_Answer, float]] = {}
        """By the last token of the reply subject, and until when by the loop's clock."""
        self._numbers = 0
        self._timer: asyncio.TimerHandle | None = None

    async def ask(
        self, subject: str, payload: bytes, timeout_s: float, headers: dict[str, str] | None
    ) -> Any:
        """The answer, a message of nats-py's.

        Raises:
            nats.errors.NoRespondersError: nobody listens to the subject.
            nats.errors.TimeoutError: no answer in time.
            nats.errors.Error: the connection did not take it.
        """
        if not self._inbox:
            await self._open()
        token = str(self._numbers)
        self._numbers += 1
        loop = asyncio.get_running_loop()
        answer: _Answer = loop.create_future()
        until_s = loop.time() + timeout_s
        self._waiting[token] = (answer, until_s)
        if self._timer is None or until_s < self._timer.when():
            self._watch(until_s)
        try:
            reply = f"{self._inbox}.{token}"
            if not self._client.send_now(subject, payload, reply, headers):
                await self._client.publish(subject, payload, reply, headers)
            return await answer
        finally:
            self._waiting.pop(token, None)

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

    def _watch(self, at_s: float) -> None:
        """Look then for what is late: one timer, for one of each request cost a tenth of it."""
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
                answer.set_exception(nats.errors.TimeoutError())
        if next_s is not None:
            self._watch(next_s)

    async def _on_answer(self, msg: Any) -> None:
        answer, _until_s = self._waiting.get(msg.subject.rpartition(".")[2], _NOBODY)
        if answer is None or answer.done():
            return  # too late: whoever asked was told so
        if msg.headers and msg.headers.get("Status") == _NO_RESPONDERS:
            answer.set_exception(nats.errors.NoRespondersError())
        else:
            answer.set_result(msg)
