"""The search of the simulator finds planted bugs; ``tests/evidence`` searches for all of them."""

import dataclasses
import json

import msgspec
import pytest

from hookbench.sim import trial
from hookbench.sim.redis.scripts import ScriptEngine
from tests.evidence.test_simulated_mutations import figures
from tests.mutations import simulated_table
from tests.mutations.silence import HARMLESS, HEALED
from tests.mutations.simulated import STAGES, Search, Sought, contradictions, seek, seek_apart
from tests.mutations.table import MUTATIONS
from tests.mutations.unseen import UNSEEN

KNOWN = {item.name: item for item in MUTATIONS}


@pytest.fixture(scope="module")
def engine():
    return ScriptEngine()


@pytest.mark.parametrize(
    ("name", "invariant"),
    [
        ("accepted-before-it-is-stored", 1),
        ("accepted-without-a-write", 1),
        ("refused-although-written", 5),
        ("effect-is-skipped", 4),
        ("left-and-forgotten", 5),
    ],
)
def test_a_bug_is_seen_under_hardened(name, invariant, engine):
    found = seek(KNOWN[name], most=1, engine=engine)
    assert found.seen_by == "hardened"
    assert list(found.stages) == ["hardened"]
    search = found.stages["hardened"]
    assert search.cause.startswith(f"-/{invariant} ")
    assert search.harmed > 0
    assert search.silence == ""


def test_a_bug_that_a_measure_makes_harmless_is_seen_without_it(engine):
    found = seek(KNOWN["started-twice-on-a-retry"], most=1, engine=engine)
    assert found.silence == {"hardened": HEALED}
    assert found.seen_by == "measures"
    search = found.stages["measures"]
    assert search.cause.startswith("-/4 ")
    assert search.scope.startswith("guide ")
    assert " with ack_after,leases," in search.scope
    assert contradictions(found) == []


def test_a_bug_that_no_schedule_asks_for_is_seen_in_its_scenario(engine):
    found = seek(KNOWN["hung-tasks-are-kept"], most=1, engine=engine)
    assert found.seen_by == "scenario"
    search = found.stages["scenario"]
    assert (search.seeds, search.scope) == (1, "scenario hung_at_stop")
    assert search.harmed == 1
    assert contradictions(found) == []


def test_the_code_as_it_is_is_no_bug(engine):
    nothing = dataclasses.replace(KNOWN["started-twice"], plant=lambda original, _trace: original)
    found = seek(nothing, most=1, engine=engine)
    assert found.silence == dict.fromkeys(STAGES, HARMLESS)
    assert found.stages["hardened"].calls > 100
    assert [search.broken for search in found.stages.values()] == [0, 0, 0, 0]


def test_a_run_that_breaks_down_is_no_bug_that_was_seen(engine):
    def plant(_original, _trace):
        def broken(*_arguments, **_more):
            raise TypeError("of this test")

        return broken

    change = {"owner": trial, "attribute": "run_schedule", "plant": plant}
    found = seek(dataclasses.replace(KNOWN["started-twice"], **change), most=1, engine=engine)
    assert found.seen_by == ""
    assert [search.broken for search in found.stages.values()] == [4, 4, 3, 0]


def test_a_bug_in_a_process_of_its_own_says_the_same(engine):
    name = "accepted-without-a-write"
    apart, here = (
        msgspec.structs.asdict(item.stages["hardened"])
        for item in (seek_apart(name, most=1), seek(KNOWN[name], most=1, engine=engine))
    )
    assert apart | {"cpu_s": 0} == here | {"cpu_s": 0}


def test_only_bugs_that_exist_are_said_to_be_unseen():
    assert set(UNSEEN) <= set(KNOWN)
    assert all(UNSEEN.values())


SEEN = Search(seeds=1, scope="hardened", cause="-/1", calls=1, harmed=1)
HARMED = Search(seeds=60, calls=9, harmed=1)
NOT_SEEN = Search(seeds=60, calls=9)


@pytest.mark.parametrize(
    ("name", "stages", "told"),
    [
        ("effect-is-skipped", {"hardened": SEEN}, None),
        (
            "effect-is-skipped",
            {"hardened": NOT_SEEN, "measures": SEEN},
            "seen by measures (harms no task under hardened), and unseen.py has no reason",
        ),
        ("started-twice-on-a-retry", {"hardened": SEEN}, "seen under hardened, and not unseen"),
        ("started-twice-on-a-retry", {"hardened": HARMED, "measures": SEEN}, None),
        (
            "started-twice-on-a-retry",
            {"hardened": HARMED, "measures": NOT_SEEN, "scenario": SEEN},
            None,
        ),
        (
            "started-twice-on-a-retry",
            {"hardened": HARMED, **dict.fromkeys(list(STAGES)[1:], NOT_SEEN)},
            "no stage shows it (harmed, and not seen under hardened, harms no task under measures",
        ),
    ],
)
def test_what_was_seen_is_held_against_what_is_known(name, stages, told):
    found = contradictions(Sought(name=name, stages=stages))
    assert [told in item for item in found] == ([] if told is None else [True])


def test_the_document_names_every_bug(tmp_path, monkeypatch):
    found = [Sought(name=item.name, stages={"hardened": SEEN}) for item in MUTATIONS]
    found[0] = Sought(name=found[0].name, stages={"hardened": HARMED, "measures": SEEN})
    told = {item.name: figures(item) for item in found}
    told |= {"seen": {"hardened": 1}, "bugs": len(found), "not_seen": 0, "cpu_s": 3}
    path = tmp_path / "proof.json"
    path.write_text(json.dumps({"commit": "abc1234", "figures": told}))
    monkeypatch.setattr(simulated_table, "EVIDENCE", path)
    rows = [line for line in simulated_table.document().splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + len(MUTATIONS)
    assert "harmed, and not seen (60 seeds) | seed 1: -/1 " in " ".join(rows[2].split())
    assert rows[3].count("seed 1: -/1") == 1
