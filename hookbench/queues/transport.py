"""The guide's ``AppTransport``: publish with an acknowledged sequence, and pull.

``pull_one`` is the guide's call. ``pull`` is what the worker uses: one standing pull request per
subject, topped up to the number of free slots, so that a task is handed over when it arrives and
no request has to run out first.
"""

import asyncio
import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

import msgspec
import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from hookbench.cancellation import raise_if_cancelled
from hookbench.clock import NS_PER_S, Clock, SystemClock
from hookbench.errors import (
    BrokerUnreachableError,
    OversizeError,
    PublishRefusedError,
    PublishUnknownError,
    SettingError,
)
from hookbench.ledger.events import Broker
from hookbench.queues.base import AckFn, NatsConsumeFn, NatsPublishFn
from hookbench.task import Names

__all__ = ["AppTransport", "NatsMessage", "PublishAck", "make_nats_consume", "make_nats_publish"]

PUBLISH_TIMEOUT_S = 5.0
ACK_TIMEOUT_S = 5.0
_CONNECT_TIMEOUT_S = 3.0
_REQUEST_GRACE_S = 1.0
_PULL_ONE_WAIT_S = 0.05
_STATUS_HEADER = "Status"
_PENDING_HEADER = "Nats-Pending-Messages"


class PublishAck(msgspec.Struct, frozen=True):
    """The stream's answer: the sequence, and whether it knew the ``Nats-Msg-Id`` already."""

    sequence: int
    duplicate: bool


@contextmanager
def _connection_errors(what: str) -> Iterator[None]:
    """What nats-py raises for a broken connection, as an error that callers above it know."""
    try:
        yield
    except (nats.errors.Error, TimeoutError, OSError) as error:
        raise BrokerUnreachableError(f"NATS did not take the {what}: {error!r}") from error


class NatsMessage:
    """One JetStream delivery. Calling it acknowledges, as the guide's ``ack`` function does."""

    broker = Broker.NATS
    __slots__ = ("_msg", "_sync_ack", "attempt", "payload", "sequence")

    def __init__(self, msg: Msg, *, sync_ack: bool) -> None:
        metadata = msg.metadata
        self._msg = msg
        self._sync_ack = sync_ack
        self.payload = msg.data
        self.attempt = metadata.num_delivered or 1
        self.sequence = metadata.sequence.stream if metadata.sequence else 0

    async def __call__(self) -> None:
        """Acknowledge."""
        await self.ack()

    async def ack(self) -> None:
        """Acknowledge; with ``sync_ack`` wait until the server has it.

        Raises:
            BrokerUnreachableError: no connection, or no confirmation in time.
        """
        with _connection_errors("ack"):
            if self._sync_ack:
                await self._msg.ack_sync(timeout=ACK_TIMEOUT_S)
            else:
                await self._msg.ack()

    async def nak(self, delay_s: float = 0.0) -> None:
        """Ask for another delivery, after ``delay_s``."""
        with _connection_errors("nak"):
            await self._msg.nak(delay=delay_s or None)

    async def term(self, reason: str) -> None:  # noqa: ARG002 - nats-py sends none
        """Never deliver this again."""
        with _connection_errors("term"):
            await self._msg.term()

    async def in_progress(self) -> None:
        """Restart the server's AckWait."""
        with _connection_errors("in-progress"):
            await self._msg.in_progress()


