"""Each invariant has a history that breaks it alone; without its checker the history passes."""

import numpy as np
import pytest

from hookbench.effects.classes import HandlerClass
from hookbench.ledger import invariants
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.invariants import RULES
from hookbench.ledger.model import Place, State, Verdict
from hookbench.ledger.search import first_after, last_before
from hookbench.migration.phases import Phase
from hookbench.report.account_lines import count_lines
from tests.histories import History, task_id

PLAIN, ONCE, SAME = HandlerClass.PLAIN, HandlerClass.TRANSACTIONAL, HandlerClass.IDEMPOTENT


@pytest.fixture
def history(tmp_path):
    return History(tmp_path)


def broken(account):
    return [item.number for item in account.invariants if item.verdict is Verdict.INVALID]


def unknown(account):
    return {
        item.number: item.reason for item in account.invariants if item.verdict is Verdict.UNKNOWN
    }


def good(history, *numbers, step=0):
    """Tasks of every class that are put and done."""
    for number in numbers:
        history.put(number, step=step, repository=number)
        history.work(number, step=step, effect=(PLAIN, ONCE, SAME)[number % 3])


def lost(history):
    history.put(1, step=0, repository=2)
    history.take(1, step=0)
    history.say("worker.2", Event.ACK_SENT, 1, step=0, broker=Broker.REDIS)


def ended_twice(history):
    history.put(1, step=0)
    history.work(1, step=0, effect=PLAIN)
    history.say("worker.2", Event.DEAD, 1, step=0)


def doubtful_ended_twice(history):
    history.put(1, step=0, accepted=False)
    history.say("producer.1", Event.DOUBTFUL, 1, step=0)
    history.work(1, step=0, effect=PLAIN)
    history.say("worker.2", Event.SUPERSEDED, 1, step=0)


def nobodys(history):
    history.work(1, step=0, effect=PLAIN)


def refused_and_done(history):
    history.put(1, step=0, accepted=False)
    history.say("producer.1", Event.REFUSED, 1, step=0)
    history.work(1, step=0, effect=PLAIN)


def done_without_effect(history):
    history.put(1, step=0)
    history.work(1, step=0)


def transactional_twice(history):
    history.put(1, step=0)
    history.work(1, step=0, effect=ONCE)
    history.effect(1, ONCE)


def other_state(history):
    history.put(1, step=0)
    history.work(1, step=0, effect=SAME)
    history.states[task_id(1).bytes] += 1


def no_state(history):
    history.put(1, step=0)
    history.work(1, step=0, effect=SAME)
    del history.states[task_id(1).bytes]


def effect_of_nobody(history):
    history.effect(77)


def effect_without_start(history):
    history.put(1, step=0)
    history.take(1, step=0)
    history.effect(1)
    history.say("worker.2", Event.DEAD, 1, step=0)


def stuck(history):
    history.put(1, step=0)
    history.lies(Place.REDIS_PENDING, 1)


def stuck_doubtful(history):
    history.put(1, step=0, accepted=False)
    history.say("producer.1", Event.DOUBTFUL, 1, step=0)
    history.lies(Place.REDIS_WORK, 1)


def left_behind(history):
    good(history, 3)
    history.lies(Place.REDIS_PENDING, 3)


def over_budget(history):
    history.put(1, step=0)
    history.work(1, step=0, attempt=4, effect=PLAIN)


def over_budget_uncounted(history):
    history.put(1, step=0)
    for _ in range(3):
        history.take(1, step=0)
        history.say("worker.2", Event.FAILED, 1, step=0)
    history.work(1, step=0, effect=PLAIN)


HISTORIES = {
    lost: 1,
    ended_twice: 1,
    doubtful_ended_twice: 2,
    nobodys: 3,
    refused_and_done: 3,
    done_without_effect: 4,
    transactional_twice: 4,
    other_state: 4,
    no_state: 4,
    effect_of_nobody: 4,
    effect_without_start: 4,
    stuck: 5,
    stuck_doubtful: 5,
    left_behind: 5,
    over_budget: 6,
    over_budget_uncounted: 6,
}


