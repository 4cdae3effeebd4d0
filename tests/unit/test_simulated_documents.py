"""The documents about the simulator are what its evidence says, and its lists are whole."""

import json
import re
import subprocess

import msgspec
import pytest

from hookbench.hazards.registry import HAZARDS
from hookbench.migration.phases import Design, Phase
from hookbench.migration.procedures import PROCEDURES
from hookbench.sim.schedule import FaultKind, SimFault
from hookbench.sim.shrink import Minimal
from hookbench.sim.trial import Cause
from tests.evidence import sim_books, simulated_table
from tests.evidence.record import ROOT
from tests.evidence.sim_books import BOOK, SeedLine, added_up, read_book, scope_of, write_book
from tests.evidence.sim_scopes import all_scopes
from tests.evidence.simulated_hazards import NOT_DRAWN, WANTED, FoundHazard
from tests.evidence.steps import Steps
from tests.evidence.test_simulated_hazards import figures
from tests.mutations import simulated_table as mutations_table

BY_HAZARD = {item.hazard: item for item in WANTED}


def plain(text):
    """Without the layout, which prettier makes."""
    return [re.sub(r"[ -]+", " ", line).strip() for line in text.splitlines() if line]


@pytest.mark.parametrize(
    ("name", "table"),
    [("simulated_hazards", simulated_table), ("simulated_mutations", mutations_table)],
)
def test_the_document_is_what_the_file_says(name, table):
    if not table.EVIDENCE.exists():
        pytest.skip(f"there is no {table.EVIDENCE.name} yet: make evidence ARGS='-k {name}'")
    assert plain((ROOT / "docs" / f"{name}.md").read_text()) == plain(table.document())


def test_a_document_has_a_row_for_each_hazard_and_says_what_counts(tmp_path, monkeypatch):
    shown = FoundHazard(
        hazard="",
        seed=7,
        scope="guide dual_read",
        cause="P8/4",
        faults=1,
        events=9,
        replayed=7,
        replayed_in="guide dual_read",
        rehearsals=1,
        hardened="valid",
        hardened_drawn="valid",
        story=("1. it dies", "So: lost."),
    )
    found = [msgspec.structs.replace(shown, hazard=item.hazard) for item in WANTED]
    found[0] = msgspec.structs.replace(found[0], replayed=0, rehearsals=6, instead="P8/5")
    told = {item.hazard: figures(item) for item in found}
    told |= {"coverage kill worker": {"idle": 3, "started": 4}, "swept_seeds": 40}
    told |= {"swept_scopes": 17, "covered_cells": 2, "coverable_cells": 15}
    path = tmp_path / "proof.json"
    path.write_text(json.dumps({"commit": "abc1234", "figures": told}))
    monkeypatch.setattr(simulated_table, "EVIDENCE", path)
    monkeypatch.setattr(simulated_table, "SEEDS", tmp_path / "none.json")
    text = simulated_table.document()
    assert "| 7 | 1 faults, 9 events | no (6 runs, P8/5 instead) | valid | not found |" in text
    assert text.count("| shown (1 run) | valid | found |") == len(WANTED) - 1
    assert "| kill worker | 3 | 4 |" in text
    assert text.count("So: lost.") == len(WANTED)
    assert all(f"- **{hazard}** " in text for hazard in NOT_DRAWN)


def test_every_hazard_is_searched_or_has_a_reason():
    assert {*BY_HAZARD, *NOT_DRAWN} == set(HAZARDS)
    assert not set(BY_HAZARD) & set(NOT_DRAWN)
    assert len(BY_HAZARD) == len(WANTED)


def test_everything_is_searched_for_seeds():
    scopes = all_scopes(Design.HARDENED)
    assert len(set(scopes)) == len(scopes) == 1 + len(PROCEDURES) + len(Phase)
    assert {scope_of(seed) for seed in range(100, 100 + len(scopes))} == set(scopes)
    assert {tuple(item.phases) for item in scopes if item.transition} == set(PROCEDURES)


def minimal(*kinds):
    cause = Cause(hazard="R3", invariant=5, row="-", count=1, text="")
    faults = tuple(SimFault(kind=kind, target="worker-0", at_s=1.0) for kind in kinds)
    scope = BY_HAZARD["R3"].scopes[0]
    return Minimal(seed=1, scope=scope, faults=faults, cause=cause, tries=1, digest="")


