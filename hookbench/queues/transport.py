"""The guide's ``AppTransport``: publish with an acknowledged sequence, and pull.

``pull_one`` is the guide's call. ``pull`` is what the worker uses: one standing pull request per
subject, topped up to the number of free slots, so that a task is handed over when it arrives and
no request has to run out first.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Self, cast

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.client import JetStreamContext

from hookbench.cancellation import raise_if_cancelled
from hookbench.clock import Clock, SystemClock
from hookbench.errors import (
    BrokerUnreachableError,
    OversizeError,
    PublishRefusedError,
    PublishUnavailableError,
    PublishUnknownError,
    SettingError,
)
from hookbench.queues.access import nats_access
from hookbench.queues.base import AckFn, NatsConsumeFn, NatsPublishFn
from hookbench.queues.confirmed_acks import ConfirmedAcks
from hookbench.queues.nats_client import JetStreamClient, NatsClient
from hookbench.queues.nats_measures import GUIDE_NATS, NatsMeasures
from hookbench.queues.nats_message import ACK_TIMEOUT_S, NatsMessage
from hookbench.queues.reconnecting import ReconnectingClient, connect_client
from hookbench.queues.standing_pull import StandingPull
from hookbench.queues.stream_publisher import StreamPublisher
from hookbench.secrets import redact, unreadable_url
from hookbench.task import Names, task_id_of

__all__ = [
    "PUBLISH_TIMEOUT_S",
    "AppTransport",
    "HeadersFn",
    "PublishAck",
    "make_nats_consume",
    "make_nats_publish",
]

HeadersFn = Callable[[bytes], dict[str, str]]
"""Headers that follow from a payload."""

PUBLISH_TIMEOUT_S = 5.0
_CONNECT_TIMEOUT_S = 3.0
_PULL_ONE_WAIT_S = 0.05
# A server that answers none of three pings is given up after 4.5 s; with 3 s for an attempt to
# connect to the same one again, and 0.25 s before it, the next server is tried within 8 s.
_SHORT_PINGS: dict[str, Any] = {"ping_interval": 1.5, "max_outstanding_pings": 2}


class PublishAck(msgspec.Struct, frozen=True):
    """The stream's answer: the sequence, and whether it knew the ``Nats-Msg-Id`` already."""

    sequence: int
    duplicate: bool


