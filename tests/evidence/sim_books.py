"""The seeds that hardened has survived in the simulator, added up over days and commits.

``evidence/sim/hardened.jsonl`` has a line for so many seeds at a time: each seed has one of the
scopes of ``all_scopes`` by its number, and the faults that it draws there. The proof
``simulated_seeds`` adds lines. A seed that fails stays in its line; once its cause is mended, the
proof runs it again, and its line names the commit that it passes with.
"""

from collections import Counter

import msgspec

from hookbench.migration.phases import Design
from hookbench.results.store import write_aside
from hookbench.sim.explore import explore_scopes
from hookbench.sim.schedule import SCHEDULE_VERSION
from tests.evidence.record import ROOT
from tests.evidence.sim_scopes import all_scopes

__all__ = ["BOOK", "SeedLine", "added_up", "line_of", "read_book", "scope_of", "write_book"]

BOOK = ROOT / "evidence" / "sim" / "hardened.jsonl"
_SCOPES = all_scopes(Design.HARDENED)


class SeedLine(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """Some seeds in a row.

    Attributes:
        commit: that they were run with.
        schedule: the version of what was drawn.
        first, last: of the seeds, both included.
        faults, fired: how many were drawn, and how many of them met something.
        drawn: faults by kind.
        accepted: tasks.
        cpu_s: seconds of CPU.
        failing: why, by seed, of those that are not valid.
        mended: of these, by seed, the commit with which they are.
    """

    commit: str
    schedule: int
    first: int
    last: int
    faults: int
    fired: int
    drawn: dict[str, int]
    accepted: int
    cpu_s: float
    failing: dict[str, str] = {}
    mended: dict[str, str] = {}

    @property
    def still_failing(self):
        """Of the seeds that fail, those that are not mended."""
        return {seed: why for seed, why in self.failing.items() if seed not in self.mended}


def scope_of(seed, schedule=SCHEDULE_VERSION):
    """What a seed searches, with this version of what is drawn."""
    return msgspec.structs.replace(_SCOPES[seed % len(_SCOPES)], schedule=schedule)


def read_book(path=BOOK):
    """Its lines; none where there is no book yet."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [msgspec.json.decode(line, type=SeedLine) for line in lines]


def write_book(lines, path=BOOK):
    """Put these lines in the place of what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


def line_of(seeds, commit, *, jobs, schedule=SCHEDULE_VERSION):
    """Run seeds that follow each other."""
    wanted = [(scope_of(seed, schedule), seed) for seed in seeds]
    entries = sorted(explore_scopes(wanted, commit, jobs=jobs), key=lambda item: item.seed)
    drawn = Counter(fault.kind.value for item in entries for fault in item.faults)
    return SeedLine(
        commit=commit,
        schedule=schedule,
        first=seeds[0],
        last=seeds[-1],
        faults=drawn.total(),
        fired=sum(item.fired for item in entries),
        drawn=dict(sorted(drawn.items())),
        accepted=sum(item.accepted for item in entries),
        cpu_s=round(sum(item.cpu_s for item in entries), 1),
        failing={
            str(item.seed): f"{item.scope}: {item.failing}" for item in entries if item.failing
        },
    )


def added_up(lines):
    """What the lines come to, as figures."""
    drawn, commits = Counter(), Counter()
    for line in lines:
        drawn.update(line.drawn)
        commits[line.commit] += line.last - line.first + 1
    sums = {
        name: sum(getattr(line, name) for line in lines) for name in ("faults", "fired", "accepted")
    }
    return {
        "seeds": commits.total(),
        "scopes": len(_SCOPES),
        **sums,
        "cpu_s": round(sum(line.cpu_s for line in lines)),
        "failed_and_mended": sum(len(line.mended) for line in lines),
        "drawn": dict(sorted(drawn.items())),
        "commits": dict(commits),
    }