@pytest.mark.parametrize("tell", HISTORIES, ids=lambda tell: tell.__name__)
def test_a_history_that_breaks_one_invariant(history, tell):
    good(history, 10, 11, 12)
    tell(history)
    number = HISTORIES[tell]
    account = history.account(effects=True)
    assert broken(account) == [number]
    assert unknown(account) == {}
    assert [row.name for row in account.rows if row.verdict is Verdict.INVALID] == ["redis_only"]
    (result,) = [item for item in account.invariants if item.number == number]
    assert result.count == 1
    assert result.rule == RULES[number]
    passed = history.account(effects=True, without=[number])
    assert broken(passed) == []
    assert unknown(passed) == {number: "left out"}
    assert {row.verdict for row in passed.rows} == {Verdict.VALID}


@pytest.mark.parametrize(("more", "over", "numbers"), [(0, 0, []), (2, 3, [6])])
def test_each_copy_has_a_budget_of_its_own(history, more, over, numbers):
    history.put(1, step=2, nats=1)
    for sequence in (2, 3):
        history.put(2, step=2, redis=False, nats=sequence)
    for _ in range(2):
        history.take(1, step=2)
    for number, deliveries in ((1, 2 + more), (2, 6 + more)):
        for _ in range(deliveries):
            history.take(number, step=2, broker=Broker.NATS)
        history.work(number, step=2, effect=PLAIN)
    account = history.account(effects=True)
    assert (account.over_budget, broken(account)) == (over, numbers)


@pytest.mark.parametrize("answer", [Event.SKIPPED, Event.SUPERSEDED, Event.NAK])
def test_two_deliveries_at_once_that_are_not_started_are_no_attempts(history, answer):
    """Said of by turns, with the acknowledgements between."""
    good(history, 1)
    for _ in range(4):
        for event in (Event.RECEIVED, Event.RECEIVED, answer, Event.ACK_SENT, answer):
            history.say("worker.2", event, 1, step=0, broker=Broker.REDIS)
        for event in (Event.RECEIVED, answer, Event.RECEIVED, Event.ACK_SENT, answer):
            history.say("worker.2", event, 1, step=0, broker=Broker.REDIS)
    assert history.account(effects=True).over_budget == 0


def test_a_delivery_that_is_buried_under_a_claim_is_no_attempt(history):
    history.put(1, step=0)
    for attempt in (1, 2, 3):
        for event in (Event.RECEIVED, Event.CLAIMED, Event.STARTED, Event.FAILED, Event.NAK):
            history.say("worker.2", event, 1, step=0, broker=Broker.REDIS, attempt=attempt)
    for event in (Event.RECEIVED, Event.CLAIMED, Event.DEAD):
        history.say("worker.2", event, 1, step=0, broker=Broker.REDIS, attempt=4)
    assert history.account().over_budget == 0


def test_a_delivery_that_could_be_neither_claimed_nor_given_back_is_no_attempt(history):
    """The broker was away; its lease ends, and it comes again."""
    history.put(1, step=0)
    for attempt in range(1, 8):
        history.say("worker.2", Event.RECEIVED, 1, step=0, broker=Broker.REDIS, attempt=attempt)
    for event in (Event.RECEIVED, Event.CLAIMED, Event.STARTED, Event.DONE):
        history.say("worker.2", event, 1, step=0, broker=Broker.REDIS, attempt=1)
    assert history.account().over_budget == 0


def test_of_two_deliveries_at_once_the_one_that_is_started_counts(history):
    good(history, 1)
    for _ in range(4):
        for event in (Event.RECEIVED, Event.RECEIVED, Event.STARTED, Event.FAILED, Event.SKIPPED):
            history.say("worker.2", event, 1, step=0, broker=Broker.REDIS)
        history.say("worker.2", Event.NAK, 1, step=0, broker=Broker.REDIS)
    assert history.account(effects=True).over_budget == 2


def test_a_clean_history_breaks_none(history):
    good(history, *range(10, 40))
    account = history.account(effects=True, max_inversions=0)
    assert [item.number for item in account.invariants] == list(range(1, 10))
    assert {item.verdict for item in account.invariants} == {Verdict.VALID}
    assert (account.effects, account.duplicated_effects) == (30, 0)


def overtaken(history):
    history.put(1, step=0, repository=5)
    history.put(2, step=0, repository=5)
    history.put(3, step=0, repository=6)
    for number in (2, 3, 1):
        history.work(number, step=0, effect=PLAIN)


