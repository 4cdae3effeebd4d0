import itertools
import random

import pytest

from hookbench.ids import uuid7
from hookbench.ledger.account import make_account
from hookbench.ledger.events import Broker, Event, LedgerWriter
from hookbench.ledger.model import Residue, StepPlan, Verdict
from hookbench.ledger.read import read_ledger

BURST = 1_000
ROUNDS = 100
TASKS = 7_140  # of 7 records each: about 50,000
LOST = 3
TWICE = 2
STEPS = [StepPlan(0, "redis_only", reads_redis=True, reads_nats=False)]


@pytest.fixture
def ids(clock):
    entropy = random.Random(7)

    def make(count):
        return [uuid7(clock, entropy).bytes for _ in range(count)]

    return make


@pytest.mark.benchmark(group=f"ledger: record {BURST:,} events")
def test_record(benchmark, tmp_path, clock, ids):
    writer = LedgerWriter(tmp_path, role="worker", writer=1, clock=clock)
    bursts = itertools.count()
    tasks = ids(BURST)

    def burst():
        next(bursts)
        for task in tasks:
            writer.record(Event.DONE, task, broker=Broker.REDIS, attempt=1)

    benchmark.pedantic(burst, rounds=ROUNDS, warmup_rounds=1)
    writer.close()
    written = next(bursts)
    ledger = read_ledger(tmp_path, same_boot=True)
    assert (ledger.records["event"] == Event.DONE).sum() == written * BURST
    assert {bytes(task) for task in ledger.ids} >= set(tasks)
    assert (ledger.torn, ledger.crashed) == (0, [])


@pytest.fixture
def run(tmp_path, clock, ids):
    """The ledger of a run: each task is put and done, some are lost, some are done twice."""
    producer = LedgerWriter(tmp_path, role="load", writer=1, clock=clock)
    worker = LedgerWriter(tmp_path, role="worker", writer=2, clock=clock)
    started_ns = clock.monotonic_ns()
    for number, task in enumerate(ids(TASKS)):
        producer.record(Event.PUT_INVOKED, task, value=clock.monotonic_ns())
        producer.record(Event.PUT_OK, task, broker=Broker.REDIS, value=1)
        producer.record(Event.ACCEPTED, task)
        if number < LOST:
            continue
        for _ in range(2 if number < LOST + TWICE else 1):
            worker.record(Event.RECEIVED, task, broker=Broker.REDIS, attempt=1)
            worker.record(Event.STARTED, task, broker=Broker.REDIS, attempt=1)
            worker.record(Event.DONE, task, broker=Broker.REDIS, attempt=1)
            worker.record(Event.ACK_SENT, task, broker=Broker.REDIS)
    producer.close()
    worker.close()
    return tmp_path, started_ns


@pytest.mark.benchmark(group=f"ledger: account for {TASKS:,} tasks")
def test_read_ledger(benchmark, run):
    folder, _started_ns = run
    ledger = benchmark.pedantic(read_ledger, args=(folder,), rounds=5, warmup_rounds=1)
    assert len(ledger.records) == 7 * TASKS - 4 * LOST + 4 * TWICE + 4
    assert ledger.writers == ["load.00001", "worker.00002"]


@pytest.mark.benchmark(group=f"ledger: account for {TASKS:,} tasks")
def test_read_and_make_account(benchmark, run):
    folder, started_ns = run

    def account_for_all():
        ledger = read_ledger(folder, same_boot=True)
        return make_account(ledger, STEPS, Residue(places={}), step_starts_ns=[started_ns])

    account = benchmark.pedantic(account_for_all, rounds=5, warmup_rounds=1)
    assert account.tasks == account.accepted == TASKS
    assert account.done == TASKS - LOST
    assert (account.lost, account.duplicated) == (LOST, TWICE)
    assert account.rows[0].verdict is Verdict.INVALID
