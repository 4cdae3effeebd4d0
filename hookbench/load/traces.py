"""Traces: when tasks came in, and of which repository, as a CSV that a load replays."""

import csv
import datetime as dt
import math
import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from hookbench.clock import NS_PER_S
from hookbench.errors import TraceError

__all__ = [
    "MAX_ROWS",
    "Trace",
    "TraceProfile",
    "profile_of",
    "read_trace",
    "trace_of",
    "trace_of_git",
    "write_trace",
]

MAX_ROWS = 10_000_000
MAX_SECONDS = 1e9
TIME_COLUMN = "time_s"
REPOSITORY_COLUMN = "repository"
_GIT_TIMEOUT_S = 600.0


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Arrivals in the order of time, the first at 0.

    Attributes:
        offsets_ns: ascending.
        repositories: the name of each one's repository; empty where the trace has none.
    """

    offsets_ns: Sequence[int]
    repositories: Sequence[str] = ()

    @property
    def seconds(self) -> float:
        """From the first to the last."""
        return self.offsets_ns[-1] / NS_PER_S if len(self.offsets_ns) else 0.0

    def within(self, seconds: float) -> int:
        """How many come before that time."""
        return int(np.searchsorted(np.asarray(self.offsets_ns), int(seconds * NS_PER_S)))


class TraceProfile(msgspec.Struct, frozen=True, kw_only=True):
    """A trace in some figures.

    Attributes:
        arrivals: how many.
        repositories: how many different ones, 0 where the trace does not name them.
        seconds: from the first to the last.
        mean_per_s: arrivals per second, over all of them.
        peak_per_s: arrivals of the second that has most.
    """

    arrivals: int
    repositories: int
    seconds: float
    mean_per_s: float
    peak_per_s: int


def profile_of(trace: Trace) -> TraceProfile:
    """What a trace is like."""
    offsets_ns = np.asarray(trace.offsets_ns, dtype=np.int64)
    _seconds_with_any, counts = np.unique(offsets_ns // NS_PER_S, return_counts=True)
    return TraceProfile(
        arrivals=len(offsets_ns),
        repositories=len(set(trace.repositories)),
        seconds=trace.seconds,
        mean_per_s=len(offsets_ns) / max(trace.seconds, 1.0),
        peak_per_s=int(counts.max()),
    )


def trace_of(
    times_s: Iterable[float], repositories: Sequence[str] = (), *, speed: float = 1.0
) -> Trace:
    """A trace of times in any order.

    Args:
        times_s: at least one; from any moment on.
        repositories: of each, or of none.
        speed: how many times as fast as it was.

    Raises:
        TraceError: there are none, too many, they lie too far apart, or the speed is none.
    """
    if not (math.isfinite(speed) and speed > 0):
        raise TraceError(f"speed {speed}: use a number above 0")
    times = np.fromiter(times_s, dtype=np.float64)
    if not 1 <= len(times) <= MAX_ROWS:
        raise TraceError(f"a trace of {len(times):,} times: use between 1 and {MAX_ROWS:,}")
    order = np.argsort(times, kind="stable")
    seconds = (times[order] - times[order[0]]) / speed
    if not seconds[-1] <= MAX_SECONDS:
        raise TraceError(
            f"a trace of {seconds[-1]:,.0f} s: use a higher speed, or leave out what lies far apart"
        )
    return Trace(
        offsets_ns=np.rint(seconds * NS_PER_S).astype(np.int64).tolist(),
        repositories=[repositories[index] for index in order] if repositories else (),
    )


def read_trace(path: Path, *, speed: float = 1.0) -> Trace:
    """The trace in a CSV.

    Its first line may name the columns. ``time_s``, or else the first column, has the times: in
    seconds from any moment on, or as ISO 8601. ``repository``, if there is one, has the names.

    Args:
        path: of the file.
        speed: how many times as fast as it was.

    Raises:
        TraceError: it cannot be read, or is none; the text names the line.
    """
    times: list[float] = []
    repositories: list[str] = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for line, time, repository in _rows(path, file):
                if len(times) == MAX_ROWS:
                    raise TraceError(f"{path}, line {line}: more than {MAX_ROWS:,} times")
                times.append(_seconds(path, line, time))
                if repository is not None:
                    repositories.append(_checked(path, line, repository))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"trace {path}: {error}") from error
    if not times:
        raise TraceError(f"trace {path}: it has no times")
    return trace_of(times, repositories, speed=speed)


def _rows(path: Path, file: Iterable[str]) -> Iterator[tuple[int, str, str | None]]:
    """Number of the line, time, and repository if there is that column."""
    reader = csv.reader(file)
    time, repository = 0, -1
    for row in reader:
        if not row or (len(row) == 1 and not row[0].strip()):
            continue
        if reader.line_num == 1 and not _is_time(row[0]):
            names = [item.strip() for item in row]
            time = names.index(TIME_COLUMN) if TIME_COLUMN in names else 0
            repository = names.index(REPOSITORY_COLUMN) if REPOSITORY_COLUMN in names else -1
            continue
        if len(row) <= max(time, repository):
            raise TraceError(f"{path}, line {reader.line_num}: {len(row)} columns are too few")
        yield reader.line_num, row[time], row[repository] if repository >= 0 else None


def _is_time(text: str) -> bool:
    try:
        _parsed(text)
    except ValueError:
        return False
    return True


def _parsed(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        moment = dt.datetime.fromisoformat(text.strip())
    return moment.replace(tzinfo=moment.tzinfo or dt.UTC).timestamp()


def _seconds(path: Path, line: int, text: str) -> float:
    try:
        seconds = _parsed(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise TraceError(
            f"{path}, line {line}: time {text!r}: use seconds, or ISO 8601 as in"
            " 2026-01-31T08:00:00Z"
        )
    return seconds


def _checked(path: Path, line: int, name: str) -> str:
    """A name that may be a part of a repository's id."""
    if not 1 <= len(name.strip()) <= 100 or "/" in name or not name.isprintable():  # noqa: PLR2004
        raise TraceError(
            f"{path}, line {line}: repository {name!r}: use 1 to 100 characters without a slash"
        )
    return name.strip()