class AppTransport:
    """A NATS connection with the guide's two calls.

    Args:
        client: a connected client.
        names: stream, consumer and subjects.
        consumers: durable consumer of each subject; by default the guide's one, for ``sync``.
        sync_ack: wait for the server's confirmation of an acknowledgement.
        clock: for the age of pull requests.
        measures: of the hardened design.
    """

    def __init__(
        self,
        client: NatsClient,
        *,
        names: Names | None = None,
        consumers: dict[str, str] | None = None,
        sync_ack: bool = False,
        clock: Clock | None = None,
        measures: NatsMeasures = GUIDE_NATS,
    ) -> None:
        self.names = names or Names()
        self._client = client
        self.streams: JetStreamClient = client.jetstream(timeout=PUBLISH_TIMEOUT_S)
        """What the queues do with JetStream."""
        self._fast = client if isinstance(client, ReconnectingClient) else None
        self.publisher = self.streams if self._fast is None else StreamPublisher(self._fast)
        """``publish`` of nats-py's JetStream side, or what does the same with less."""
        if consumers is None:
            consumers = {self.names.subject("sync"): self.names.consumer}
        self._consumers = dict(consumers)
        self._sync_ack = sync_ack
        self.clock = clock or SystemClock()
        self._pulls: dict[str, StandingPull] = {}
        self._acks = ConfirmedAcks(client, self.clock) if measures.confirmed_acks else None
        self.reads_only = False
        """Whether streams are read without a consumer, see ``queues/reading.py``."""

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        names: Names | None = None,
        consumers: dict[str, str] | None = None,
        sync_ack: bool = False,
        clock: Clock | None = None,
        measures: NatsMeasures = GUIDE_NATS,
        connect: Callable[..., Awaitable[NatsClient]] | None = None,
    ) -> Self:
        """Connect; afterwards the client reconnects for ever.

        Args:
            url: of a server, or of several nodes of a cluster, separated by commas.
            names: see the class, as the others.
            consumers: see the class.
            sync_ack: see the class.
            clock: see the class.
            measures: see the class; ``short_pings`` concerns the connection itself.
            connect: makes the client, as ``connect_client`` does.

        Raises:
            BrokerUnreachableError: no server answers at ``url`` now.
            SettingError: the URL is no NATS URL.
        """
        servers, access = nats_access(url)
        nodes = 1 if isinstance(servers, str) else len(servers)
        noise = _ConnectionNoise(nodes)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S * nodes) as noise.limit:
                client = await (connect or connect_client)(
                    servers,
                    connect_timeout=int(_CONNECT_TIMEOUT_S),
                    reconnect_time_wait=0.25,
                    max_reconnect_attempts=-1,
                    error_cb=noise.hear,
                    **(_SHORT_PINGS if measures.short_pings else {}),
                    **access,
                )
            noise.limit = None
            raise_if_cancelled()
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnreachableError(noise.explain(url, error)) from error
        except ValueError as error:
            raise SettingError(unreadable_url("NATS", url)) from error
        return cls(
            client,
            names=names,
            consumers=consumers,
            sync_ack=sync_ack,
            clock=clock,
            measures=measures,
        )

    @property
    def client(self) -> Client:
        """nats-py's whole client, for whoever looks at a real broker beside the queues."""
        return cast("Client", self._client)

    @property
    def jetstream(self) -> JetStreamContext:
        """nats-py's whole JetStream side, as ``client``."""
        return cast("JetStreamContext", self.streams)

    @property
    def max_payload_bytes(self) -> int:
        """The server's limit of one payload, headers included."""
        return int(self._client.max_payload)

    async def publish(
        self,
        subject: str,
        payload: bytes,
        *,
        msg_id: str | None = None,
        timeout_s: float = PUBLISH_TIMEOUT_S,
        more_headers: dict[str, str] | None = None,
    ) -> PublishAck:
        """Publish and wait for the stream's acknowledgement.

        Args:
            subject: one that the stream listens to.
            payload: the bytes.
            msg_id: ``Nats-Msg-Id``, by which the stream knows a repeat within its duplicate window.
            timeout_s: how long the acknowledgement is waited for.
            more_headers: that go along.

        Raises:
            OversizeError: larger than the server takes; nothing was sent.
            PublishRefusedError: the server answered no, or no stream listens; where that may be
                otherwise a moment later it is a ``PublishUnavailableError``.
            PublishUnknownError: no answer in time; the stream may hold it.
        """
        if len(payload) > self._client.max_payload:
            raise OversizeError(
                f"task of {len(payload)} bytes: NATS takes {self.max_payload_bytes} (max_payload)"
            )
        if not self._client.is_connected:
            # nats-py would keep the task in a buffer of its own and send it after a reconnect,
            # long after the caller was told that it failed.
            raise PublishUnavailableError("NATS is not connected (reconnecting)")
        headers: dict[str, Any] | None = {"Nats-Msg-Id": msg_id} if msg_id else None
        if more_headers:
            headers = more_headers | (headers or {})
        try:
            ack = await self.publisher.publish(subject, payload, timeout=timeout_s, headers=headers)
        except nats.js.errors.NoStreamResponseError as error:
            raise PublishUnavailableError(f"no stream takes {subject}: create it first") from error
        except nats.js.errors.ServiceUnavailableError as error:
            raise PublishUnavailableError(f"JetStream cannot take {subject}: {error}") from error
        except nats.js.errors.APIError as error:
            raise PublishRefusedError(f"JetStream refused {subject}: {error}") from error
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise PublishUnknownError(
                f"no acknowledgement for {subject} ({type(error).__name__})"
            ) from error
        if self.publisher is self.streams:
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
            pull = StandingPull(self._client, self.names.stream, durable, self.clock)
            await pull.open()
            self._pulls[subject] = pull
        raw = await pull.take(batch, wait_s)
        return [
            NatsMessage(msg, sync_ack=self._sync_ack, acks=self._acks, client=self._fast)
            for msg in raw
        ]

    async def bind(self, subject: str, durable: str) -> None:
        """Pull a subject by this consumer from now on; what another one handed over is given back.

        A delivery of the other one that is in work keeps its acknowledgement.
        """
        if self._consumers.get(subject) == durable:
            return
        self._consumers[subject] = durable
        pull = self._pulls.pop(subject, None)
        if pull is not None:
            await pull.close()

    def consumer_of(self, subject: str) -> str | None:
        """The consumer that a subject is pulled by."""
        return self._consumers.get(subject)

    async def release(self) -> int:
        """Stop pulling and give back what was fetched but not handed out; how many that were."""
        given_back = 0
        for pull in self._pulls.values():
            given_back += await pull.close()
        self._pulls.clear()
        return given_back

    async def close(self) -> None:
        """Give back what is held, send what is buffered, and disconnect."""
        if self._client.is_closed:
            return
        await self.release()
        if self._acks is not None:
            await self._acks.close()
        if self._client.is_connected:
            # If nobody is there to read it, closing is all that is left to do.
            with suppress(nats.errors.Error, TimeoutError):
                await self._client.flush(timeout=int(ACK_TIMEOUT_S))
        await self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()


