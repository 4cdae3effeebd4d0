"""Stored runs of a million and of ten million tasks in Python; see ``frames``."""

import json
import subprocess
import sys

import pytest

from tests.evidence.frames import write_run
from tests.evidence.record import ROOT

SIZES = (1_000_000, 10_000_000)
MOST_BYTES = 2 * 2**30
MOST_GROWTH = 1.5


@pytest.mark.evidence(
    claim="A stored run of ten million tasks is read into frames, its tables made first, with under"
    " 2 GiB of memory, and at most 1.5 times what one of a million takes.",
    seed=7,
)
@pytest.mark.timeout(3_600)
def test_frames(proof, tmp_path):
    found = {}
    for tasks in SIZES:
        folder = tmp_path / f"0001-{tasks}"
        write_run(folder, tasks, proof.seed)
        found[tasks] = json.loads(
            subprocess.run(
                [sys.executable, "-m", "tests.evidence.frames", str(folder)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        proof.record(**{f"{tasks:,} tasks": found[tasks]})
    small, large = (found[tasks]["memory_max_bytes"] for tasks in SIZES)
    growth = large / small
    proof.record(memory_growth=round(growth, 3))
    wrong = [
        f"{item['tasks']:,} done and {item['counted']:,} counted of {tasks:,}"
        for tasks, item in found.items()
        if (item["tasks"], item["counted"], item["phases"]) != (tasks, tasks, 5)
    ]
    if large > MOST_BYTES:
        wrong.append(f"{large:,} bytes of memory")
    if growth > MOST_GROWTH:
        wrong.append(f"{growth:.2f} times the memory")
    proof.conclude(wrong)
