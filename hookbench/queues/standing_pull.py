"""A pull request that is kept open, so that a task is handed over when it arrives."""

import asyncio
from collections import deque
from typing import Any

import msgspec

from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import BrokerUnreachableError
from hookbench.queues.nats_client import NatsClient, NatsDelivery
from hookbench.queues.nats_frames import Message
from hookbench.queues.reconnecting import publish_at_once, subscribe_at_once

__all__ = ["StandingPull"]

_REQUEST_GRACE_S = 1.0
_STATUS_HEADER = "Status"
_PENDING_HEADER = "Nats-Pending-Messages"


class StandingPull:
    """Keeps a pull request open and hands out what arrives."""

    def __init__(self, client: NatsClient, stream: str, durable: str, clock: Clock) -> None:
        self._client = client
        self._request_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._durable = durable
        self._clock = clock
        self._arrived: deque[NatsDelivery] = deque()
        self._changed = asyncio.Event()
        self._requests: deque[list[int]] = deque()
        """What the server still owes: expiry in ns and tasks of each request, oldest first."""
        self._reconnects = 0
        self._failure: str | None = None
        self._closed = False
        self._subscription: Any = None
        self._inbox = ""

    async def open(self) -> None:
        """Subscribe to what will be handed over."""
        self._inbox = self._client.new_inbox()
        self._subscription = await subscribe_at_once(self._client, self._inbox, self._on_message)

    def _on_message(self, msg: NatsDelivery) -> None:
        if isinstance(msg, Message) and not msg.is_status:
            status = None  # which saves to parse the headers of each task
        else:
            status = (msg.headers or {}).get(_STATUS_HEADER)
        if status is None:
            self._answered(1)
            self._arrived.append(msg)
        else:
            self._on_status(status, msg)
        self._changed.set()

    def _on_status(self, status: str, msg: NatsDelivery) -> None:
        headers = msg.headers or {}
        if status == "100":  # idle heartbeat
            return
        unfilled = headers.get(_PENDING_HEADER)
        if unfilled:
            self._answered(int(unfilled))
        else:
            self._requests.clear()
        if status not in ("404", "408"):
            self._failure = f"{status} {headers.get('Description', '')}".strip()

    def _answered(self, count: int) -> None:
        """So many tasks are not owed any more; the oldest request is answered first."""
        while count and self._requests:
            oldest = self._requests[0]
            answered = min(count, oldest[1])
            oldest[1] -= answered
            count -= answered
            if oldest[1] == 0:
                self._requests.popleft()

    def _owed(self, now_ns: int) -> int:
        """Tasks that the server still owes.

        It forgets every request of a connection that ends, and one whose end was never announced
        was lost on the wire: neither may be waited for, or the next requests are too small.
        """
        reconnects = int(self._client.stats["reconnects"])
        if reconnects != self._reconnects:
            self._reconnects = reconnects
            self._requests.clear()
        grace_ns = int(_REQUEST_GRACE_S * NS_PER_S)
        while self._requests and self._requests[0][0] + grace_ns < now_ns:
            self._requests.popleft()
        return sum(count for _expires_ns, count in self._requests)

    async def take(self, batch: int, wait_s: float) -> list[NatsDelivery]:
        """Up to ``batch`` deliveries as soon as there is one, none after ``wait_s``.

        Raises:
            BrokerUnreachableError: NATS is not connected, or the consumer answered an error.
        """
        deadline_ns = self._clock.monotonic_ns() + int(wait_s * NS_PER_S)
        while True:
            if self._arrived:
                return [self._arrived.popleft() for _ in range(min(batch, len(self._arrived)))]
            if self._closed:
                return []
            self._raise_failure()
            now_ns = self._clock.monotonic_ns()
            if now_ns >= deadline_ns:
                return []
            await self._top_up(batch, deadline_ns - now_ns)
            self._changed.clear()
            if self._arrived or self._failure:
                continue
            await self._until_changed((deadline_ns - now_ns) / NS_PER_S)

    async def _until_changed(self, most_s: float) -> None:
        """Wait for news, or for so long; with a third of what ``asyncio.timeout`` costs."""
        loop = asyncio.get_running_loop()
        timer = loop.call_at(loop.time() + most_s, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            timer.cancel()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if not self._client.is_connected:
            self._requests.clear()
            raise BrokerUnreachableError("NATS is not connected (reconnecting)")
        if failure is not None:
            raise BrokerUnreachableError(f"consumer {self._durable}: pull answered {failure}")

    async def _top_up(self, batch: int, expires_ns: int) -> None:
        now_ns = self._clock.monotonic_ns()
        missing = batch - self._owed(now_ns)
        if missing <= 0:
            return
        request = {"batch": missing, "expires": max(expires_ns, 1_000_000)}
        self._requests.append([now_ns + expires_ns, missing])
        await publish_at_once(
            self._client, self._request_subject, msgspec.json.encode(request), self._inbox
        )

    async def close(self) -> int:
        """Take nothing more, and give back what has arrived; how much that was."""
        self._closed = True
        self._changed.set()
        if self._subscription is not None and not self._client.is_closed:
            await self._subscription.unsubscribe()
        given_back = len(self._arrived)
        while self._arrived:
            msg = self._arrived.popleft()
            if self._client.is_connected:
                await msg.nak()
        return given_back
