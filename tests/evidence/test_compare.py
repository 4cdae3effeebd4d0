"""What ``hookbench compare`` calls different, on this machine; see ``compared``."""

import itertools
import os

import pytest

from tests.evidence.compared import (
    ADDED_MS,
    SERVICE_MS,
    answers_of,
    fault_fired,
    make_runs,
    versions_of,
)

PAIRS = int(os.environ.get("HOOKBENCH_COMPARED_PAIRS", "10"))
WANTED = 10
MOST_WRONG = 1


@pytest.mark.evidence(
    claim="Of ten pairs of runs of the same code at most one is called significantly different, in"
    " any metric; of ten pairs of which a fault makes one take a fifth longer, at least nine are"
    " called slower.",
    seed=7,
)
@pytest.mark.timeout(1800)
def test_compare(proof, tmp_path):
    same, slower = make_runs(tmp_path / "runs", PAIRS, proof.seed)
    proof.record_versions(**versions_of(same[0]))
    equal = answers_of(itertools.pairwise(same))
    # Each slower run was made between the two that it is compared with one of.
    unequal = answers_of(zip(same, slower, strict=False), force=True)
    called = [item for item in equal if item["significant"]]
    found = [item for item in unequal if "p50 worse" in item["significant"]]
    unknown = {
        "same": [item for item in equal if item["unknown"] and not item["significant"]],
        "slower": [item for item in unequal if item["unknown"] and item not in found],
    }
    for name, items in (("same", equal), ("slower", unequal)):
        proof.record(
            **{name: {f"pair {place:02d}": text_of(item) for place, item in enumerate(items, 1)}}
        )
    called_by = ", ".join(sorted({name for item in called for name in item["significant"]}))
    proof.record(
        service_ms=SERVICE_MS,
        added_by_the_fault_ms=ADDED_MS,
        pairs=PAIRS,
        same_called_different=len(called),
        called_different_by=called_by,
        same_unknown=len(unknown["same"]),
        slower_called_slower=len(found),
        slower_unknown=len(unknown["slower"]),
    )
    refuted = []
    open_questions = [
        f"run {run.name}: its fault did not fire" for run in slower if not fault_fired(run)
    ]
    missed = PAIRS - len(found) - len(unknown["slower"])
    if len(called) > MOST_WRONG:
        refuted.append(f"{len(called)} of {PAIRS} pairs of the same code: {called_by}")
    if missed > MOST_WRONG:
        refuted.append(f"{missed} of {PAIRS} slower pairs were not called slower")
    for name, wrong in (("same", len(called)), ("slower", missed)):
        if unknown[name] and wrong + len(unknown[name]) > MOST_WRONG:
            reason = next(iter(unknown[name][0]["unknown"].values()))
            open_questions.append(f"{name}: {len(unknown[name])} pairs are unknown: {reason}")
    if PAIRS != WANTED:
        open_questions.append(f"{PAIRS} pairs, and the claim is of {WANTED}")
    proof.conclude(refuted, open_questions)


def text_of(item):
    """What became of the median."""
    p50 = item["p50"]
    if p50.change is None:
        return "unknown"
    return f"p50 {p50.change:+.1%}, as measured {p50.measured:+.1%}: {p50.answer}"
