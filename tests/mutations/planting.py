"""A planted bug as data, and the trace that its code leaves."""

import contextlib
import dataclasses
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hookbench.queues.base import Delivery
from hookbench.task import HookTask, decode_task

__all__ = ["Mutation", "Trace"]

Plant = Callable[[Any, "Trace"], Any]
"""From the original function and the trace to the buggy function."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mutation:
    """One bug, where it is planted, and which checker is to catch it.

    Attributes:
        owner, attribute: the class or module of hookbench, and its function that is replaced.
        plant: makes the buggy function.
        what: what the bug does, for a person.
        scenario: what runs with the bug, and without it.
        invariant: the checker that catches it.
        hazard, row: what the findings of that checker name.
        cause: what, step, fault and hazard of the attribution of a loss, a duplicate or a second
            end. A loss or a duplicate without fault and hazard breaks invariant 8 as well.
        blind: why no checker catches it, for one that none does.
    """

    name: str
    owner: Any
    attribute: str
    plant: Plant
    what: str
    scenario: Callable[..., Any]
    invariant: int = 0
    row: str = "-"
    hazard: str = "-"
    cause: tuple[str, str, str, str] | None = None
    blind: str = ""

    @property
    def place(self) -> str:
        """``worker/loop.py: Worker._process``, from the objects themselves."""
        module = getattr(self.owner, "__module__", None)
        if module is None:
            return f"{_file(self.owner.__name__)}: {self.attribute}"
        return f"{_file(module)}: {self.owner.__qualname__}.{self.attribute}"

    @property
    def breaks(self) -> list[int]:
        """The invariants that are broken, in order."""
        what = ("lost", "duplicate")
        causeless = self.cause and self.cause[0] in what and self.cause[2:] == ("-", "-")
        return [self.invariant, 8] if causeless else [self.invariant]

    @contextlib.contextmanager
    def planted(self, trace: "Trace") -> Iterator[None]:
        """With the bug in place of the original."""
        original = getattr(self.owner, self.attribute)
        setattr(self.owner, self.attribute, self.plant(original, trace))
        try:
            yield
        finally:
            setattr(self.owner, self.attribute, original)


class Trace:
    """Which tasks the planted code has harmed, in a file, so that a killed process has one too."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def hit(self, task: HookTask | uuid.UUID | bytes | Delivery) -> None:
        """The planted code does its harm to a task: itself, its id, or its bytes."""
        self._say("+", task)

    def spare(self, task: HookTask | uuid.UUID | bytes | Delivery) -> None:
        """The harm is undone: what the bug did was right for this task after all."""
        self._say("-", task)

    def _say(self, sign: str, task: HookTask | uuid.UUID | bytes | Delivery) -> None:
        with self.path.open("a") as file:
            file.write(f"{sign}{_id_of(task)}\n")

    def harmed(self) -> set[str]:
        """Ids of the tasks that the bug has harmed, and not spared afterwards."""
        lines = self.path.read_text().split() if self.path.exists() else []
        harmed: set[str] = set()
        for line in lines:
            if line[0] == "+":
                harmed.add(line[1:])
            else:
                harmed.discard(line[1:])
        return harmed


def _id_of(task: HookTask | uuid.UUID | bytes | Delivery) -> uuid.UUID:
    if isinstance(task, uuid.UUID):
        return task
    if isinstance(task, HookTask):
        return task.id
    return decode_task(task if isinstance(task, bytes) else task.payload).id


def _file(module: str) -> str:
    return module.removeprefix("hookbench.").replace(".", "/") + ".py"
