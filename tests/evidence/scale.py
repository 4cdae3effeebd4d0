"""A ledger of many events and its effects, read and checked in a process of its own."""

import json
import random
import resource
import sqlite3
import sys
import time
from pathlib import Path

from hookbench.clock import SystemClock
from hookbench.effects.classes import Execution, HandlerClass
from hookbench.effects.read import read_effects
from hookbench.effects.store import SqliteEffectStore, seal_effects
from hookbench.ledger.account import make_account
from hookbench.ledger.events import Broker, Event, LedgerWriter, repository_number
from hookbench.ledger.model import Residue
from hookbench.ledger.read import read_ledger
from hookbench.migration.phases import Phase
from hookbench.results.steps import plan_steps
from hookbench.results.store import StepRecord
from tests.virtual import FixedClock

BURST = 100_000
BURSTS = 9
EVENTS_PER_TASK = 10
TASK_NS = 1_000_000
REPOSITORIES = 100


def append_s(folder):
    """CPU seconds for one event, in each of some bursts."""
    writer = LedgerWriter(folder, role="worker", writer=9, clock=SystemClock())
    task = random.Random(1).randbytes(16)
    bursts = []
    for _ in range(BURSTS):
        started = time.process_time()
        for _ in range(BURST):
            writer.record(Event.DONE, task, broker=Broker.REDIS, attempt=1)
        bursts.append((time.process_time() - started) / BURST)
    writer.close()
    return bursts


def equal_steps(start_ns, length_ns):
    """The five phases, one after the other and equally long."""
    step_ns = length_ns // len(Phase)
    return [
        StepRecord(
            plan=plan,
            start_ns=start_ns + plan.index * step_ns,
            end_ns=start_ns + (plan.index + 1) * step_ns,
        )
        for plan in plan_steps(list(Phase))
    ]


def write(folder, tasks, seed):
    """The ledger of a producer and a worker over the five phases, and the effects."""
    clock = FixedClock(monotonic_ns=10**12)
    rng = random.Random(seed)
    producer = LedgerWriter(folder, role="producer", writer=1, clock=clock)
    worker = LedgerWriter(folder, role="worker", writer=2, clock=clock)
    repositories = [repository_number(f"repo-{number}") for number in range(REPOSITORIES)]
    effects = []
    for number in range(tasks):
        clock.now_ns += TASK_NS
        producer.phase = worker.phase = number * len(Phase) // tasks
        task = rng.randbytes(16)
        producer.record(
            Event.PUT_INVOKED,
            task,
            value=clock.now_ns,
            repository=repositories[number % REPOSITORIES],
        )
        producer.record(Event.PUT_OK, task, broker=Broker.NATS, value=number + 1)
        producer.record(Event.PUT_OK, task, broker=Broker.REDIS, value=1)
        producer.record(Event.ACCEPTED, task)
        clock.now_ns += 1_000
        for event in (
            Event.RECEIVED,
            Event.CLAIMED,
            Event.STARTED,
            Event.EFFECT,
            Event.DONE,
            Event.ACK_SENT,
        ):
            worker.record(event, task, broker=Broker.REDIS, attempt=1)
        effects.append((task, clock.now_ns))
    producer.close()
    worker.close()
    _write_effects(folder / "effects.sqlite", effects)


def _write_effects(path, effects):
    """One plain effect per task, in one transaction: how fast handlers write is not asked here."""
    store = SqliteEffectStore(path, writer=2, clock=FixedClock(monotonic_ns=1))
    store.append(bytes(16), Execution())
    store.close()
    db = sqlite3.connect(path)
    with db:
        db.execute("DELETE FROM effects")
        db.executemany(
            "INSERT INTO effects (task, class, writer, attempt, token, time_ns)"
            " VALUES (?, ?, 2, 1, 0, ?)",
            [(task, int(HandlerClass.PLAIN), time_ns) for task, time_ns in effects],
        )
    db.close()
    seal_effects(path)


def check(folder):
    """Read and check it; seconds of CPU and of the clock on the wall, bytes and counts."""
    started, started_cpu = time.perf_counter(), time.process_time()
    ledger = read_ledger(folder)
    effects = read_effects(folder / "effects.sqlite")
    read_cpu_s = time.process_time() - started_cpu
    account = make_account(
        ledger,
        plan_steps(list(Phase)),
        Residue(places={}),
        step_starts_ns=[10**12] * len(Phase),
        effects=effects,
    )
    return {
        "events": len(ledger.records),
        "tasks": account.tasks,
        "effects": account.effects,
        "read_cpu_s": round(read_cpu_s, 2),
        "whole_cpu_s": round(time.process_time() - started_cpu, 2),
        "whole_s": round(time.perf_counter() - started, 2),
        "memory_max_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "invariants": {str(item.number): str(item.verdict) for item in account.invariants},
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(check(Path(sys.argv[1]))))
