"""A broker that stands still for two seconds, as an open loop and a closed one see it."""

import subprocess
import sys

import numpy as np
from matplotlib.figure import Figure

from hookbench.clock import NS_PER_MS, NS_PER_S
from hookbench.ledger.columns import TaskColumns
from hookbench.ledger.read import read_ledger
from hookbench.report.style import DPI, decorate
from hookbench.results.store import load_manifest, resolve_run

STALL_S = 2.0
AT_S = 15.0
SECONDS = 30.0
RATE_PER_S = 500.0
CALLERS = 10
PHASES = {"jetstream": ("nats_only", "nats"), "redis_list": ("redis_only", "redis")}
COLOURS = {"open": "#0072B2", "closed": "#D55E00"}

SCENARIO = """
name = "stall"
description = "A broker stands still for two seconds at a constant rate."
[timeline]
phases = ["{phase}"]
phase_seconds = {seconds}
[producers]
processes = 1
rate_per_s = {rate}
loop = "{loop}"
callers = {callers}
[workers]
processes = 1
service_ms = 0.0
[pushes]
repositories = 1
interval_s = 60.0
[[faults]]
kind = "pause"
target = "{broker}"
at_s = {at}
for_s = {stall}
"""


def run_stall(folder, queue, loop, seed):
    """Offsets of the tasks in s and their enqueue latencies in ms, and the manifest."""
    phase, broker = PHASES[queue]
    folder.mkdir()
    scenario = folder / "stall.toml"
    scenario.write_text(
        SCENARIO.format(
            phase=phase, broker=broker, loop=loop, seconds=SECONDS, rate=RATE_PER_S,
            callers=CALLERS, at=AT_S, stall=STALL_S,
        )
    )  # fmt: skip
    done = subprocess.run(
        [
            *(sys.executable, "-m", "hookbench", "run", str(scenario)),
            *(f"--out={folder}", f"--set=seed={seed}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    run = resolve_run("latest", folder)
    manifest = load_manifest(run)
    assert manifest.account is not None, done.stderr[-2000:]
    columns = TaskColumns(read_ledger(run / "ledger"))
    mine = columns.accepted & ~columns.pushed
    begin_ns = manifest.steps[0].start_ns
    at_s = (columns.intended_ns[mine] - begin_ns) / NS_PER_S
    latency_ms = (columns.accepted_ns - columns.intended_ns)[mine] / NS_PER_MS
    order = np.argsort(at_s)
    return at_s[order], latency_ms[order], manifest


def figures_of(latency_ms):
    """Percentiles, and how many tasks saw a second or more of the stall."""
    p50, p99, p999 = np.percentile(latency_ms, [50, 99, 99.9])
    return {
        "tasks": len(latency_ms),
        "p50_ms": round(float(p50), 3),
        "p99_ms": round(float(p99), 3),
        "p999_ms": round(float(p999), 3),
        "max_ms": round(float(latency_ms.max()), 3),
        "waited_a_second": int((latency_ms >= 1000).sum()),
    }


def plot_stall(path, seen, queue):
    """Latencies over time, and by percentile, of both loops.

    Args:
        path: of a PNG.
        seen: offsets (s) and latencies (ms) by loop.
        queue: for the title.
    """
    figure = Figure(figsize=(10, 4.2), dpi=DPI)
    figure.set_layout_engine("constrained")
    over_time, by_percentile = figure.subplots(1, 2)
    characters = 48
    for loop, (at_s, latency_ms) in seen.items():
        label = f"{loop} loop"
        colour = COLOURS[loop]
        over_time.plot(at_s, latency_ms, ".", markersize=2, color=colour, label=label)
        share = 1 - np.arange(len(latency_ms)) / len(latency_ms)
        by_percentile.plot(share, np.sort(latency_ms), color=colour, label=label)
    slow = {loop: int((latency >= 1000).sum()) for loop, (_at, latency) in seen.items()}
    decorate(
        over_time,
        title=f"{queue} stands still for {STALL_S:g} s: {slow['open']:,} tasks wait for more than"
        f" a second, of a closed loop {slow['closed']}",
        x="time at which a task was due, or sent (s)",
        y="time to the acknowledgement (ms)",
        characters=characters,
    )
    p999 = {loop: np.percentile(latency, 99.9) for loop, (_at, latency) in seen.items()}
    decorate(
        by_percentile,
        title=f"p99.9 is {p999['open']:,.0f} ms in the open loop and {p999['closed']:,.0f} ms in"
        " the closed one",
        x="percentile",
        y="time to the acknowledgement (ms)",
        characters=characters,
    )
    for axes in (over_time, by_percentile):
        axes.set_yscale("log")
        axes.legend(frameon=False)
    by_percentile.set_xscale("log")
    by_percentile.invert_xaxis()
    by_percentile.set_xticks([1, 0.1, 0.01, 0.001, 0.0001], ["0", "90", "99", "99.9", "99.99"])
    by_percentile.minorticks_off()
    figure.savefig(path)
