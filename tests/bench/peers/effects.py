"""What handlers did, read from the files that they wrote it to; no contender is asked."""

from pathlib import Path

import msgspec
import numpy as np

from hookbench.clock import NS_PER_S
from hookbench.errors import ResultsError
from tests.bench.peers.contenders.child import RECORD

__all__ = ["EFFECT", "WARM_UP_SHARE", "Account", "count_effects", "read_effects"]

EFFECT = np.dtype([("task", "<i8"), ("time_ns", "<i8")])
WARM_UP_SHARE = 0.1
"""Of the effects; the rate is that of the others."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What became of so many tasks.

    Attributes:
        lost: tasks without an effect.
        repeated: effects beyond the first one of their task.
        rate_per_s: effects per second, from the end of the warm-up to the last one; ``None`` where
            there are too few.
        seconds: how long that was.
        last_first_ns: when a task had its first effect last.
    """

    tasks: int
    lost: int
    repeated: int
    rate_per_s: float | None
    seconds: float
    last_first_ns: int = 0


def count_effects(folder: Path) -> int:
    """How many effects there are by now; it reads a few records of each file."""
    return sum(_filled(path) for path in folder.iterdir())


def _filled(path: Path) -> int:
    """Records that a file holds: they fill it from the front, and have a time."""
    low, high = 0, path.stat().st_size // RECORD.size
    with path.open("rb") as file:
        while low < high:
            middle = (low + high) // 2
            file.seek(middle * RECORD.size)
            if RECORD.unpack(file.read(RECORD.size))[1]:
                low = middle + 1
            else:
                high = middle
    return low


def read_effects(folder: Path, tasks: int) -> Account:
    """The account of a trial of so many tasks.

    Raises:
        ResultsError: there are effects of more tasks than there were.
    """
    parts = [np.fromfile(path, dtype=EFFECT) for path in folder.iterdir()]
    rows = np.concatenate([np.empty(0, dtype=EFFECT), *parts])
    rows = rows[rows["time_ns"] > 0]
    rows = rows[np.argsort(rows["time_ns"], kind="stable")]
    firsts = np.unique(rows["task"], return_index=True)[1]
    distinct = len(firsts)
    if distinct > tasks:
        raise ResultsError(f"{folder}: effects of {distinct} tasks, and {tasks} were put")
    times_ns = rows["time_ns"]
    first = int(len(times_ns) * WARM_UP_SHARE)
    seconds = float(times_ns[-1] - times_ns[first]) / NS_PER_S if len(times_ns) > 1 else 0.0
    return Account(
        tasks=tasks,
        lost=tasks - distinct,
        repeated=len(rows) - distinct,
        rate_per_s=(len(times_ns) - 1 - first) / seconds if seconds else None,
        seconds=seconds,
        last_first_ns=int(times_ns[firsts].max()) if distinct else 0,
    )
