"""What the checkers make of deliveries that are claimed, skipped and given back."""

import pytest

from hookbench.effects.classes import HandlerClass
from hookbench.ledger.columns import without_end
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.model import Verdict
from hookbench.ledger.read import read_ledger
from tests.histories import History, task_id

PLAIN = HandlerClass.PLAIN
NATS, REDIS = Broker.NATS, Broker.REDIS
STEP = 2  # dual_read


@pytest.fixture
def history(tmp_path):
    return History(tmp_path)


def broken(account):
    return [item.number for item in account.invariants if item.verdict is Verdict.INVALID]


def claim(history, *, broker=NATS, who="worker.2", attempt=1, token=1):
    for event, value in ((Event.CLAIMED, token), (Event.STARTED, 0)):
        history.say(who, event, 1, step=STEP, broker=broker, attempt=attempt, value=value)


def end(history, *, broker=NATS, who="worker.2", attempt=1):
    for event in (Event.DONE, Event.ACK_SENT):
        history.say(who, event, 1, step=STEP, broker=broker, attempt=attempt)


@pytest.mark.parametrize(
    "settled",
    [(Event.NAK,), (Event.SKIPPED, Event.ACK_SENT), (Event.SUPERSEDED, Event.ACK_SENT)],
    ids=lambda events: events[0].name.lower(),
)
def test_a_delivery_that_was_not_started_is_no_attempt(history, settled):
    history.put(1, step=STEP, nats=1)
    history.take(1, step=STEP, broker=NATS, sequence=1)
    claim(history)
    history.effect(1)
    end(history)
    for attempt in range(2, 12):
        history.take(1, step=STEP, broker=NATS, sequence=1, attempt=attempt)
        for event in settled:
            history.say("worker.2", event, 1, step=STEP, broker=NATS)
    account = history.account(effects=True)
    assert account.over_budget == 0
    assert 6 not in broken(account)


@pytest.mark.parametrize(("claims", "died", "over"), [(1, 1, 0), (1, 0, 0), (0, 1, 1)])
def test_a_delivery_that_was_not_claimed_is_no_attempt(history, claims, died, over):
    """Its worker died, or the broker was away that grants claims and takes it back."""
    history.put(1, step=STEP, nats=1)
    history.take(1, step=STEP, broker=NATS, sequence=1, attempt=4, who="worker.3")
    history.take(1, step=STEP, broker=NATS, sequence=1, attempt=1)
    if claims:
        claim(history, attempt=1)
    else:
        history.say("worker.2", Event.STARTED, 1, step=STEP, broker=NATS, attempt=1)
    history.effect(1)
    end(history)
    account = history.account(effects=True, crashed=["worker.3"] if died else [])
    assert account.over_budget == over


def test_a_task_may_come_again_before_its_worker_has_said_that_it_put_it_back(history):
    history.put(1, step=STEP, nats=1)
    history.take(1, step=STEP, broker=NATS, sequence=1, attempt=4)
    history.take(1, step=STEP, broker=NATS, sequence=1, attempt=5)
    for _ in range(2):
        history.say("worker.2", Event.NAK, 1, step=STEP, broker=NATS)
    history.take(1, step=STEP, broker=NATS, sequence=1, attempt=6)
    history.take(1, step=STEP, broker=NATS, sequence=1, attempt=7)
    history.say("worker.2", Event.NAK, 1, step=STEP, broker=NATS)
    claim(history, attempt=1)
    history.effect(1)
    end(history)
    assert history.account(effects=True).over_budget == 0


@pytest.mark.parametrize(("started", "over"), [(False, 0), (True, 1)])
def test_a_failure_that_no_broker_was_told_is_not_settled_by_a_later_letter(history, started, over):
    """Redis was full: neither letter nor nak went through, and the task came once more."""
    history.put(1, step=STEP)
    for attempt in (1, 2, 3):
        history.take(1, step=STEP, attempt=attempt)
        claim(history, broker=REDIS, attempt=attempt)
        history.say("worker.2", Event.FAILED, 1, step=STEP, broker=REDIS, attempt=attempt)
        if attempt < 3:
            history.say("worker.2", Event.NAK, 1, step=STEP, broker=REDIS)
    history.take(1, step=STEP, attempt=4)
    more = (Event.CLAIMED, Event.STARTED, Event.FAILED) if started else (Event.CLAIMED,)
    for event in (*more, Event.DEAD, Event.TERM):
        history.say("worker.2", event, 1, step=STEP, broker=REDIS, attempt=4)
    assert history.account().over_budget == over


