import itertools
import random
import struct
import time

import numpy as np
import pytest

from hookbench.ids import uuid7
from hookbench.ledger.account import make_account
from hookbench.ledger.events import Broker, Event, LedgerWriter
from hookbench.ledger.model import Residue, StepPlan, Verdict
from hookbench.ledger.read import read_ledger
from tests.bench.conftest import times

BURST = 500
ROUNDS = 100
ACCOUNT_ROUNDS = 60
SORTED = 7_000
SORTS = 10
TASKS = 1_000  # of 7 records each
LOST = 3
TWICE = 2
STEPS = [StepPlan(0, "redis_only", reads_redis=True, reads_nats=False)]


@pytest.fixture
def ids(clock):
    entropy = random.Random(7)

    def make(count):
        return [uuid7(clock, entropy).bytes for _ in range(count)]

    return make


@pytest.mark.benchmark(group=f"ledger: record {BURST:,} events, beside struct.pack_into")
def test_record(beside, tmp_path, clock, ids):
    writer = LedgerWriter(tmp_path, role="worker", writer=1, clock=clock)
    bursts = itertools.count()
    tasks = ids(BURST)
    layout = struct.Struct("<q16sq")
    buffer = bytearray(BURST * layout.size)

    def burst():
        next(bursts)
        for task in tasks:
            writer.record(Event.DONE, task, broker=Broker.REDIS, attempt=1)

    def pack():
        for number, task in enumerate(tasks):
            layout.pack_into(buffer, number * layout.size, time.monotonic_ns(), task, 1)

    beside(burst, pack, rounds=ROUNDS)
    writer.close()
    written = next(bursts)
    ledger = read_ledger(tmp_path, same_boot=True)
    assert (ledger.records["event"] == Event.DONE).sum() == written * BURST
    assert {bytes(task) for task in ledger.ids} >= set(tasks)
    assert (ledger.torn, ledger.crashed) == (0, [])
    assert [layout.unpack_from(buffer, 0)[1], len(set(tasks))] == [tasks[0], BURST]


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


@pytest.fixture
def sort_ids():
    """The yardstick of what goes through all records: numpy sorts as many ids."""
    ids = np.random.default_rng(7).bytes(16 * SORTED)
    values = np.frombuffer(ids, dtype="S16")
    return lambda: np.unique(values, return_inverse=True)[0]


@pytest.mark.benchmark(group=f"ledger: account for {TASKS:,} tasks, beside np.unique")
def test_read_ledger(beside, run, sort_ids):
    folder, _started_ns = run
    ledger, sorted_ids = beside(lambda: read_ledger(folder), sort_ids, rounds=ACCOUNT_ROUNDS)
    assert len(ledger.records) == 7 * TASKS - 4 * LOST + 4 * TWICE + 4
    assert ledger.writers == ["load.00001", "worker.00002"]
    assert len(sorted_ids) == SORTED


@pytest.mark.benchmark(group=f"ledger: account for {TASKS:,} tasks, beside np.unique")
def test_read_and_make_account(beside, run, sort_ids):
    folder, started_ns = run

    def account_for_all():
        ledger = read_ledger(folder, same_boot=True)
        return make_account(ledger, STEPS, Residue(places={}), step_starts_ns=[started_ns])

    account, _sorted = beside(account_for_all, times(SORTS, sort_ids), rounds=ACCOUNT_ROUNDS)
    assert account.tasks == account.accepted == TASKS
    assert account.done == TASKS - LOST
    assert (account.lost, account.duplicated) == (LOST, TWICE)
    assert account.rows[0].verdict is Verdict.INVALID
