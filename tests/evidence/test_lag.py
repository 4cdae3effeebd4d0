"""How late the open loop is at 5,000 tasks a second, what waiting costs, and the ceiling."""

import json
import statistics
import subprocess
import sys

import pytest
import uvloop

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.load.ceiling import measure_ceiling
from tests.evidence.pace import STOCK_SLEEPS_PER_S, TIMER_CORES, stock_sleeps_per_s, timer_cores
from tests.evidence.spread import spread

RATE_PER_S = 5_000
SECONDS = 10
ROUNDS = 5
MOST_LAG_MS = 1.0
MOST_WAITING_CORES = 0.3
LEAST_CEILING_PER_S = 100_000
CEILING_TASKS = 300_000


def produced(url, option, phase, folder):
    """Totals of a producer process over a broker that runs."""
    folder.mkdir()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "hookbench", "produce"),
            *(f"--phase={phase}", f"--{option}={url}"),
            *(f"--rate={RATE_PER_S}", f"--count={RATE_PER_S * SECONDS}", "--storage=memory"),
            *("--payload=256", f"--ledger={folder}", "--json"),
        ],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    totals = json.loads(done.stdout.splitlines()[-1])
    assert (totals["event"], totals["accepted"]) == ("stopped", RATE_PER_S * SECONDS)
    return totals


def waiting():
    """Cores that an open loop spends beyond the work of its tasks, and the highest rate."""
    busy = uvloop.run(measure_ceiling(loop="windowed", count=CEILING_TASKS, repeats=1))
    paced = uvloop.run(
        measure_ceiling(loop="open", rate_per_s=RATE_PER_S, count=RATE_PER_S * SECONDS, repeats=1)
    )
    per_task_s = busy.cores / busy.tasks_per_s
    return paced.cores - RATE_PER_S * per_task_s, busy.tasks_per_s


@pytest.mark.evidence(
    claim="At 5,000 tasks per second beside a running broker the open loop is late by less than a"
    " millisecond (p99). It spends at most 0.3 core on waiting, and before no queue a producer with"
    " its ledger offers at least 100,000 tasks per second; on a machine that is slower than the one"
    " that these two were set on, as much more or less as a bare timerfd takes more and a stock"
    " loop sleeps less often in the same run. Medians of five rounds.",
    seed=0,
)
@pytest.mark.timeout(900)
def test_lag(proof, tmp_path):
    lags_ms = {"jetstream": [], "redis_list": []}
    cores, ceilings, timers, sleeps = [], [], [], []
    for number in range(ROUNDS):
        for queue, resolve, start, option, phase in (
            ("jetstream", resolve_nats, start_nats, "nats-url", "nats_only"),
            ("redis_list", resolve_redis, start_redis, "redis-url", "redis_only"),
        ):
            folder = tmp_path / f"{queue}-{number}"
            folder.mkdir()
            broker = start(resolve(env={"PATH": ""}), folder, Durability.MEMORY)
            try:
                totals = produced(broker.url, option, phase, folder / "ledger")
            finally:
                broker.stop()
            lags_ms[queue].append(totals["lag_p99_ns"] / 1e6)
        found = waiting()
        cores.append(found[0])
        ceilings.append(found[1])
        timers.append(timer_cores(RATE_PER_S))
        sleeps.append(stock_sleeps_per_s())
    lag_ms = {queue: statistics.median(values) for queue, values in lags_ms.items()}
    waiting_cores, ceiling = statistics.median(cores), statistics.median(ceilings)
    most_cores = MOST_WAITING_CORES * max(1.0, statistics.median(timers) / TIMER_CORES)
    least = LEAST_CEILING_PER_S * min(1.0, statistics.median(sleeps) / STOCK_SLEEPS_PER_S)
    proof.record(
        rate_per_s=RATE_PER_S,
        rounds=ROUNDS,
        **{f"{queue}_lag_p99_ms": spread(values) for queue, values in lags_ms.items()},
        waiting_cores=spread(cores),
        ceiling_per_s=spread(ceilings, 0),
        timer_cores=spread(timers),
        stock_sleeps_per_s=spread(sleeps, 0),
        most_waiting_cores=round(most_cores, 3),
        least_ceiling_per_s=round(least),
    )
    wrong = [
        f"{queue}: a p99 lag of {value:.2f} ms"
        for queue, value in lag_ms.items()
        if value >= MOST_LAG_MS
    ]
    if waiting_cores > most_cores:
        wrong.append(f"{waiting_cores:.2f} cores for waiting, at most {most_cores:.2f}")
    if ceiling < least:
        wrong.append(f"a ceiling of {ceiling:,.0f}/s, at least {least:,.0f}")
    proof.conclude(wrong)
