"""Target 9, a stretch: one Python process beside the C client; see ``c_client``."""

import pytest
import uvloop

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats
from hookbench.brokers.resolve import resolve_nats
from tests.evidence.c_client import COUNT, MISSING, PAYLOAD_BYTES, WINDOW, compiled, measure
from tests.evidence.spread import spread_of

ROUNDS = 7


@pytest.mark.evidence(
    claim="What the C client, the reference's publisher, its variant with fast ingest, and"
    " publish_async of nats-py get acknowledged with a window of 4,000 is stored, each of them; the"
    " figures have their rates beside the C client's, medians of seven rounds in turn.",
    seed=7,
)
@pytest.mark.timeout(900)
def test_c_client(proof, tmp_path):
    program = compiled(tmp_path)
    if program is None:
        proof.conclude([], [f"needs {MISSING}"])
        return
    broker = start_nats(resolve_nats(env={"PATH": ""}), tmp_path, Durability.LAZY)
    try:
        rates, missing = uvloop.run(measure(program, broker.url, rounds=ROUNDS))
    finally:
        broker.stop()
    for way, values in rates.items():
        ratios = [own / c for own, c in zip(values, rates["C client"], strict=True)]
        proof.record(**{way: {**spread_of("per_s", values, 0), **spread_of("ratio", ratios)}})
    proof.record(rounds=ROUNDS, publishes=COUNT, window=WINDOW, payload_bytes=PAYLOAD_BYTES)
    proof.conclude([f"{missing} publishes are missing"] if missing else [])
