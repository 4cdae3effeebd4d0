"""The null handler: for measuring the queue and nothing else."""

from hookbench.task import HookTask

__all__ = ["NoopHandler"]


class NoopHandler:
    """Does nothing."""

    async def __call__(self, task: HookTask) -> None:
        """Return at once."""
