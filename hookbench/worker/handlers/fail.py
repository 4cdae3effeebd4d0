"""A handler whose dependency is always down."""

from hookbench.effects.classes import Execution
from hookbench.errors import HookbenchError
from hookbench.task import HookTask

__all__ = ["FailHandler", "HandlerFailedError"]


class HandlerFailedError(HookbenchError):
    """What a handler that fails on purpose raises."""


class FailHandler:
    """Fails every execution: to rehearse retries, budgets and dead letters."""

    async def __call__(self, task: HookTask, execution: Execution) -> None:
        """Fail.

        Raises:
            HandlerFailedError: always.
        """
        raise HandlerFailedError(
            f"task {task.id}, attempt {execution.attempt}: this handler fails on purpose"
        )
