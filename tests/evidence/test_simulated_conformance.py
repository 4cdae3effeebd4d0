"""The simulated brokers beside real ones: random requests, and every answer compared."""

import time

import pytest

from tests.sim import test_jetstream_conformance as jetstream
from tests.sim import test_redis_conformance as redis
from tests.sim.conformance import check_conformance

EXAMPLES = 500
"""Runs of each state machine: the same ones every time, and other ones than in ``make test``."""
FIXED = {
    "Redis": (
        "XRANGE with COUNT 0",
        "consumers that XCLAIM makes",
        "deliveries that a look at one's own pending entries counts",
        "XSETID below a deleted entry",
        "INCR of an empty text",
    ),
    "JetStream": (
        "where a consumer starts whose sequence is not there",
        "what is checked first of a repeated and of an expected sequence",
        "how a request ends that does not wait",
        "the advisory of a term for what is not pending",
        "what a purge does to consumers",
        "what becomes of a delivery whose message is deleted",
    ),
    "JetStream, three nodes": (
        "how and when a request ends that does not wait and has got something",
    ),
}
"""What the machines have found, and the model had wrong."""


@pytest.mark.evidence(
    claim=f"In {EXAMPLES:,} random runs of each state machine the simulated Redis, the simulated"
    " JetStream of one node and that of three answer every request as a real server does.",
    seed=1,
)
@pytest.mark.timeout(3600)
def test_simulated_conformance(proof, redis_broker, nats_broker):
    machines = {
        "Redis": (redis.Conformance, redis_broker.url, redis.STEPS),
        "JetStream": (jetstream.Conformance, nats_broker.url, jetstream.STEPS),
        "JetStream, three nodes": (jetstream.ClusterConformance, nats_broker.url, jetstream.STEPS),
    }
    refuted = []
    for name, (machine, url, steps) in machines.items():
        begin_s, compared, different = time.monotonic(), 0, 0
        try:
            compared = check_conformance(machine, url, examples=EXAMPLES, steps=steps)
        except AssertionError as error:
            different = 1
            refuted.append(f"{name}: {str(error).strip().splitlines()[0]}")
        proof.record(
            **{
                name: {
                    "runs": EXAMPLES,
                    "requests in a run, at most": steps,
                    "answers compared": compared,
                    "different now": different,
                    "found and fixed before": len(FIXED.get(name, ())),
                    "seconds": round(time.monotonic() - begin_s),
                }
            }
        )
    proof.record(**{f"fixed in {name}": "; ".join(found) for name, found in FIXED.items()})
    proof.conclude(refuted)
