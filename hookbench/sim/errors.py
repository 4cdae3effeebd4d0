"""How a simulated run ends that cannot go on."""

from typing import TYPE_CHECKING, Any

from hookbench.errors import HookbenchError
from hookbench.sim.waiting import where_it_waits

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

__all__ = [
    "DeadlockError",
    "RefusedError",
    "SimulationError",
    "SpentError",
    "UnretrievedError",
]

_TOLD_MAX = 50


class SimulationError(HookbenchError):
    """A simulated run cannot go on."""


class RefusedError(SimulationError):
    """Something was asked for that virtual time does not have: I/O, a thread, another loop."""


class UnretrievedError(SimulationError):
    """An exception that nobody retrieved; it is the cause of this one."""


class _WaitingError(SimulationError):
    """With the tasks that waited, and where.

    Attributes:
        tasks: their names, and where each waits.
    """

    def __init__(self, message: str, tasks: "Sequence[asyncio.Task[Any]]") -> None:
        self.tasks = [where_it_waits(task) for task in tasks]
        told = self.tasks[:_TOLD_MAX]
        if len(self.tasks) > _TOLD_MAX:
            told.append(f"and {len(self.tasks) - _TOLD_MAX} more")
        super().__init__("\n  ".join([f"{message}:", *told]))


class DeadlockError(_WaitingError):
    """Nothing is ready, no timer is there, and the run has not ended."""


class SpentError(_WaitingError):
    """A limit was reached before the run ended."""
