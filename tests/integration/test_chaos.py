"""Chaos and soak on real brokers, interrupted or not: nothing of them is left."""

import json
import signal
import subprocess
import threading
import time

import psutil
import pytest

from hookbench.results.store import load_manifest
from tests.integration.conftest import COMMAND

LIMIT_S = 100.0
GONE_S = 10.0

STANDING = """
name = "standing"
description = "everything is stopped or cut when the interrupt comes"
[timeline]
phases = ["dual_read"]
phase_seconds = 30.0
[producers]
rate_per_s = 200.0
[[faults]]
kind = "pause"
target = "worker-0"
at_s = 0.5
for_s = 25.0
[[faults]]
kind = "pause"
target = "redis"
at_s = 0.5
for_s = 25.0
[[faults]]
kind = "wire"
target = "workers-nats"
action = "partition"
at_s = 0.5
for_s = 25.0
"""


class Family:
    """A command and all processes that it ever started, by id and start."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.members = {}
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def _watch(self):
        root = psutil.Process(self.process.pid)
        while not self._over.wait(0.02):
            try:
                for child in root.children(recursive=True):
                    self.members[child.pid, child.create_time()] = child
            except psutil.NoSuchProcess:
                continue

    def stopped(self):
        """Names of those that SIGSTOP has stopped."""
        return [child.pid for child in list(self.members.values()) if _status(child) == "stopped"]

    def wait(self):
        try:
            return self.process.communicate(timeout=LIMIT_S)
        finally:
            self._over.set()
            self._watcher.join()
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    def left(self):
        """Those that live on 10 s after the end."""
        deadline = time.monotonic() + GONE_S
        while True:
            living = [
                child for child in self.members.values() if _status(child) not in ("zombie", "gone")
            ]
            if not living or time.monotonic() > deadline:
                return living
            time.sleep(0.05)


def _status(process):
    try:
        return process.status() if process.is_running() else "gone"
    except psutil.NoSuchProcess:
        return "gone"


def _words(process):
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # git's are short
        return []


def test_a_soak_goes_on_with_the_next_seed_and_leaves_nothing(tmp_path):
    arguments = ["soak", "--minutes=0", "--phase-seconds=2", "--rate=200", f"--out={tmp_path}"]
    family = Family(*arguments, "--seed=21", "--json")
    output, errors = family.wait()
    assert family.left() == []
    entry = json.loads(output)
    assert entry["seed"] == 21, errors
    assert entry["verdict"] in ("valid", "invalid"), entry
    assert entry["faults"] > 0
    assert len(family.members) > 6  # brokers, producers, workers and their replacements
    (totals,) = json.loads((tmp_path / "soak.json").read_text())
    assert (totals["runs"], totals["faults"]) == (1, entry["faults"])
    kept = sorted(tmp_path.glob("0*"))
    assert [str(run) for run in kept] == ([entry["run"]] if entry["failing"] else [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_process_stopped_or_not(tmp_path, number):
    path = tmp_path / "standing.toml"
    path.write_text(STANDING)
    family = Family("run", str(path), f"--out={tmp_path}")
    deadline = time.monotonic() + LIMIT_S
    while len(family.stopped()) < 2:  # a worker and a broker
        assert family.process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert any("proxy" in _words(child) for child in list(family.members.values()))
    family.process.send_signal(number)
    _output, errors = family.wait()
    assert family.left() == []
    if number == signal.SIGINT:
        assert family.process.returncode == 130
        (run,) = tmp_path.glob("0*")
        assert f"{run} is kept, and marked as cut off" in errors
        assert load_manifest(run).status == "cut off"
