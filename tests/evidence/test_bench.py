"""Whether the gate on benchmarks finds what it has to, and keeps quiet else; see docs/bench.md."""

import shutil

import pytest

from tests.bench.compare import ROOT, Selection, compare
from tests.bench.judge import LEAST_ROUNDS, worse
from tests.bench.plants import plant_round_trip, slow_codec
from tests.bench.trees import Tree, copy_working_tree

UNCHANGED = 10
FALSE_ALARMS = 1
SLOWED = 0.2
CODEC = ("test_codec.py::test_encode_task", "test_codec.py::test_decode_task")
PLANTED_TURN = "test_round_trips.py::test_counts[redis_list] (redis_turns)"


def short(row):
    return row.name.removeprefix("tests/bench/")


def names_of(rows):
    return sorted({f"{short(row)} ({row.what})" for row in rows})


@pytest.mark.evidence(
    claim="The gate on benchmarks finds a codec slowed by 20 % and one more round trip per task,"
    " and of ten comparisons of unchanged code at most one is an alarm.",
    seed=7,
)
@pytest.mark.timeout(6 * 3600)
def test_bench(proof, tmp_path):
    base = copy_working_tree(ROOT, tmp_path / "base")

    def compared_with(name, plant):
        folder = tmp_path / name
        shutil.copytree(base.folder, folder)
        head = Tree(name, folder)
        plant(head)
        return compare(base, head, tmp_path / f"{name}-runs", Selection(), LEAST_ROUNDS)

    refuted, alarms, suspicions = [], {}, 0
    for number in range(1, UNCHANGED + 1):
        found = compared_with(f"unchanged-{number}", lambda _tree: None)
        suspicions += (tmp_path / f"unchanged-{number}-runs" / "again").exists()
        if worse(found.rows):
            alarms[f"unchanged-{number}"] = ", ".join(names_of(worse(found.rows)))
    compared = sum(row.base is not None for row in found.rows)
    proof.record(
        unchanged={"comparisons": UNCHANGED, "alarms": len(alarms), "measured_again": suspicions},
        ratios_and_counts=compared,
        runs_of_each_side=LEAST_ROUNDS,
    )
    if alarms:
        proof.record(alarms=alarms)
    if len(alarms) > FALSE_ALARMS:
        refuted.append(f"{len(alarms)} of {UNCHANGED} comparisons of unchanged code are alarms")

    slowed = compared_with("slowed", lambda tree: slow_codec(tree, SLOWED))
    changes = {
        row.name.removeprefix("tests/bench/"): row.change for row in slowed.rows if row.change
    }
    proof.record(slowed={name: round(changes.get(name, 0.0), 3) for name in CODEC})
    proof.record(slowed_found=", ".join(names_of(worse(slowed.rows))))
    if not {f"{name} (ratio)" for name in CODEC} <= set(names_of(worse(slowed.rows))):
        refuted.append(f"a codec slowed by a fifth: found {names_of(worse(slowed.rows))}")

    more = compared_with("round-trip", plant_round_trip)
    proof.record(round_trip_found=", ".join(names_of(worse(more.rows))))
    if "test_round_trips.py::test_counts[redis_list] (redis_turns)" not in names_of(
        worse(more.rows)
    ):
        refuted.append(f"one more round trip: found {names_of(worse(more.rows))}")
    proof.conclude(refuted)
