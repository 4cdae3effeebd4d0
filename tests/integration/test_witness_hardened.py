"""The witness of a run with all measures: it agrees with what is right, and sees what is not.

The long proof on the whole migration is in tests/evidence.
"""

import copy
import uuid

import pytest

from hookbench.ledger.events import Broker, Event
from tests.witness.bugs import BUGS
from tests.witness.hardened import compare_hardened
from tests.witness.small import BACK, PHASES, TASKS_PER_STEP, witness_small

STRANGER = str(uuid.UUID(int=7 << 76))


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    return witness_small(tmp_path_factory.mktemp("right"))


def test_all_measures_are_seen_as_the_ledger_tells_them(right):
    found = compare_hardened(*right)
    assert (found.refuted, found.unknown) == ([], [])
    sides = found.sides
    both, last = TASKS_PER_STEP * 2, TASKS_PER_STEP
    assert sides["routes"]["seen"] == TASKS_PER_STEP * len(PHASES)
    assert sides["redis_puts"]["seen"] == both
    assert sides["redis_put_back"]["seen"] >= 2  # the dead worker's
    assert sides["nats_puts"]["seen"] == both + last
    assert sides["done_records"]["seen"] == both + last
    assert sides["records_moved"]["seen"] >= both


def test_what_a_procedure_moves_is_seen(tmp_path):
    found = compare_hardened(*witness_small(tmp_path, BACK))
    assert (found.refuted, found.unknown) == ([], [])
    assert found.sides["redis_moves"]["seen"] == TASKS_PER_STEP
    assert found.sides["nats_drained"]["seen"] == TASKS_PER_STEP
    assert found.sides["done_records"]["seen"] == TASKS_PER_STEP * 3


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_on_the_way_is_seen(tmp_path, name):
    bug = BUGS[name]
    with bug.plant():
        found = compare_hardened(*witness_small(tmp_path, bug.phases))
    seen_by = {check.name for check in found.checks if check.problems}
    assert seen_by >= set(bug.seen_by), (found.refuted, found.unknown)


def tell(event, broker=Broker.NATS):
    return lambda _seen, told: told.ids.setdefault((event, broker), {}).update({STRANGER: 1})


def one_delivery_less(seen, _told):
    seen.nats.handed.popitem()


def later_epoch(seen, _told):
    seen.nats.epochs = {number: start + 1 for number, start in seen.nats.epochs.items()}


# What no bug above is for: one side is changed by hand.
CHANGES = {
    "redis_left": lambda seen, _told: seen.work_left.update([STRANGER]),
    "redis_naks": tell(Event.NAK, Broker.REDIS),
    "letters": tell(Event.DEAD),
    "superseded": tell(Event.SUPERSEDED),
    "skipped": tell(Event.SKIPPED),
    "nats_puts": lambda _seen, told: told.stored.popitem(),
    "nats_unanswered": lambda seen, _told: seen.nats.unanswered.update([STRANGER]),
    "nats_stream": lambda seen, _told: seen.nats.stored.popitem(),
    "nats_stream_length": lambda seen, _told: setattr(seen.nats, "last_sequence", 9),
    "nats_naks": tell(Event.NAK),
    "nats_terms": tell(Event.TERM),
    "nats_consumers": one_delivery_less,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_wrong_account_is_seen(right, name):
    seen, told = copy.deepcopy(right)
    CHANGES[name](seen, told)
    assert any(
        check.problems for check in compare_hardened(seen, told).checks if check.name == name
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (later_epoch, "its epoch begins at"),
        (lambda seen, _told: seen.nats.writes.popitem(), "bucket: "),
        (lambda seen, _told: seen.redis.taken_out.update([STRANGER]), "that NATS does not have"),
    ],
)
def test_what_a_broker_says_of_itself_must_fit(right, change, text):
    seen, told = copy.deepcopy(right)
    change(seen, told)
    assert any(text in problem for problem in compare_hardened(seen, told).refuted)


def test_each_comparison_has_failed_here(right):
    names = {check.name for check in compare_hardened(*right).checks}
    assert names == {name for bug in BUGS.values() for name in bug.seen_by} | CHANGES.keys()


@pytest.mark.parametrize("what", ["doubts", "incomplete", "strange", "empty"])
def test_what_may_be_missed_is_unknown(right, what):
    seen, told = copy.deepcopy(right)
    if what == "doubts":
        told.doubts.append("an outcome is in doubt")
    elif what == "incomplete":
        seen.incomplete.append("the tap was cut")
    elif what == "strange":
        seen.redis.strange["RPOP"] += 1
    else:
        seen.nats.puts.clear()
    assert len(compare_hardened(seen, told).unknown) == 1