def write_trace(path: Path, trace: Trace) -> None:
    """Write a CSV that ``read_trace`` reads.

    Raises:
        TraceError: it cannot be written.
    """
    names = trace.repositories
    try:
        with path.open("x", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([TIME_COLUMN, REPOSITORY_COLUMN] if names else [TIME_COLUMN])
            for number, offset_ns in enumerate(trace.offsets_ns):
                time = f"{offset_ns / NS_PER_S:.9f}"
                writer.writerow([time, names[number]] if names else [time])
    except FileExistsError as error:
        raise TraceError(f"{path} is there already: give another name, or remove it") from error
    except OSError as error:
        raise TraceError(f"trace {path}: {error.strerror}") from error


def trace_of_git(repositories: Sequence[Path], *, speed: float = 1.0) -> Trace:
    """The commit times of git repositories: real input, with its bursts and its quiet days.

    Args:
        repositories: working copies or bare ones; each commit of any ref counts.
        speed: how many times as fast as it was.

    Raises:
        TraceError: one is no git repository, or has no commits.
    """
    times: list[float] = []
    names: list[str] = []
    for path in repositories:
        found = _commit_times(path)
        times += found
        names += [path.resolve().name] * len(found)
    return trace_of(times, names, speed=speed)


def _commit_times(path: Path) -> list[float]:
    command = ["git", "-C", str(path), "log", "--all", "--no-show-signature", "--format=%ct"]
    # In a hook they would mean the repository of the hook.
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_GIT_TIMEOUT_S, check=False, env=environment
        )
    except FileNotFoundError as error:
        raise TraceError("git is not installed: it tells the times of commits") from error
    except subprocess.TimeoutExpired as error:
        raise TraceError(f"{path}: git log was silent for {_GIT_TIMEOUT_S:.0f} s") from error
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip().splitlines()
        raise TraceError(f"{path}: {told[-1] if told else f'git log ended with {done.returncode}'}")
    times = [float(line) for line in done.stdout.split()]
    if not times:
        raise TraceError(f"{path}: the repository has no commits")
    return times
