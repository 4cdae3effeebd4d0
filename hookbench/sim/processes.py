"""The simulated processes: what each of them runs can be killed, or stopped for a while.

A process is a context variable: every task and callback carries the context in which it was made,
so what a process starts is its own. A killed one does not run a single line more, as after SIGKILL:
no ``finally``, no acknowledgement on the way out. Its coroutines are closed when the run is over.
"""

import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from hookbench.sim.errors import SimulationError

__all__ = ["PROCESS", "Process", "Processes"]

Result = TypeVar("Result")


class Process:
    """One simulated process.

    Attributes:
        name: for a person.
        alive: it was not killed.
        stopped: it was sent the simulated SIGSTOP.
        on_killed: called when it is killed, in order: its connections are reset, say.
    """

    __slots__ = ("alive", "name", "on_killed", "stopped", "withheld")

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.stopped = False
        self.on_killed: list[Callable[[], None]] = []
        self.withheld: list[Any] = []

    def __repr__(self) -> str:
        return f"Process({self.name!r})"

    def withhold(self, call: Any) -> None:
        """Keep what a stopped one would do now; what a dead one would do is dropped."""
        if self.alive:
            self.withheld.append(call)


PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)
"""The process that the running code belongs to; ``None`` for the harness itself."""


class Processes:
    """Who is halted; asked by the loop before each callback as long as somebody is."""

    def __init__(self, resume: Callable[[list[Any]], None]) -> None:
        self._resume = resume
        self._halted = 0
        self.any_halted = False

    def start(
        self,
        name: str,
        main: Callable[[], Coroutine[Any, Any, Result]],
        begin: Callable[..., "Any"],
    ) -> tuple[Process, Any]:
        """Start a process that runs ``main``.

        Args:
            name: of the process and its first task.
            main: makes its coroutine, inside of it.
            begin: ``loop.create_task``.

        Returns:
            The process, and its first task.
        """
        process = Process(name)
        context = contextvars.copy_context()
        context.run(PROCESS.set, process)
        task = begin(context.run(main), name=name, context=context)
        return process, task

    def kill(self, process: Process) -> None:
        """Let it never run again; a stopped process can be killed too."""
        if not process.alive:
            raise SimulationError(f"process {process.name} is dead already")
        if not process.stopped:
            self._halted += 1
        process.alive = process.stopped = False
        process.withheld.clear()
        self.any_halted = True
        for tell in process.on_killed:
            tell()

    def stop(self, process: Process) -> None:
        """Withhold all that it would do, until ``resume`` or ``kill``."""
        if not process.alive or process.stopped:
            raise SimulationError(f"process {process.name} is dead or stopped already")
        process.stopped = True
        self._halted += 1
        self.any_halted = True

    def resume(self, process: Process) -> None:
        """Let it go on, with what became due meanwhile first, in order."""
        if not process.stopped:
            raise SimulationError(f"process {process.name} is not stopped")
        process.stopped = False
        self._halted -= 1
        self.any_halted = self._halted > 0
        withheld, process.withheld = process.withheld, []
        self._resume(withheld)
