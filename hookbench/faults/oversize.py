"""Producers that offer tasks which no broker should take (hazard S1)."""

from typing import ClassVar

import msgspec

from hookbench.errors import SettingError
from hookbench.faults.load_fault import LoadFault
from hookbench.faults.orders import OrderBook, OversizeOrder
from hookbench.task import DEFAULT_TASK_LIMIT_BYTES, HookTask, TaskSource

__all__ = ["MAX_PAYLOAD_BYTES", "Oversize", "OversizeSource"]

MAX_PAYLOAD_BYTES = 64 * 1024 * 1024
_MAX_COUNT = 10_000


class Oversize(LoadFault, frozen=True, kw_only=True, tag="oversize"):
    """The next tasks of each producer are larger than any limit; they are offered like others.

    They take the place of tasks of the load, so the number of tasks stays as it was planned.

    Attributes:
        count: how many, of each producer that it is aimed at.
        payload_bytes: size of the filling of each.
    """

    ROLE: ClassVar[str] = "producer"

    count: int = 1
    payload_bytes: int = 2 * 1024 * 1024

    @property
    def order(self) -> OversizeOrder:
        """What the producers are told."""
        return OversizeOrder(count=self.count, payload_bytes=self.payload_bytes)

    def has_fired(self, hits: list[int]) -> bool:
        """Whether each has offered all of them."""
        return all(number >= self.count for number in hits)

    def check(self) -> None:
        """Refuse what would not be too large, and what is too large to be made."""
        super().check()
        if not 1 <= self.count <= _MAX_COUNT:
            raise SettingError(
                f"fault {self.name}: count {self.count}: use between 1 and {_MAX_COUNT}"
            )
        if not DEFAULT_TASK_LIMIT_BYTES < self.payload_bytes <= MAX_PAYLOAD_BYTES:
            raise SettingError(
                f"fault {self.name}: payload_bytes {self.payload_bytes}: use more than"
                f" {DEFAULT_TASK_LIMIT_BYTES}, which is allowed, and up to {MAX_PAYLOAD_BYTES}"
            )


class OversizeSource:
    """A source of tasks, some of which are too large."""

    def __init__(self, tasks: TaskSource, book: OrderBook) -> None:
        self._tasks = tasks
        self._book = book

    def __call__(self, number: int) -> HookTask:
        """The task of that number, with a filling beyond all limits while it is told to."""
        task = self._tasks(number)
        for order_number, order in self._book.of(OversizeOrder):
            if self._book.hits(order_number) < order.count:
                self._book.hit(order_number)
                payload = task.payload | {"filling": "x" * order.payload_bytes}
                return msgspec.structs.replace(task, payload=payload)
        return task
