"""Rates of the reference beside the bare clients; see ``rates``."""

import pytest
import uvloop

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from tests.evidence.rates import QUEUES, measure

ROUNDS = 7
LEAST_RATIO = 0.5


@pytest.mark.evidence(
    claim="With the ledger on, the reference worker and producer reach at least half of the bare"
    " clients' rates on every queue, medians of seven interleaved rounds.",
    seed=7,
)
@pytest.mark.timeout(900)
def test_rates(proof, tmp_path):
    (tmp_path / "ledger").mkdir()
    redis = start_redis(resolve_redis(env={"PATH": ""}), tmp_path, Durability.MEMORY)
    try:
        nats = start_nats(resolve_nats(env={"PATH": ""}), tmp_path, Durability.MEMORY)
        try:
            table = uvloop.run(
                measure(
                    redis.url, nats.url, tmp_path / "ledger", rounds=ROUNDS, seed=7, run="rates"
                )
            )
        finally:
            nats.stop()
    finally:
        redis.stop()
    for queue in QUEUES:
        for what, figures in table[queue].items():
            proof.record(**{f"{queue}, {what}": figures})
    proof.record(rounds=ROUNDS)
    proof.conclude(
        [
            f"{queue}, {what}: a ratio of {figures['ratio']}, less than {LEAST_RATIO}"
            for queue in QUEUES
            for what, figures in table[queue].items()
            if figures["ratio"] < LEAST_RATIO
        ]
    )