def test_of_two_deliveries_at_once_each_is_held_against_the_budget(history):
    history.put(1, step=STEP, nats=1)
    for attempt in (4, 5):
        history.take(1, step=STEP, broker=NATS, sequence=1, attempt=attempt)
    history.say("worker.2", Event.NAK, 1, step=STEP, broker=NATS)
    claim(history, attempt=4)
    history.effect(1)
    end(history)
    assert history.account(effects=True).over_budget == 1


def test_the_number_of_a_claimed_delivery_is_the_authoritys(history):
    history.put(1, step=STEP, nats=1)
    for attempt in range(1, 9):
        history.take(1, step=STEP, broker=NATS, sequence=1, attempt=attempt)
        history.say("worker.2", Event.NAK, 1, step=STEP, broker=NATS)
    history.take(1, step=STEP, broker=NATS, sequence=1, attempt=9)
    claim(history, attempt=3)
    history.effect(1)
    end(history, attempt=3)
    assert broken(history.account(effects=True)) == []


@pytest.mark.parametrize("claimed", [True, False])
def test_what_is_started_beyond_the_budget_is_found(history, claimed):
    history.put(1, step=STEP, nats=1)
    history.take(1, step=STEP, broker=NATS, sequence=1, attempt=4)
    if claimed:
        claim(history, attempt=4)
    else:
        history.say("worker.2", Event.STARTED, 1, step=STEP, broker=NATS, attempt=4)
    history.effect(1)
    end(history, attempt=4)
    assert broken(history.account(effects=True)) == [6]


def test_deliveries_that_are_started_are_counted_among_those_that_are_not(history):
    history.put(1, step=STEP, nats=1)
    for _ in range(4):
        history.take(1, step=STEP, broker=NATS, sequence=1)
        history.say("worker.2", Event.NAK, 1, step=STEP, broker=NATS)
        history.take(1, step=STEP, broker=NATS, sequence=1)
        history.say("worker.2", Event.STARTED, 1, step=STEP, broker=NATS, attempt=1)
    history.effect(1)
    end(history)
    account = history.account(effects=True)
    assert (account.over_budget, broken(account)) == (1, [6])


def taken_over(history, *, attempt, stale=True):
    """The worker that NATS delivered to stands still; the one with the Redis copy takes over."""
    history.put(1, step=STEP, nats=1)
    history.take(1, step=STEP, broker=NATS, sequence=1)
    claim(history)
    history.take(1, step=STEP, broker=REDIS, who="worker.3")
    claim(history, broker=REDIS, who="worker.3", attempt=attempt, token=2)
    history.effect(1)
    history.say("worker.2", Event.STALE if stale else Event.DONE, 1, step=STEP, broker=NATS)
    history.effect(1, who="worker.3", attempt=attempt)
    end(history, broker=REDIS, who="worker.3", attempt=attempt)


def test_a_claim_that_had_ended_explains_the_repeat_whichever_broker_delivered(history):
    taken_over(history, attempt=2)
    account = history.account(effects=True)
    assert (account.duplicated_effects, account.effects_explained) == (1, 1)
    assert broken(account) == []


def test_two_claims_with_one_number_explain_nothing(history):
    """The authority has granted one attempt to two workers."""
    taken_over(history, attempt=1)
    account = history.account(effects=True)
    assert (account.duplicated_effects, account.effects_explained) == (1, 0)
    assert broken(account) == [4]


