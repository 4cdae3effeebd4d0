"""Live progress on stderr: one moving line on a terminal, plain lines elsewhere."""

from typing import Protocol

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from hookbench.clock import NS_PER_S, Clock

__all__ = ["LiveProgress", "PlainProgress", "Pulse", "SilentProgress", "Teller", "open_progress"]

PLAIN_EVERY_S = 2.0


class Pulse(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a run at one moment; ``faults`` are those in effect."""

    phase: str
    elapsed_s: float
    total_s: float
    in_per_s: float
    out_per_s: float
    redis_depth: int
    nats_depth: int
    redelivered: int
    faults: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The figures of the line, without the phase."""
        minutes, seconds = divmod(int(self.elapsed_s), 60)
        return (
            f"{minutes:02d}:{seconds:02d}  in {self.in_per_s:,.0f}/s  out {self.out_per_s:,.0f}/s"
            f"  waiting redis {self.redis_depth:,} nats {self.nats_depth:,}"
            f"  redelivered {self.redelivered:,}  fault {', '.join(self.faults) or '-'}"
        )


class Teller(Protocol):
    """Somebody who shows what a rehearsal does."""

    def say(self, text: str) -> None:
        """A line that stays."""
        ...

    def pulse(self, pulse: Pulse) -> None:
        """The current state."""
        ...

    def close(self) -> None:
        """No more pulses."""
        ...


class SilentProgress:
    """Shows nothing: for tests and scripts."""

    def say(self, text: str) -> None:
        """Nothing."""

    def pulse(self, pulse: Pulse) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class PlainProgress:
    """A line every two seconds, and at each change of phase."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._last_ns = 0
        self._phase = ""

    def say(self, text: str) -> None:
        """Print the line."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def pulse(self, pulse: Pulse) -> None:
        """Print a line, but not too often."""
        now_ns = self._clock.monotonic_ns()
        if pulse.phase == self._phase and now_ns - self._last_ns < PLAIN_EVERY_S * NS_PER_S:
            return
        self._phase = pulse.phase
        self._last_ns = now_ns
        self.say(f"{pulse.phase:<13} {pulse.text}")

    def close(self) -> None:
        """Nothing to tidy up."""


class LiveProgress:
    """A bar that moves."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("[bold]▸ {task.description:<13}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}"),
            console=console,
            transient=True,
        )
        self._bar: TaskID | None = None

    def say(self, text: str) -> None:
        """Print above the bar."""
        self._progress.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def pulse(self, pulse: Pulse) -> None:
        """Move the bar."""
        if self._bar is None:
            self._progress.start()
            self._bar = self._progress.add_task(pulse.phase, total=pulse.total_s, figures="")
        self._progress.update(
            self._bar, description=pulse.phase, completed=pulse.elapsed_s, figures=pulse.text
        )

    def close(self) -> None:
        """Remove the bar."""
        self._progress.stop()
        if self._bar is not None:
            self._progress.remove_task(self._bar)
            self._bar = None


def open_progress(console: Console, clock: Clock) -> Teller:
    """The one that suits where ``console`` goes."""
    return LiveProgress(console) if console.is_terminal else PlainProgress(console, clock)
