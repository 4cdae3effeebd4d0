"""The load that the ledger holds, against what was offered and planned."""

import pytest

from hookbench.rehearsal.load_check import Load, load_differences
from hookbench.results.check import git_differences
from hookbench.results.store import GitCheck

HELD = "the ledger holds {} synthetic tasks, the producers offered {}"


def load(held, offered, planned, *, unfinished=(), replaced=0):
    return Load(
        held=held,
        offered=offered,
        planned=planned,
        unfinished=list(unfinished),
        replaced=replaced,
    )


def test_a_load_that_is_as_it_was_to_be():
    assert load_differences(load(100, 100, 100)) == []


@pytest.mark.parametrize(("held", "offered"), [(99, 100), (101, 100)])
def test_fewer_and_more_than_offered_are_told(held, offered):
    assert HELD.format(held, offered) in load_differences(load(held, offered, 100))


def test_more_than_planned_are_told():
    (difference,) = load_differences(load(1200, 1200, 1000))
    assert "1,200 synthetic tasks in place of 1,000: some were put under two ids" in difference


def test_fewer_than_planned_are_told_with_who_did_not_get_to_the_end():
    (difference,) = load_differences(load(90, 90, 100, unfinished=["producer-1"]))
    assert "90 of 100" in difference
    assert "(producer-1 did not get to the end)" in difference


def test_what_a_fault_kept_from_being_offered_is_not_missing():
    assert load_differences(load(90, 90, 100), not_offered=10) == []
    assert len(load_differences(load(89, 89, 100), not_offered=10)) == 1


def test_a_producer_that_was_killed_may_have_done_more_than_it_said():
    assert load_differences(load(100, 97, 100, replaced=1)) == []
    assert len(load_differences(load(100, 97, 100))) == 1
    assert len(load_differences(load(96, 97, 100, replaced=1), not_offered=4)) == 1


@pytest.mark.parametrize(
    ("tasks", "equal", "told"),
    [
        (5, 2, []),
        (4, 2, ["1 pushes without a task"]),
        (7, 2, ["2 tasks more than pushes: some have two ids"]),
        (5, 1, ["1 mirrors differ from their origin"]),
    ],
)
def test_each_push_has_one_task(tasks, equal, told):
    git = GitCheck(pushes=5, tasks=tasks, repositories=2, equal=equal, refs=9, differences=[])
    assert git_differences(git) == told


def test_a_load_without_a_plan_is_held_against_what_was_offered_and_has_an_end():
    assert load_differences(load(70, 70, None)) == []
    assert load_differences(load(69, 70, None)) == [HELD.format(69, 70)]
    (difference,) = load_differences(load(70, 70, None, unfinished=["producer-1"]))
    assert difference == "producer-1 did not get to the end of the load"
