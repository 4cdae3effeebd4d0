"""A delivery and the task in it."""

import msgspec

from hookbench.errors import DecodeError
from hookbench.ledger.events import NO_TASK, Event, Recorder
from hookbench.migration.done_store import HeldClaim
from hookbench.queues.base import Delivery
from hookbench.task import HookTask, decode_task

__all__ = ["Received", "decode_delivery"]


class Received(msgspec.Struct, kw_only=True):
    """One delivery, decoded.

    Attributes:
        delivery: how to acknowledge it.
        task: the task, ``None`` if the bytes are none.
        key: the 16 bytes of the task's id, as the ledger has them.
        problem: why the bytes are no task, else ``None``.
        settled: acknowledged before processing: the broker has forgotten it.
        claim: the claim on the task, where one was granted.
    """

    delivery: Delivery
    task: HookTask | None
    problem: str | None
    key: bytes = NO_TASK
    settled: bool = False
    claim: HeldClaim | None = None

    @property
    def token(self) -> int:
        """The fencing token of the claim; 0 without one."""
        return self.claim.granted.token if self.claim is not None else 0

    @property
    def attempt(self) -> int:
        """The 1-based number of this delivery: counted by the broker, or in the task itself.

        Of a task that is claimed the authority counts, over all its copies.
        """
        if self.claim is not None:
            return self.claim.granted.attempt
        retries = self.task.retry_count if self.task is not None else 0
        return max(self.delivery.attempt, retries + 1)


def decode_delivery(delivery: Delivery, recorder: Recorder) -> Received:
    """The task of a delivery, recorded as received; of bytes that are none only the receipt."""
    try:
        task = decode_task(delivery.payload)
    except DecodeError as error:
        recorder.record(Event.RECEIVED, NO_TASK, broker=delivery.broker)
        return Received(delivery=delivery, task=None, problem=str(error))
    received = Received(delivery=delivery, task=task, problem=None, key=task.id.bytes)
    recorder.record(
        Event.RECEIVED,
        received.key,
        broker=delivery.broker,
        value=delivery.sequence,
        attempt=received.attempt,
    )
    return received
