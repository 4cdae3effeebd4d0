"""Runs of one scenario, and of the same with a fifth more latency, and pairs of them compared."""

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
SLOWER_MS = 24


def make_run(folder, seed, service_ms):
    """One run; its folder."""
    changes = {**SCENARIO, "workers.service_ms": service_ms, "seed": seed}
    before = set(folder.glob("0*"))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "hookbench", "run", "phase_nats_only", f"--out={folder}"),
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
    same, slower = [make_run(folder, seed, SERVICE_MS)], []
    for number in range(1, pairs + 1):
        slower.append(make_run(folder, seed + number, SLOWER_MS))
        same.append(make_run(folder, seed + number, SERVICE_MS))
    return same, slower


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
