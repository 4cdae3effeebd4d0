"""Matrices of which the truth is known: what each cell costs, waits and comes to."""

import math

import msgspec

from hookbench.brokers.durability import Durability
from hookbench.ledger.model import Verdict
from hookbench.model.observations import ROLES, Setup
from hookbench.model.saturation import flood_of
from hookbench.rehearsal.matrix_book import MatrixBook, SessionRecord, TrialRecord
from hookbench.rehearsal.matrix_plan import MatrixPlan, new_stored_plan, save_stored_plan
from tests.run_by_hand import ENVIRONMENT

PLAN = MatrixPlan(
    queues=("redis_list", "jetstream"),
    phases=("dual_write",),
    durability=(Durability.MEMORY, Durability.LAZY, Durability.FSYNC),
    payload=(64, 1024, 4096, 16384),
    repeats=3,
)
SETUP = Setup(cores=ENVIRONMENT.cpus)
TASK_US = {"redis_list": 20.0, "jetstream": 30.0, "dual_write": 45.0, "dual_read": 50.0}
ROLE = {"producer": 1.0, "broker": 0.6, "worker": 1.5}
CLASS = {"memory": 1.0, "lazy": 1.1, "fsync": 1.6}
KIB_US = 2.0
WAKEUP_US = 150.0
START_S = {"producer": 0.5, "broker": 0.05, "worker": 0.5}
DONE_SHARE, ACCEPTED_SHARE = 0.8, 0.9
FIXED_MS = {
    "p50_ms": 0.6,
    "p99_ms": 2.5,
    "p999_ms": 6.0,
    "enqueue_p50_ms": 0.3,
    "enqueue_p99_ms": 1.5,
}
KIB_MS = 0.02


def true_cost_us(route, durability, role, payload, batch):
    """Of a task in batches of a size, without the start."""
    task_us = TASK_US[route] * ROLE[role] * CLASS[durability]
    return task_us + KIB_US * payload / 1024 + WAKEUP_US * ROLE[role] / batch


def true_limits_per_s(route, durability, payload):
    """Of producer, broker, worker and the two cores, in the largest batches."""
    producer, broker, worker = (
        true_cost_us(route, durability, role, payload, most) / 1e6
        for role, most in (("producer", 100), ("broker", 100), ("worker", 32))
    )
    threads = 1 if route.startswith("redis") else 2
    return 1 / producer, threads / broker, 1 / worker, 2 / (producer + broker + worker)


def true_batch(rate_per_s, in_batch_us, wakeup_us):
    """The fixed point by plain iteration."""
    batch = 1.0
    for _ in range(200):
        expected = rate_per_s * (wakeup_us + batch * in_batch_us) / 1e6
        batch = expected + math.exp(-expected)
    return batch


def true_figures(trial, plan, jitter):
    """Of a trial; ``jitter`` is a factor of each."""
    route, durability = trial.cell.route, str(trial.cell.durability)
    payload = int(trial.cell.payload)
    saturated = trial.kind == "throughput"
    done = 60_000.0 if saturated else plan.rate_per_s * plan.seconds
    most = {"producer": 100, "broker": 100, "worker": 32}
    costs_us = {role: true_cost_us(route, durability, role, payload, most[role]) for role in ROLES}
    figures = {"done": done, "redelivered": 0.0, "duplicated": 0.0}
    if trial.kind == "redelivery":  # which a model of machines without faults leaves out
        figures |= {"in_hand": 20.0, "ended": 20.0, "stuck": 0.0, "lost": 0.0}
        return figures | {f"{role}_cpu_us": 1e6 for role in ROLES}
    if saturated:
        flood = flood_of(route, costs_us, SETUP)
        figures["done_per_s"] = DONE_SHARE * flood.done_per_s
        figures["accepted_per_s"] = ACCEPTED_SHARE * flood.accepted_per_s
    else:
        for role in ROLES:
            in_batch_us = true_cost_us(route, durability, role, payload, 1e12)
            batch = true_batch(plan.rate_per_s, in_batch_us, WAKEUP_US * ROLE[role])
            costs_us[role] = true_cost_us(route, durability, role, payload, batch)
        limits = true_limits_per_s(route, durability, payload)
        for name, value in FIXED_MS.items():
            beyond = {"p50": 0.5, "p99": 0.01, "p999": 0.001}[name.split("_")[-2]]
            early = name.startswith("enqueue")
            limit = DONE_SHARE * min(limits[:2] if early else limits)
            busy = plan.rate_per_s / limit
            wait_ms = max(0.0, math.log(busy / beyond) / (limit - plan.rate_per_s) * 1e3)
            figures[name] = value * CLASS[durability] + KIB_MS * payload / 1024 + wait_ms
        figures |= {"growth_share": 0.0, "lag_p99_ms": 1.0, "max_ms": 20.0}
    for role in ROLES:
        figures[f"{role}_cpu_us"] = costs_us[role] + START_S[role] * 1e6 / done
    exact = ("done", "redelivered", "duplicated", "growth_share")
    return {k: v if k in exact else v * jitter for k, v in figures.items()}


def make_measured(folder, *, plan=PLAN, rng=None, noise=0.0, change=None, leave=None):
    """The folder of a matrix.

    Args:
        folder: to be made.
        plan: of the matrix.
        rng: of the noise.
        noise: of each trial, as a share.
        change: of the figures of a trial.
        leave: whether a trial was not made.
    """
    stored = new_stored_plan(plan)
    folder.mkdir(exist_ok=True)
    save_stored_plan(folder, stored)
    book = MatrixBook(folder, stored)
    book.add(SessionRecord(started="2026-01-01T00:00:00Z", environment=ENVIRONMENT))
    for index, trial in enumerate(stored.trials):
        if leave is not None and leave(trial):
            continue
        jitter = math.exp(rng.normal(0.0, noise)) if rng is not None else 1.0
        record = TrialRecord(
            index=index,
            trial=trial,
            attempt=1,
            session=1,
            verdict=Verdict.VALID,
            seconds=8.0,
            load_average=0.1,
            figures=true_figures(trial, plan, jitter),
        )
        if change is not None:
            record = msgspec.structs.replace(record, **change(record))
        book.add(record)
    return folder
