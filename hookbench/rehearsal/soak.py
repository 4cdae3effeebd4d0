"""A soak: chaos rehearsals with one seed after the other, and what they came to."""

import itertools
import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import msgspec

from hookbench.decoding import decode_json
from hookbench.errors import ResultsError
from hookbench.ledger.model import Account, Verdict
from hookbench.migration.phases import Design, Phase
from hookbench.rehearsal.settings import FULL_TIMELINE, RehearsalSettings
from hookbench.results.store import Manifest, remove_run, write_aside

__all__ = [
    "BOOK_NAME",
    "TIMELINES",
    "TOTALS_NAME",
    "SoakBook",
    "SoakEntry",
    "SoakTotals",
    "entry_of",
    "in_short",
    "why_failing",
]

BOOK_NAME = "soak.jsonl"
TOTALS_NAME = "soak.json"
_P = Phase
TIMELINES = (
    FULL_TIMELINE,
    (_P.REDIS_ONLY, _P.DUAL_WRITE, _P.REDIS_ONLY, _P.DUAL_WRITE, _P.DUAL_READ, _P.DUAL_WRITE),
    FULL_TIMELINE,
    (_P.REDIS_ONLY, _P.DUAL_WRITE, _P.DUAL_READ, _P.REDIS_ONLY, _P.DUAL_WRITE, _P.DUAL_READ),
    FULL_TIMELINE,
    (_P.DUAL_WRITE, _P.DUAL_READ, _P.NATS_PRIMARY, _P.DUAL_READ, _P.NATS_PRIMARY, _P.REDIS_ONLY),
    FULL_TIMELINE,
    (_P.DUAL_READ, _P.NATS_PRIMARY, _P.NATS_ONLY, _P.NATS_PRIMARY, _P.NATS_ONLY, _P.REDIS_ONLY),
)
"""By seed, one after the other: every transition and every rollback."""

_NO_CAUSE = (2, 3, 8)
"""Invariants that no hazard and no fault excuses: a loss or a repeat without a cause, what nobody
put, a task with two ends."""

_BETWEEN = "; "
_SHOWN = 3
_ADDED_UP = ("faults", "tasks", "accepted", "lost", "stuck", "duplicated", "unexplained")


class SoakEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run of a soak.

    Attributes:
        failing: why it counts as failing; empty if it does not.
        run: its folder if it was kept.
        durability, rate_per_s, phase_seconds, rollbacks: as it was asked for, to make it again.
        faults: how many fired.
        fired: how many of each kind.
        moves: transitions and rollbacks that it got through, each with how often.
        without: kinds that were left out of the schedule.
        only: kinds that were drawn, empty for all.
        accepted: tasks that were acknowledged to their caller.
        unexplained: effects beyond the first of a task that nothing explains.
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
    fired: dict[str, int] = {}
    moves: dict[str, int] = {}
    without: tuple[str, ...] = ()
    accepted: int = 0
    unexplained: int = 0
    failing: str = ""
    run: str | None = None
    durability: str = ""
    rate_per_s: float = 0.0
    phase_seconds: float = 0.0
    rollbacks: bool = False
    only: tuple[str, ...] = ()


class SoakTotals(msgspec.Struct, kw_only=True):
    """All runs of one commit, design, topology and set of kinds that were left out or drawn.

    Attributes:
        fired: faults of each kind.
        moves: transitions and rollbacks that were got through.
        failing: the seeds of the failing ones.
    """

    commit: str
    design: str
    topology: str
    without: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
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
    fired: dict[str, int] = {}
    moves: dict[str, int] = {}
    accepted: int = 0
    unexplained: int = 0
    failing: list[int] = []


def why_failing(manifest: Manifest) -> str:
    """Why a run counts as failing, empty if it does not.

    ``hardened`` has to be valid. ``guide`` may lose and repeat tasks, for that is what a rehearsal
    shows, but each of them has to have a cause, and no verdict may be unknown.
    """
    if manifest.verdict is Verdict.UNKNOWN or manifest.account is None:
        return "unknown: " + _BETWEEN.join(manifest.unknown_because)
    if manifest.design == Design.HARDENED:
        found = manifest.account.findings
        if manifest.verdict is Verdict.INVALID:
            return found[0].text if found else "invalid"
        return ""
    without = [item for item in manifest.account.findings if item.invariant in _NO_CAUSE]
    return _BETWEEN.join(f"{item.row}: {item.text}" for item in without)


def in_short(reasons: str) -> str:
    """The first of some reasons, as ``why_failing`` has them, and how many more there are."""
    first = reasons.split(_BETWEEN)
    if len(first) <= _SHOWN:
        return reasons
    return _BETWEEN.join([*first[:_SHOWN], f"and {len(first) - _SHOWN:,} more"])


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
                self.entries.append(decode_json(line, SoakEntry))
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
        """By commit, design, topology and which kinds, in the order of their first runs."""
        found: dict[tuple[str, str, str, tuple[str, ...], tuple[str, ...]], SoakTotals] = {}
        for item in self.entries:
            key = (item.commit, item.design, item.topology, item.without, item.only)
            totals = found.setdefault(
                key,
                SoakTotals(
                    commit=item.commit,
                    design=item.design,
                    topology=item.topology,
                    without=item.without,
                    only=item.only,
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
            for mine, its in ((totals.fired, item.fired), (totals.moves, item.moves)):
                for name, count in its.items():
                    mine[name] = mine.get(name, 0) + count
            for name in _ADDED_UP:
                setattr(totals, name, getattr(totals, name) + getattr(item, name))
        return list(found.values())


def entry_of(
    manifest: Manifest,
    folder: Path,
    *,
    settings: RehearsalSettings,
    seconds: float,
    without: Collection[str] = (),
    only: Collection[str] = (),
    rollbacks: bool = False,
) -> SoakEntry:
    """The entry of a run; the folder of one that is not failing is removed."""
    failing = why_failing(manifest)
    account = manifest.account
    labels = [step.plan.phase for step in manifest.steps]
    moves = Counter(f"{old} to {new}" for old, new in itertools.pairwise(labels))
    fired = Counter(item.kind for item in manifest.faults if item.begin_ns is not None)
    if not failing:
        remove_run(folder)
    return SoakEntry(
        seed=manifest.seed,
        commit=manifest.environment.commit,
        design=manifest.design,
        topology=settings.topology,
        durability=settings.durability.value,
        rate_per_s=settings.rate_per_s,
        phase_seconds=settings.phase_seconds,
        rollbacks=rollbacks,
        verdict=manifest.verdict,
        seconds=round(seconds, 1),
        faults=fired.total(),
        fired=dict(sorted(fired.items())),
        moves=dict(sorted(moves.items())),
        without=tuple(sorted(without)),
        only=tuple(sorted(only)),
        tasks=account.tasks if account else 0,
        accepted=account.accepted if account else 0,
        unexplained=_unexplained(account) if account else 0,
        lost=account.lost if account else 0,
        stuck=account.stuck if account else 0,
        duplicated=account.duplicated if account else 0,
        failing=failing,
        run=str(folder) if failing else None,
    )


def _unexplained(account: Account) -> int:
    """Effects beyond the first of a task without a crash, the end of a lease or a fault behind."""
    return account.duplicated_effects - account.effects_explained
