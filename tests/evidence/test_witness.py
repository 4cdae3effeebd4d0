"""The ledger against an observer that shares no code with it."""

import pytest

from tests.witness.compare import compare
from tests.witness.hardened import compare_hardened
from tests.witness.hardened_run import witness_hardened
from tests.witness.rehearsal import witness_run

RATE_PER_S = 300
PHASE_S = 3
CHANGES = [
    f"timeline.phase_seconds={PHASE_S}",
    f"producers.rate_per_s={RATE_PER_S}",
    "pushes.interval_s=0.5",
]


def _witnessed(folder, measures, seed):
    """The run, and what the comparison finds."""
    changes = [*CHANGES, f"seed={seed}"]
    if measures == "hardened":
        run = witness_hardened(folder, "migration", changes, timeout_s=400)
        return run, compare_hardened(run.seen, run.told)
    changes.append(f"measures=['{measures}']")
    run = witness_run(folder, "migration", changes, timeout_s=240)
    return run, compare(run.seen, run.told)


@pytest.mark.evidence(
    claim="On a whole migration with a rollback and a re-entry, what the brokers themselves tell"
    " of every task is the ledger: Redis its MONITOR and lists, with all measures also its own log,"
    " and NATS a subscription, with all measures both sides of every connection.",
    seed=11,
)
@pytest.mark.timeout(500)
@pytest.mark.parametrize("measures", ["none", "ack_after", "hardened"])
def test_witness(proof, tmp_path, measures):
    """The guide, with the acknowledgement after processing, and with all measures."""
    run, found = _witnessed(tmp_path, measures, proof.seed)
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


def _hardened(proof, folder, scenario, changes, **figures):
    """A run with all measures and what the comparison finds; the figures are kept."""
    changes = [*changes, f"seed={proof.seed}"]
    run = witness_hardened(folder, scenario, changes, timeout_s=240)
    found = compare_hardened(run.seen, run.told)
    proof.record_versions(**run.versions)
    proof.record(
        tasks=run.tasks,
        pushes=run.pushes,
        verdict_of_the_run=run.verdict,
        **figures,
        **found.figures,
        **found.sides,
    )
    return found


def _idle(**counts):
    """What the run was made for, and did not happen."""
    return [f"nothing: {what.replace('_', ' ')}" for what, count in counts.items() if not count]


@pytest.mark.evidence(
    claim="On the way back from NATS with a backlog, with all measures, each task that a procedure"
    " takes from NATS is pushed to Redis once and acknowledged, and what the brokers themselves"
    " tell of every task is the ledger.",
    seed=11,
)
@pytest.mark.timeout(300)
def test_witness_moves(proof, tmp_path):
    """The workers are slower than the load, so that every procedure finds something to move."""
    rate_per_s, service_ms, phases = 130, 600, ("dual_read", "nats_primary", "redis_only")
    changes = [
        f"timeline.phases={list(phases)}",
        "timeline.phase_seconds=2",
        f"producers.rate_per_s={rate_per_s}",
        f"workers.service_ms={service_ms}",
    ]
    found = _hardened(
        proof,
        tmp_path,
        "rollback_from_nats_primary",
        changes,
        phases=", ".join(phases),
        rate_per_s=rate_per_s,
        service_ms=service_ms,
    )
    idle = _idle(
        pushed_to_redis=found.sides["redis_moves"]["seen"],
        taken_out_of_redis=found.figures["redis_taken_out"],
    )
    proof.conclude(found.refuted, [*found.unknown, *idle])


@pytest.mark.evidence(
    claim="On a pass through the five phases with all measures, on which handlers fail, every task"
    " that is given back, tried again or made a dead letter is so by what the brokers themselves"
    " tell, and by the ledger.",
    seed=11,
)
@pytest.mark.timeout(300)
def test_witness_failures(proof, tmp_path):
    """Two of five executions of the plain tasks fail, in every phase."""
    rate_per_s, probability = 200, 0.4
    failing = {
        "kind": "failing_handler",
        "target": "workers",
        "at_s": 1.0,
        "for_s": 22.0,
        "probability": probability,
        "seed": proof.seed,
        "handler_class": "plain",
    }
    fault = ", ".join(f"{name} = {value!r}" for name, value in failing.items())
    changes = [
        "timeline.phase_seconds=2",
        f"producers.rate_per_s={rate_per_s}",
        f"faults=[{{{fault}}}]",
    ]
    found = _hardened(
        proof, tmp_path, "quick", changes, rate_per_s=rate_per_s, probability=probability
    )
    idle = _idle(
        given_back_on_redis=found.sides["redis_naks"]["seen"],
        given_back_on_nats=found.sides["nats_naks"]["seen"],
        dead_letters=found.sides["letters"]["seen"],
    )
    proof.conclude(found.refuted, [*found.unknown, *idle])