def test_a_task_that_was_overtaken_in_its_repository_is_counted(history):
    overtaken(history)
    account = history.account(effects=True)
    assert account.rows[0].inverted == 1
    assert broken(account) == []
    assert account.invariants[6].reason == "1 tasks overtaken"


def test_more_inversions_than_the_bound_break_the_order(history):
    overtaken(history)
    assert broken(history.account(effects=True, max_inversions=1)) == []
    account = history.account(effects=True, max_inversions=0)
    assert broken(account) == [7]
    assert account.findings[0].hazard == "P11"
    assert account.findings[0].examples == [str(task_id(1))]
    assert broken(history.account(effects=True, max_inversions=0, without=[7])) == []


def test_tasks_of_other_repositories_and_puts_at_one_time_have_no_order(history):
    history.put(1, step=0, repository=5)
    history.put(2, step=0, repository=6)
    for number in (3, 4):
        now_ns = history.clock.now_ns
        more = {"value": now_ns, "repository": 7}
        history.say("producer.1", Event.PUT_INVOKED, number, step=0, **more)
    for number in (3, 4):
        history.say("producer.1", Event.ACCEPTED, number, step=0)
    for number in (4, 3, 2, 1):
        history.work(number, step=0, effect=PLAIN)
    assert history.account(effects=True).rows[0].inverted == 0


def test_the_order_of_a_ledger_without_repositories_is_unknown(history):
    history.put(1, step=0, repository=0)
    history.work(1, step=0, effect=PLAIN)
    account = history.account(effects=True)
    assert list(unknown(account)) == [7, 9]
    assert account.rows[0].inverted is None


def test_effects_of_a_run_without_a_store_are_unknown(history):
    good(history, 10)
    account = history.account()
    assert list(unknown(account)) == [4, 9]
    assert account.effects is None


def repeat_after(history, *, ack, broker=Broker.NATS, attempt=2, who="worker.3"):
    history.put(1, step=3, redis=False, nats=1)
    history.work(1, step=3, broker=Broker.NATS, ack=ack, effect=PLAIN)
    history.work(1, step=3, broker=broker, who=who, attempt=attempt, effect=PLAIN)


def test_a_repeated_effect_that_nothing_explains(history):
    repeat_after(history, ack=True)
    account = history.account(effects=True)
    assert broken(account) == [4, 8]
    row = next(row for row in account.rows if row.name == "nats_primary")
    assert (row.duplicated_effects, row.duplicated, row.duplicated_deliveries) == (1, 1, 1)
    assert row.redelivered == 1
    assert account.effects_explained == 0
    assert broken(history.account(effects=True, without=[4, 8])) == []


def test_a_repeated_effect_after_the_end_of_a_lease_is_explained(history):
    repeat_after(history, ack=False)
    account = history.account(effects=True)
    assert broken(account) == []
    assert (account.duplicated_effects, account.effects_explained) == (1, 1)
    (cause,) = account.attributions
    assert (cause.what, cause.phase, cause.step, cause.fault, cause.count) == (
        "duplicate",
        "nats_primary",
        "done",
        "lease",
        1,
    )


def test_a_repeated_effect_after_a_crash_is_explained(history):
    repeat_after(history, ack=False, attempt=1)
    account = history.account(effects=True, crashed=["worker.2"])
    assert broken(account) == []
    assert (account.duplicated_effects, account.effects_explained) == (1, 1)
    assert account.attributions[0].fault == "worker.00002 died"


def test_a_task_that_was_given_back_when_it_was_done_is_no_end_of_a_lease(history):
    history.put(1, step=3, redis=False, nats=1)
    history.work(1, step=3, broker=Broker.NATS, ack=False, effect=PLAIN)
    history.say("worker.2", Event.NAK, 1, step=3, broker=Broker.NATS)
    history.work(1, step=3, broker=Broker.NATS, attempt=2, effect=PLAIN)
    account = history.account(effects=True)
    assert broken(account) == [4, 8]
    assert broken(history.account(effects=True, without=[4, 8])) == []