class _ConnectionNoise:
    """Outages show in the outcome of each call; nats-py's default prints a traceback as well.

    What was heard last before the connection stood is why it never did: nats-py tries again.
    """

    def __init__(self, nodes: int) -> None:
        self._last: Exception | None = None
        self._refusals_left = nodes
        self.limit: asyncio.Timeout | None = None
        """Until there is a connection; it is over when every node has refused one for good."""

    async def hear(self, error: Exception) -> None:
        """See ``error_cb`` of nats-py."""
        self._last = error
        limit = self.limit
        if limit is None or not _is_refusal(error):
            return
        self._refusals_left -= 1
        if self._refusals_left == 0 and not limit.expired():
            limit.reschedule(asyncio.get_running_loop().time())

    def explain(self, url: str, error: Exception) -> str:
        """Why there is no connection, and what can be done."""
        last = self._last or error
        shown = redact(url)
        if isinstance(last, ssl.SSLError):
            return (
                f"NATS at {shown}: no TLS with this server ({last}): tls_ca has to be what signed"
                " its certificate, and the host in the URL one that the certificate names"
            )
        if isinstance(last, nats.errors.SecureConnWantedError):
            return f"NATS at {shown} has no TLS, and nothing is sent without: use its TLS port"
        if _is_refusal(last):
            return f"NATS at {shown} refuses the credentials: see docs/security.md"
        return (
            f"NATS at {shown} does not answer ({type(error).__name__}): start it or give"
            " another URL with --nats-url or HOOKBENCH_NATS_URL"
        )


def _is_refusal(error: Exception) -> bool:
    """Whether another attempt would come to the same: certificate, no TLS, or credentials."""
    if isinstance(error, ssl.SSLError | nats.errors.SecureConnWantedError):
        return True
    return "authorization violation" in str(error).lower()


def make_nats_publish(
    transport: AppTransport,
    *,
    message_ids: bool = False,
    timeout_s: float = PUBLISH_TIMEOUT_S,
    headers: HeadersFn | None = None,
) -> NatsPublishFn:
    """The guide's ``nats_publish`` over a transport.

    Args:
        transport: the connection.
        message_ids: the task's id, which is in the payload, goes along as ``Nats-Msg-Id``. A
            repeat that the stream knows is a success, with the sequence of the first.
        timeout_s: how long an acknowledgement is waited for.
        headers: that go along, of each payload.
    """

    async def nats_publish(subject: str, payload: bytes) -> int:
        msg_id = str(task_id_of(payload)) if message_ids else None
        if headers is None:
            ack = await transport.publish(subject, payload, msg_id=msg_id, timeout_s=timeout_s)
        else:
            more = headers(payload)
            ack = await transport.publish(
                subject, payload, msg_id=msg_id, timeout_s=timeout_s, more_headers=more
            )
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
