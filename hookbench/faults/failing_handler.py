"""Workers whose work fails now and then, or always for one handler class."""

import random

from hookbench.effects.classes import Execution, parse_handler_class
from hookbench.errors import SettingError
from hookbench.faults.load_fault import LoadFault
from hookbench.faults.orders import FailOrder, OrderBook
from hookbench.task import HookTask
from hookbench.worker.handlers.fail import HandlerFailedError
from hookbench.worker.loop import Handler

__all__ = ["FailedHandler", "FailingHandler"]

_ENTROPY_BYTES = 8  # the first half of a task's id has the time, which no seed decides


class FailingHandler(LoadFault, frozen=True, kw_only=True, tag="failing_handler"):
    """A share of the executions raises, before any effect.

    Which ones follows from ``seed``, the random part of the task's id and the attempt, so not from
    the worker or the moment.

    Attributes:
        probability: of each execution.
        seed: another one chooses others.
        handler_class: only of synthetic tasks of this class, by default of all tasks.
    """

    probability: float = 1.0
    seed: int = 0
    handler_class: str | None = None

    @property
    def order(self) -> FailOrder:
        """What the workers are told."""
        return FailOrder(
            probability=self.probability, seed=self.seed, handler_class=self.handler_class
        )

    def has_fired(self, hits: list[int]) -> bool:
        """Whether anything failed: with a low probability not on every worker."""
        return any(hits)

    def check(self) -> None:
        """Refuse what is no probability, and an unknown class."""
        super().check()
        if not 0 < self.probability <= 1:
            raise SettingError(
                f"fault {self.name}: probability {self.probability}: use more than 0 and up to 1"
            )
        if self.handler_class is not None:
            parse_handler_class(self.handler_class)


class FailedHandler:
    """A handler that fails instead of working, as often as it is told to."""

    def __init__(self, handler: Handler, book: OrderBook) -> None:
        self._handler = handler
        self._book = book

    async def __call__(self, task: HookTask, execution: Execution) -> None:
        """Work, or fail.

        Raises:
            HandlerFailedError: it was told to.
        """
        for number, order in self._book.of(FailOrder):
            if _is_chosen(task, execution, order):
                self._book.hit(number)
                raise HandlerFailedError(
                    f"task {task.id}, attempt {execution.attempt}: fault failing_handler"
                )
        await self._handler(task, execution)


def _is_chosen(task: HookTask, execution: Execution, order: FailOrder) -> bool:
    if order.handler_class not in (None, *task.repo_id.split("/")[1:2]):
        return False
    key = f"{order.seed}:{task.id.bytes[_ENTROPY_BYTES:].hex()}:{execution.attempt}"
    return random.Random(key).random() < order.probability
