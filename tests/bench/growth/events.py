"""A ledger of so many events, read and checked in a process of its own."""

import json
import subprocess
import sys

from tests.bench.peers.trial import ROOT
from tests.evidence.scale import EVENTS_PER_TASK, write

__all__ = ["measure_ledger"]


def measure_ledger(point, folder, seed):
    """Write a ledger, read it and hold it against all invariants.

    Returns:
        Figures by name: ``check_s``, CPU seconds, and ``memory_bytes``, the most of the process.
    """
    write(folder, point.value // EVENTS_PER_TASK, seed)
    done = subprocess.run(
        [sys.executable, "-m", "tests.evidence.scale", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    return {"check_s": found["whole_cpu_s"], "memory_bytes": float(found["memory_max_bytes"])}