def test_a_claim_after_the_acknowledgement_explains_nothing(history):
    history.put(1, step=STEP, nats=1)
    history.take(1, step=STEP, broker=REDIS, who="worker.3")
    history.take(1, step=STEP, broker=NATS, sequence=1)
    claim(history)
    history.effect(1)
    end(history)
    claim(history, broker=REDIS, who="worker.3", attempt=2, token=2)
    history.effect(1, who="worker.3", attempt=2)
    end(history, broker=REDIS, who="worker.3", attempt=2)
    assert 4 in broken(history.account(effects=True))


def test_a_crash_before_the_claim_explains_the_repeat_although_the_copy_was_there(history):
    """The second copy was received before the first worker died, and waited for its lease."""
    history.put(1, step=STEP, nats=1)
    history.take(1, step=STEP, broker=REDIS, who="worker.3")
    history.take(1, step=STEP, broker=NATS, sequence=1)
    claim(history)
    history.effect(1)
    claim(history, broker=REDIS, who="worker.3", attempt=2, token=2)
    history.effect(1, who="worker.3", attempt=2)
    end(history, broker=REDIS, who="worker.3", attempt=2)
    account = history.account(effects=True, crashed=["worker.2"])
    assert (account.effects_explained, broken(account)) == (1, [])


def test_what_a_dead_worker_had_skipped_was_not_in_its_hand(history):
    history.put(1, step=STEP, nats=1)
    history.take(1, step=STEP, broker=NATS, sequence=1)
    claim(history)
    history.effect(1)
    end(history)
    history.take(1, step=STEP, broker=REDIS, who="worker.3")
    for event in (Event.SKIPPED, Event.ACK_SENT):
        history.say("worker.3", event, 1, step=STEP, broker=REDIS)
    account = history.account(effects=True, crashed=["worker.3"])
    (crash,) = account.crashes
    assert (crash.writer, crash.in_hand) == ("worker.00003", 0)
    assert account.duplicated == 0
    assert account.duplicated_deliveries == 1
    assert broken(account) == []


@pytest.mark.parametrize("how", ["died", "not told", "alive"])
@pytest.mark.parametrize("effect", [True, False])
def test_a_task_that_only_the_authority_knows_as_done(history, how, effect):
    """Its worker died behind the completion, or was left without an answer to it."""
    history.put(1, step=STEP, nats=1)
    history.take(1, step=STEP, broker=NATS, sequence=1)
    claim(history)
    if effect:
        history.effect(1)
    if how == "not told":
        history.say("worker.2", Event.STALE, 1, step=STEP, broker=NATS)
    history.take(1, step=STEP, broker=NATS, sequence=1, attempt=2, who="worker.3")
    for event in (Event.SKIPPED, Event.ACK_SENT):
        history.say("worker.3", event, 1, step=STEP, broker=NATS)
    account = history.account(effects=True, crashed=["worker.2"] if how == "died" else [])
    if how == "alive":
        assert (account.done, account.lost) == (0, 1)
        assert broken(account) == [1]
    else:
        assert (account.done, account.lost) == (1, 0)
        assert broken(account) == ([] if effect else [4])


def known_to_have_ended(history, *numbers, by_authority=True, crashed=("worker.3",)):
    history.consumer["ended"] = [task_id(number) for number in numbers] if by_authority else []
    return history.account(effects=True, crashed=crashed)


@pytest.mark.parametrize("by_authority", [True, False])
def test_a_worker_that_died_as_it_superseded_a_task_has_the_authoritys_word(history, by_authority):
    """The authority ends it as it is asked; whoever asked died before its own record."""
    history.put(1, step=STEP, nats=1)
    history.take(1, step=STEP, broker=NATS, sequence=1, who="worker.4")
    claim(history, who="worker.4")
    history.say("worker.4", Event.FAILED, 1, step=STEP, broker=NATS, attempt=1)
    history.say("worker.4", Event.NAK, 1, step=STEP, broker=NATS)
    history.take(1, step=STEP, broker=NATS, sequence=1, who="worker.3")
    crashed = ("worker.3", "worker.4")  # the one that failed died later, of something else
    account = known_to_have_ended(history, 1, by_authority=by_authority, crashed=crashed)
    if by_authority:
        assert (account.superseded, account.done, account.lost) == (1, 0, 0)
        assert broken(account) == []
    else:
        assert (account.superseded, account.lost) == (0, 1)


