"""The guide's future enhancement: acknowledgements kept by task id until the work is done."""

from collections import deque
from uuid import UUID

from hookbench.queues.base import Delivery

__all__ = ["PendingAcks"]


class PendingAcks:
    """Deliveries that wait for their acknowledgement, by task id.

    Two copies of one task may be in flight at once (one from each broker); each keeps its own
    acknowledgement, so that the answer goes to the broker that delivered.
    """

    def __init__(self) -> None:
        self._by_id: dict[UUID, deque[Delivery]] = {}

    def keep(self, task_id: UUID, delivery: Delivery) -> None:
        """Remember a delivery of the task."""
        self._by_id.setdefault(task_id, deque()).append(delivery)

    def take(self, task_id: UUID, delivery: Delivery) -> Delivery:
        """Forget the delivery again, and return it.

        Raises:
            KeyError: it was not kept, or was taken before.
        """
        waiting = self._by_id[task_id]
        try:
            waiting.remove(delivery)
        except ValueError:
            raise KeyError(task_id) from None
        if not waiting:
            del self._by_id[task_id]
        return delivery

    def __len__(self) -> int:
        return sum(len(waiting) for waiting in self._by_id.values())
