"""The guide's future enhancement: acknowledgements kept by task id until the work is done."""

from hookbench.queues.base import Delivery

__all__ = ["PendingAcks"]


class PendingAcks:
    """Deliveries that wait for their acknowledgement, by task id.

    Two copies of one task may be in flight at once (one from each broker); each keeps its own
    acknowledgement, so that the answer goes to the broker that delivered.
    """

    def __init__(self) -> None:
        self._by_key: dict[bytes, list[Delivery]] = {}

    def keep(self, key: bytes, delivery: Delivery) -> None:
        """Remember a delivery of the task with these 16 bytes of id."""
        waiting = self._by_key.get(key)
        if waiting is None:
            self._by_key[key] = [delivery]
        else:
            waiting.append(delivery)

    def take(self, key: bytes, delivery: Delivery) -> Delivery:
        """Forget the delivery again, and return it.

        Raises:
            KeyError: it was not kept, or was taken before.
        """
        waiting = self._by_key[key]
        try:
            waiting.remove(delivery)
        except ValueError:
            raise KeyError(key) from None
        if not waiting:
            del self._by_key[key]
        return delivery

    def __len__(self) -> int:
        return sum(len(waiting) for waiting in self._by_key.values())
