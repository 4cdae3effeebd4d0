"""Makes ``notebooks/data``: the small runs and searches that the committed notebooks show.

``python -m tests.notebooks.make_data`` carries them out on embedded brokers and keeps of each what
a notebook reads: its manifest, tables, histograms and samples, without its ledger. Of a search in
the simulator it keeps totals, replays and stories.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from hookbench.report.plots_knee import load_answers
from hookbench.results.run import load
from hookbench.results.store import encode_manifest, load_manifest, resolve_run, write_aside

DATA = Path(__file__).resolve().parents[2] / "notebooks" / "data"
KEPT = ("histograms.json", "samples.jsonl")
TRIES = 5
MOST_LAG_NS = 50_000_000

REHEARSAL = """
name = "rehearsal"
description = "The five phases, small enough to be committed."
[timeline]
phases = ["redis_only", "dual_write", "dual_read", "nats_primary", "nats_only"]
phase_seconds = 3.0
[producers]
processes = 1
rate_per_s = 40.0
[workers]
processes = 1
[pushes]
repositories = 2
interval_s = 2.0
"""
FAULTS = """
name = "faults"
description = "Phase 3 with a worker that is killed and a NATS server that stands still."
[timeline]
phases = ["nats_primary"]
phase_seconds = 7.0
[producers]
processes = 1
rate_per_s = 80.0
[workers]
processes = 2
service_ms = 40.0
[pushes]
repositories = 1
interval_s = 60.0
[[faults]]
kind = "kill_at_step"
target = "worker-0"
step = "start"
nth = 40
at_s = 0.5
for_s = 2.0
[[faults]]
kind = "pause"
target = "nats"
at_s = 4.0
for_s = 1.0
"""
QUEUE = """
name = "queue"
description = "One queue alone."
[timeline]
phases = ["{phase}"]
phase_seconds = 4.0
[brokers]
redis_queue = "{kind}"
[producers]
processes = 1
rate_per_s = 100.0
[workers]
processes = 1
[pushes]
repositories = 1
interval_s = 60.0
"""
RUNS = {
    "guide": (REHEARSAL, "guide"),
    "hardened": (REHEARSAL, "hardened"),
    "faults": (FAULTS, "guide"),
    "redis_list": (QUEUE.format(phase="redis_only", kind="list"), "guide"),
    "redis_stream": (QUEUE.format(phase="redis_only", kind="stream"), "guide"),
    "jetstream": (QUEUE.format(phase="nats_only", kind="list"), "guide"),
}
SEARCHES = {
    "null": ("--rate=500", "--seconds=3", "--slo=p99<100ms,backlog=flat"),
    "jetstream": ("--rate=50", "--seconds=8", "--warm-up=4", "--slo=p99<500ms,backlog=flat"),
}
SIMULATION = ("--phase=nats_primary", "--seeds=40", "--replay", "--tries=2")


def hookbench_command(*arguments):
    """Run it; only what it cannot do is an error, a verdict is none."""
    command = [sys.executable, "-m", "hookbench", *arguments]
    done = subprocess.run(command, check=False)
    if done.returncode not in {0, 1, 3}:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}")


def make_run(results, name, kept):
    """Rehearse it, make its tables, keep what is read of it; whether its latencies are valid."""
    scenario, design = RUNS[name]
    path = results / f"{name}.toml"
    path.write_text(scenario)
    hookbench_command("run", str(path), f"--out={results}", f"--set=design={design}")
    run = resolve_run("latest", results)
    _ = load(run).totals
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for item in KEPT:
        shutil.copy(run / item, kept / item)
    shutil.copytree(run / "tables", kept / "tables")
    manifest = load_manifest(run)
    manifest.settings["out"] = "results"  # no folder of this machine
    manifest.environment = without_build(manifest.environment)
    write_aside(kept / "run.json", encode_manifest(manifest))
    return manifest.lag["lag_p99_ns"] < MOST_LAG_NS


def make_search(queue, kept):
    """A search with trials that are short, and so an interval that is wide."""
    hookbench_command(
        *("capacity", f"--queue={queue}", f"--out={kept}", "--width=1"), *SEARCHES[queue]
    )


def make_simulation(folder, kept):
    """A search of one phase, replayed on real brokers; its totals, replays and stories are kept."""
    hookbench_command("sim", *SIMULATION, f"--out={folder}")
    for item in [*folder.glob("*.json"), *folder.glob("*/story.txt")]:
        target = kept / item.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(item, target)


def without_build(environment):
    """The environment without what names the build of this machine's kernel."""
    return msgspec.structs.replace(environment, kernel=environment.kernel.partition("-")[0])


def store(made):
    """Put what was made in the place of what was there: until then the tree is that of a commit."""
    for path in made.iterdir():
        shutil.rmtree(DATA / path.name, ignore_errors=True)
        shutil.copytree(path, DATA / path.name)


def main(names):
    """Make those that are named, or all."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made"
        made.mkdir()
        for name in RUNS:
            if not names or name in names:
                valid = any(make_run(Path(folder), name, made / name) for _ in range(TRIES))
                if not valid:
                    print(f"{name}: the producers were late in each of {TRIES} runs")
        if not names or "capacity" in names:
            for queue in SEARCHES:
                make_search(queue, made / "capacity")
            for answer in load_answers(made / "capacity"):
                told = msgspec.structs.replace(
                    answer, environment=without_build(answer.environment)
                )
                data = msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n"
                write_aside(made / "capacity" / f"{answer.label}.json", data)
        if not names or "simulation" in names:
            make_simulation(Path(folder) / "simulation", made / "simulation")
        store(made)


if __name__ == "__main__":
    main(sys.argv[1:])
