"""The tables that are made of proofs' files: what is reached, missed and unknown; profiles."""

import cProfile
import json
import re

import pytest

from tests.evidence import peers_table, profiles_table, targets_table
from tests.evidence.profiles import read_profile
from tests.evidence.record import ROOT
from tests.evidence.spread import spread, spread_of


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(targets_table, "FOLDER", tmp_path)
    return tmp_path


def write(folder, proof, **figures):
    (folder / f"{proof}.json").write_text(json.dumps({"figures": figures}))


def plain(text):
    """Without the layout, which prettier makes."""
    return [re.sub(r"[ -]+", " ", line).strip() for line in text.splitlines() if line]


def verdicts(proof):
    return {row.what: row.verdict for row in targets_table.rows() if row.proof == proof}


def test_a_target_without_a_file_is_unknown(folder):
    assert list(folder.iterdir()) == []
    assert {row.verdict for row in targets_table.rows()} == {"unknown"}
    assert {row.found for row in targets_table.rows()} == {"-"}


def test_a_target_is_judged_by_its_median_and_shown_with_its_spread(folder):
    write(folder, "quick", seconds={"median": 170.0, "least": 160.0, "most": 190.0})
    assert verdicts("quick") == {"quick rehearsal of both designs, s": "reached"}
    assert "| 170 (160 to 190) | reached |" in targets_table.document()
    write(folder, "quick", seconds={"median": 180.0, "least": 160.0, "most": 190.0})
    assert verdicts("quick") == {"quick rehearsal of both designs, s": "missed"}


def test_a_ratio_has_to_be_at_least_what_is_wanted(folder):
    figures = {
        way: {**spread_of("ratio", values)}
        for way, values in {"reference": [0.5, 0.79, 0.9], "fast ingest": [0.7, 0.8, 1.0]}.items()
    }
    write(folder, "c_client", **figures)
    assert sorted(verdicts("c_client").values()) == ["missed", "reached"]


def test_the_rows_of_the_peers_are_those_of_their_proof(folder):
    rates = {"noop_low_per_s": 19_000, "noop_high_per_s": 21_000}
    told = "guide: 3.20 times a peer, the best peer; the target is 3"
    write(
        folder, "peers", targets={"guide": f"reached: {told}", "other": "unknown: nobody ran"},
        guide=rates, **{"a peer": {name: rate - 13_000 for name, rate in rates.items()}},
    )  # fmt: skip
    assert verdicts("peers") == {"no-op tasks: guide": "reached", "no-op tasks: other": "unknown"}
    text = targets_table.document()
    assert (
        "| at least 3 times | 3.20 times a peer (19,000 to 21,000 beside 6,000 to 8,000 tasks/s) |"
        in text
    )
    assert "| as named | nobody ran | unknown |" in text


def test_the_document_about_profiles_is_what_their_file_says():
    stored = (ROOT / "docs" / "profiles.md").read_text()
    assert plain(stored) == plain(profiles_table.document())


def test_the_document_about_targets_is_what_the_proofs_say():
    stored = (ROOT / "docs" / "targets.md").read_text()
    assert plain(stored) == plain(targets_table.document())
    assert "| unknown |" not in stored


def test_the_peers_are_shown_as_their_proof_has_them():
    _before, begin, rest = (ROOT / "docs" / "peers.md").read_text().partition(peers_table.BEGIN)
    stored, end, _after = rest.partition(peers_table.END)
    assert begin
    assert end
    assert plain(stored) == plain(peers_table.table())
    assert "| hookbench hardened, jetstream | `jetstream` |" in re.sub(" +", " ", stored)


def test_a_spread_is_the_median_with_the_least_and_the_most():
    assert spread([3.0, 1.0, 2.5]) == {"median": 2.5, "least": 1.0, "most": 3.0}
    assert spread([3.4, 1.2, 2.4], 0) == {"median": 2, "least": 1, "most": 3}
    assert spread_of("x", [1.0]) == {"x": 1.0, "x_least": 1.0, "x_most": 1.0}


def test_a_profile_is_by_task_and_by_whose_code_it_is():
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(100):
        spread([3.0, 1.0])
    profile.disable()
    found = read_profile(profile, count=100)
    assert found.layers_us["this proof"] > 0
    assert (found.sends, found.callbacks) == (0, 0)
    (own,) = [line for line in found.top if "evidence/spread.py:spread " in line]
    assert own.endswith("(1.00 calls)"), "calls are for a task"
