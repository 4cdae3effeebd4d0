"""Target 8: a quick rehearsal of both designs, as its user runs it."""

import statistics
import subprocess
import sys
import time

import pytest

from tests.evidence.spread import spread

ROUNDS = 3
MOST_SECONDS = 180.0


@pytest.mark.evidence(
    claim="A quick rehearsal of both designs ends in under three minutes, the guide invalid and the"
    " hardened design valid; median of three.",
    seed=7,
)
@pytest.mark.timeout(1_200)
def test_quick(proof, tmp_path):
    seconds, wrong = [], []
    for number in range(ROUNDS):
        began = time.perf_counter()
        done = subprocess.run(
            [
                *(sys.executable, "-m", "hookbench", "rehearse", "--quick", "--design", "both"),
                *("--expect", "guide=invalid,hardened=valid", "--report"),
                *("--seed", str(proof.seed), "--out", str(tmp_path / str(number))),
            ],
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        seconds.append(time.perf_counter() - began)
        if done.returncode != 0:
            wrong.append(f"round {number + 1}: exit code {done.returncode}: {done.stderr[-300:]}")
        elif "report.html" not in done.stdout + done.stderr:
            wrong.append(f"round {number + 1}: no report is named")
    proof.record(rounds=ROUNDS, seconds=spread(seconds, 1))
    if statistics.median(seconds) >= MOST_SECONDS:
        wrong.append(f"{statistics.median(seconds):.0f} s")
    proof.conclude(wrong)