def test_a_task_that_was_given_back_when_it_failed_after_its_effect_is_explained(history):
    history.put(1, step=3, redis=False, nats=1)
    history.work(1, step=3, broker=Broker.NATS, effect=PLAIN, done=False)
    history.say("worker.2", Event.FAILED, 1, step=3, broker=Broker.NATS, attempt=1)
    history.say("worker.2", Event.NAK, 1, step=3, broker=Broker.NATS)
    history.work(1, step=3, broker=Broker.NATS, attempt=2, effect=PLAIN)
    account = history.account(effects=True)
    assert broken(account) == []
    assert (account.duplicated_effects, account.effects_explained) == (1, 1)


def test_a_crash_after_the_repeat_explains_nothing(history):
    repeat_after(history, ack=False, attempt=1)
    history.say("worker.2", Event.NAK, 1, step=3)
    assert broken(history.account(effects=True, crashed=["worker.2"])) == [4, 8]


def test_a_copy_on_the_other_broker_is_no_lease(history):
    repeat_after(history, ack=False, broker=Broker.REDIS)
    assert broken(history.account(effects=True)) == [4]  # its cause is P8


def start_again(history, attempt, *, done=True):
    """The delivery that the worker has is executed once more."""
    more = {"broker": Broker.NATS, "attempt": attempt}
    history.say("worker.2", Event.STARTED, 1, step=3, **more)
    history.effect(1, PLAIN, attempt=attempt)
    if done:
        history.say("worker.2", Event.DONE, 1, step=3, **more)


@pytest.mark.parametrize(("done", "numbers"), [(True, [4, 8]), (False, [4])])
def test_a_second_execution_of_a_redelivery_is_no_end_of_a_lease(history, done, numbers):
    history.put(1, step=3, redis=False, nats=1)
    history.take(1, step=3, broker=Broker.NATS)
    history.say("worker.2", Event.NAK, 1, step=3, broker=Broker.NATS)
    history.work(1, step=3, broker=Broker.NATS, attempt=2, effect=PLAIN, ack=False)
    start_again(history, 2, done=done)
    history.say("worker.2", Event.ACK_SENT, 1, step=3, broker=Broker.NATS)
    assert broken(history.account(effects=True)) == numbers


def test_a_first_delivery_that_ends_after_the_second_follows_a_lease(history):
    history.put(1, step=3, redis=False, nats=1)
    history.take(1, step=3, broker=Broker.NATS)
    history.work(1, step=3, broker=Broker.NATS, who="worker.3", attempt=2, effect=PLAIN)
    start_again(history, 1)
    history.say("worker.2", Event.ACK_SENT, 1, step=3, broker=Broker.NATS)
    account = history.account(effects=True)
    assert broken(account) == []
    assert (account.duplicated_effects, account.effects_explained) == (1, 1)
    assert [item.fault for item in account.attributions] == ["lease"]


def test_an_effect_before_a_crash_is_seen_although_nobody_says_done(history):
    history.put(1, step=0)
    history.work(1, step=0, effect=PLAIN, done=False)
    history.work(1, step=0, effect=PLAIN, who="worker.3")
    account = history.account(effects=True, crashed=["worker.2"])
    assert (account.duplicated, account.duplicated_effects, account.effects_explained) == (0, 1, 1)
    assert broken(account) == []


def test_a_loss_without_a_cause_is_unattributed(history):
    history.put(1, step=0)
    account = history.account(effects=True)
    assert broken(account) == [1, 8]
    (cause,) = account.attributions
    assert (cause.what, cause.step, cause.fault, cause.hazard) == ("lost", "accepted", "-", "-")
    assert broken(history.account(effects=True, without=[8])) == [1]


@pytest.mark.parametrize("event", [Event.REFUSED, Event.DOUBTFUL])
@pytest.mark.parametrize(
    ("who", "place", "numbers"),
    [
        ("hook-9.9", None, [1, 8]),
        ("hook-9.9", Place.SPOOL, [5]),
        ("producer.1", None, []),
    ],
)
def test_a_push_was_acknowledged_by_the_spool(history, event, who, place, numbers):
    history.put(1, step=0, redis=False, accepted=False, who=who)
    history.say(who, event, 1, step=0)
    if place is not None:
        history.lies(place, 1)
    assert broken(history.account(effects=True)) == numbers
    assert broken(history.account(effects=True, without=numbers)) == []


