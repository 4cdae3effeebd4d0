"""Whatever reads bytes from outside, fed with mutations of what is valid; see ``fuzzing``."""

import random
import time
import tracemalloc

import pytest

from tests.security.fuzzing import TARGETS, mutate

SECONDS_EACH = 6.0
SLOWEST_S = 1.0
MOST_BYTES = 64 * 2**20
MEASURED_EVERY = 50
"""Each of so many cases is read with its memory measured, which makes it slow."""


def fuzz(target, draw, seconds):
    """Cases until the time is over: how many, the slowest, the most memory, what was found."""
    cases, slowest_s, most_bytes, findings = 0, 0.0, 0, []
    end_s = time.process_time() + seconds
    while time.process_time() < end_s:
        cases += 1
        data = mutate(draw.choice(target.corpus), target.corpus, draw)
        measured = cases % MEASURED_EVERY == 0
        if measured:
            tracemalloc.start()
        begin_s = time.process_time()
        try:
            target.read(data)
        except Exception as error:  # noqa: BLE001 - each is a finding
            findings.append(f"{type(error).__name__}: {error} on {data[:200]!r}")
        if measured:
            most_bytes = max(most_bytes, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        else:
            slowest_s = max(slowest_s, time.process_time() - begin_s)
    return cases, slowest_s, most_bytes, findings


@pytest.mark.evidence(
    claim="The codec, the parsers of RESP and NATS frames, the ledger reader and the settings raise"
    " their own errors on mutated input and nothing else, in less than a second and 64 MiB.",
    seed=7,
)
@pytest.mark.timeout(1_200)
def test_fuzz(proof):
    wrong = []
    total = 0
    for name, target in TARGETS.items():
        draw = random.Random(f"{proof.seed}:{name}")
        cases, slowest_s, most_bytes, findings = fuzz(target, draw, SECONDS_EACH)
        total += cases
        proof.record(
            **{
                name: {
                    "cases": cases,
                    "cpu_seconds": SECONDS_EACH,
                    "slowest_ms": round(slowest_s * 1_000, 1),
                    "memory_max_bytes": most_bytes,
                    "findings": len(findings),
                }
            }
        )
        wrong += [f"{name}: {text}" for text in findings[:3]]
        if slowest_s > SLOWEST_S:
            wrong.append(f"{name}: one case took {slowest_s:.1f} s")
        if most_bytes > MOST_BYTES:
            wrong.append(f"{name}: one case took {most_bytes:,} bytes")
    proof.record(cases=total)
    proof.conclude(wrong)
