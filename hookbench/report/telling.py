"""Progress of a report on stderr: a bar on a terminal, plain lines elsewhere."""

from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from hookbench.clock import NS_PER_S, Clock

__all__ = ["LiveTelling", "PlainTelling", "SilentTelling", "Telling", "open_telling"]

PLAIN_EVERY_S = 2.0


class Telling(Protocol):
    """Somebody who shows how far a report is."""

    def cell(self, notebook: int, notebooks: int, title: str, cell: int, cells: int) -> None:
        """A cell of code begins; all numbers count from 1."""
        ...

    def close(self) -> None:
        """The report is made, or failed."""
        ...


class SilentTelling:
    """Shows nothing: for tests and scripts."""

    def cell(self, notebook: int, notebooks: int, title: str, cell: int, cells: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class PlainTelling:
    """A line for each notebook, and one every two seconds while it is executed."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._last_ns = 0
        self._notebook = 0

    def cell(self, notebook: int, notebooks: int, title: str, cell: int, cells: int) -> None:
        """Print a line, but not too often."""
        now_ns = self._clock.monotonic_ns()
        if notebook == self._notebook and now_ns - self._last_ns < PLAIN_EVERY_S * NS_PER_S:
            return
        self._notebook = notebook
        self._last_ns = now_ns
        self._console.print(
            f"report    notebook {notebook} of {notebooks}, cell {cell} of {cells}: {title}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def close(self) -> None:
        """Nothing to tidy up."""


class LiveTelling:
    """A bar that moves, and is gone at the end."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("[bold]▸ notebook {task.fields[notebook]} of {task.fields[notebooks]}"),
            BarColumn(bar_width=24),
            TextColumn("cell {task.completed:.0f} of {task.total:.0f}  {task.description}"),
            console=console,
            transient=True,
        )
        self._bar = self._progress.add_task("", total=1, notebook=1, notebooks=1)

    def cell(self, notebook: int, notebooks: int, title: str, cell: int, cells: int) -> None:
        """Move the bar."""
        self._progress.start()
        self._progress.update(
            self._bar,
            description=title,
            completed=cell,
            total=cells,
            notebook=notebook,
            notebooks=notebooks,
        )

    def close(self) -> None:
        """Remove the bar."""
        self._progress.stop()


def open_telling(console: Console, clock: Clock) -> Telling:
    """The one that suits where ``console`` goes."""
    return LiveTelling(console) if console.is_terminal else PlainTelling(console, clock)
