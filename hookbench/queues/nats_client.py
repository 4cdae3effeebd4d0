"""The NATS operations that the queues use, as ``redis_client`` has those of Redis.

``nats.aio.client.Client`` has them, and so may anything that stands in for it: ``transport``,
``standing_pull`` and ``jetstream`` ask for nothing else.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from nats.js.api import ConsumerConfig, ConsumerInfo, PubAck, StreamConfig, StreamInfo

__all__ = ["JetStreamClient", "NatsClient", "NatsDelivery"]


class NatsDelivery(Protocol):
    """A message as it arrived; its answers go to the consumer that delivered it."""

    data: bytes

    @property
    def reply(self) -> str:
        """Where its acknowledgement goes."""
        ...

    @property
    def headers(self) -> dict[str, str] | None:
        """Headers; those of a pull's status have no data."""
        ...

    @property
    def metadata(self) -> Any:
        """``num_delivered``, and ``sequence.stream``."""
        ...

    async def ack(self) -> None:
        """Send an acknowledgement."""
        ...

    async def ack_sync(self, timeout: float = 1) -> Any:  # noqa: ASYNC109 - nats-py's name
        """Send one, and wait until the server has it."""
        ...

    async def nak(self, delay: float | None = None) -> None:
        """Ask for another delivery, after ``delay`` seconds."""
        ...

    async def term(self) -> None:
        """Ask for no further delivery."""
        ...

    async def in_progress(self) -> None:
        """Restart the AckWait."""
        ...


class JetStreamClient(Protocol):
    """Publishing, and streams and consumers by their names."""

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float | None = None,  # noqa: ASYNC109 - nats-py's name
        *,
        headers: dict[str, Any] | None = None,
    ) -> PubAck:
        """The stream's acknowledgement."""
        ...

    async def stream_info(self, name: str) -> StreamInfo:
        """A stream as the server has it."""
        ...

    async def add_stream(self, config: StreamConfig | None = None) -> StreamInfo:
        """Create a stream."""
        ...

    async def consumer_info(self, stream: str, consumer: str) -> ConsumerInfo:
        """A consumer as the server has it."""
        ...

    async def add_consumer(self, stream: str, config: ConsumerConfig | None = None) -> ConsumerInfo:
        """Create a consumer."""
        ...


class NatsClient(Protocol):
    """A connection that reconnects by itself."""

    @property
    def stats(self) -> dict[str, int]:
        """Counters; ``reconnects`` is read."""
        ...

    @property
    def is_connected(self) -> bool:
        """Whether a publish would be sent now."""
        ...

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        ...

    @property
    def max_payload(self) -> int:
        """The server's limit, bytes."""
        ...

    def jetstream(self, *, timeout: float) -> JetStreamClient:
        """Its JetStream operations."""
        ...

    def new_inbox(self) -> str:
        """A subject of its own."""
        ...

    async def subscribe(
        self, subject: str, *, cb: Callable[[Any], Awaitable[None]] | None = None
    ) -> Any:
        """Have ``cb`` called with each message; ``unsubscribe`` of the answer ends it."""
        ...

    async def publish(self, subject: str, payload: bytes = b"", reply: str = "") -> None:
        """Send, without an acknowledgement."""
        ...

    async def flush(self, timeout: int = 10) -> None:  # noqa: ASYNC109 - nats-py's name
        """Wait until the server has everything that was sent."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...
