"""Every planted bug in the simulator, in the way of tests/mutations; see docs/evidence.md."""

import pytest

from tests.mutations.simulated import MOST_SEEDS, contradictions, seek_apart
from tests.mutations.table import BLIND_SPOTS, COUNTED, MUTATIONS


@pytest.mark.evidence(
    claim="The search of the simulator finds every planted bug in code that it runs, but for those"
    " that tests/mutations/unseen.py names with the reason.",
    seed=1,
)
@pytest.mark.timeout(5400)
def test_simulated_mutations(proof):
    refuted, seen_hardened, seen_guide = [], 0, 0
    for mutation in MUTATIONS:
        found = seek_apart(mutation.name)
        refuted += contradictions(found)
        seen_hardened += found.hardened.seen
        seen_guide += found.guide is not None and found.guide.seen
        proof.record(**{mutation.name: figures(found)})
    proof.record(
        bugs=len(MUTATIONS),
        seen_under_hardened=seen_hardened,
        seen_under_guide=seen_guide,
        seeds_at_most=MOST_SEEDS,
        not_searched=", ".join(item.name for item in (*COUNTED, *BLIND_SPOTS)),
    )
    proof.conclude(refuted)


def figures(found):
    """Of one bug; what guide said stands beside what hardened said."""
    told = {}
    for design, search in (("hardened", found.hardened), ("guide", found.guide)):
        if search is not None:
            told |= {
                f"{design}_seeds": search.seeds,
                f"{design}_calls": search.calls,
                f"{design}_harmed": search.harmed,
                f"{design}_seen": search.cause or search.silence,
            }
    return told
