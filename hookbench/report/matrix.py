"""What a matrix came to: for each cell the median over its repeats, with a bootstrap interval."""

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pandas as pd

from hookbench.brokers.durability import Durability
from hookbench.errors import ResultsError
from hookbench.ledger.model import Verdict
from hookbench.load.objectives import MAX_GROWTH
from hookbench.rehearsal.matrix_book import (
    MatrixBook,
    SessionRecord,
    TrialRecord,
    environment_changes,
)
from hookbench.rehearsal.matrix_plan import Cell, Kind, MatrixPlan, cells_of, load_stored_plan
from hookbench.results.environment import Environment
from hookbench.results.stats import median_interval

__all__ = [
    "CONFIDENCE",
    "MIN_COMPARED",
    "CellSummary",
    "Interval",
    "KindSummary",
    "MatrixSummary",
    "are_apart",
    "interval_of",
    "load_summary",
    "trials_frame",
]

CONFIDENCE = 0.95
MIN_COMPARED = 4
"""Repeats. All of one above all of the other comes by chance once in 35 times with four of each,
and once in 10 with three."""
_TOTALS = ("done", "redelivered", "duplicated", "in_hand", "ended", "stuck", "lost")
_WORST = (Verdict.UNKNOWN, Verdict.INVALID, Verdict.VALID)


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A median over ``count`` repeats; without bounds for fewer than three."""

    median: float
    low: float | None
    high: float | None
    count: int


class KindSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What the trials of one kind came to in a cell.

    Attributes:
        planned: repeats.
        known: those that have figures.
        verdict: the worst of them; ``unknown`` also where one was not made yet.
        notes: what a reader of the figures has to know, one text each.
        figures: as of ``measure_trial``; empty where none is known.
        done, redelivered, duplicated: over all repeats that are known.
        in_hand, ended, stuck, lost: tasks of workers that were killed, likewise; of the kind
            ``redelivery``.
    """

    planned: int
    known: int
    verdict: Verdict
    notes: list[str]
    figures: dict[str, Interval]
    done: int
    redelivered: int
    duplicated: int
    in_hand: int = 0
    ended: int = 0
    stuck: int = 0
    lost: int = 0


class CellSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A cell, by kind of trial."""

    cell: Cell
    kinds: dict[str, KindSummary]


class MatrixSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A matrix as its book has it now.

    Attributes:
        planned, made: trials, not counting second attempts.
        again: second attempts that were made.
        seconds: that all trials took.
        changes: what was not the same in a later session, one text each.
        load_average: the least and the most of the machine before a trial.
        others_cores: that others kept busy beside the trials that stand: the median and the most.
        brokers: every line that a trial's brokers had.
        cells: of the plan, in its order.
    """

    plan: MatrixPlan
    planned: int
    made: int
    again: int
    seconds: float
    started: str
    environment: Environment | None
    changes: list[str]
    load_average: tuple[float, float] | None
    others_cores: tuple[float, float] | None
    brokers: list[str]
    cells: list[CellSummary]

    @property
    def verdict(self) -> Verdict:
        """The worst of all cells."""
        found = {kind.verdict for cell in self.cells for kind in cell.kinds.values()}
        return next(item for item in _WORST if item in found)

    def of_class(self, durability: Durability) -> list[CellSummary]:
        """The cells of one durability class: only these are compared."""
        return [item for item in self.cells if item.cell.durability is durability]


def interval_of(values: Sequence[float], *, seed: int) -> Interval | None:
    """The median with its interval, see ``results.stats``; ``None`` for no value.

    Args:
        values: of repeats.
        seed: of the resampling: the same values have the same interval.
    """
    if not values:
        return None
    found = median_interval(values, seed=seed, confidence=CONFIDENCE)
    return Interval(median=found.median, low=found.low, high=found.high, count=len(values))


def are_apart(first: Interval, second: Interval) -> bool:
    """Whether two intervals do not touch; never with fewer than ``MIN_COMPARED`` repeats."""
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return False
    if min(first.count, second.count) < MIN_COMPARED:
        return False
    return first.low > second.high or second.low > first.high


