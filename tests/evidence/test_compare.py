"""What ``hookbench compare`` calls different, on this machine; see ``compared``."""

import os

import pytest

from tests.evidence.compared import SERVICE_MS, SLOWER_MS, answers_of, make_runs, versions_of

PAIRS = int(os.environ.get("HOOKBENCH_COMPARED_PAIRS", "10"))
WANTED = 10
SHARE = 0.9


@pytest.mark.evidence(
    claim="Of ten pairs of runs of the same code at most one is called significantly different, in"
    " any metric; of ten pairs with a fifth more service time at least nine are called slower.",
    seed=7,
)
@pytest.mark.timeout(1800)
def test_compare(proof, tmp_path):
    same, slower = make_runs(tmp_path / "runs", PAIRS, proof.seed)
    proof.record_versions(**versions_of(same[0]))
    equal = answers_of(zip(same, same[1:], strict=False))
    # Each slower run was made between the two that it is compared with one of.
    unequal = answers_of(zip(same, slower, strict=False), force=True)
    called = [item for item in equal if item["significant"]]
    found = [item for item in unequal if "p50 worse" in item["significant"]]
    for name, items in (("same", equal), ("slower", unequal)):
        changes = {
            f"pair {number:02d} p50": "unknown"
            if item["p50"].change is None
            else f"{item['p50'].change:+.1%} p {item['p50'].p:.2g} {item['p50'].answer}"
            for number, item in enumerate(items, 1)
        }
        proof.record(**{name: changes})
    called_by = sorted({name for item in called for name in item["significant"]})
    proof.record(
        service_ms=SERVICE_MS,
        slower_ms=SLOWER_MS,
        pairs=PAIRS,
        same_called_different=len(called),
        called_by=", ".join(called_by),
        slower_called_slower=len(found),
    )
    reasons = {
        reason for item in (*equal, *unequal) for reason in item["unknown"].values()
    }  # a machine that is too busy to start the producers in time shows nothing
    unknown = [f"{PAIRS} pairs, and the claim is of {WANTED}"] if PAIRS != WANTED else []
    refuted = []
    if len(called) > (1 - SHARE) * PAIRS:
        refuted.append(f"{len(called)} of {PAIRS} pairs of the same code: {', '.join(called_by)}")
    if len(found) < SHARE * PAIRS:
        refuted.append(
            f"{len(found)} of {PAIRS} slower pairs were called slower; unknown: {reasons or 'none'}"
        )
    proof.conclude(refuted, unknown)
