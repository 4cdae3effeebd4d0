"""A stored run of many tasks, and what it takes to read it, in a process of its own."""

import json
import random
import resource
import sys
import time
from pathlib import Path

import hookbench
from hookbench.ledger.events import Broker, Event, LedgerWriter, repository_number
from hookbench.migration.phases import Phase
from hookbench.results.environment import read_environment
from hookbench.results.store import (
    MANIFEST_NAME,
    MANIFEST_SCHEMA,
    Manifest,
    encode_manifest,
    write_aside,
)
from tests.evidence.scale import equal_steps
from tests.virtual import FixedClock

START_NS = 10**12
TASK_NS = 100_000
LATENCY_NS = 5_000_000
REPOSITORIES = 100
ROLES = ("producer", "worker")


def write_run(folder, tasks, seed):
    """A complete run over the five phases: each task is put, delivered, done and acknowledged."""
    (folder / "ledger").mkdir(parents=True)
    clocks = {role: FixedClock(monotonic_ns=START_NS) for role in ROLES}
    writers = {
        role: LedgerWriter(folder / "ledger", role=role, writer=number, clock=clocks[role])
        for number, role in enumerate(ROLES)
    }
    rng = random.Random(seed)
    repositories = [repository_number(f"repo-{number}") for number in range(REPOSITORIES)]
    producer, worker = writers["producer"], writers["worker"]
    for number in range(tasks):
        now_ns = START_NS + number * TASK_NS
        phase = number * len(Phase) // tasks
        broker = Broker.NATS if phase > Phase.DUAL_WRITE else Broker.REDIS
        producer.phase = worker.phase = phase
        task = rng.randbytes(16)
        clocks["producer"].now_ns = now_ns
        producer.record(
            Event.PUT_INVOKED,
            task,
            value=now_ns,
            repository=repositories[number % REPOSITORIES],
        )
        producer.record(Event.ACCEPTED, task)
        done_ns = now_ns + rng.randrange(LATENCY_NS)
        clocks["worker"].now_ns = max(done_ns, clocks["worker"].now_ns)
        worker.record(Event.RECEIVED, task, broker=broker, attempt=1)
        for event in (Event.STARTED, Event.DONE, Event.ACK_SENT):
            worker.record(event, task, broker=broker, attempt=1)
    for writer in writers.values():
        writer.close()
    manifest = Manifest(
        schema=MANIFEST_SCHEMA,
        run=folder.name,
        status="complete",
        design="guide",
        seed=seed,
        durability="memory",
        settings={"phases": [int(phase) for phase in Phase]},
        environment=read_environment(),
        started="1970-01-01T00:00:00Z",
        brokers=[],
        steps=equal_steps(START_NS, tasks * TASK_NS),
    )
    write_aside(folder / MANIFEST_NAME, encode_manifest(manifest))


def read(folder):
    """Make the tables, and read of them what a report does; seconds, and the most memory."""
    started = time.perf_counter()
    run = hookbench.load(folder)
    tables_s = time.perf_counter() - started
    latency = run.latency("phase")
    timeline = run.timeline("10s")
    return {
        "tasks": run.totals["done"],
        "counted": int(latency["count"].sum()),
        "phases": len(latency),
        "bins": len(timeline),
        "tables_s": round(tables_s, 1),
        "read_s": round(time.perf_counter() - started - tables_s, 1),
        "tables_bytes": sum(path.stat().st_size for path in (folder / "tables").iterdir()),
        "memory_max_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(read(Path(sys.argv[1]))))
