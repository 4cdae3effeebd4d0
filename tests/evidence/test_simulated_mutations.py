"""Every planted bug in the simulator, in the way of tests/mutations; see docs/evidence.md."""

import os
from concurrent.futures import ThreadPoolExecutor, as_completed

import pytest

from tests.evidence.steps import Steps
from tests.mutations.simulated import (
    MOST_HARDENED,
    MOST_SEEDS,
    STAGES,
    Sought,
    contradictions,
    seek_apart,
)
from tests.mutations.table import BLIND_SPOTS, COUNTED, MUTATIONS
from tests.mutations.unseen import UNSEEN

SEARCHED = (
    "hookbench",
    "tests/conftest.py",
    "tests/fake_done_store.py",
    "tests/mutations",
    ":(exclude)tests/mutations/unseen.py",
)
"""What a search depends on; the reasons are held against what it came to afterwards."""


@pytest.mark.evidence(
    claim="The simulator shows every planted bug: the search under hardened does, or a later stage,"
    " and then tests/mutations/unseen.py has the reason why hardened does not.",
    seed=1,
)
@pytest.mark.timeout(7200)
def test_simulated_mutations(proof):
    steps = Steps("simulated_mutations", Sought, depends_on=SEARCHED)
    left = [item.name for item in MUTATIONS if steps.of(item.name) is None]
    # Those that hardened shows are quick, and a reason that is missing is found early.
    left.sort(key=lambda name: name in UNSEEN)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for job in as_completed([pool.submit(seek_apart, name) for name in left]):
            steps.keep(job.result().name, job.result())
    found = [steps.of(item.name) for item in MUTATIONS]
    proof.record(**{item.name: figures(item) for item in found})
    proof.record(
        bugs=len(found),
        seen={stage: sum(item.seen_by == stage for item in found) for stage in STAGES},
        not_seen=sum(not item.seen_by for item in found),
        seeds_at_most=MOST_SEEDS,
        seeds_at_most_hardened=MOST_HARDENED,
        cpu_s=round(sum(search.cpu_s for item in found for search in item.stages.values())),
        searched_with=", ".join(steps.commits),
        not_searched=", ".join(item.name for item in (*COUNTED, *BLIND_SPOTS)),
    )
    proof.conclude([text for item in found for text in contradictions(item)])


def figures(found):
    """Of one bug, by stage."""
    told = {}
    for stage, search in found.stages.items():
        told |= {
            f"{stage}_seeds": search.seeds,
            f"{stage}_calls": search.calls,
            f"{stage}_harmed": search.harmed,
            f"{stage}_said": search.cause or search.silence,
        }
        if search.seen:
            told["seen_in"] = search.scope
    return told
