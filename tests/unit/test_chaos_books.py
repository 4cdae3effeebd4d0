"""The books that the proof of chaos adds up."""

import msgspec
import pytest

from hookbench.ledger.model import Verdict
from hookbench.rehearsal.soak import SoakBook, SoakEntry
from tests.evidence import chaos_books
from tests.evidence.chaos_books import FOLDER, MOVES, add, added_up, key_of, read_book

BOOKS = sorted(FOLDER.glob("*.jsonl"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(chaos_books, "FOLDER", tmp_path / "books")
    return tmp_path


def entry(seed, **more):
    base = {
        "seed": seed,
        "commit": "abc",
        "design": "hardened",
        "topology": "single",
        "verdict": Verdict.VALID,
        "seconds": 30.0,
        "faults": 10,
        "without": ("power_cut",),
    }
    return SoakEntry(**base | more)


def soaked(folder, name, *entries):
    book = SoakBook(folder / name)
    for item in entries:
        book.add(item)
    return book.path


def test_a_run_counts_once_and_a_failing_one_does_too(folder):
    first = soaked(folder, "a", entry(1, run=str(folder)), entry(2, failing="lost", run="there"))
    second = soaked(folder, "b", entry(2, failing="lost"), entry(2, topology="replicated"))
    assert add([first]) == {"hardened": 2}
    assert add([first, second]) == {"hardened": 1}
    kept = read_book(folder / "books" / "hardened.jsonl")
    assert [(item.topology, item.seed) for item in kept] == [
        ("single", 1), ("single", 2), ("replicated", 2)
    ]  # fmt: skip
    assert kept[1].failing == "lost"
    assert {item.run for item in kept} == {None}


def test_a_run_of_a_changed_tree_is_refused(folder):
    path = soaked(folder, "a", entry(1, commit="abc+"))
    with pytest.raises(SystemExit, match="changed tree"):
        add([path])


def test_what_is_missing_is_said():
    moves = dict.fromkeys(MOVES, 1)
    entries = [entry(1, accepted=999_999, fired={"kill": 199, "pause": 200}, moves=moves)]
    sums, fired, _moves, missing = added_up(entries)
    assert (sums["accepted"], fired["kill"]) == (999_999, 199)
    assert "999,999 of 1,000,000 tasks" in missing
    assert "199 of 200 kill" in missing
    assert not [text for text in missing if "pause" in text or "power_cut" in text]
    assert not [text for text in missing if text.startswith("no ")]
    fewer = [msgspec.structs.replace(entries[0], moves={})]
    assert len([text for text in added_up(fewer)[-1] if text.startswith("no ")]) == len(MOVES)


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_the_committed_books_can_be_read(path):
    entries = read_book(path)
    assert {item.design for item in entries} == {path.stem}
    assert len({key_of(item) for item in entries}) == len(entries)
    for item in entries:
        assert not item.commit.endswith("+")
        assert item.run is None
