"""The default migration as the guide has it, without a fault: what goes wrong, and what not."""

import json
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "hookbench"]
HAZARDS = {"P5", "P8", "B1", "B2"}
"""What re-reads a history, or leaves copies behind. Nothing is lost without a fault."""


def figures_of(row):
    stuck = sum(row["stuck"].values())
    p50 = {name: round(row[name]["p50"] / 1e6, 2) for name in ("enqueue_ns", "end_to_end_ns")}
    p99 = {name: round(row[name]["p99"] / 1e6, 2) for name in ("enqueue_ns", "end_to_end_ns")}
    return {
        "verdict": row["verdict"],
        "tasks": row["tasks"],
        "offered": row["offered"],
        "enqueue_p50_ms": p50["enqueue_ns"],
        "enqueue_p99_ms": p99["enqueue_ns"],
        "end_to_end_p50_ms": p50["end_to_end_ns"],
        "end_to_end_p99_ms": p99["end_to_end_ns"],
        "duplicated_deliveries": row["duplicated_deliveries"],
        "duplicated_effects": row["duplicated_effects"],
        "lost": row["lost"],
        "stuck": stuck,
        "left_in_redis": row["left"],
    }


@pytest.mark.parametrize("durability", ["lazy", "fsync"])
@pytest.mark.evidence(
    claim="Without any fault the guide comes out invalid on the default migration, for replays and"
    " for copies left in Redis, and loses nothing.",
    seed=7,
)
@pytest.mark.timeout(600)
def test_migration(proof, tmp_path, durability):
    done = subprocess.run(
        [
            *COMMAND,
            *("run", "migration", "--json", f"--out={tmp_path}"),
            *("--set", f"brokers.durability={durability}", "--set", f"seed={proof.seed}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr[-2000:]
    manifest = json.loads(done.stdout)
    account = manifest["account"]
    for number, row in enumerate(account["rows"]):
        if not row["transition"]:
            proof.record(**{f"{row['step']} {row['name']}": figures_of(row)})
        elif row["duplicated_deliveries"]:
            duplicates = {
                "verdict": row["verdict"],
                "duplicated_deliveries": row["duplicated_deliveries"],
                "duplicated_effects": row["duplicated_effects"],
            }
            proof.record(**{f"{number} into {row['name'].removeprefix('→ ')}": duplicates})
    found = {item["hazard"] for item in account["findings"]}
    proof.record(
        run=manifest["run"],
        durability=durability,
        tasks=account["tasks"],
        hazards=", ".join(sorted(found)),
        pushes=manifest["git"]["pushes"],
        mirrors_equal=manifest["git"]["equal"],
        lag_p99_ms=round(manifest["lag"]["lag_p99_ns"] / 1e6, 2),
    )
    proof.conclude(
        [f"hazard {hazard} was found" for hazard in sorted(found - HAZARDS)]
        + [f"hazard {hazard} was not found" for hazard in sorted({"P5", "P8"} - found)]
        + [
            f"{name} is {account[name]}"
            for name in ("lost", "stuck", "unexpected")
            if account[name]
        ]
        + ([] if manifest["verdict"] == "invalid" else [f"the verdict is {manifest['verdict']}"]),
        unknown=manifest["unknown_because"],
    )
