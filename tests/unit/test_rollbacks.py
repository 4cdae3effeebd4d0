"""What a power cut took back: the tasks that came again are named after it, and not excused."""

import pytest

from hookbench.effects.classes import HandlerClass
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.model import Verdict
from tests.histories import MS, History

NATS, REDIS = Broker.NATS, Broker.REDIS
PLAIN = HandlerClass.PLAIN


@pytest.fixture
def history(tmp_path):
    return History(tmp_path)


def broken(account):
    return [item.number for item in account.invariants if item.verdict is Verdict.INVALID]


def causes(account, what):
    return [
        (item.step, item.fault, item.fault_index, item.count)
        for item in account.attributions
        if item.what == what
    ]


def done(history):
    """Task 1 lies on both brokers, and is done from Redis; 6 ms from its delivery on."""
    history.put(1, step=1, nats=1)
    history.work(1, step=1, effect=PLAIN)


def cut(history, *, target="redis", rollback_ms=20, kind="power_cut"):
    history.fault(length_ms=10, kind=kind, target=target, rollback_ms=rollback_ms)
    history.clock.now_ns += 20 * MS


def done_again(history, *, step=2):
    """From the other broker, much later."""
    history.clock.now_ns += 500 * MS
    history.work(1, step=step, broker=NATS, who="worker.3", sequence=1, effect=PLAIN)


@pytest.mark.parametrize("target", ["redis", "nats"])
def test_a_repeat_of_what_was_taken_back_is_named_after_the_cut_and_not_explained(history, target):
    done(history)
    cut(history, target=target)
    done_again(history)
    account = history.account(effects=True)
    assert broken(account) == [4]
    assert account.explained == account.effects_explained == 0
    assert causes(account, "duplicate") == [("ack_sent", f"power_cut {target}", 0, 1)]
    assert [item.duplicated for item in account.faults] == [1]


def test_an_acknowledgement_that_was_taken_back_is_enough(history):
    done(history)
    cut(history, rollback_ms=0.5)  # the end itself is 1 ms old
    done_again(history)
    assert causes(history.account(effects=True), "duplicate")[0][1] == "power_cut redis"


@pytest.mark.parametrize("how", ["too early", "after it", "no rollback"])
def test_what_was_not_taken_back_has_another_cause(history, how):
    if how == "after it":
        cut(history)
    done(history)
    if how == "too early":
        history.clock.now_ns += 5 * MS
        cut(history, rollback_ms=3)
    elif how == "no rollback":
        cut(history, kind="kill", rollback_ms=0)
    done_again(history)
    assert causes(history.account(effects=True), "duplicate") == [("ack_sent", "-", None, 1)]


def test_a_repeat_before_the_cut_is_not_its_doing(history):
    done(history)
    history.work(1, step=2, broker=NATS, who="worker.3", sequence=1, effect=PLAIN)
    cut(history)
    assert causes(history.account(effects=True), "duplicate") == [("ack_sent", "-", None, 1)]


def test_of_several_cuts_it_is_the_first_one_of_the_broker_that_delivered(history):
    done(history)
    cut(history, target="nats", rollback_ms=100)
    cut(history, rollback_ms=100)
    cut(history, rollback_ms=100)
    done_again(history)
    found = causes(history.account(effects=True), "duplicate")
    assert found == [("ack_sent", "power_cut redis", 1, 1)]


def superseded(history):
    history.clock.now_ns += 500 * MS
    history.take(1, step=2, broker=NATS, who="worker.3", sequence=1)
    history.say("worker.3", Event.SUPERSEDED, 1, step=2, broker=NATS)


def test_a_second_end_after_the_first_was_taken_back_is_found_and_has_a_cause(history):
    done(history)
    cut(history)
    superseded(history)
    account = history.account(effects=True)
    assert broken(account) == [1]
    assert account.unexpected == 1
    assert causes(account, "second end") == [("done", "power_cut redis", 0, 1)]


@pytest.mark.parametrize("when", ["too early", "never"])
def test_a_second_end_that_nothing_took_back_has_no_cause(history, when):
    done(history)
    if when == "too early":
        history.clock.now_ns += 5 * MS
        cut(history, rollback_ms=1)
    superseded(history)
    account = history.account(effects=True)
    assert broken(account) == [1]
    assert causes(account, "second end") == [("done", "-", None, 1)]


@pytest.mark.parametrize(("kind", "rollback_ms", "over"), [("power_cut", 20, 0), ("kill", 0, 1)])
def test_a_task_whose_end_was_taken_back_has_a_budget_once_more(history, kind, rollback_ms, over):
    done(history)
    for _ in range(3):
        cut(history, kind=kind, rollback_ms=rollback_ms)
        history.work(1, step=1, effect=PLAIN)
    account = history.account(effects=True)
    assert account.over_budget == over
    assert (6 in broken(account)) is bool(over)
    assert account.duplicated == 3
