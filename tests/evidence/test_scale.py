"""Target 4: ten million events and their effects; see ``scale``."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evidence.scale import EVENTS_PER_TASK, append_s, write
from tests.evidence.spread import spread

EVENTS = 10_000_000
ROUNDS = 3
MOST_SECONDS = 10.0
MOST_BYTES = 2**30
MOST_SECONDS_PER_EVENT = 1e-6
ROOT = Path(__file__).parents[2]


@pytest.mark.evidence(
    claim="Ten million events and a million effects are read and held against all invariants in"
    " under 10 s of CPU with under 1 GiB, and appending an event takes under a microsecond of it.",
    seed=7,
)
@pytest.mark.timeout(900)
def test_scale(proof, tmp_path):
    (tmp_path / "appended").mkdir()
    bursts_s = append_s(tmp_path / "appended")
    per_event_s = statistics.median(bursts_s)
    write(tmp_path, EVENTS // EVENTS_PER_TASK, proof.seed)
    rounds = [
        json.loads(
            subprocess.run(
                [sys.executable, "-m", "tests.evidence.scale", str(tmp_path)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for _ in range(ROUNDS)
    ]
    seconds = statistics.median(item["whole_cpu_s"] for item in rounds)
    memory_bytes = max(item["memory_max_bytes"] for item in rounds)
    found = rounds[0]
    proof.record(
        events=found["events"],
        tasks=found["tasks"],
        effects=found["effects"],
        rounds=ROUNDS,
        read_cpu_s=spread([item["read_cpu_s"] for item in rounds], 2),
        read_and_checked_cpu_s=spread([item["whole_cpu_s"] for item in rounds], 2),
        read_and_checked_s=spread([item["whole_s"] for item in rounds], 2),
        memory_max_bytes=memory_bytes,
        append_ns_per_event=spread([item * 1e9 for item in bursts_s], 0),
        invariants=found["invariants"],
    )
    wrong = [
        f"invariant {number} is {verdict}"
        for number, verdict in found["invariants"].items()
        if verdict != "valid"
    ]
    limits = (
        ("events", found["events"] < EVENTS, f"only {found['events']:,} events"),
        ("time", seconds >= MOST_SECONDS, f"{seconds} s of CPU"),
        ("memory", memory_bytes >= MOST_BYTES, f"{memory_bytes:,} bytes of memory"),
        ("append", per_event_s >= MOST_SECONDS_PER_EVENT, f"{per_event_s * 1e9:.0f} ns an event"),
    )
    proof.conclude(wrong + [f"{name}: {text}" for name, broken, text in limits if broken])
