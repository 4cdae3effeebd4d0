"""``hookbench sim --replay``: what the simulator found is found on real brokers."""

import json
import subprocess
import sys

import pytest


@pytest.mark.timeout(180)
def test_a_hazard_is_replayed(tmp_path):
    words = ("sim", "--phase", "nats_primary", "--seed", "7", "--schedule", "1")
    done = subprocess.run(
        [sys.executable, "-m", "hookbench", *words, "--replay", f"--out={tmp_path}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    kept = json.loads((tmp_path / "replays.json").read_text())
    (cause,) = kept["causes"]
    assert (cause["key"], cause["named"]) == ("P10/1", 1)
    assert kept["hardened"] == {"seeds": 1, "failing": 0}
    (line,) = [item for item in done.stdout.splitlines() if item.endswith("  found")]
    assert line.startswith("P10/1")
    runs = [path.name for path in (tmp_path / "replays").iterdir() if path.name in cause["runs"]]
    assert len(runs) == len(cause["runs"])
