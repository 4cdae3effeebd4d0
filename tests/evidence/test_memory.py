"""Memory over a million tasks through each queue at a steady rate; ten of them in make endurance.

``HOOKBENCH_MEMORY_TASKS`` sets how many, ``HOOKBENCH_MEMORY_RATE`` how many per second.
"""

import os

import pytest

from hookbench.ledger.model import Verdict
from hookbench.results.store import load_manifest, resolve_run
from tests.evidence.memory import steady_run

TASKS = int(os.environ.get("HOOKBENCH_MEMORY_TASKS", "1_000_000"))
LEAST_TASKS = 1_000_000
RATE_PER_S = int(os.environ.get("HOOKBENCH_MEMORY_RATE", "4_000"))
MOST_GROWTH_BYTES = 2e6
"""Of a process for each million tasks: two bytes each, a hundredth of what one is."""
QUEUES = {
    "redis_list": ("phase_redis_only", {}),
    "redis_stream": ("phase_redis_only", {"brokers.redis_queue": "stream"}),
    "jetstream": ("phase_nats_only", {}),
}


@pytest.mark.evidence(
    claim="Over a million tasks and more at a steady rate producer and worker, with the ledgers"
    " that they write, grow by less than two bytes per task, and every task is accounted for.",
    seed=7,
)
@pytest.mark.timeout(600 + TASKS // RATE_PER_S * 4)
@pytest.mark.parametrize("queue", QUEUES)
def test_memory(proof, tmp_path, queue):
    scenario, changes = QUEUES[queue]
    traces, said = steady_run(
        tmp_path,
        scenario=scenario,
        rate_per_s=RATE_PER_S,
        tasks=TASKS,
        changes={**changes, "seed": proof.seed},
    )
    run = resolve_run("latest", tmp_path)
    manifest = load_manifest(run)
    account = manifest.account
    refuted, unknown = [], []
    if manifest.verdict is Verdict.UNKNOWN or account is None:
        unknown.append(f"the run: {'; '.join(manifest.unknown_because) or said[-300:]}")
    else:
        if manifest.verdict is not Verdict.VALID:
            refuted.append(f"the run is {manifest.verdict}")
        if account.accepted < min(TASKS, LEAST_TASKS) * 0.99:
            unknown.append(f"{account.accepted:,} tasks were accepted")
        proof.record(tasks=account.accepted, done=account.done, verdict=str(manifest.verdict))
    for role in ("producer", "worker"):
        trace = traces.get(role)
        if trace is None:
            unknown.append(f"no {role} was seen; the run said: {said[-300:]}")
            continue
        growth = trace.growth_per_million(RATE_PER_S)
        proof.record(
            **{
                role: {
                    "samples": len(trace.seconds),
                    "first_bytes": int(trace.resident[0]),
                    "most_bytes": int(trace.resident.max()),
                    "growth_bytes_per_million": round(growth),
                }
            }
        )
        if growth >= MOST_GROWTH_BYTES:
            refuted.append(f"{role}: {growth:,.0f} bytes more for each million tasks")
    proof.record(rate_per_s=RATE_PER_S)
    if TASKS < LEAST_TASKS:
        unknown.append(f"{TASKS:,} tasks, and the claim is of {LEAST_TASKS:,}")
    proof.conclude(refuted, unknown)
