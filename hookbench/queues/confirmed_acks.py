"""Acknowledgements that the server confirms, many at a time over one inbox.

JetStream answers an acknowledgement that carries a reply subject once it has taken it ("double
ack", https://docs.nats.io/using-nats/developer/develop_jetstream/consumers). ``ack_sync`` of
nats-py makes a request of each, with a timer of its own, and whoever waits for it has a slot less.
Here the answer completes a future; one task looks after all that are late, and sends them again:
an acknowledgement may arrive twice, on any connection.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
import nats.errors
from nats.aio.msg import Msg

from hookbench.cancellation import cancel
from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import BrokerUnreachableError
from hookbench.queues.reconnecting import ReconnectingClient, subscribe_at_once

__all__ = ["AckClient", "AckLimits", "ConfirmedAcks"]

_LOOKS_PER_DEADLINE = 4
_NO_RESPONDERS = "503"


class AckClient(Protocol):
    """What is used of a NATS client."""

    @property
    def is_connected(self) -> bool:
        """Whether what is published now goes out."""
        ...

    def new_inbox(self) -> str:
        """A subject that nobody else listens to."""
        ...

    async def subscribe(
        self, subject: str, *, cb: Callable[[Any], Awaitable[None]] | None = None
    ) -> Any:
        """Call ``cb`` with each message."""
        ...

    async def publish(self, subject: str, payload: bytes = b"", reply: str = "") -> None:
        """Send one message."""
        ...


class AckLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of the confirmations.

    Attributes:
        in_flight: confirmations that may be waited for at once; who sends more waits.
        answer_s: how long an answer may take before the acknowledgement is sent again.
        tries: how often it is sent, after which it has failed.
    """

    in_flight: int = 4096
    answer_s: float = 2.0
    tries: int = 8


class _Waiting:
    __slots__ = ("due_ns", "future", "subject", "tries")

    def __init__(self, subject: str, due_ns: int, future: "asyncio.Future[None]") -> None:
        self.subject = subject
        self.due_ns = due_ns
        self.future = future
        self.tries = 1


class ConfirmedAcks:
    """Sends acknowledgements, and completes a future for each that the server confirms."""

    def __init__(self, client: AckClient, clock: Clock, limits: AckLimits | None = None) -> None:
        self._client = client
        self._fast = client if isinstance(client, ReconnectingClient) else None
        self._clock = clock
        self._limits = limits or AckLimits()
        self._answer_ns = int(self._limits.answer_s * NS_PER_S)
        self._waiting: dict[str, _Waiting] = {}
        """By the last token of the reply subject, the one that is due first in front."""
        self._numbers = 0
        self._inbox = ""
        self._opening: asyncio.Future[Any] | None = None
        self._subscription: Any = None
        self._room = asyncio.Event()
        self._room.set()
        self._keeper: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        """Confirmations that are waited for."""
        return len(self._waiting)

    async def send(self, subject: str) -> "asyncio.Future[None]":
        """Send the acknowledgement of the delivery with this reply subject.

        Returns:
            A future of its confirmation; it fails with ``BrokerUnreachableError`` when the server
            has confirmed none of all tries.

        Raises:
            BrokerUnreachableError: it could not even be sent.
        """
        if self._subscription is None:
            await self._open()
        while len(self._waiting) >= self._limits.in_flight:
            self._room.clear()
            await self._room.wait()
        token = str(self._numbers)
        self._numbers += 1
        loop = self._loop
        if loop is None:  # asking for it costs a system call each time
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        due_ns = self._clock.monotonic_ns() + self._answer_ns
        self._waiting[token] = _Waiting(subject, due_ns, future)
        try:
            reply = f"{self._inbox}.{token}"
            if self._fast is None or not self._fast.send_now(subject, b"", reply.encode()):
                await self._client.publish(subject, b"", reply=reply)
        except (nats.errors.Error, OSError) as error:
            self._forget(token)
            raise BrokerUnreachableError(f"NATS did not take the ack: {error!r}") from error
        except asyncio.CancelledError:
            self._forget(token)
            raise
        if self._keeper is None or self._keeper.done():
            self._keeper = loop.create_task(self._look_after())
        return future

    async def close(self) -> None:
        """Wait for nothing any more; what is not confirmed has failed."""
        if self._keeper is not None:
            await cancel(self._keeper)
        for token in list(self._waiting):
            self._fail(token, "closed before it was confirmed")

    async def _open(self) -> None:
        if self._opening is None:
            self._inbox = self._client.new_inbox()
            self._opening = asyncio.ensure_future(
                subscribe_at_once(self._client, f"{self._inbox}.*", self._on_answer)
            )
        try:
            self._subscription = await asyncio.shield(self._opening)
        except (nats.errors.Error, OSError) as error:
            self._opening = None
            raise BrokerUnreachableError(f"NATS did not take a subscription: {error!r}") from error

    def _on_answer(self, msg: Msg) -> None:
        if msg.headers and msg.headers.get("Status") == _NO_RESPONDERS:
            return  # nobody leads the consumer now: it is sent again when it is due
        waiting = self._forget(msg.subject.rpartition(".")[2])
        if waiting is not None and not waiting.future.done():
            waiting.future.set_result(None)

    def _forget(self, token: str) -> _Waiting | None:
        waiting = self._waiting.pop(token, None)
        self._room.set()
        return waiting

    def _fail(self, token: str, why: str) -> None:
        waiting = self._forget(token)
        if waiting is not None and not waiting.future.done():
            waiting.future.set_exception(BrokerUnreachableError(f"ack {waiting.subject}: {why}"))

    async def _look_after(self) -> None:
        """Send again what is late, until nothing is waited for."""
        while self._waiting:
            await self._clock.sleep(self._limits.answer_s / _LOOKS_PER_DEADLINE)
            now_ns = self._clock.monotonic_ns()
            late = []
            for token, waiting in self._waiting.items():
                if waiting.due_ns > now_ns:
                    break
                late.append(token)
            for token in late:
                await self._send_again(token, now_ns)

    async def _send_again(self, token: str, now_ns: int) -> None:
        waiting = self._waiting.pop(token, None)
        if waiting is None:
            return  # confirmed while others were sent
        waiting.tries += 1
        waiting.due_ns = now_ns + self._answer_ns
        self._waiting[token] = waiting
        if waiting.tries > self._limits.tries:
            self._fail(token, f"not confirmed after {self._limits.tries} tries")
            return
        if not self._client.is_connected:
            return  # the client would keep it, and send all of them together later
        try:
            await self._client.publish(waiting.subject, b"", reply=f"{self._inbox}.{token}")
        except (nats.errors.Error, OSError):
            return  # the next look tries again
