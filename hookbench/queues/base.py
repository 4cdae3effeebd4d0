"""The seam between worker and broker: small enough to read in a minute."""

from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable

import msgspec

from hookbench.ledger.events import Broker

__all__ = [
    "AckFn",
    "Capabilities",
    "Delivery",
    "Depth",
    "Leased",
    "NatsConsumeFn",
    "NatsPublishFn",
    "Queue",
]

AckFn = Callable[[], Awaitable[None]]
"""The guide's acknowledgement: a function without arguments."""

NatsPublishFn = Callable[[str, bytes], Awaitable[int]]
"""The guide's ``nats_publish(subject, payload) -> sequence``."""

NatsConsumeFn = Callable[[str, int], Awaitable[list[tuple[bytes, AckFn]]]]
"""The guide's ``nats_consume(subject, batch) -> [(bytes, ack)]``."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a queue can do; what it cannot is skipped visibly, never faked.

    Attributes:
        redelivery: the broker hands a task out again when its worker is gone.
        delayed_nak: ``nak(delay)`` waits before the next delivery.
        in_progress: ``in_progress`` puts off the redelivery.
        attempts: the broker counts deliveries.
        ordered: tasks come out in the order in which they were put, without failures.
    """

    redelivery: bool
    delayed_nak: bool
    in_progress: bool
    attempts: bool
    ordered: bool


class Depth(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks in a queue: not yet read, and handed out but not acknowledged."""

    pending: int
    in_flight: int


class Delivery(Protocol):
    """One hand-over of one task to a worker. Exactly one of ack, nak and term ends it."""

    @property
    def payload(self) -> bytes:
        """The bytes as they were put."""
        ...

    @property
    def attempt(self) -> int:
        """The 1-based number of this delivery, as far as the broker counts."""
        ...

    @property
    def broker(self) -> Broker:
        """Who delivered: the acknowledgement goes there."""
        ...

    @property
    def sequence(self) -> int:
        """The broker's number of the task, 0 where it has none."""
        ...

    async def ack(self) -> None:
        """The task is finished."""
        ...

    async def nak(self, delay_s: float = 0.0) -> None:
        """The task is to be delivered again, after ``delay_s`` where the queue can wait."""
        ...

    async def term(self, reason: str) -> None:
        """The task is never to be delivered again; a dead letter holds it."""
        ...

    async def in_progress(self) -> None:
        """The worker is alive and still at it."""
        ...


@runtime_checkable
class Leased(Protocol):
    """A delivery that its worker has only as long as a lease lasts."""

    async def ensure_held(self) -> None:
        """Look whether the worker still has it, and renew the lease.

        Raises:
            LeaseLostError: it was put back, and is another worker's.
        """
        ...


class Queue(Protocol):
    """One queue of one task type on one broker."""

    @property
    def name(self) -> str:
        """``redis_list``, ``redis_leased``, ``redis_stream``, ``jetstream`` or ``memory``."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What this queue can do."""
        ...

    async def put(self, payload: bytes) -> int:
        """Store a task; the broker's number for it (sequence or length).

        Raises:
            OversizeError: larger than the broker takes; nothing was stored.
            PublishRefusedError: the broker said no; nothing was stored.
            PublishUnknownError: no answer; it may be stored.
        """
        ...

    async def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        """Up to ``limit`` tasks as soon as there is one, none after ``wait_s`` seconds."""
        ...

    async def depth(self) -> Depth:
        """What is in the queue now."""
        ...

    async def close(self) -> None:
        """End a blocked ``receive`` (at the latest after its wait) and take nothing more."""
        ...
