"""The book of a search: one JSON line per seed, and what they come to."""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hookbench.errors import ResultsError
from hookbench.ledger.model import Verdict
from hookbench.results.store import write_aside
from hookbench.sim.coverage import add_up
from hookbench.sim.schedule import SimFault

__all__ = ["BOOK_NAME", "TOTALS_NAME", "SearchTotals", "SeedEntry", "SimBook", "totals_of"]

BOOK_NAME = "sim.jsonl"
TOTALS_NAME = "sim.json"


class SeedEntry(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One seed.

    Attributes:
        scope: design and phases, see ``Scope.name``.
        digest: SHA-256 of its ledger; the same whenever the seed is tried with this commit.
        faults: its schedule.
        fired: how many of them did.
        causes: by key, see ``Cause``: tasks or executions.
        cells: firings by kind and step, see ``cells_of``.
        failing: why it counts as failing: whatever is not valid does; empty if it is.
        cpu_s: seconds of CPU.
    """

    seed: int
    commit: str
    scope: str
    verdict: Verdict
    digest: str
    faults: tuple[SimFault, ...]
    fired: int = 0
    causes: dict[str, int] = {}
    cells: dict[str, int] = {}
    accepted: int = 0
    lost: int = 0
    stuck: int = 0
    duplicated: int = 0
    failing: str = ""
    cpu_s: float = 0.0


class FoundCause(msgspec.Struct, frozen=True, kw_only=True):
    """In how many seeds a cause was found, and in which first."""

    seeds: int
    first_seed: int
    count: int


class SearchTotals(msgspec.Struct, frozen=True, kw_only=True):
    """What the seeds of one commit and scope come to.

    Attributes:
        causes: by key, the most frequent first.
        coverage: firings by kind and target, then by step.
        failing: the seeds that are not valid.
    """

    commit: str
    scope: str
    seeds: int
    verdicts: dict[str, int]
    faults: int
    fired: int
    accepted: int
    lost: int
    stuck: int
    duplicated: int
    causes: dict[str, FoundCause]
    coverage: dict[str, dict[str, int]]
    failing: list[int]
    cpu_s: float


class SimBook:
    """Appended when a seed is done; a search in the same folder goes on with what is missing.

    Raises:
        ResultsError: the book holds a line that is none of its own; the text says which.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / BOOK_NAME
        self._entries: dict[tuple[str, str, int], SeedEntry] = {}
        folder.mkdir(parents=True, exist_ok=True)
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                self._keep(msgspec.json.decode(line, type=SeedEntry, strict=True))
            except msgspec.MsgspecError as error:
                raise ResultsError(
                    f"search {self.path}, line {number}: {error}; remove the line, or use another"
                    " folder with --out"
                ) from error
        if len(whole) < len(data):  # cut off in the middle of a line: that seed is done again
            os.truncate(self.path, len(whole))

    def _keep(self, entry: SeedEntry) -> None:
        self._entries[entry.commit, entry.scope, entry.seed] = entry

    def of(self, commit: str, scope: str) -> list[SeedEntry]:
        """The entries of a commit and scope, by seed."""
        found = [item for key, item in self._entries.items() if key[:2] == (commit, scope)]
        return sorted(found, key=lambda item: item.seed)

    def add(self, entry: SeedEntry) -> None:
        """Append a seed."""
        with self.path.open("ab") as file:
            file.write(msgspec.json.encode(entry) + b"\n")
        self._keep(entry)

    def write_totals(self) -> None:
        """The totals of every commit and scope beside the book."""
        keys = dict.fromkeys(key[:2] for key in self._entries)
        totals = [totals_of(self.of(*key)) for key in keys]
        data = msgspec.json.format(msgspec.json.encode(totals), indent=2)
        write_aside(self.path.with_name(TOTALS_NAME), data + b"\n")


def totals_of(entries: Sequence[SeedEntry]) -> SearchTotals:
    """What entries of one commit and scope come to; at least one.

    Args:
        entries: by seed.
    """
    verdicts: dict[str, int] = {}
    causes: dict[str, FoundCause] = {}
    for item in entries:
        verdicts[item.verdict.value] = verdicts.get(item.verdict.value, 0) + 1
        for key, count in item.causes.items():
            had = causes.get(key)
            causes[key] = FoundCause(
                seeds=had.seeds + 1 if had else 1,
                first_seed=had.first_seed if had else item.seed,
                count=had.count + count if had else count,
            )
    return SearchTotals(
        commit=entries[0].commit,
        scope=entries[0].scope,
        seeds=len(entries),
        verdicts=verdicts,
        faults=sum(len(item.faults) for item in entries),
        fired=sum(item.fired for item in entries),
        accepted=sum(item.accepted for item in entries),
        lost=sum(item.lost for item in entries),
        stuck=sum(item.stuck for item in entries),
        duplicated=sum(item.duplicated for item in entries),
        causes=dict(sorted(causes.items(), key=lambda item: (-item[1].seeds, item[0]))),
        coverage=add_up(item.cells for item in entries),
        failing=[item.seed for item in entries if item.failing],
        cpu_s=round(sum(item.cpu_s for item in entries), 2),
    )
