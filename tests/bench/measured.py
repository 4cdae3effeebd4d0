"""What the runs of both sides came to, read from the files of pytest-benchmark."""

import statistics
from pathlib import Path

import msgspec

from hookbench.errors import ResultsError

__all__ = ["SIDES", "Benchmark", "Series", "load_file", "load_series"]

BASE, HEAD = SIDES = ("base", "head")


class _Stats(msgspec.Struct):
    data: list[float]


class _Extra(msgspec.Struct):
    yardstick_s: list[float] = []
    least_effect: float | None = None
    counts: dict[str, float] = {}


class Benchmark(msgspec.Struct):
    """One benchmark in one run."""

    fullname: str
    stats: _Stats
    extra_info: _Extra

    @property
    def ratio(self):
        """Reference over yardstick: the median of the rounds' ratios; ``None`` without one."""
        pairs = zip(self.stats.data, self.extra_info.yardstick_s, strict=True)
        return (
            statistics.median(mine / other for mine, other in pairs)
            if self.extra_info.yardstick_s
            else None
        )


class _Machine(msgspec.Struct):
    hookbench: str


class _File(msgspec.Struct):
    machine_info: _Machine
    benchmarks: list[Benchmark]
    failed: list[str] = []


class Series:
    """Runs of both sides, in turn.

    Attributes:
        runs: by side, of each run its benchmarks by name.
        failed: by side, the benchmarks that failed in any run.
    """

    def __init__(self):
        self.runs = {side: [] for side in SIDES}
        self.failed = {side: set() for side in SIDES}

    def add(self, side, found):
        self.runs[side].append({item.fullname: item for item in found.benchmarks})
        self.failed[side].update(found.failed)

    @property
    def names(self):
        """Of all benchmarks, in the order of the runs."""
        every = [name for side in reversed(SIDES) for run in self.runs[side] for name in run]
        return list(dict.fromkeys(every))

    def of(self, side, name):
        """The benchmark in each run of a side; empty if any run is without it."""
        found = [run[name] for run in self.runs[side] if name in run]
        return found if len(found) == len(self.runs[side]) else []


def load_file(path):
    """One run.

    Raises:
        ResultsError: the file is missing, cut off, or of something else.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror}: run the benchmarks again") from error
    except msgspec.MsgspecError as error:
        raise ResultsError(f"{path}: no run of these benchmarks: {error}") from error
    for item in found.benchmarks:
        rounds, turns = len(item.stats.data), len(item.extra_info.yardstick_s)
        times = (*item.stats.data, *item.extra_info.yardstick_s)
        if turns not in (0, rounds) or not all(value > 0 for value in times):
            raise ResultsError(
                f"{path}: {item.fullname} has {rounds} rounds and {turns} of its yardstick:"
                " they must be as many, and longer than nothing"
            )
    return found


def load_series(folder):
    """The runs in a folder, ``base-01.json`` and ``head-01.json`` and so on.

    Raises:
        ResultsError: there are none, or not as many of both sides; or as in ``load_file``.
    """
    series = Series()
    paths = {side: sorted(Path(folder).glob(f"{side}-*.json")) for side in SIDES}
    counts = {side: len(found) for side, found in paths.items()}
    if not counts[BASE] or counts[BASE] != counts[HEAD]:
        raise ResultsError(
            f"{folder}: {counts[BASE]} runs of the base and {counts[HEAD]} of the head:"
            " as many of both are compared"
        )
    for side, found in paths.items():
        for path in found:
            series.add(side, load_file(path))
    return series
