"""What counts in a stored run of one phase: its synthetic tasks after the warm-up."""

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hookbench.clock import NS_PER_MS, NS_PER_S
from hookbench.errors import SettingError
from hookbench.ledger.backlog import backlog_growth
from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.read import Ledger, read_ledger

__all__ = ["CountedTasks", "Window", "check_warm_up", "read_counted"]

_NEARLY = 0.1
"""The last task is due a little before the end of its second."""


def check_warm_up(warm_up_s: float, seconds: float) -> None:
    """Refuse a warm-up that leaves nothing of a trial.

    Raises:
        SettingError: the text has both.
    """
    if not 0 <= warm_up_s < seconds:
        raise SettingError(f"warm-up of {warm_up_s:g} s in trials of {seconds:g} s: use less")


class Window(NamedTuple):
    """A part of the time of a run.

    Attributes:
        begin_ns, end_ns: monotonic; the end is not in it.
        end_to_end_ns: of the finished tasks that were due in it.
        accepted, done: tasks, at any time due, that were so in it.
    """

    begin_ns: int
    end_ns: int
    end_to_end_ns: Ints
    accepted: int
    done: int

    @property
    def growth(self) -> float:
        """Of the backlog, as a share of what was accepted."""
        return (self.accepted - self.done) / max(1, self.accepted)


class CountedTasks:
    """The synthetic tasks of a run that were due after its warm-up, and its window of time.

    Args:
        ledger: of the run.
        warm_up_s: at its beginning, which does not count.

    Attributes:
        warm_up_s: as given.
        columns: of all its tasks.
        begin_ns, end_ns: of the window, monotonic: the end of the warm-up, and when the last task
            was due.
        counted: the tasks that were due in it.
        finished: those of them that were done, at any time.
    """

    def __init__(self, ledger: Ledger, *, warm_up_s: float) -> None:
        self.warm_up_s = warm_up_s
        self.columns = columns = TaskColumns(ledger)
        synthetic = columns.offered & ~columns.pushed & (columns.intended_ns > 0)
        due_ns = columns.intended_ns[synthetic]
        first_ns = int(due_ns.min()) if len(due_ns) else 0
        self.begin_ns = first_ns + int(warm_up_s * NS_PER_S)
        self.end_ns = int(due_ns.max()) if len(due_ns) else 0
        self.counted: Bools = synthetic & (columns.intended_ns >= self.begin_ns)
        self.finished: Bools = self.counted & (columns.done_count > 0)
        self._synthetic: Bools = synthetic

    @property
    def window_s(self) -> float:
        """Its length; not above zero where the warm-up took all of the run."""
        return (self.end_ns - self.begin_ns) / NS_PER_S

    @property
    def end_to_end_ns(self) -> Ints:
        """From intended to first done, of the finished ones."""
        columns = self.columns
        return columns.done_ns[self.finished] - columns.intended_ns[self.finished]

    def windows(self, *, seconds: float, tasks: int) -> list["Window"]:
        """Equal windows of time.

        Args:
            seconds: that a window has, at least nine tenths of it.
            tasks: finished ones that were due in it, at least and on average; too few of them are
                one window.
        """
        count = max(
            1, min(int(self.window_s / seconds + _NEARLY), int(self.finished.sum()) // tasks)
        )
        columns = self.columns
        due_ns, latencies_ns = columns.intended_ns[self.finished], self.end_to_end_ns
        done_ns = columns.done_ns[self._synthetic & (columns.done_count > 0)]
        accepted_ns = columns.accepted_ns[self._synthetic & columns.accepted]
        edges = np.linspace(self.begin_ns, self.end_ns + 1, count + 1).astype(np.int64).tolist()
        return [
            Window(
                begin_ns=begin,
                end_ns=end,
                end_to_end_ns=latencies_ns[(due_ns >= begin) & (due_ns < end)],
                accepted=int(((accepted_ns >= begin) & (accepted_ns < end)).sum()),
                done=int(((done_ns >= begin) & (done_ns < end)).sum()),
            )
            for begin, end in itertools.pairwise(edges)
        ]

    @property
    def enqueue_ns(self) -> Ints:
        """From intended to accepted, of those that were accepted."""
        columns = self.columns
        accepted = self.counted & columns.accepted
        return columns.accepted_ns[accepted] - columns.intended_ns[accepted]

    @property
    def lag_p99_ms(self) -> float:
        """The 99th percentile of the producers' schedule lag."""
        columns = self.columns
        lags_ns = (columns.invoked_ns - columns.intended_ns)[self.counted]
        return float(np.percentile(lags_ns, 99)) / NS_PER_MS

    @property
    def growth_per_s(self) -> float:
        """The slope of the backlog in the window, tasks per second."""
        return backlog_growth(self.columns, self.begin_ns, self.end_ns)

    @property
    def late_s(self) -> float:
        """How long after the end of the load the last of them was done."""
        return (int(self.columns.done_ns[self.finished].max()) - self.end_ns) / NS_PER_S

    def done_per_s(self) -> float:
        """Synthetic tasks whose first execution was completed in the window, per second."""
        done = self._synthetic & (self.columns.done_count > 0)
        return self._in_window(self.columns.done_ns[done]) / self.window_s

    def accepted_per_s(self) -> float:
        """Synthetic tasks that were accepted in the window, per second."""
        accepted = self._synthetic & self.columns.accepted
        return self._in_window(self.columns.accepted_ns[accepted]) / self.window_s

    def _in_window(self, times_ns: Ints) -> int:
        return int(((times_ns >= self.begin_ns) & (times_ns < self.end_ns)).sum())


def read_counted(folder: Path, *, warm_up_s: float) -> CountedTasks:
    """The counted tasks of a stored run.

    Raises:
        LedgerError: nothing of its ledger can be read.
    """
    return CountedTasks(read_ledger(folder / "ledger"), warm_up_s=warm_up_s)
