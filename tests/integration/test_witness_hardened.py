"""The witness of a run with all measures: it agrees with what is right, and sees what is not.

The long proof on the whole migration is in tests/evidence.
"""

import pytest

from tests.witness.bugs import BUGS
from tests.witness.hardened import compare_hardened
from tests.witness.small import PHASES, TASKS_PER_STEP, witness_small


def test_all_measures_are_seen_as_the_ledger_tells_them(tmp_path):
    found = compare_hardened(*witness_small(tmp_path))
    assert (found.refuted, found.unknown) == ([], [])
    sides = found.sides
    both, last = TASKS_PER_STEP * 2, TASKS_PER_STEP
    assert sides["routes"]["seen"] == TASKS_PER_STEP * len(PHASES)
    assert sides["redis_puts"]["seen"] == both
    assert sides["redis_put_back"]["seen"] >= 2  # the dead worker's
    assert sides["nats_puts"]["seen"] == both + last
    assert sides["done_records"]["seen"] == both + last
    assert sides["records_moved"]["seen"] >= both


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_on_the_way_is_seen(tmp_path, name):
    bug = BUGS[name]
    with bug.plant():
        found = compare_hardened(*witness_small(tmp_path))
    seen_by = {check.name for check in found.checks if check.problems}
    assert seen_by >= set(bug.seen_by), (found.refuted, found.unknown)
