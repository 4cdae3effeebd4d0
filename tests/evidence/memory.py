"""The resident memory of the processes of a run, second by second, at a steady rate."""

import subprocess
import sys
import time
from collections import defaultdict
from typing import NamedTuple

import numpy as np
import psutil

SETTLED = 0.25
"""Of the load, after which caches are full and a process has its size."""
EVERY_S = 1.0
ROLES = {"produce": "producer", "worker": "worker"}


class Trace(NamedTuple):
    """Seconds since the first sample, and bytes."""

    seconds: np.ndarray
    resident: np.ndarray

    def growth_per_million(self, rate_per_s):
        """Bytes for a million tasks more: the slope once the process has its size."""
        late = self.seconds >= SETTLED * self.seconds[-1]
        return float(np.polyfit(self.seconds[late], self.resident[late], 1)[0]) / rate_per_s * 1e6


def steady_run(folder, *, scenario, rate_per_s, tasks, changes):
    """A run of one phase, with the memory of its producer and its worker.

    Returns:
        By role, its ``Trace`` over the time of the load; what the command printed.
    """
    seconds = tasks / rate_per_s
    settings = {
        "timeline.phase_seconds": seconds,
        "producers.rate_per_s": rate_per_s,
        "producers.processes": 1,
        "workers.processes": 1,
        "workers.service_ms": 0,
        "pushes.repositories": 1,
        "pushes.interval_s": 3600,
        **changes,
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "hookbench", "run", scenario, f"--out={folder}"),
                *(f"--set={name}={value}" for name, value in settings.items()),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        traces = _watch(psutil.Process(process.pid), seconds)
        process.wait()
    return traces, (folder / "log").read_text(errors="replace")


def _watch(root, seconds):
    """Sample until the load has had its time, or the run has ended."""
    samples, began = defaultdict(list), None
    while root.is_running() and root.status() != psutil.STATUS_ZOMBIE:
        found = _children(root)
        if began is None and set(found) == set(ROLES.values()):
            began = time.monotonic()
        if began is not None:
            at = time.monotonic() - began
            if at > seconds:
                break
            for role, resident in found.items():
                samples[role].append((at, resident))
        time.sleep(EVERY_S)
    return {role: Trace(*np.array(points).T) for role, points in samples.items()}


def _children(root):
    """Resident bytes by role, of the processes that are there."""
    found = {}
    for child in root.children(recursive=True):
        try:
            words = child.cmdline()
            role = next((ROLES[word] for word in words if word in ROLES), None)
            if role is not None and "hookbench" in words:
                found[role] = child.memory_info().rss
        except psutil.Error:
            continue  # it has just ended
    return found
