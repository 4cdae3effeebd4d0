"""Different handlers for different repositories, in one worker."""

from collections.abc import Mapping

from hookbench.task import HookTask
from hookbench.worker.loop import Handler

__all__ = ["RoutedHandler"]


class RoutedHandler:
    """Chooses by the first component of ``repo_id``; what has no entry goes to ``default``."""

    def __init__(self, default: Handler, by_first_component: Mapping[str, Handler]) -> None:
        self._default = default
        self._by_first_component = dict(by_first_component)

    async def __call__(self, task: HookTask) -> None:
        """Hand the task to its handler."""
        first = task.repo_id.split("/", 1)[0]
        await self._by_first_component.get(first, self._default)(task)
