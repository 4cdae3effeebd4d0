"""Points that are short rehearsals of one phase: at saturation for rates, at a low one for time."""

import shutil
import subprocess
import sys
from typing import NamedTuple

import numpy as np

from hookbench.clock import NS_PER_MS
from hookbench.errors import ResultsError
from hookbench.ledger.model import Verdict
from hookbench.rehearsal.counted import read_counted
from hookbench.results.store import load_manifest, resolve_run
from tests.bench.growth.plan import Point

__all__ = ["measure_rehearsal"]

SECONDS, WARM_UP_S = 6, 2.0
CALLERS = 100
LOW_PER_S = 100
_LOW_PAYLOAD_PER_S = 20
_PHASE = {"jetstream": "phase_nats_only"}
_BIG_BYTES = 100_000


class _Trial(NamedTuple):
    counted: object
    resources: list


def measure_rehearsal(point: Point, folder):
    """One trial at saturation and one at a low rate.

    Args:
        point: of the axis payload, workers or repositories.
        folder: for this measurement alone.

    Returns:
        Figures by name: ``done_per_s`` and ``accepted_per_s`` at saturation; ``p50_ms`` and
        ``p99_ms``, end to end at the low rate; ``broker_bytes``, ``worker_bytes`` and
        ``producer_bytes``, the most resident memory at the low rate, all processes together.

    Raises:
        ResultsError: a trial whose verdict is unknown, or that did nothing.
    """
    fast = _make(
        point, folder / "fast",
        {"producers.loop": "windowed", "producers.callers": _callers(point)},
    )  # fmt: skip
    slow = _make(point, folder / "slow", {"producers.rate_per_s": _low_per_s(point)})
    latencies_ms = slow.counted.end_to_end_ns / NS_PER_MS
    return {
        "done_per_s": fast.counted.done_per_s(),
        "accepted_per_s": fast.counted.accepted_per_s(),
        "p50_ms": float(np.percentile(latencies_ms, 50)),
        "p99_ms": float(np.percentile(latencies_ms, 99)),
        **{
            f"{role}_bytes": float(
                sum(item.rss_max_bytes for item in slow.resources if item.name.startswith(prefix))
            )
            for role, prefix in (
                ("broker", "nats" if point.queue == "jetstream" else "redis"),
                ("worker", "worker"),
                ("producer", "producer"),
            )
        },
    }


def _callers(point):
    """Large payloads fill the buffers of a client: fewer at once."""
    return 10 if point.axis == "payload" and point.value > _BIG_BYTES else CALLERS


def _low_per_s(point):
    return _LOW_PAYLOAD_PER_S if point.axis == "payload" else LOW_PER_S


def _make(point, folder, changes):
    settings = {
        "timeline.phase_seconds": SECONDS,
        "producers.processes": 1,
        "workers.processes": 1,
        "workers.service_ms": 0,
        "workers.concurrency": 32,
        "pushes.repositories": 1,
        "pushes.interval_s": 3600,
        "tasks.transactional": 0,
        "tasks.idempotent": 0,
        "drain.timeout_s": 600,
        "design": point.design,
        **changes,
        **_of_axis(point),
    }
    if point.queue == "redis_stream":
        settings["brokers.redis_queue"] = "stream"
    scenario = _PHASE.get(point.queue, "phase_redis_only")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "hookbench", "run", scenario, f"--out={folder}"),
            *(f"--set={name}={value}" for name, value in settings.items()),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    runs = sorted(folder.glob("0*")) if folder.is_dir() else []
    if not runs:
        raise ResultsError(f"{point}: no run: {done.stderr[-500:]}")
    run = resolve_run(runs[0].name, folder)
    manifest = load_manifest(run)
    if manifest.verdict is Verdict.UNKNOWN or manifest.account is None:
        raise ResultsError(f"{point}: unknown: {'; '.join(manifest.unknown_because)}")
    counted = read_counted(run, warm_up_s=WARM_UP_S)
    if not counted.finished.any():
        raise ResultsError(f"{point}: no task was done after the warm-up")
    found = _Trial(counted, manifest.resources)
    shutil.rmtree(folder)
    return found


def _of_axis(point):
    if point.axis == "payload":
        return {"producers.payload": str(point.value)}
    if point.axis == "workers":
        return {"workers.processes": point.value}
    return {"producers.repositories": point.value}
