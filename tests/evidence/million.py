"""A stored run of many tasks, made without brokers, and its report in a process of its own."""

import subprocess
import sys
import time

import psutil

from hookbench.ledger.model import Residue
from hookbench.migration.phases import Phase
from hookbench.results.check import check_run
from hookbench.results.environment import read_environment
from hookbench.results.histograms import save_histograms
from hookbench.results.store import (
    EFFECTS_NAME,
    MANIFEST_SCHEMA,
    GitCheck,
    Manifest,
    ResourceUse,
    encode_manifest,
)
from tests.evidence.scale import TASK_NS, equal_steps, write

START_NS = 10**12
SAMPLE_NS = 250_000_000
POLL_S = 0.05
GIT = GitCheck(pushes=0, tasks=0, repositories=0, equal=0, refs=0, differences=[])


def make_run(folder, tasks, seed):
    """A run of a producer and a worker over the five phases, complete and with its account.

    Args:
        folder: of the run, which is made.
        tasks: how many; one every millisecond, put on both brokers and done at once.
        seed: of their ids.
    """
    (folder / "ledger").mkdir(parents=True)
    write(folder / "ledger", tasks, seed)
    (folder / "ledger" / "effects.sqlite").rename(folder / EFFECTS_NAME)
    manifest = Manifest(
        schema=MANIFEST_SCHEMA,
        run=folder.name,
        status="complete",
        design="guide",
        seed=seed,
        durability="lazy",
        settings={"phases": [int(phase) for phase in Phase], "rate_per_s": 1e9 / TASK_NS},
        environment=read_environment(),
        started="2026-01-01T00:00:00Z",
        brokers=[],
        steps=equal_steps(START_NS, tasks * TASK_NS),
        residue=Residue(places={}),
        git=GIT,
        resources=[
            ResourceUse(
                name=name, processes=1, cpu_s=1.0, rss_max_bytes=1, read_bytes=0, written_bytes=0
            )
            for name in ("redis", "nats", "worker-0", "producer-0")
        ],
    )
    path = folder / "run.json"
    path.write_bytes(encode_manifest(manifest))
    with (folder / "samples.jsonl").open("w") as file:
        for time_ns in range(START_NS, START_NS + tasks * TASK_NS, SAMPLE_NS):
            file.write(f'{{"time_ns": {time_ns}, "redis_pending": 0, "stream": 0}}\n')
    checked = check_run(folder)
    save_histograms(folder, checked.account.histograms)
    checked.account.histograms = []
    path.write_bytes(encode_manifest(checked))


def measure_report(folder, log):
    """Make the report of a run; exit code, seconds, CPU seconds, and the most memory in bytes.

    Memory is that of the command and its kernel together, looked at twenty times a second.
    """
    command = [sys.executable, "-m", "hookbench", "report", str(folder)]
    started = time.perf_counter()
    most_bytes, cpu_s = 0, 0.0
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            rss_bytes, used_s = _resources([watched, *watched.children(recursive=True)])
            most_bytes, cpu_s = max(most_bytes, rss_bytes), max(cpu_s, used_s)
            time.sleep(POLL_S)
    return process.returncode, time.perf_counter() - started, cpu_s, most_bytes


def _resources(processes):
    """Resident bytes and CPU seconds of processes; of one that has just ended none."""
    rss_bytes, used_s = 0, 0.0
    for item in processes:
        try:
            times = item.cpu_times()
            rss_bytes += item.memory_info().rss
        except psutil.NoSuchProcess:
            continue
        used_s += times.user + times.system
    return rss_bytes, used_s
