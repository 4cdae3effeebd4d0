"""The book of a soak: it goes on, it adds up, and it knows a failing run."""

import itertools
import json
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from hookbench.errors import ResultsError
from hookbench.ledger.model import Finding, Verdict
from hookbench.migration.procedures import PROCEDURES
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.rehearsal.soak import (
    TIMELINES,
    SoakBook,
    SoakEntry,
    entry_of,
    in_short,
    why_failing,
)
from hookbench.results.store import MANIFEST_NAME, load_manifest

SETTINGS = RehearsalSettings()
RECORDED = Path(__file__).parent / "data" / "manifests"


@pytest.fixture
def manifest(tmp_path):
    """One of a whole run."""
    run = tmp_path / "recorded"
    run.mkdir()
    (run / MANIFEST_NAME).write_bytes((RECORDED / "schema-1.json").read_bytes())
    return load_manifest(run)


def entry(seed, **more):
    base = {
        "seed": seed,
        "commit": "abc",
        "design": "guide",
        "topology": "single",
        "verdict": Verdict.INVALID,
        "seconds": 30.0,
        "faults": 10,
        "tasks": 100,
        "lost": 1,
    }
    return SoakEntry(**base | more)


def test_a_soak_goes_on_after_its_last_seed(tmp_path):
    book = SoakBook(tmp_path / "soak")
    assert book.next_seed(5, design="guide", topology="single") == 5
    book.add(entry(5))
    book.add(entry(6, topology="replicated"))
    again = SoakBook(tmp_path / "soak")
    assert again.next_seed(5, design="guide", topology="single") == 6
    assert again.next_seed(5, design="guide", topology="replicated") == 7
    assert again.next_seed(100, design="guide", topology="single") == 100
    assert again.next_seed(1, design="hardened", topology="single") == 1


def test_totals_are_by_commit_and_name_the_failing_seeds(tmp_path):
    book = SoakBook(tmp_path)
    book.add(entry(1))
    book.add(entry(2, verdict=Verdict.UNKNOWN, failing="unknown: it rained", run="there"))
    book.add(entry(3, commit="def"))
    first, second = json.loads((tmp_path / "soak.json").read_text())
    assert (first["commit"], first["runs"], first["failing"]) == ("abc", 2, [2])
    assert first["verdicts"] == {"invalid": 1, "unknown": 1}
    assert (first["first_seed"], first["last_seed"]) == (1, 2)
    assert (first["tasks"], first["lost"], first["faults"]) == (200, 2, 20)
    assert (second["commit"], second["runs"]) == ("def", 1)


def test_totals_add_up_kinds_and_keep_apart_what_was_left_out(tmp_path):
    book = SoakBook(tmp_path)
    book.add(entry(1, fired={"kill": 3, "wire": 1}, accepted=90, unexplained=1))
    book.add(entry(2, fired={"kill": 2}, accepted=80))
    book.add(entry(3, fired={"kill": 1}, accepted=70, without=("power_cut",)))
    both, without = json.loads((tmp_path / "soak.json").read_text())
    assert both["fired"] == {"kill": 5, "wire": 1}
    assert (both["accepted"], both["unexplained"], both["without"]) == (170, 1, [])
    assert (without["fired"], without["without"]) == ({"kill": 1}, ["power_cut"])


def test_a_book_of_before_these_counts_is_read(tmp_path):
    (tmp_path / "soak.jsonl").write_text(
        '{"seed":4,"commit":"abc","design":"guide","topology":"single","verdict":"valid",'
        '"seconds":9.5,"faults":3,"tasks":10,"lost":0,"stuck":0,"duplicated":0,"failing":"",'
        '"run":null}\n'
    )
    (old,) = SoakBook(tmp_path).entries
    assert (old.fired, old.without, old.accepted) == ({}, (), 0)


def test_a_line_that_was_cut_off_is_done_again(tmp_path):
    book = SoakBook(tmp_path)
    book.add(entry(1))
    with book.path.open("ab") as file:
        file.write(b'{"seed": 2, "com')
    again = SoakBook(tmp_path)
    assert again.next_seed(1, design="guide", topology="single") == 2
    again.add(entry(2))
    assert [item.seed for item in SoakBook(tmp_path).entries] == [1, 2]


def test_a_line_of_somebody_else_is_named(tmp_path):
    (tmp_path / "soak.jsonl").write_text('{"seed": 1}\n')
    with pytest.raises(ResultsError, match=r"soak\.jsonl, line 1"):
        SoakBook(tmp_path)


def finding(invariant):
    return Finding(
        hazard="-", row="dual_read", count=3, text="3 tasks", examples=[], invariant=invariant
    )


@pytest.mark.parametrize(
    ("design", "verdict", "findings", "failing"),
    [
        ("guide", Verdict.VALID, [], ""),
        ("guide", Verdict.INVALID, [finding(1), finding(5)], ""),
        ("guide", Verdict.INVALID, [finding(8)], "dual_read: 3 tasks"),
        ("guide", Verdict.INVALID, [finding(3)], "dual_read: 3 tasks"),
        ("hardened", Verdict.VALID, [], ""),
        ("hardened", Verdict.INVALID, [finding(1)], "3 tasks"),
        ("hardened", Verdict.INVALID, [], "invalid"),
        ("guide", Verdict.UNKNOWN, [], "unknown: it rained"),
    ],
)
def test_what_counts_as_failing(manifest, design, verdict, findings, failing, tmp_path):
    account = msgspec.structs.replace(manifest.account, findings=findings)
    unknown = ["it rained"] if verdict is Verdict.UNKNOWN else []
    changed = msgspec.structs.replace(
        manifest, design=design, verdict=verdict, account=account, unknown_because=unknown
    )
    assert why_failing(changed) == failing
    folder = tmp_path / "0001-x"
    folder.mkdir()
    made = entry_of(changed, folder, settings=SETTINGS, seconds=1.0)
    assert folder.exists() == bool(failing)
    assert made.run == (str(folder) if failing else None)
    assert made.accepted == account.accepted
    assert made.fired == {}


def test_of_many_reasons_a_few_are_told(manifest):
    manifest.verdict = Verdict.UNKNOWN
    manifest.unknown_because = [f"fault {number}: it did not fire" for number in range(5)]
    reasons = why_failing(manifest)
    assert reasons.count("did not fire") == 5
    assert in_short(reasons) == (
        "unknown: fault 0: it did not fire; fault 1: it did not fire; fault 2: it did not fire;"
        " and 2 more"
    )
    manifest.unknown_because = manifest.unknown_because[:3]
    assert in_short(why_failing(manifest)) == why_failing(manifest)


def test_the_timelines_of_a_soak_have_every_transition_and_every_rollback():
    moves = {pair for phases in TIMELINES for pair in itertools.pairwise(phases)}
    assert moves == set(PROCEDURES)


def test_the_moves_of_a_run_are_counted(tmp_path, manifest):
    book = SoakBook(tmp_path / "soak")
    made = entry_of(manifest, tmp_path / "recorded", settings=SETTINGS, seconds=1.0)
    labels = [step.plan.phase for step in manifest.steps]
    assert made.moves == Counter(f"{old} to {new}" for old, new in itertools.pairwise(labels))
    assert made.moves
    for seed in (1, 2):
        book.add(msgspec.structs.replace(made, seed=seed))
    (totals,) = json.loads((tmp_path / "soak" / "soak.json").read_text())
    assert totals["moves"] == {name: 2 * count for name, count in made.moves.items()}