def test_a_loss_names_who_died(history):
    history.put(1, step=3, redis=False, nats=1)
    history.take(1, step=3, broker=Broker.NATS)
    history.say("worker.2", Event.ACK_SENT, 1, step=3, broker=Broker.NATS)
    account = history.account(effects=True, crashed=["worker.2"])
    assert broken(account) == [1]
    (cause,) = account.attributions
    assert (cause.phase, cause.step, cause.fault, cause.hazard) == (
        "nats_primary",
        "ack_sent",
        "worker.00002 died",
        "P10",
    )


def test_a_loss_names_who_died_also_when_the_producer_heard_later(history):
    """The worker acknowledged early and died; the producer was told only then."""
    history.put(1, step=3, redis=False, nats=1, accepted=False)
    history.take(1, step=3, broker=Broker.NATS)
    history.say("worker.2", Event.ACK_SENT, 1, step=3, broker=Broker.NATS)
    history.say("producer.1", Event.ACCEPTED, 1, step=3)
    (cause,) = history.account(effects=True, crashed=["worker.2"]).attributions
    assert (cause.step, cause.fault, cause.hazard) == ("ack_sent", "worker.00002 died", "P10")


@pytest.mark.parametrize(
    ("letters", "numbers"), [(None, []), ([1], []), ([2], [1, 8]), ([], [1, 8])]
)
def test_a_dead_letter_is_believed_where_a_broker_holds_it(history, letters, numbers):
    history.put(1, step=0)
    history.take(1, step=0, attempt=3)
    history.say("worker.2", Event.DEAD, 1, step=0, broker=Broker.REDIS)
    history.say("worker.2", Event.TERM, 1, step=0, broker=Broker.REDIS)
    if letters is not None:
        history.consumer["letters"] = [task_id(number) for number in letters]
    account = history.account(effects=True)
    assert broken(account) == numbers
    assert account.rows[0].lost_by == ({State.NO_LETTER: 1} if numbers else {})
    assert [item.step for item in account.attributions] == ["term"] * account.lost
    assert broken(history.account(effects=True, without=numbers)) == []


def in_stream(history, *, attempts=0):
    history.put(1, step=3, redis=False, nats=5)
    for attempt in range(1, attempts + 1):
        history.take(1, step=3, broker=Broker.NATS, attempt=attempt)
        history.say("worker.2", Event.FAILED, 1, step=3)


def test_a_task_given_up_by_the_consumer_lies_in_the_stream(history):
    in_stream(history, attempts=3)
    history.consumer = {
        "first_sequence": 1,
        "delivered_sequence": 9,
        "ack_floor_sequence": 9,
        "max_deliver": 3,
    }
    account = history.account()
    assert account.rows[-1].stuck == {f"stream/{State.MAX_DELIVER}": 1}
    assert [item.hazard for item in account.findings] == ["N3"]
    assert account.handler_failures == 3


@pytest.mark.parametrize(
    ("place", "stuck", "hazard"),
    [
        (None, f"stream/{State.NEVER_READ}", "P3"),
        (Place.REDIS_PENDING, f"redis-pending/{State.NEVER_READ}", "-"),
    ],
)
def test_a_task_in_a_stream_without_a_consumer_is_not_lost(history, place, stuck, hazard):
    history.put(1, step=1, redis=place is not None, nats=5)
    history.consumer = {"first_sequence": 1}
    if place is not None:
        history.lies(place, 1)
    more = {"phases": (Phase.REDIS_ONLY, Phase.DUAL_WRITE), "effects": True}
    account = history.account(**more)
    assert broken(account) == [5]
    assert account.rows[-1].stuck == {stuck: 1}
    assert [item.hazard for item in account.findings] == [hazard]
    assert broken(history.account(**more, without=[5])) == []


def test_a_task_that_got_too_old_is_lost_by_age(history):
    in_stream(history)
    history.consumer = {"first_sequence": 6, "delivered_sequence": 9, "ack_floor_sequence": 9}
    account = history.account()
    assert account.rows[-1].lost_by == {State.AGED_OUT: 1}
    assert [item.hazard for item in account.findings] == ["P7"]


