"""Rehearsals in which Redis is a stream, with a worker that is killed."""

import subprocess

import pytest

from hookbench.ledger.events import Broker, Event
from hookbench.ledger.read import read_ledger
from hookbench.results.store import load_manifest, resolve_run
from tests.integration.conftest import COMMAND

SCENARIO = """
name = "stream"
description = "A Redis stream; a worker that is stopped by a fault is killed with tasks in hand."
design = "{design}"
[timeline]
phases = ["redis_only"]
phase_seconds = 4
[brokers]
redis_queue = "stream"
[producers]
processes = 1
rate_per_s = 150
[workers]
service_ms = 20
[pushes]
repositories = 1
[[faults]]
kind = "kill"
target = "worker-0"
at_s = 2
"""


def run(path, *arguments):
    return subprocess.run(
        [*COMMAND, "run", str(path), *arguments],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.mark.timeout(180)
@pytest.mark.parametrize("design", ["guide", "hardened"])
def test_a_killed_workers_tasks_come_again(tmp_path, design):
    """After the AckWait: no measure is needed, for a stream has leases of its own."""
    path = tmp_path / "stream.toml"
    path.write_text(SCENARIO.format(design=design))
    done = run(path, f"--out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = load_manifest(resolve_run("latest", tmp_path / "out"))
    assert manifest.verdict == "valid"
    assert manifest.account.accepted >= 500
    assert (manifest.account.lost, manifest.account.stuck) == (0, 0)
    ledger = read_ledger(tmp_path / "out" / "latest" / "ledger")
    puts = ledger.records[ledger.records["event"] == Event.PUT_OK]
    assert set(puts["broker"]) == {Broker.REDIS}
    assert (puts["value"] > 1 << 40).all(), "numbers of a stream's entries, not lengths of a list"
    again = ledger.records[ledger.records["event"] == Event.RECEIVED]["attempt"]
    assert again.max() >= 2


def test_a_stream_in_a_phase_of_the_migration_is_refused(tmp_path):
    path = tmp_path / "stream.toml"
    path.write_text(SCENARIO.format(design="guide"))
    done = run(
        path, f"--out={tmp_path / 'out'}", '--set=timeline.phases=["redis_only","dual_write"]'
    )
    assert done.returncode == 2
    assert "a Redis stream in phase dual_write: only redis_only has one" in done.stderr
    assert not (tmp_path / "out").exists()
