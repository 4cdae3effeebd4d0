"""The soaks that count for the proof of chaos: one line per run, added up over days and commits.

    python -m tests.evidence.chaos_books add results/soak/soak.jsonl

adds the runs of a soak to ``evidence/chaos/<design>.jsonl``. Every run of a commit counts, also
one that fails; when a defect that harmed a task is mended, the book is begun anew from that commit.
A run that is unknown, and harmed none, is left out once its cause is mended, and the book goes on:
``evidence/chaos/left_out.json`` has each of them, with why.
"""

import sys
from collections import Counter
from pathlib import Path

import msgspec

from hookbench.faults.registry import FAULTS
from hookbench.migration.procedures import PROCEDURES
from hookbench.rehearsal.soak import SoakBook, SoakEntry
from hookbench.results.store import write_aside
from tests.evidence.record import ROOT

FOLDER = ROOT / "evidence" / "chaos"
LEFT_OUT = FOLDER / "left_out.json"
APART = "power_cut"
"""What an acknowledged write does not survive where it is not synced, whatever the design."""
MOVES = frozenset(f"{old.label} to {new.label}" for old, new in PROCEDURES)
MIN_TASKS = 1_000_000
MIN_FIRED = 200


def read_book(path):
    """The runs of a book."""
    return [msgspec.json.decode(line, type=SoakEntry) for line in path.read_bytes().splitlines()]


def key_of(entry):
    """Which run it is, however often it was made."""
    return (entry.commit, entry.topology, entry.seed, entry.rate_per_s, entry.without, entry.only)


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is in no book, and why."""

    design: str
    commit: str
    seed: int
    why: str


def left_out():
    """By design, commit and seed."""
    if not LEFT_OUT.exists():
        return {}
    found = msgspec.json.decode(LEFT_OUT.read_bytes(), type=list[LeftOut])
    return {(item.design, item.commit, item.seed): item for item in found}


def is_counted(entry):
    """Whether there was no power cut in it, nor could be."""
    return APART in entry.without or (bool(entry.only) and APART not in entry.only)


def add(paths):
    """Add the runs of soaks, each once; how many were new, by design."""
    new, out = Counter(), left_out()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in paths:
        for entry in SoakBook(Path(path).parent).entries:
            if entry.commit.endswith("+"):
                raise SystemExit(f"{path}: seed {entry.seed} is of a changed tree: leave it out")
            if (entry.design, entry.commit, entry.seed) in out:
                continue
            book = FOLDER / f"{entry.design}.jsonl"
            known = read_book(book) if book.exists() else []
            if key_of(entry) in {key_of(item) for item in known}:
                continue
            lines = [*known, msgspec.structs.replace(entry, run=None)]
            write_aside(book, b"".join(msgspec.json.encode(item) + b"\n" for item in lines))
            new[entry.design] += 1
    return new


def added_up(entries):
    """What the runs come to: counts by name, and what is missing to a proof, in words."""
    fired, moves = Counter(), Counter()
    for entry in entries:
        fired.update(entry.fired)
        moves.update(entry.moves)
    sums = {
        name: sum(getattr(entry, name) for entry in entries)
        for name in ("faults", "accepted", "lost", "stuck", "duplicated", "unexplained")
    }
    missing = []
    if sums["accepted"] < MIN_TASKS:
        missing.append(f"{sums['accepted']:,} of {MIN_TASKS:,} tasks")
    missing += [
        f"{fired[kind]} of {MIN_FIRED} {kind}"
        for kind in sorted(set(FAULTS) - {APART})
        if fired[kind] < MIN_FIRED
    ]
    missing += [f"no {move}" for move in sorted(MOVES - set(moves))]
    return sums, fired, moves, missing


def told():
    """How far each book is, as text."""
    for path in sorted(FOLDER.glob("*.jsonl")):
        entries = [entry for entry in read_book(path) if is_counted(entry)]
        sums, fired, moves, missing = added_up(entries)
        failing = [f"{entry.topology} {entry.seed}" for entry in entries if entry.failing]
        yield f"{path.stem}: {len(entries)} runs, {sums}"
        yield f"  fired    {dict(sorted(fired.items()))}"
        yield f"  moves    {dict(sorted(moves.items()))}"
        yield f"  failing  {', '.join(failing) or 'none'}"
        apart = [str(item.seed) for item in left_out().values() if item.design == path.stem]
        yield f"  left out {', '.join(apart) or 'none'}"
        yield f"  missing  {'; '.join(missing) or 'nothing'}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["add"]:
        sys.stdout.write(f"added: {dict(add(sys.argv[2:]))}\n")
    sys.stdout.write("".join(f"{line}\n" for line in told()))
