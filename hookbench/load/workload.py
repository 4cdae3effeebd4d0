"""The tasks of a load: the same ones for the same seed, by number."""

import random
from collections.abc import Sequence

from hookbench.clock import Clock
from hookbench.load.mix import TaskMix
from hookbench.load.payloads import PayloadSizes
from hookbench.load.repositories import Repositories
from hookbench.task import HookTask, new_task

__all__ = ["SYNTHETIC", "Workload"]

SYNTHETIC = "synthetic"
"""First component of the repository ids of synthetic tasks; a worker routes by it."""


class Workload:
    """Makes synthetic tasks, which must be asked for in the order of their numbers.

    Args:
        task_type: of all of them.
        mix: their handler classes.
        payloads: sizes of their fillings.
        repositories: whose they are.
        names: of their repositories by number, from a trace; empty for numbers.
        clock: when they are created.
        seed: of everything that is drawn.
    """

    def __init__(
        self,
        *,
        task_type: str,
        mix: TaskMix,
        payloads: PayloadSizes,
        repositories: Repositories,
        names: Sequence[str] = (),
        clock: Clock,
        seed: int | str,
    ) -> None:
        self._task_type = task_type
        self._mix = mix
        self._payloads = payloads
        self._repositories = repositories
        self._names = names
        self._clock = clock
        self._rng = random.Random(seed)
        self._filling = "x" * min(payloads.largest, 1024)

    def __call__(self, number: int) -> HookTask:
        """The task of that number."""
        handler_class = self._mix.choose(self._rng)
        size = self._payloads.draw(self._rng)
        return new_task(
            repo_id=f"{SYNTHETIC}/{handler_class}/{self._name(number)}",
            task_type=self._task_type,
            payload={"number": number, "filling": self._filled(size)},
            clock=self._clock,
            entropy=self._rng,
        )

    def _name(self, number: int) -> str:
        if self._names:
            return self._names[number]
        return f"repo-{self._repositories.choose(number, self._rng)}"

    def _filled(self, size: int) -> str:
        if size > len(self._filling):
            self._filling = "x" * size
        return self._filling if size == len(self._filling) else self._filling[:size]