def load_summary(folder: Path) -> tuple[MatrixSummary, MatrixBook]:
    """What the matrix in a folder came to so far, and its book.

    Raises:
        ResultsError: there is none, or it is damaged.
    """
    stored = load_stored_plan(folder)
    if stored is None:
        raise ResultsError(f"matrix {folder}: no plan.json; hookbench matrix --out makes one")
    book, plan = MatrixBook(folder, stored), stored.plan
    by_cell: dict[tuple[Cell, Kind], list[TrialRecord | None]] = {}
    for index, trial in enumerate(stored.trials):
        by_cell.setdefault((trial.cell, trial.kind), []).append(book.standing(index))
    standing = [record for found in by_cell.values() for record in found if record is not None]
    cells = [
        CellSummary(
            cell=cell,
            kinds={
                kind: summarise_kind(
                    by_cell[cell, kind], seed=plan.seed, most_others=plan.most_others_cores
                )
                for kind in plan.kinds
            },
        )
        for cell in cells_of(plan)[0]
    ]
    loads = [record.load_average for record in book.trials.values()]
    others = [item.others_cores for item in standing if item.others_cores is not None]
    first = book.sessions[0] if book.sessions else None
    return MatrixSummary(
        plan=plan,
        planned=len(stored.trials),
        made=len(standing),
        again=len(book.trials) - len(standing),
        seconds=round(sum(record.seconds for record in book.trials.values()), 1),
        started=first.started if first else "",
        environment=first.environment if first else None,
        changes=session_changes(book.sessions),
        load_average=(min(loads), max(loads)) if loads else None,
        others_cores=(round(statistics.median(others), 2), max(others)) if others else None,
        brokers=sorted({line for record in standing for line in record.brokers}),
        cells=cells,
    ), book


def summarise_kind(
    records: Sequence[TrialRecord | None], *, seed: int, most_others: float
) -> KindSummary:
    """The trials of one cell and kind, ``None`` for one that was not made yet.

    Args:
        records: those that stand.
        seed: of the resampling.
        most_others: cores that others may keep busy beside a trial without a note.
    """
    made = [record for record in records if record is not None]
    known = [record for record in made if record.verdict is not Verdict.UNKNOWN]
    verdicts = {record.verdict if record else Verdict.UNKNOWN for record in records}
    names = sorted({name for record in known for name in record.figures})
    figures = {
        name: found for name in names if (found := interval_of(_values(known, name), seed=seed))
    }
    totals = {name: int(sum(record.figures.get(name, 0.0) for record in known)) for name in _TOTALS}
    return KindSummary(
        planned=len(records),
        known=len(known),
        verdict=next(item for item in _WORST if item in verdicts),
        notes=[*_notes(records, figures), *_disturbed(records, most_others)],
        figures=figures,
        **totals,
    )


def _values(records: Sequence[TrialRecord], name: str) -> list[float]:
    """Not every trial of redelivery has a time until a task was started again."""
    return [record.figures[name] for record in records if name in record.figures]


def _notes(records: Sequence[TrialRecord | None], figures: dict[str, Interval]) -> list[str]:
    made = [record for record in records if record is not None]
    notes = []
    if missing := len(records) - len(made):
        notes.append(f"{missing} of {len(records)} not made yet")
    for verdict in (Verdict.UNKNOWN, Verdict.INVALID):
        found = [record for record in made if record.verdict is verdict]
        if found:
            whys = dict.fromkeys(
                ", ".join(record.hazards) or record.why
                if verdict is Verdict.INVALID and not record.again
                else record.why
                for record in found
            )
            notes.append(f"{len(found)} of {len(records)} {verdict}: {'; '.join(whys)}")
    growth = figures.get("growth_share")
    if growth is not None and growth.median > MAX_GROWTH:
        notes.append(
            f"more than it sustains: the backlog grew by {growth.median:.1%} of what was offered,"
            " so the latency grows with the length of the trial"
        )
    return notes


def _disturbed(records: Sequence[TrialRecord | None], most: float) -> list[str]:
    found = [
        record.others_cores
        for record in records
        if record is not None and record.others_cores is not None and record.others_cores > most
    ]
    if not found:
        return []
    return [f"{len(found)} of {len(records)} beside others, who kept {max(found):.1f} cores busy"]


def session_changes(sessions: Sequence[SessionRecord]) -> list[str]:
    """What later sessions had otherwise than the one before, one text each."""
    found = []
    for number, (old, new) in enumerate(itertools.pairwise(sessions), 2):
        changed = environment_changes(old.environment, new.environment)
        found += [f"session {number} ({new.started}): {text}" for text in changed]
    return found


def trials_frame(book: MatrixBook) -> pd.DataFrame:
    """One row per trial that was made, second attempts included, in the order of making.

    Columns: ``index`` in the plan, ``route``, ``durability``, ``payload``, ``kind``, ``repeat``,
    ``attempt``, ``stands`` (it is the one that counts), ``session``, ``commit``, ``verdict``,
    ``why``, ``seconds``, ``load_average``, ``others_cores``, and the figures of ``measure_trial``,
    NaN for none.
    """
    rows = [
        {
            "index": record.index,
            "route": record.trial.cell.route,
            "durability": str(record.trial.cell.durability),
            "payload": record.trial.cell.payload,
            "kind": record.trial.kind,
            "repeat": record.trial.repeat,
            "attempt": record.attempt,
            "stands": book.standing(record.index) is record,
            "session": record.session,
            "commit": book.sessions[record.session - 1].environment.commit,
            "verdict": str(record.verdict),
            "why": record.why,
            "seconds": record.seconds,
            "load_average": record.load_average,
            "others_cores": record.others_cores,
            **record.figures,
        }
        for record in book.trials.values()
    ]
    return pd.DataFrame(rows)
