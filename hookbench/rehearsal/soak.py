"""A soak: chaos rehearsals with one seed after the other, and what they came to."""

import os
import shutil
from pathlib import Path

import msgspec

from hookbench.errors import ResultsError
from hookbench.ledger.model import Verdict
from hookbench.migration.phases import Design
from hookbench.results.store import Manifest, write_aside

__all__ = [
    "BOOK_NAME",
    "TOTALS_NAME",
    "SoakBook",
    "SoakEntry",
    "SoakTotals",
    "entry_of",
    "why_failing",
]

BOOK_NAME = "soak.jsonl"
TOTALS_NAME = "soak.json"
_NO_CAUSE = (2, 3, 8)
"""Invariants that no hazard and no fault excuses: a loss or a repeat without a cause, what nobody
put, a task with two ends."""


class SoakEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run of a soak.

    Attributes:
        failing: why it counts as failing; empty if it does not.
        run: its folder if it was kept.
        faults: how many fired.
        lost, stuck, duplicated: tasks, and executions beyond the first; caused by what fired.
    """

    seed: int
    commit: str
    design: str
    topology: str
    verdict: Verdict
    seconds: float
    faults: int
    tasks: int = 0
    lost: int = 0
    stuck: int = 0
    duplicated: int = 0
    failing: str = ""
    run: str | None = None


class SoakTotals(msgspec.Struct, kw_only=True):
    """All runs of one commit, design and topology.

    Attributes:
        failing: the seeds of the failing ones.
    """

    commit: str
    design: str
    topology: str
    runs: int = 0
    first_seed: int
    last_seed: int
    seconds: float = 0.0
    verdicts: dict[str, int] = {}
    faults: int = 0
    tasks: int = 0
    lost: int = 0
    stuck: int = 0
    duplicated: int = 0
    failing: list[int] = []


def why_failing(manifest: Manifest) -> str:
    """Why a run counts as failing, empty if it does not.

    ``hardened`` has to be valid. ``guide`` may lose and repeat tasks, for that is what a rehearsal
    shows, but each of them has to have a cause, and no verdict may be unknown.
    """
    if manifest.verdict is Verdict.UNKNOWN or manifest.account is None:
        return "unknown: " + "; ".join(manifest.unknown_because)
    if manifest.design == Design.HARDENED:
        found = manifest.account.findings
        if manifest.verdict is Verdict.INVALID:
            return found[0].text if found else "invalid"
        return ""
    without = [item for item in manifest.account.findings if item.invariant in _NO_CAUSE]
    return "; ".join(f"{item.row}: {item.text}" for item in without)


class SoakBook:
    """The runs of a soak, one JSON line each, appended when a run is over.

    Raises:
        ResultsError: the book holds a line that is none of its own; the text says which.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / BOOK_NAME
        self.entries: list[SoakEntry] = []
        folder.mkdir(parents=True, exist_ok=True)
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                self.entries.append(msgspec.json.decode(line, type=SoakEntry, strict=True))
            except msgspec.MsgspecError as error:
                raise ResultsError(
                    f"soak {self.path}, line {number}: {error}; remove the line, or use another"
                    " folder with --out"
                ) from error
        if len(whole) < len(data):  # cut off in the middle of a line: that run is done again
            os.truncate(self.path, len(whole))

    def next_seed(self, first: int, *, design: str, topology: str) -> int:
        """The seed after the highest one of this design and topology, ``first`` for none."""
        seeds = [
            item.seed
            for item in self.entries
            if (item.design, item.topology) == (design, topology) and item.seed >= first
        ]
        return max(seeds, default=first - 1) + 1

    def add(self, entry: SoakEntry) -> None:
        """Append a run, and write the totals anew."""
        with self.path.open("ab") as file:
            file.write(msgspec.json.encode(entry) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.entries.append(entry)
        data = msgspec.json.format(msgspec.json.encode(self.totals()), indent=2)
        write_aside(self.path.with_name(TOTALS_NAME), data + b"\n")

    def totals(self) -> list[SoakTotals]:
        """By commit, design and topology, in the order of their first runs."""
        found: dict[tuple[str, str, str], SoakTotals] = {}
        for item in self.entries:
            key = (item.commit, item.design, item.topology)
            totals = found.setdefault(
                key,
                SoakTotals(
                    commit=item.commit,
                    design=item.design,
                    topology=item.topology,
                    first_seed=item.seed,
                    last_seed=item.seed,
                ),
            )
            totals.runs += 1
            totals.first_seed = min(totals.first_seed, item.seed)
            totals.last_seed = max(totals.last_seed, item.seed)
            totals.seconds = round(totals.seconds + item.seconds, 1)
            totals.verdicts[item.verdict] = totals.verdicts.get(item.verdict, 0) + 1
            totals.failing += [item.seed] if item.failing else []
            for name in ("faults", "tasks", "lost", "stuck", "duplicated"):
                setattr(totals, name, getattr(totals, name) + getattr(item, name))
        return list(found.values())


def entry_of(manifest: Manifest, folder: Path, *, topology: str, seconds: float) -> SoakEntry:
    """The entry of a run; the folder of one that is not failing is removed."""
    failing = why_failing(manifest)
    account = manifest.account
    if not failing:
        shutil.rmtree(folder)
    return SoakEntry(
        seed=manifest.seed,
        commit=manifest.environment.commit,
        design=manifest.design,
        topology=topology,
        verdict=manifest.verdict,
        seconds=round(seconds, 1),
        faults=sum(record.begin_ns is not None for record in manifest.faults),
        tasks=account.tasks if account else 0,
        lost=account.lost if account else 0,
        stuck=account.stuck if account else 0,
        duplicated=account.duplicated if account else 0,
        failing=failing,
        run=str(folder) if failing else None,
    )