@pytest.mark.parametrize(
    ("last", "numbers"),
    [(None, [5]), (5, [5]), (4, [1, 8])],
    ids=["unknown", "whole", "rolled-back"],
)
def test_a_task_beyond_the_end_of_the_stream_is_lost(history, last, numbers):
    in_stream(history)
    history.consumer = {
        "first_sequence": 1,
        "last_sequence": last,
        "delivered_sequence": 4,
        "ack_floor_sequence": 4,
    }
    account = history.account()
    assert broken(account) == numbers
    assert account.rows[-1].lost_by == ({} if numbers == [5] else {State.VANISHED: 1})


def test_a_task_that_nats_did_not_take_lies_on_one_broker_only(history):
    history.say("producer.1", Event.PUT_INVOKED, 1, step=2, value=1)
    history.say("producer.1", Event.PUT_UNKNOWN, 1, step=2, broker=Broker.NATS)
    history.say("producer.1", Event.PUT_OK, 1, step=2, broker=Broker.REDIS, value=1)
    history.say("producer.1", Event.ACCEPTED, 1, step=2)
    history.lies(Place.REDIS_PENDING, 1)
    account = history.account(phases=(Phase.REDIS_ONLY, Phase.DUAL_WRITE, Phase.DUAL_READ))
    assert account.rows[-1].stuck == {f"redis-pending/{State.ONE_BROKER_ONLY}": 1}
    assert [item.hazard for item in account.findings] == ["P2"]


def test_a_checker_that_crashes_makes_its_invariant_unknown_and_no_other(history, monkeypatch):
    def crash(_history):
        raise IndexError("index 7 is out of bounds")

    stuck(history)
    monkeypatch.setitem(invariants._CHECKERS, 3, crash)
    account = history.account(effects=True)
    assert broken(account) == [5]
    reasons = unknown(account)
    assert list(reasons) == [3, 9]
    assert reasons[3].startswith("its checker crashed: IndexError: index 7 is out of bounds (crash")
    assert reasons[9] == "not checked: 3"


def test_what_has_no_end_is_not_called_lost_where_nobody_looked(history):
    good(history, 10)
    history.put(1, step=0)
    history.put(2, step=0)
    history.take(2, step=0)
    looked = history.account(effects=True, crashed=["worker.2"])
    assert broken(looked) == [1, 8]
    assert (looked.lost, looked.crashes[0].lost, looked.counts.lost) == (2, 1, 2)
    account = history.account(effects=True, crashed=["worker.2"], looked=False)
    assert broken(account) == []
    reasons = unknown(account)
    assert list(reasons) == [1, 5, 9]
    assert "2 acknowledged tasks have no end" in reasons[1]
    assert (account.lost, account.crashes[0].lost, account.counts.lost) == (0, 0, 0)
    assert (account.attributions, account.counts.waiting) == ([], 2)
    assert "2 wait or are lost" in count_lines(account)[0]
    assert {row.verdict for row in account.rows} == {Verdict.UNKNOWN}


def test_two_ends_are_known_also_where_nobody_looked(history):
    ended_twice(history)
    account = history.account(effects=True, looked=False)
    assert [(item.invariant, item.count) for item in account.findings] == [(1, 1)]
    assert account.rows[0].verdict is Verdict.INVALID
    assert account.rows[1].verdict is Verdict.UNKNOWN


def test_neighbours_are_found_key_by_key():
    rng = np.random.default_rng(7)
    keys, event_keys = rng.integers(0, 5, 200), rng.integers(0, 5, 100)
    times, event_times = rng.integers(0, 50, 200), rng.integers(0, 50, 100)
    after = first_after(keys, times, event_keys, event_times)
    before = last_before(keys, times, event_keys, event_times)
    for row, (key, time) in enumerate(zip(keys, times, strict=True)):
        later = event_times[(event_keys == key) & (event_times >= time)]
        earlier = event_times[(event_keys == key) & (event_times <= time)]
        for found, wanted in (
            (after[row], later.min(initial=99)),
            (before[row], earlier.max(initial=-1)),
        ):
            if found < 0:
                assert wanted in (99, -1)
            else:
                assert (event_keys[found], event_times[found]) == (key, wanted)


def test_neighbours_among_nothing():
    none = np.zeros(0, dtype=np.int64)
    some = np.array([1, 2])
    assert first_after(some, some, none, none).tolist() == [-1, -1]
    assert last_before(none, none, some, some).tolist() == []
