"""The ledger against an observer that shares no code with it."""

import pytest

from tests.witness.compare import compare
from tests.witness.rehearsal import witness_run

RATE_PER_S = 300
PHASE_S = 3


@pytest.mark.evidence(
    claim="On a whole migration with a rollback and a re-entry, what Redis' MONITOR, a core NATS"
    " subscription and the brokers' own counts saw is the ledger, task by task.",
    seed=11,
)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("measures", ["none", "ack_after"])
def test_witness(proof, tmp_path, measures):
    """The guide, and with the acknowledgement after processing; the witness knows its lists."""
    run = witness_run(
        tmp_path,
        "migration",
        [
            f"timeline.phase_seconds={PHASE_S}",
            f"producers.rate_per_s={RATE_PER_S}",
            "pushes.interval_s=0.5",
            f"seed={proof.seed}",
            f"measures=['{measures}']",
        ],
        timeout_s=240,
    )
    found = compare(run.seen, run.told)
    proof.record_versions(**run.versions)
    proof.record(
        measures=measures,
        tasks=run.tasks,
        pushes=run.pushes,
        verdict_of_the_run=run.verdict,
        phases=8,
        phase_seconds=PHASE_S,
        rate_per_s=RATE_PER_S,
        **found.figures,
        **found.sides,
    )
    proof.conclude(found.refuted, found.unknown)
