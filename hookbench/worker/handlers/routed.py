"""Different handlers for different tasks, in one worker."""

from collections.abc import Mapping

from hookbench.effects.classes import Execution
from hookbench.errors import RepositoryError
from hookbench.task import HookTask
from hookbench.worker.loop import Handler

__all__ = ["RoutedHandler", "TypeHandler"]


class RoutedHandler:
    """Chooses by the first component of ``repo_id``; what has no entry goes to ``default``."""

    def __init__(self, default: Handler, by_first_component: Mapping[str, Handler]) -> None:
        self._default = default
        self._by_first_component = dict(by_first_component)

    async def __call__(self, task: HookTask, execution: Execution) -> None:
        """Hand the task to its handler."""
        first = task.repo_id.split("/", 1)[0]
        await self._by_first_component.get(first, self._default)(task, execution)


class TypeHandler:
    """Chooses by the type of the task."""

    def __init__(self, by_type: Mapping[str, Handler]) -> None:
        self._by_type = dict(by_type)

    async def __call__(self, task: HookTask, execution: Execution) -> None:
        """Hand the task to its handler.

        Raises:
            RepositoryError: there is none for its type.
        """
        handler = self._by_type.get(task.task_type)
        if handler is None:
            raise RepositoryError(
                f"task of type {task.task_type!r} for repository {task.repo_id!r}: this worker"
                f" works on {', '.join(sorted(self._by_type))}"
            )
        await handler(task, execution)