def test_a_hazard_is_told_from_another_of_the_same_cause():
    lost, died = BY_HAZARD["R1"], BY_HAZARD["R3"]
    assert lost.key_in(["P8/5", "R3/5"]) == died.key_in(["R3/5"]) == "R3/5"
    assert lost.key_in(["P3/5"]) == ""
    assert lost.is_shown_by(minimal(FaultKind.LOSE))
    assert not lost.is_shown_by(minimal(FaultKind.KILL))
    assert died.is_shown_by(minimal(FaultKind.KILL))
    assert BY_HAZARD["P5"].is_shown_by(minimal())


def line(first, last, **more):
    values = {"commit": "abc", "schedule": 2, "faults": 3, "fired": 2, "accepted": 9, "cpu_s": 1.0}
    return SeedLine(first=first, last=last, drawn={"kill": 3}, **values | more)


def test_lines_of_a_book_add_up(tmp_path):
    path = tmp_path / "sim" / "book.jsonl"
    assert read_book(path) == []
    failing = {"503": "lost", "504": "stuck"}
    lines = [line(1, 500), line(501, 600, commit="def", failing=failing, mended={"503": "ghi"})]
    write_book(lines, path)
    assert read_book(path) == lines
    assert lines[1].still_failing == {"504": "stuck"}
    sums = added_up(lines)
    assert (sums["seeds"], sums["faults"], sums["drawn"]) == (600, 6, {"kill": 6})
    assert sums["commits"] == {"abc": 500, "def": 100}
    assert sums["failed_and_mended"] == 1


def test_a_line_is_of_the_scopes_of_its_seeds(monkeypatch):
    asked = []
    monkeypatch.setattr(
        sim_books, "explore_scopes", lambda wanted, *_rest, **_more: asked.extend(wanted) or []
    )
    found = sim_books.line_of(range(17, 20), "abc", jobs=1)
    assert asked == [(scope_of(seed), seed) for seed in (17, 18, 19)]
    assert (found.first, found.last, found.faults) == (17, 19, 0)


def test_the_committed_book_can_be_read():
    if not BOOK.exists():
        pytest.skip(f"there is no {BOOK.name} yet: make evidence ARGS='-k simulated_seeds'")
    lines = read_book()
    assert [item.first for item in lines[1:]] == [item.last + 1 for item in lines[:-1]]
    assert not [item for item in lines if item.commit.endswith("+")]


class Made(msgspec.Struct, frozen=True):
    number: int


def test_steps_are_kept_for_a_commit_and_not_for_a_changed_tree(tmp_path, monkeypatch):
    commit = "abc"
    monkeypatch.setattr("tests.evidence.steps.tree_commit", lambda: commit)
    Steps("proof", Made, tmp_path).keep("one", Made(1))
    path = tmp_path / "proof.jsonl"
    with path.open("ab") as file:
        file.write(b'{"commit":"abc","step":"cut o')
    steps = Steps("proof", Made, tmp_path)
    assert (steps.of("one"), steps.of("two")) == (Made(1), None)
    commit = "def"
    assert Steps("proof", Made, tmp_path).of("one") is None
    commit = "abc+"
    changed = Steps("proof", Made, tmp_path)
    changed.keep("two", Made(2))
    assert changed.of("two") == Made(2)
    assert b"two" not in path.read_bytes()


def test_steps_are_kept_where_nothing_that_they_depend_on_has_changed(tmp_path, monkeypatch):
    def git(*arguments):
        done = subprocess.run(
            ["git", "-C", tmp_path, *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(**texts):
        for name, text in texts.items():
            (tmp_path / name).write_text(text)
        git("add", ".")
        git("-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "a change")
        return git("rev-parse", "--short", "HEAD")

    def steps():
        return Steps("proof", Made, tmp_path / "steps", depends_on=("code", ":(exclude)reasons"))

    monkeypatch.setattr("tests.evidence.steps.ROOT", tmp_path)
    git("init", "-q")
    now = before = commit(code="1", reasons="1", text="1")
    monkeypatch.setattr("tests.evidence.steps.tree_commit", lambda: now)
    steps().keep("one", Made(1))
    now = commit(text="2", reasons="2")
    assert (steps().of("one"), steps().commits) == (Made(1), [before])
    steps().keep("two", Made(2))
    assert steps().commits == sorted([before, now])
    last, now = now, f"{now}+"
    assert steps().of("one") is None, "a changed tree is no commit"
    now = commit(code="2")
    assert (steps().of("one"), steps().of("two")) == (None, None)
    monkeypatch.setattr("tests.evidence.steps.tree_commit", lambda: last)
    assert steps().of("two") == Made(2)