def test_one_that_died_after_it_had_completed_has_it_too(history):
    history.put(1, step=STEP, nats=1)
    history.take(1, step=STEP, broker=NATS, sequence=1, who="worker.3")
    claim(history, who="worker.3")
    history.effect(1, who="worker.3")
    account = known_to_have_ended(history, 1)
    assert (account.superseded, account.done, account.lost) == (0, 1, 0)
    assert broken(account) == []


@pytest.mark.parametrize(
    ("by_authority", "crashed"), [(True, ()), (True, ("worker.3",)), (False, ())]
)
def test_one_that_was_not_told_has_it_too(history, by_authority, crashed):
    """The completion came through on one of two stores; a new epoch begins behind the task."""
    history.put(1, step=STEP, nats=1)
    history.take(1, step=STEP, broker=NATS, sequence=1, who="worker.3")
    claim(history, who="worker.3")
    history.effect(1, who="worker.3")
    for event in (Event.STALE, Event.NAK):
        history.say("worker.3", event, 1, step=STEP, broker=NATS)
    account = known_to_have_ended(history, 1, by_authority=by_authority, crashed=crashed)
    assert (account.superseded, account.done, account.lost) == (
        (0, 1, 0) if by_authority else (0, 0, 1)
    )
    assert broken(account) == ([] if by_authority else [1, 8])


def test_without_the_effect_its_word_is_a_contradiction(history):
    history.put(1, step=STEP, nats=1)
    history.take(1, step=STEP, broker=NATS, sequence=1, who="worker.3")
    claim(history, who="worker.3")
    assert 4 in broken(known_to_have_ended(history, 1))


@pytest.mark.parametrize("taken", [True, False])
def test_where_no_worker_died_with_it_a_task_that_has_ended_is_lost(history, taken):
    history.put(1, step=STEP, nats=1)
    if taken:
        history.take(1, step=STEP, broker=NATS, sequence=1)
    account = known_to_have_ended(history, 1, crashed=())
    assert (account.superseded, account.done, account.lost) == (0, 0, 1)


@pytest.mark.parametrize(
    ("later", "repository", "claimed", "superseded"),
    [
        (True, 1, (), True),
        (True, 1, (Event.CLAIMED, Event.STARTED, Event.FAILED), True),
        (True, 1, (Event.CLAIMED, Event.STARTED), False),
        (True, 2, (), False),
        (False, 1, (), False),
    ],
    ids=["never claimed", "failed before", "claimed", "another repository", "an earlier task"],
)
def test_a_worker_that_lives_and_was_not_told_has_the_authoritys_word(
    history, later, repository, claimed, superseded
):
    """The answer to its claim did not come; what it may be, the ledger has to leave room for."""
    for number in (1, 2) if later else (2, 1):
        place = {"step": STEP, "nats": number}
        history.put(number, **place, repository=1 if number == 1 else repository)
    history.work(2, step=STEP, broker=NATS, sequence=2, ack=True)
    history.take(1, step=STEP, broker=NATS, sequence=1)
    for event in (*claimed, Event.NAK):
        history.say("worker.2", event, 1, step=STEP, broker=NATS, attempt=1)
    account = known_to_have_ended(history, 1, crashed=())
    assert (account.superseded, account.lost) == ((1, 0) if superseded else (0, 1))


def test_what_was_put_and_has_no_end_is_what_the_authority_is_asked(history):
    for number in range(1, 6):
        history.put(number, step=STEP, nats=number)
        history.take(number, step=STEP, broker=NATS, sequence=number)
    for number, event in ((1, Event.DONE), (2, Event.DEAD), (3, Event.SUPERSEDED)):
        history.say("worker.2", event, number, step=STEP, broker=NATS)
    history.account()
    assert set(without_end(read_ledger(history.folder))) == {task_id(4), task_id(5)}
