"""One delivery of JetStream, and how it is answered."""

from types import TracebackType
from typing import TYPE_CHECKING

import nats.errors

from hookbench.errors import BrokerUnreachableError, SettingError
from hookbench.ledger.events import Broker
from hookbench.queues.confirmed_acks import ConfirmedAcks
from hookbench.queues.nats_client import NatsDelivery
from hookbench.queues.reconnecting import ReconnectingClient

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable

__all__ = ["ACK_TIMEOUT_S", "NatsMessage"]

ACK_TIMEOUT_S = 5.0
_REPLY_TOKENS = 9


class _connection_errors:  # noqa: N801 - used as a function, see redis_errors.broker_errors
    """What nats-py raises for a broken connection, as an error that callers above it know."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: object, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if isinstance(error, nats.errors.Error | TimeoutError | OSError):
            raise BrokerUnreachableError(
                f"NATS did not take the {self._what}: {error!r}"
            ) from error


def _attempt_and_sequence(msg: NatsDelivery) -> tuple[int, int]:
    """What the reply subject says of a delivery; without what else nats-py makes of it.

    ``$JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer sequence>.<time>.<left>``,
    or with domain and account before the stream (NATS ADR-15).
    """
    tokens = msg.reply.split(".")
    if len(tokens) == _REPLY_TOKENS:
        return int(tokens[4]), int(tokens[5])
    metadata = msg.metadata
    return metadata.num_delivered or 1, metadata.sequence.stream if metadata.sequence else 0


class NatsMessage:
    """One JetStream delivery. Calling it acknowledges, as the guide's ``ack`` function does."""

    broker = Broker.NATS
    __slots__ = ("_acks", "_client", "_msg", "_sync_ack", "attempt", "payload", "sequence")

    def __init__(
        self,
        msg: NatsDelivery,
        *,
        sync_ack: bool,
        acks: ConfirmedAcks | None = None,
        client: ReconnectingClient | None = None,
    ) -> None:
        self._msg = msg
        self._client = client
        self._sync_ack = sync_ack
        self._acks = acks
        self.payload = msg.data
        self.attempt, self.sequence = _attempt_and_sequence(msg)

    async def __call__(self) -> None:
        """Acknowledge."""
        await self.ack()

    async def ack(self) -> None:
        """Acknowledge; with ``sync_ack`` wait until the server has it.

        Raises:
            BrokerUnreachableError: no connection, or no confirmation in time.
        """
        with _connection_errors("ack"):
            if self._acks is not None:
                await (await self._acks.send(self._msg.reply))
            elif self._sync_ack:
                await self._msg.ack_sync(timeout=ACK_TIMEOUT_S)
            elif self._client is None or not self._client.send_now(self._msg.reply):
                await self._msg.ack()

    @property
    def confirms(self) -> bool:
        """Whether ``send_ack`` may be called."""
        return self._acks is not None

    def send_ack(self) -> "Awaitable[asyncio.Future[None]]":
        """Acknowledge; a future of the confirmation.

        Raises:
            BrokerUnreachableError: it could not be sent.
            SettingError: confirmations are not switched on.
        """
        if self._acks is None:
            raise SettingError("confirmed_acks is off: use ack")
        return self._acks.send(self._msg.reply)

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
