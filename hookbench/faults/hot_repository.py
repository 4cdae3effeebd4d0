"""Producers that send a share of their tasks to one repository."""

import random
from typing import ClassVar

import msgspec

from hookbench.effects.classes import parse_handler_class
from hookbench.errors import SettingError
from hookbench.faults.load_fault import LoadFault
from hookbench.faults.orders import OrderBook, RedirectOrder
from hookbench.task import HookTask, TaskSource

__all__ = ["HotRepository", "HotSource"]

_PARTS = 3  # synthetic, class, repository


class HotRepository(LoadFault, frozen=True, kw_only=True, tag="hot_repository"):
    """A share of the tasks goes to one repository, and so to its handler class.

    Which ones follows from ``seed`` and the number of the task; all else about them is as without
    the fault.

    Attributes:
        share: of the tasks.
        seed: another one chooses others.
        repository: its id; the middle of it is the handler class of these tasks.
    """

    ROLE: ClassVar[str] = "producer"

    share: float = 0.5
    seed: int = 0
    repository: str = "synthetic/plain/hot"

    @property
    def order(self) -> RedirectOrder:
        """What the producers are told."""
        return RedirectOrder(share=self.share, seed=self.seed, repository=self.repository)

    def check(self) -> None:
        """Refuse what is no share, and a repository that names no handler class."""
        super().check()
        if not 0 < self.share <= 1:
            raise SettingError(
                f"fault {self.name}: share {self.share}: use more than 0 and up to 1"
            )
        parts = self.repository.split("/")
        if len(parts) != _PARTS or parts[0] != "synthetic" or not parts[2]:
            raise SettingError(
                f"fault {self.name}: repository {self.repository!r}: use synthetic/CLASS/NAME"
            )
        parse_handler_class(parts[1])


class HotSource:
    """A source of tasks, some of which are for another repository than they would be."""

    def __init__(self, tasks: TaskSource, book: OrderBook) -> None:
        self._tasks = tasks
        self._book = book

    def __call__(self, number: int) -> HookTask:
        """The task of that number, for the hot repository if it is one of the share."""
        task = self._tasks(number)
        for order_number, order in self._book.of(RedirectOrder):
            if random.Random(f"{order.seed}:{number}").random() < order.share:
                self._book.hit(order_number)
                task = msgspec.structs.replace(task, repo_id=order.repository)
        return task
