"""Ten thousand seeds over hardened, and ten thousand more with each run; see docs/evidence.md."""

import os

import msgspec
import pytest

from tests.evidence.record import tree_commit
from tests.evidence.sim_books import added_up, line_of, read_book, write_book

LEAST_SEEDS = 10_000
AIM = 100_000
ADDED = int(os.environ.get("HOOKBENCH_SIM_SEEDS", "10000"))
_AT_A_TIME = 500


@pytest.mark.evidence(
    claim="Over at least ten thousand seeds through the timeline, all changes of phase and all"
    " phases alone, with every kind of fault that the search draws, hardened is valid in the"
    " simulator; every seed that once failed is valid since it was mended.",
    seed=1,
)
@pytest.mark.timeout(10_800)
def test_simulated_seeds(proof):
    commit, jobs = tree_commit(), os.cpu_count()
    if commit.endswith("+"):
        pytest.fail("the tree was changed: commit first, for seeds are booked by commit")
    lines = [run_again(line, commit) for line in read_book()]
    write_book(lines)
    first = max((line.last for line in lines), default=proof.seed - 1) + 1
    end = first + min(ADDED, max(0, AIM - (first - proof.seed)))
    for begin in range(first, end, _AT_A_TIME):
        seeds = range(begin, min(begin + _AT_A_TIME, end))
        lines.append(line_of(seeds, commit, jobs=jobs))
        write_book(lines)
        proof.record(**added_up(lines))
    figures = added_up(lines)
    proof.record(**figures, aim=AIM)
    missing = LEAST_SEEDS - figures["seeds"]
    proof.conclude(
        [f"seed {seed}: {why}" for line in lines for seed, why in line.still_failing.items()],
        [f"{missing:,} seeds are missing"] if missing > 0 else [],
    )


def run_again(line, commit):
    """The line, in which the seeds are mended that failed and are valid now."""
    again = {
        seed: line_of([int(seed)], commit, jobs=1, schedule=line.schedule)
        for seed in line.still_failing
    }
    mended = {seed: commit for seed, found in again.items() if not found.failing}
    return msgspec.structs.replace(line, mended=line.mended | mended)
