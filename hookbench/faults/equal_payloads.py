"""A legacy producer that gives its tasks no ids, so that two of them are equal (hazard R4)."""

import datetime as dt

import msgspec

from hookbench.faults.base import Fault, Targets
from hookbench.faults.poison import check_queue_fault, queue_broker, queue_needs

__all__ = ["EqualPayloads", "legacy_payload"]


class EqualPayloads(Fault, frozen=True, kw_only=True, tag="equal_payloads"):
    """``count`` byte-equal tasks without an id, put straight into the queue.

    The reference code takes no task without an id: it buries each as bytes that are no task, and
    the account counts them as ``junk``. Fewer letters than tasks are tasks that were removed
    together with an equal one.

    Attributes:
        count: how many.
    """

    count: int = 2

    def check(self) -> None:
        """Refuse another target, and a number beyond reason."""
        check_queue_fault(self, self.count)

    def needs(self) -> dict[str, int]:
        """The brokers that may get them."""
        return queue_needs(self.target)

    async def inject(self, targets: Targets) -> None:
        """Put them, each acknowledged by its broker."""
        broker = queue_broker(targets, self.target)
        payload = legacy_payload(targets.clock.wall_ns())
        await targets.administration.put(broker, [payload] * self.count)
        targets.memory.note(self, "put", f"{self.count} to {broker}")


def legacy_payload(wall_ns: int) -> bytes:
    """A task as today's code writes it, but for its id."""
    created_at = dt.datetime.fromtimestamp(wall_ns // 1_000_000_000, tz=dt.UTC)
    return msgspec.json.encode(
        {
            "repo_id": "synthetic/plain/legacy",
            "task_type": "sync",
            "payload": {"ref": "refs/heads/main"},
            "created_at": created_at,
            "retry_count": 0,
        }
    )
