"""Rates of the reference beside the bare clients; see ``rates``."""

import pytest
import uvloop

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from tests.evidence.rates import QUEUES, measure

ROUNDS = 7
LEAST = {
    "producer, in turn": 0.9,
    "producer, at once": 0.9,
    "producer, windowed": 0.9,
    "worker": 0.75,
}


@pytest.mark.evidence(
    claim="With the ledger on, the reference producer reaches at least 0.9 of the bare clients'"
    " rates on every queue: one task after the other, a hundred at once, and a hundred at once"
    " beside publish_async and pipelines of a hundred; the reference worker at least 0.75; medians"
    " of seven interleaved rounds.",
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
            f"{queue}, {what}: a ratio of {figures['ratio']}, less than {LEAST[what]}"
            for queue in QUEUES
            for what, figures in table[queue].items()
            if figures["ratio"] < LEAST[what]
        ]
    )
