"""Every row of the table of hazards under the guide, on real brokers."""

import json
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "hookbench"]
ROWS = 38


def reproduce(proof, design):
    """Run all rows, keep what they came to, and conclude."""
    done = subprocess.run(
        [*COMMAND, "hazards", "--design", design, "--json", "--seed", str(proof.seed)],
        capture_output=True,
        text=True,
        check=False,
    )
    rows = json.loads(done.stdout)
    proof.record(
        **{
            row["id"]: {
                "harm": row["harm"],
                "outcome": row["outcome"],
                "tasks": row["count"],
                "seconds": round(row["seconds"], 1),
                "found": "; ".join(item["text"] for item in row["observations"])
                or row["problem"]
                or "nothing",
                "example": (row["tasks"] or ["-"])[0],
                "masked": row["masked"],
            }
            for row in rows
        },
        rows=len(rows),
        seconds=round(sum(row["seconds"] for row in rows), 1),
    )
    unknown = [f"{row['id']}: {row['problem']}" for row in rows if row["outcome"] == "unknown"]
    if len(rows) != ROWS:
        unknown.append(f"{len(rows)} rows in place of {ROWS}")
    wrong = [
        f"{row['id']} is {row['outcome']}"
        for row in rows
        if row["outcome"] != "unknown" and not row["as_expected"]
    ]
    proof.conclude(wrong, unknown)


@pytest.mark.evidence(
    claim="With all measures every row of the table of hazards is prevented, refused or alarmed.",
    seed=7,
)
@pytest.mark.timeout(1200)
def test_hazards_hardened(proof):
    reproduce(proof, "hardened")


@pytest.mark.evidence(
    claim="Under the guide every row of the table of hazards shows the harm that the table names,"
    " but for those that docs/hazards.md says turn out otherwise.",
    seed=7,
)
@pytest.mark.timeout(900)
def test_hazards(proof):
    reproduce(proof, "guide")
