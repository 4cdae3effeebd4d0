"""Runs as a noisy machine has them: busy and quiet times, stalls, and no two runs alike."""

import numpy as np

from hookbench.results.blocks import LAG, PhaseBlocks, histograms_of

NS_PER_MS = 1_000_000
RATE_PER_S = 200


def autoregressive(rng, count, *, correlation=0.6, spread):
    """Logarithms of how busy each second was."""
    found, now = [], 0.0
    for _ in range(count):
        now = correlation * now + rng.normal(0, spread * np.sqrt(1 - correlation**2))
        found.append(now)
    return np.array(found)


def simulated_blocks(rng, *, seconds=6, service_ms=20.0, busy=0.5, between=0.02, stall=0.05):
    """One phase of one run.

    Args:
        rng: of everything.
        seconds: blocks of a second.
        service_ms: of a task.
        busy: how much the time to wake a process differs between runs, a logarithm.
        between: how much else differs between runs, a logarithm.
        stall: chance of a block that everything stands still in it for 20 to 80 ms.
    """
    of_run = 0.5 * np.exp(rng.normal(0, busy))
    load_ms = of_run * np.exp(autoregressive(rng, seconds, spread=0.4))
    block = np.repeat(np.arange(seconds), RATE_PER_S)
    wait_ms = load_ms[block]
    own = np.exp(rng.normal(0, between))
    lag = 0.1 + rng.exponential(wait_ms)
    enqueue = lag + (1 + rng.exponential(wait_ms)) * own
    whole = lag + (service_ms + 1 + rng.exponential(wait_ms) + rng.exponential(wait_ms)) * own
    for number in np.flatnonzero(rng.random(seconds) < stall):
        mine = block == number
        late = np.maximum(0, rng.uniform(20, 80) - np.arange(RATE_PER_S) * 1000 / RATE_PER_S)
        for values in (lag, enqueue, whole) if rng.random() < 0.5 else (enqueue, whole):
            values[mine] += late
    found = {"end_to_end": whole, "enqueue": enqueue, LAG: lag}
    return PhaseBlocks(
        block_s=1,
        latencies={
            what: histograms_of(block, (values * NS_PER_MS).astype(np.int64), seconds)
            for what, values in found.items()
        },
        done=np.full(seconds, RATE_PER_S),
    )
