"""The book of a matrix: what each of its trials came to, one line each, never written again."""

import fcntl
import os
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from hookbench.decoding import decode_json
from hookbench.errors import ResultsError
from hookbench.ledger.model import Verdict
from hookbench.rehearsal.matrix_plan import PlannedTrial, StoredPlan
from hookbench.results.environment import Environment

__all__ = [
    "ATTEMPTS",
    "BOOK_NAME",
    "DueTrial",
    "MatrixBook",
    "SessionRecord",
    "TrialRecord",
    "environment_changes",
    "hold_folder",
    "hours_and_minutes",
]

BOOK_NAME = "matrix.jsonl"
LOCK_NAME = "matrix.lock"
ATTEMPTS = 2
"""A trial that says nothing, or in which tasks went wrong, is made once more."""
_S_PER_MINUTE = 60
_MINUTES_PER_HOUR = 60


class SessionRecord(
    msgspec.Struct, frozen=True, kw_only=True, tag="session", forbid_unknown_fields=True
):
    """A process that made trials; those that follow in the book are its own."""

    started: str
    environment: Environment


class TrialRecord(
    msgspec.Struct, frozen=True, kw_only=True, tag="trial", forbid_unknown_fields=True
):
    """What a trial came to.

    Attributes:
        index: in the order of the plan.
        trial: that was made.
        attempt: 1, or 2 where the first is not to stand.
        session: number of its session, from 1.
        verdict: ``unknown`` where its figures say nothing; then there are none.
        why: what is wrong with it; empty if nothing is.
        hazards: those that its findings name.
        again: whether it is to be made once more.
        seconds: how long it took in all.
        load_average: of the machine in the minute before it began.
        others_cores: that others kept busy meanwhile; ``None`` in books from before there was this.
        figures: by name, with the unit last; see ``measure_trial``.
        brokers: what it was made on, a line each.
        run: where the run is kept, in the folder of the matrix; ``None`` where it is not.
    """

    index: int
    trial: PlannedTrial
    attempt: int
    session: int
    verdict: Verdict
    why: str = ""
    hazards: tuple[str, ...] = ()
    again: bool = False
    seconds: float
    load_average: float
    others_cores: float | None = None
    figures: dict[str, float] = {}
    brokers: tuple[str, ...] = ()
    run: str | None = None


class DueTrial(msgspec.Struct, frozen=True, kw_only=True):
    """A trial that has not been made: its place in the plan, and which attempt it is."""

    index: int
    trial: PlannedTrial
    attempt: int


_LINE: Any = SessionRecord | TrialRecord


class MatrixBook:
    """What was made of a plan.

    Args:
        folder: of the matrix.
        stored: its plan.

    Raises:
        ResultsError: a line is none of its own, of another plan, or a trial is there twice.
    """

    def __init__(self, folder: Path, stored: StoredPlan) -> None:
        self.path = folder / BOOK_NAME
        self._stored = stored
        self.sessions: list[SessionRecord] = []
        self.trials: dict[tuple[int, int], TrialRecord] = {}
        """By index and attempt, in the order in which they were made."""
        self._length = 0
        for number, line in enumerate(self._whole_lines(), 1):
            try:
                self._take(decode_json(line, _LINE))
            except (msgspec.MsgspecError, ValueError) as error:
                raise ResultsError(
                    f"matrix {self.path}, line {number}: {error}; remove the line, or use another"
                    " folder with --out"
                ) from error

    def _whole_lines(self) -> list[bytes]:
        """A last line that was cut off is no line: that trial is made again."""
        data = self.path.read_bytes() if self.path.exists() else b""
        self._length = data.rfind(b"\n") + 1
        return data[: self._length].splitlines()

    def _take(self, record: SessionRecord | TrialRecord) -> None:
        if isinstance(record, SessionRecord):
            self.sessions.append(record)
            return
        planned = self._stored.trials
        if not (0 <= record.index < len(planned) and planned[record.index] == record.trial):
            raise ValueError(f"trial {record.index} is another one in the plan")
        if (record.index, record.attempt) in self.trials:
            raise ValueError(f"trial {record.index}, attempt {record.attempt} is there twice")
        self.trials[record.index, record.attempt] = record

    def add(self, record: SessionRecord | TrialRecord) -> None:
        """Append a line; it is on the disk when this returns."""
        self._take(record)
        with self.path.open("ab") as file:
            file.truncate(self._length)  # of a line that was cut off nothing stays
            file.write(msgspec.json.encode(record) + b"\n")
            file.flush()
            os.fsync(file.fileno())
            self._length = file.tell()

    def standing(self, index: int) -> TrialRecord | None:
        """The attempt at a trial that counts: the last one that has figures; ``None`` for none."""
        last = self._last(index)
        made = (self.trials.get((index, attempt)) for attempt in range(ATTEMPTS, 0, -1))
        return next((item for item in made if item is not None and item.figures), last)

    def _last(self, index: int) -> TrialRecord | None:
        made = (self.trials.get((index, attempt)) for attempt in range(ATTEMPTS, 0, -1))
        return next((item for item in made if item is not None), None)

    def due(self) -> list[DueTrial]:
        """What is left, in order: first attempts, then the second ones that are needed."""
        first, second = [], []
        for index, trial in enumerate(self._stored.trials):
            record = self._last(index)
            if record is None:
                first.append(DueTrial(index=index, trial=trial, attempt=1))
            elif record.again and record.attempt < ATTEMPTS:
                second.append(DueTrial(index=index, trial=trial, attempt=record.attempt + 1))
        return first + second

    def remaining_s(self, due: Sequence[DueTrial]) -> float | None:
        """How long these will take, by the median of what their kind took; ``None``: unknown."""
        took: dict[str, list[float]] = {}
        for record in self.trials.values():
            took.setdefault(record.trial.kind, []).append(record.seconds)
        if not took:
            return None
        overall = statistics.median(value for values in took.values() for value in values)
        medians = {kind: statistics.median(values) for kind, values in took.items()}
        return sum(medians.get(item.trial.kind, overall) for item in due)


def hours_and_minutes(seconds: float) -> str:
    """``h:mm``, a begun minute being a whole one."""
    hours, minutes = divmod(-int(-seconds // _S_PER_MINUTE), _MINUTES_PER_HOUR)
    return f"{hours}:{minutes:02d}"


def environment_changes(old: Environment, new: Environment) -> list[str]:
    """What is not the same between two sessions, one text each: commit, versions, machine."""
    found = []
    for name in old.__struct_fields__:
        before, after = getattr(old, name), getattr(new, name)
        if name == "packages":
            for package in sorted({*before, *after}):
                was, now = before.get(package, "-"), after.get(package, "-")
                found += [f"{package} {was} → {now}"] if was != now else []
        elif before != after:
            found.append(f"{name} {before} → {after}")
    return found


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Keep others from making trials of the same matrix; ends with the process.

    Raises:
        ResultsError: another one does so now, or the folder cannot be made.
    """
    path = folder / LOCK_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ResultsError(
            f"matrix {folder}: {error.strerror}; choose another folder with --out"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ResultsError(
            f"matrix {folder}: another hookbench makes its trials now; wait for its end"
        ) from error
    try:
        yield
    finally:
        os.close(descriptor)
