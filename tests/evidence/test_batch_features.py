"""Puts in batches beside one by one; see ``batch_features``."""

import pytest
import uvloop

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from tests.evidence.batch_features import (
    AT_ONCE,
    PAYLOAD_BYTES,
    measure_entries,
    measure_streams,
    summarise,
)

ROUNDS = 7
PUTS = {Durability.LAZY: 20_000, Durability.FSYNC: 2_000}
EXPECTED = {
    (Durability.LAZY, "atomic batch"): (0.0, 0.6),
    (Durability.LAZY, "fast ingest"): (0.8, 1.25),
    (Durability.FSYNC, "atomic batch"): (2.0, 20.0),
    (Durability.FSYNC, "fast ingest"): (0.8, 1.25),
}
"""Between what the rate lies, beside one by one."""


@pytest.mark.evidence(
    claim="JetStream's atomic batches and fast ingest store every put that they acknowledge. With a"
    " hundred puts at once an atomic batch has at most 0.6 of the rate of publishes one by one"
    " under lazy durability, and at least twice their rate under fsync, where one sync does for all"
    " of it; fast ingest is within a fifth of them. Medians of seven interleaved rounds. Idempotent"
    " XADD stores a repeat once, where the server has it.",
    seed=7,
)
@pytest.mark.timeout(900)
def test_batch_features(proof, tmp_path):
    refuted = []
    for durability, count in PUTS.items():
        folder = tmp_path / durability
        folder.mkdir()
        broker = start_nats(resolve_nats(env={"PATH": ""}), folder, durability)
        try:
            table = summarise(uvloop.run(measure_streams(broker, rounds=ROUNDS, count=count)))
        finally:
            broker.stop()
        for way, figures in table.items():
            proof.record(**{f"jetstream, {durability}, {way}": figures})
            if figures["missing"]:
                refuted.append(f"{durability}, {way}: {figures['missing']} are missing")
            least, most = EXPECTED.get((durability, way), (1.0, 1.0))
            if not least <= figures["ratio"] <= most:
                refuted.append(f"{durability}, {way}: a ratio of {figures['ratio']}")
    broker = start_redis(resolve_redis(env={"PATH": ""}), tmp_path, Durability.LAZY)
    try:
        found, skipped = uvloop.run(
            measure_entries(broker, rounds=ROUNDS, count=PUTS[Durability.LAZY])
        )
    finally:
        broker.stop()
    if found is None:
        proof.record(**{"redis stream, idempotent": skipped})
    else:
        for way, figures in summarise(found).items():
            proof.record(**{f"redis stream, lazy, {way}": figures})
            if figures["missing"]:
                refuted.append(f"redis stream, {way}: {figures['missing']} are missing")
    proof.record(at_once=AT_ONCE, payload_bytes=PAYLOAD_BYTES, rounds=ROUNDS)
    proof.conclude(refuted)
