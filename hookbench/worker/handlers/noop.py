"""The null handler: for measuring the queue and nothing else."""

from hookbench.effects.classes import Execution
from hookbench.task import HookTask

__all__ = ["NoopHandler"]


class NoopHandler:
    """Does nothing."""

    async def __call__(self, _task: HookTask, _execution: Execution) -> None:
        """Return at once."""
