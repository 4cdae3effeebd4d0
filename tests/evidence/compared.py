"""Runs of one scenario, and of the same with a fault that adds a fifth to the work of each task."""

import subprocess
import sys

import hookbench
from hookbench.results.compare import compare
from hookbench.results.store import load_manifest, resolve_run

SCENARIO = {
    "timeline.phase_seconds": 10,
    "producers.rate_per_s": 200,
    "producers.processes": 1,
    "pushes.repositories": 1,
    "pushes.interval_s": 60,
}
SERVICE_MS = 20
ADDED_MS = 4
SLOW = f"""\
name = "slow_handler"
description = "Phase 4 alone, with slow handlers from its beginning to its end."

[timeline]
phases = ["nats_only"]

[[faults]]
kind = "slow_handler"
target = "workers"
at_s = 0.0
for_s = {SCENARIO["timeline.phase_seconds"]}.0
service_ms = {ADDED_MS}.0
"""


def make_run(folder, seed, *, scenario="phase_nats_only"):
    """One run; its folder."""
    changes = {**SCENARIO, "workers.service_ms": SERVICE_MS, "seed": seed}
    before = set(folder.glob("0*"))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "hookbench", "run", str(scenario), f"--out={folder}"),
            *(f"--set={name}={value}" for name, value in changes.items()),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    new = set(folder.glob("0*")) - before
    assert len(new) == 1, done.stderr[-2000:]
    return resolve_run(str(new.pop()), folder)


def make_runs(folder, pairs, seed):
    """One more run of the scenario than there are pairs, and in turn with them the slower ones."""
    folder.mkdir()
    slow = folder / "slow_handler.toml"
    slow.write_text(SLOW)
    same, slower = [make_run(folder, seed)], []
    for number in range(1, pairs + 1):
        slower.append(make_run(folder, seed + number, scenario=slow))
        same.append(make_run(folder, seed + number))
    return same, slower


def fault_fired(run):
    """Whether the slow handlers of a run were hit, and healed."""
    faults = load_manifest(run).faults
    return len(faults) == 1 and not faults[0].problem and faults[0].begin_ns is not None


def answers_of(pairs, *, force=False):
    """What each pair came to: the metrics that are worse or better, and those that are unknown."""
    found = []
    for base, new in pairs:
        compared = compare([hookbench.load(base)], [hookbench.load(new)], force=force)
        significant = {f"{item.metric} {item.answer}" for item in compared.significant}
        phases = [item for item in compared.changes if item.phase != "whole run"]
        unknown = {item.metric: item.reason for item in phases if item.answer == "unknown"}
        p50 = next(item for item in phases if item.metric == "p50")
        found.append({"significant": significant, "unknown": unknown, "p50": p50})
    return found


def versions_of(run):
    """Of the brokers of a run."""
    return {report.name: report.version for report in load_manifest(run).broker_reports}
