"""``hookbench sim`` as its user meets it: what it says, where, and how it ends."""

import json
import logging
import sys

import pytest

from hookbench.cli import main as cli
from hookbench.migration.phases import Design
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.results import environment
from hookbench.scenarios.schema import load_scenario, to_settings
from hookbench.sim import trial
from hookbench.sim.book import BOOK_NAME, TOTALS_NAME


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """The search sets the level of the loggers of its process."""
    before = {name: logging.getLogger(name).level for name in (None, "hookbench", "nats")}
    monkeypatch.setattr(environment, "commit", lambda: "1234567")
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def sim(monkeypatch, capsys, tmp_path):
    """Runs the verb; its exit code, stdout and stderr."""

    def run(*words, out=tmp_path / "out"):
        monkeypatch.setattr(sys, "argv", ["hookbench", "sim", *words, "--out", str(out)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return ended.value.code or 0, told.out, told.err

    run.out = tmp_path / "out"
    return run


def test_a_search_tells_what_it_found_and_keeps_it(sim):
    code, out, _err = sim("--phase", "nats_primary", "--seeds", "8")
    assert code == cli.EXIT_INVALID
    assert "guide nats_primary, commit 1234567: 8 seeds" in out
    assert "P10/1" in out
    assert "faults by the step at which tasks were:" in out
    (folder,) = sim.out.glob("guide_P10_1_*")
    assert f"hookbench run {folder}/scenario.toml" in out
    assert "acknowledged before they were processed" in (folder / "story.txt").read_text()
    settings = to_settings(load_scenario(folder / "scenario.toml"), out=sim.out)
    assert isinstance(settings, RehearsalSettings)
    settings.check()
    assert settings.design is Design.GUIDE
    assert len((sim.out / BOOK_NAME).read_text().splitlines()) == 8
    (totals,) = json.loads((sim.out / TOTALS_NAME).read_text())
    assert totals["seeds"] == 8


def test_a_search_goes_on_with_what_is_missing(sim):
    words = ("--phase", "redis_only", "--no-shrink")
    sim(*words, "--seeds", "3")
    book = sim.out / BOOK_NAME
    whole = book.read_bytes()
    book.write_bytes(whole[:-20])  # it was ended in the middle of a line
    _code, out, err = sim(*words, "--seeds", "5")
    assert "2 seeds are in" in err
    assert "3 are left" in err
    assert "5 seeds" in out
    seeds = [json.loads(line)["seed"] for line in book.read_bytes().splitlines()]
    assert seeds == [1, 2, 3, 4, 5]


def test_hardened_ends_with_0(sim):
    code, out, _err = sim("--phase", "nats_only", "--design", "hardened", "--seeds", "3")
    assert code == cli.EXIT_VALID
    assert "3 valid" in out


def test_one_seed_is_told_in_full_and_not_booked(sim):
    code, out, _err = sim("--phase", "nats_primary", "--seed", "7", "--no-shrink")
    assert code == cli.EXIT_INVALID
    assert out.startswith("seed 7  invalid  ledger ")
    assert not (sim.out / BOOK_NAME).exists()


def test_measures_and_a_version_of_what_is_drawn_have_a_book_of_their_own(sim):
    words = ("--phase", "nats_only", "--no-shrink", "--seeds", "2")
    sim(*words)
    _code, out, err = sim(*words, "--measures", "ack_after", "--schedule", "1")
    assert "are in" not in err
    assert "guide nats_only with ack_after, schedule 1, commit 1234567: 2 seeds" in out
    assert len((sim.out / BOOK_NAME).read_text().splitlines()) == 4


def test_brokers_of_several_nodes_are_searched_and_have_a_book_of_their_own(sim):
    words = ("--phase", "nats_primary", "--design", "hardened", "--seeds", "1", "--no-shrink")
    code, out, _err = sim(*words, "--durability", "replicated")
    assert code == cli.EXIT_VALID
    assert "hardened nats_primary on replicated, commit 1234567: 1 seeds" in out
    _code, _out, err = sim(*words)
    assert "are in" not in err


def test_json_is_one_object_a_line(sim):
    code, out, _err = sim("--phase", "nats_primary", "--seed", "7", "--json")
    assert code == cli.EXIT_INVALID
    events = [json.loads(line) for line in out.splitlines()]
    assert [item["event"] for item in events] == ["seed", "totals", "minimal"]
    assert events[0]["verdict"] == "invalid"
    assert events[2]["story"][-1].startswith("So: ")


def test_a_run_that_breaks_down_ends_with_3(sim, monkeypatch):
    def broken(*_arguments, **_options):
        raise ValueError("a bug")

    monkeypatch.setattr(trial, "run_schedule", broken)
    code, out, _err = sim("--phase", "nats_primary", "--seeds", "2", "--no-shrink")
    assert code == cli.EXIT_UNKNOWN
    assert "2 unknown" in out
    assert "the run broke down: ValueError: a bug" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--phase", "dual"), "phase 'dual': use one of redis_only (0)"),
        (("--transition", "dual_write"), "--transition 'dual_write': use FROM:TO"),
        (("--transition", "1:1"), "--transition '1:1': from a phase to itself"),
        (("--transition", "1:7"), "phase '7': use one of"),
        (("--phase", "1", "--transition", "1:2"), "--phase and --transition: give one of them"),
        (("--design", "hard"), "--design 'hard'"),
        (("--measures", "ack_afte"), "did you mean 'ack_after'?"),
        (("--schedule", "4"), "--schedule 4: use 1 to 3"),
        (("--durability", "raid"), "--durability 'raid'"),
        (("--replay", "--no-shrink"), "--replay and --no-shrink"),
        (("--seeds", "0"), "--seeds"),
        (("--jobs", "0"), "--jobs"),
        (("--seed", "-1"), "--seed"),
    ],
)
def test_a_wrong_value_is_named(sim, words, told):
    code, out, err = sim(*words)
    assert code == cli.EXIT_USAGE
    assert told in err
    assert out == ""
    assert not sim.out.exists(), "nothing is left behind"


def test_a_book_of_something_else_is_named(sim):
    sim.out.mkdir()
    (sim.out / BOOK_NAME).write_text('{"seed": 1}\n')
    code, _out, err = sim("--phase", "nats_primary", "--seeds", "1")
    assert code == cli.EXIT_USAGE
    assert "sim.jsonl, line 1" in err
    assert "--out" in err