class AppTransport:
    """A NATS connection with the guide's two calls.

    Args:
        client: a connected client.
        names: stream, consumer and subjects.
        consumers: durable consumer of each subject; by default the guide's one, for ``sync``.
        sync_ack: wait for the server's confirmation of an acknowledgement.
        clock: for the age of pull requests.
    """

    def __init__(
        self,
        client: Client,
        *,
        names: Names | None = None,
        consumers: dict[str, str] | None = None,
        sync_ack: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self.names = names or Names()
        self.client = client
        self.jetstream = client.jetstream(timeout=PUBLISH_TIMEOUT_S)
        self._consumers = consumers or {self.names.subject("sync"): self.names.consumer}
        self._sync_ack = sync_ack
        self._clock = clock or SystemClock()
        self._pulls: dict[str, _StandingPull] = {}

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        names: Names | None = None,
        consumers: dict[str, str] | None = None,
        sync_ack: bool = False,
        clock: Clock | None = None,
    ) -> Self:
        """Connect; afterwards the client reconnects for ever.

        Args:
            url: of a server, or of several nodes of a cluster, separated by commas.
            names: see the class, as the others.
            consumers: see the class.
            sync_ack: see the class.
            clock: see the class.

        Raises:
            BrokerUnreachableError: no server answers at ``url`` now.
            SettingError: the URL is no NATS URL.
        """
        urls = url.split(",")
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S * len(urls)):
                client = await nats.connect(
                    urls if len(urls) > 1 else url,  # an empty one is an error of its own
                    connect_timeout=int(_CONNECT_TIMEOUT_S),
                    reconnect_time_wait=0.25,
                    max_reconnect_attempts=-1,
                    error_cb=_ignore_connection_noise,
                )
            raise_if_cancelled()
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnreachableError(
                f"NATS at {url} does not answer ({type(error).__name__}): start it or give another"
                " URL with --nats-url or HOOKBENCH_NATS_URL"
            ) from error
        except ValueError as error:
            raise SettingError(f"NATS URL {url!r}: {error}") from error
        return cls(client, names=names, consumers=consumers, sync_ack=sync_ack, clock=clock)

    @property
    def max_payload_bytes(self) -> int:
        """The server's limit of one payload, headers included."""
        return int(self.client.max_payload)

    async def publish(
        self, subject: str, payload: bytes, *, msg_id: str | None = None
    ) -> PublishAck:
        """Publish and wait for the stream's acknowledgement.

        Raises:
            OversizeError: larger than the server takes; nothing was sent.
            PublishRefusedError: the server answered no, or no stream listens.
            PublishUnknownError: no answer in time; the stream may hold it.
        """
        if len(payload) > self.max_payload_bytes:
            raise OversizeError(
                f"task of {len(payload)} bytes: NATS takes {self.max_payload_bytes} (max_payload)"
            )
        if not self.client.is_connected:
            # nats-py would keep the task in a buffer of its own and send it after a reconnect,
            # long after the caller was told that it failed.
            raise PublishRefusedError("NATS is not connected (reconnecting)")
        headers: dict[str, Any] | None = {"Nats-Msg-Id": msg_id} if msg_id else None
        try:
            ack = await self.jetstream.publish(
                subject, payload, timeout=PUBLISH_TIMEOUT_S, headers=headers
            )
        except nats.js.errors.NoStreamResponseError as error:
            raise PublishRefusedError(f"no stream takes {subject}: create it first") from error
        except nats.js.errors.APIError as error:
            raise PublishRefusedError(f"JetStream refused {subject}: {error}") from error
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise PublishUnknownError(
                f"no acknowledgement for {subject} ({type(error).__name__})"
            ) from error
        raise_if_cancelled()
        return PublishAck(ack.seq, bool(ack.duplicate))

    async def pull_one(self, subject: str) -> NatsMessage | None:
        """The next task of a subject, ``None`` if there is none now."""
        messages = await self.pull(subject, 1, _PULL_ONE_WAIT_S)
        return messages[0] if messages else None

    async def pull(self, subject: str, batch: int, wait_s: float) -> list[NatsMessage]:
        """Up to ``batch`` tasks as soon as there is one, none after ``wait_s`` seconds.

        Raises:
            SettingError: no consumer is known for the subject.
            BrokerUnreachableError: not connected, or the consumer does not answer.
        """
        pull = self._pulls.get(subject)
        if pull is None:
            durable = self._consumers.get(subject)
            if durable is None:
                raise SettingError(
                    f"subject {subject!r} has no consumer (known: {', '.join(self._consumers)})"
                )
            pull = _StandingPull(self.client, self.names.stream, durable, self._clock)
            await pull.open()
            self._pulls[subject] = pull
        raw = await pull.take(batch, wait_s)
        return [NatsMessage(msg, sync_ack=self._sync_ack) for msg in raw]

    async def release(self) -> int:
        """Stop pulling and give back what was fetched but not handed out; how many that were."""
        given_back = 0
        for pull in self._pulls.values():
            given_back += await pull.close()
        self._pulls.clear()
        return given_back

    async def close(self) -> None:
        """Give back what is held, send what is buffered, and disconnect."""
        if self.client.is_closed:
            return
        await self.release()
        if self.client.is_connected:
            # If nobody is there to read it, closing is all that is left to do.
            with suppress(nats.errors.Error, TimeoutError):
                await self.client.flush(timeout=int(ACK_TIMEOUT_S))
        await self.client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()


async def _ignore_connection_noise(_error: Exception) -> None:
    """Outages show in the outcome of each call; nats-py's default prints a traceback as well."""


class _StandingPull:
    """Keeps a pull request open and hands out what arrives."""

    def __init__(self, client: Client, stream: str, durable: str, clock: Clock) -> None:
        self._client = client
        self._request_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._durable = durable
        self._clock = clock
        self._arrived: deque[Msg] = deque()
        self._changed = asyncio.Event()
        self._requests: deque[list[int]] = deque()
        """What the server still owes: expiry in ns and tasks of each request, oldest first."""
        self._reconnects = 0
        self._failure: str | None = None
        self._closed = False
        self._subscription: Any = None
        self._inbox = ""

    async def open(self) -> None:
        self._inbox = self._client.new_inbox()
        self._subscription = await self._client.subscribe(self._inbox, cb=self._on_message)

    async def _on_message(self, msg: Msg) -> None:
        status = (msg.headers or {}).get(_STATUS_HEADER)
        if status is None:
            self._answered(1)
            self._arrived.append(msg)
        else:
            self._on_status(status, msg)
        self._changed.set()

    def _on_status(self, status: str, msg: Msg) -> None:
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

    async def take(self, batch: int, wait_s: float) -> list[Msg]:
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
            try:
                async with asyncio.timeout((deadline_ns - now_ns) / NS_PER_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

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
        await self._client.publish(
            self._request_subject, json.dumps(request).encode(), reply=self._inbox
        )

    async def close(self) -> int:
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


def make_nats_publish(transport: AppTransport) -> NatsPublishFn:
    """The guide's ``nats_publish`` over a transport."""

    async def nats_publish(subject: str, payload: bytes) -> int:
        ack = await transport.publish(subject, payload)
        return ack.sequence

    return nats_publish


def make_nats_consume(transport: AppTransport, *, wait_s: float = 1.0) -> NatsConsumeFn:
    """The guide's ``nats_consume`` over a transport; it waits ``wait_s`` for the first task.

    The second part of each pair is a ``NatsMessage``: callable as the guide's ``ack``, with
    ``nak``, ``term`` and ``attempt`` for a worker that looks for them.
    """

    async def nats_consume(subject: str, batch: int) -> list[tuple[bytes, AckFn]]:
        messages = await transport.pull(subject, batch, wait_s)
        return [(message.payload, message) for message in messages]

    return nats_consume
