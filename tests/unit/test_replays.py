"""Repeats after which fault, or hazard, they are named where more than two deliveries matter."""

import msgspec
import pytest

from hookbench.effects.classes import HandlerClass
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.model import Verdict
from hookbench.migration.phases import Phase
from tests.histories import MS, History

NATS, REDIS = Broker.NATS, Broker.REDIS
PLAIN = HandlerClass.PLAIN
READING_BOTH = (Phase.DUAL_READ, Phase.NATS_PRIMARY)
READ_ONCE = (Phase.DUAL_WRITE, Phase.DUAL_READ, Phase.DUAL_WRITE)
LINKS = {REDIS: "producers-redis", NATS: "producers-nats"}


@pytest.fixture
def history(tmp_path):
    return History(tmp_path)


def broken(account):
    return [item.number for item in account.invariants if item.verdict is Verdict.INVALID]


def causes(account):
    """Fault, index, hazard and number of the duplicates."""
    return [
        (item.fault, item.fault_index, item.hazard, item.count)
        for item in account.attributions
        if item.what == "duplicate"
    ]


def put(history, number=1, *, broker=NATS):
    history.put(number, step=3, redis=broker is REDIS, nats=number if broker is NATS else 0)


def take(history, number=1, *, who="worker.2", attempt=1, sequence=None, broker=NATS):
    """Received, acknowledged at once and started, as the guide does with NATS."""
    number_in_stream = (number if sequence is None else sequence) if broker is NATS else 0
    history.take(number, step=3, broker=broker, who=who, attempt=attempt, sequence=number_in_stream)
    history.say(who, Event.ACK_SENT, number, step=3, broker=broker)
    history.say(who, Event.STARTED, number, step=3, broker=broker, attempt=attempt)


def end(history, number=1, *, who="worker.2", attempt=1, broker=NATS):
    history.effect(number, PLAIN, who=who, attempt=attempt)
    history.say(who, Event.DONE, number, step=3, broker=broker, attempt=attempt)


def both_at_once(history, *, broker, sequence=2):
    """One process has two deliveries of a task in hand, and works on both."""
    take(history, broker=broker)
    take(history, broker=broker, sequence=sequence)
    end(history, broker=broker)
    end(history, broker=broker)


@pytest.mark.parametrize("broker", [NATS, REDIS])
def test_a_put_that_the_wire_sent_twice_is_two_copies(history, broker):
    history.fault(length_ms=10, kind="wire", target=LINKS[broker], doubles=1)
    put(history, broker=broker)
    both_at_once(history, broker=broker)
    account = history.account(effects=True)
    assert broken(account) == [4]
    assert causes(account) == [(f"wire {LINKS[broker]}", 0, "-", 1)]


@pytest.mark.parametrize("broker", [NATS, REDIS])
@pytest.mark.parametrize("late", [True, False])
def test_two_copies_of_what_was_not_put_meanwhile_have_no_cause(history, broker, late):
    if late:
        put(history, broker=broker)
    history.fault(length_ms=1, kind="wire", target=LINKS[broker], doubles=1)
    history.clock.now_ns += 5 * MS
    if not late:
        put(history, broker=broker)
    both_at_once(history, broker=broker)
    assert broken(history.account(effects=True)) == [4, 8]


def cut_off(history, broker=NATS):
    """The wire sends a put twice, and its producer is killed before it records an outcome."""
    history.say(
        "producer.1", Event.PUT_INVOKED, 1, step=3, value=history.clock.now_ns, repository=1
    )
    history.clock.now_ns += MS
    history.fault(length_ms=1, kind="wire", target=LINKS[broker], doubles=1)
    history.clock.now_ns += 3 * MS
    history.fault(length_ms=0, kind="kill", target="producer-0")


@pytest.mark.parametrize("broker", [NATS, REDIS])
def test_a_put_lasts_until_its_producer_is_killed(history, broker):
    cut_off(history, broker)
    both_at_once(history, broker=broker)
    account = history.account(effects=True, crashed=("producer.1",))
    assert broken(account) == [4]
    assert causes(account) == [(f"wire {LINKS[broker]}", 0, "-", 1)]


def test_a_put_lasts_no_longer_than_its_producer(history):
    cut_off(history)
    history.faults.reverse()  # as if the kill had come first
    kill, wire = history.faults
    history.faults[0] = msgspec.structs.replace(kill, begin_ns=wire.begin_ns, end_ns=wire.begin_ns)
    history.faults[1] = msgspec.structs.replace(wire, begin_ns=kill.begin_ns, end_ns=kill.begin_ns)
    both_at_once(history, broker=NATS)
    assert broken(history.account(effects=True, crashed=("producer.1",))) == [4, 8]


def test_a_put_without_an_outcome_of_a_producer_that_lives_has_not_lasted(history):
    cut_off(history)
    both_at_once(history, broker=NATS)
    assert broken(history.account(effects=True)) == [4, 8]


def test_an_outcome_ends_a_put_though_its_producer_is_killed_later(history):
    put(history)
    history.clock.now_ns += 5 * MS
    history.fault(length_ms=1, kind="wire", target=LINKS[NATS], doubles=1)
    history.clock.now_ns += 5 * MS
    history.fault(length_ms=0, kind="kill", target="producer-0")
    both_at_once(history, broker=NATS)
    assert broken(history.account(effects=True, crashed=("producer.1",))) == [4, 8]


def test_a_put_to_the_other_broker_is_not_what_the_wire_sent_twice(history):
    history.fault(length_ms=100, kind="wire", target=LINKS[NATS], doubles=1)
    history.put(1, step=1, nats=1)
    both_at_once(history, broker=REDIS)
    assert broken(history.account(effects=True)) == [4, 8]


def test_one_delivery_that_is_worked_on_twice_is_one_delivery(history):
    history.fault(length_ms=100, kind="wire", target=LINKS[REDIS], doubles=1)
    put(history, broker=REDIS)
    history.take(1, step=3)  # one that was given back is not the other execution's
    history.say("worker.2", Event.FAILED, 1, step=3, broker=REDIS, attempt=1)
    history.say("worker.2", Event.NAK, 1, step=3, broker=REDIS)
    take(history, broker=REDIS, attempt=2)
    end(history, broker=REDIS, attempt=2)
    end(history, broker=REDIS, attempt=2)
    assert broken(history.account(effects=True)) == [4, 8]


def test_no_more_tasks_are_named_after_the_wire_than_it_has_sent_twice(history):
    history.fault(length_ms=1_000, kind="wire", target=LINKS[REDIS], doubles=1)
    for number in (1, 2):
        put(history, number, broker=REDIS)
        for _ in range(2):
            take(history, number, broker=REDIS)
        for _ in range(2):
            end(history, number, broker=REDIS)
    account = history.account(effects=True)
    assert causes(account) == [("-", None, "-", 1), (f"wire {LINKS[REDIS]}", 0, "-", 1)]
    assert broken(account) == [4, 8]


def test_the_fault_that_doubles_goes_before_one_that_leaves_in_doubt(history):
    history.fault(length_ms=1_000, kind="wire", target=LINKS[REDIS])
    history.fault(length_ms=1_000, kind="wire", target=LINKS[REDIS], doubles=1)
    put(history, broker=REDIS)
    both_at_once(history, broker=REDIS)
    account = history.account(effects=True)
    assert causes(account) == [(f"wire {LINKS[REDIS]}", 1, "-", 1)]


def test_a_delivery_that_waited_for_its_worker_is_from_before_the_fault(history):
    put(history)
    history.say("worker.2", Event.STARTED, 9, step=3, broker=NATS)
    history.fault(length_ms=2, kind="recreate_consumer", target="nats")
    history.clock.now_ns += 5 * MS
    take(history, who="worker.3")
    end(history, who="worker.3")
    take(history)
    end(history)
    account = history.account(effects=True)
    assert broken(account) == []
    assert causes(account) == [("recreate_consumer nats", 0, "-", 1)]


def test_a_delivery_taken_first_may_be_the_one_that_waited(history):
    put(history)
    history.say("worker.2", Event.STARTED, 9, step=3, broker=NATS)
    history.fault(length_ms=2, kind="recreate_consumer", target="nats")
    history.clock.now_ns += 5 * MS
    take(history)
    end(history)
    take(history)
    end(history)
    account = history.account(effects=True)
    assert broken(account) == []
    assert causes(account) == [("recreate_consumer nats", 0, "-", 1)]


def test_a_process_that_came_after_the_fault_has_nothing_from_before(history):
    put(history)
    history.fault(length_ms=2, kind="recreate_consumer", target="nats")
    history.clock.now_ns += 5 * MS
    take(history)
    end(history)
    take(history, who="worker.3")
    end(history, who="worker.3")
    assert broken(history.account(effects=True)) == [4, 8]


def test_a_delivery_after_one_of_the_new_consumer_did_not_wait(history):
    put(history)
    history.put(2, step=3, redis=False, nats=2)
    history.put(3, step=3, redis=False, nats=3)
    take(history, 3)
    end(history, 3)
    history.fault(length_ms=2, kind="recreate_consumer", target="nats")
    history.clock.now_ns += 5 * MS
    for number in (1, 2):  # from the first one on: these were sent after the fault
        take(history, number)
        end(history, number)
    take(history, 2, who="worker.3")
    end(history, 2, who="worker.3")
    account = history.account(effects=True)
    assert broken(account) == [4, 8]


def test_a_task_put_after_the_fault_was_not_forgotten_by_it(history):
    history.say("worker.2", Event.STARTED, 9, step=3, broker=NATS)
    history.fault(length_ms=2, kind="recreate_consumer", target="nats")
    history.clock.now_ns += 5 * MS
    put(history)
    take(history)
    end(history)
    take(history)
    end(history)
    assert broken(history.account(effects=True)) == [4, 8]


def test_what_is_counted_higher_was_not_forgotten(history):
    put(history)
    history.say("worker.2", Event.STARTED, 9, step=3, broker=NATS)
    history.fault(length_ms=2, kind="recreate_consumer", target="nats")
    history.clock.now_ns += 5 * MS
    take(history)
    end(history)
    take(history, attempt=2)
    end(history, attempt=2)
    assert broken(history.account(effects=True)) == [4, 8]


def test_a_worker_that_is_done_after_the_one_that_came_later_had_the_first_delivery(history):
    put(history)
    take(history)
    history.fault(length_ms=2, kind="recreate_consumer", target="nats")
    history.clock.now_ns += 5 * MS
    take(history, who="worker.3")
    end(history, who="worker.3")
    end(history)
    account = history.account(effects=True)
    assert broken(account) == []
    assert causes(account) == [("recreate_consumer nats", 0, "-", 1)]


def test_without_a_fault_in_between_the_order_of_the_ends_explains_nothing(history):
    put(history)
    history.fault(length_ms=1, kind="recreate_consumer", target="nats")
    history.clock.now_ns += 5 * MS
    take(history)
    take(history, who="worker.3")
    end(history, who="worker.3")
    end(history)
    assert broken(history.account(effects=True)) == [4, 8]


@pytest.mark.parametrize("was_there", [True, False])
def test_a_lease_that_ended_before_its_worker_took_the_delivery_up(history, was_there):
    put(history)
    if was_there:  # the first delivery lies in its socket
        history.say("worker.2", Event.STARTED, 9, step=3, broker=NATS)
    history.fault(length_ms=100, kind="pause", target="worker-0")
    history.clock.now_ns += 50 * MS
    take(history, who="worker.3", attempt=2)
    end(history, who="worker.3", attempt=2)
    history.clock.now_ns += 60 * MS
    take(history)
    end(history)
    account = history.account(effects=True)
    assert broken(account) == ([] if was_there else [4, 8])
    assert causes(account) == [("pause worker-0", 0, "-", 1) if was_there else ("-", None, "-", 1)]


def test_an_acknowledgement_that_was_held_up_does_not_make_a_consumer_forget(history):
    history.fault(length_ms=1_000, kind="wire", target="workers-nats")
    put(history)
    take(history)
    end(history)
    take(history, who="worker.3")
    end(history, who="worker.3")
    assert broken(history.account(effects=True)) == [4, 8]


def test_what_a_consumer_made_anew_delivers_is_its_doing_whatever_else_there_was(history):
    put(history)
    take(history)
    end(history)
    for kind in ("kill", "delete_consumer", "recreate_consumer", "kill"):
        history.fault(length_ms=2, kind=kind, target="nats")
        history.clock.now_ns += 5 * MS
    take(history, who="worker.3")
    end(history, who="worker.3")
    account = history.account(effects=True)
    assert causes(account) == [("recreate_consumer nats", 2, "-", 1)]


def in_turns(history, *, forgotten=None, attempt=1):
    """Done by NATS, by Redis in a fallback, and by NATS again."""
    history.put(1, step=0, nats=1)
    history.work(1, step=0, broker=NATS, sequence=1)
    history.work(1, step=0, who="worker.3")
    if forgotten is not None:
        history.fault(length_ms=2, kind=forgotten, target="nats")
        history.clock.now_ns += 5 * MS
    history.work(1, step=1, broker=NATS, sequence=1, who="worker.4", attempt=attempt)


@pytest.mark.parametrize(
    ("forgotten", "attempt", "named"),
    [
        ("delete_consumer", 1, ("delete_consumer nats", 0)),
        ("kill", 1, ("kill nats", 0)),
        ("pause", 1, ("-", None)),
        ("delete_consumer", 2, ("-", None)),
        (None, 1, ("-", None)),
    ],
)
def test_what_a_consumer_forgot_is_named_though_the_other_broker_did_the_task_last(
    history, forgotten, attempt, named
):
    in_turns(history, forgotten=forgotten, attempt=attempt)
    account = history.account(phases=READING_BOTH)
    assert causes(account) == [("-", None, "P8", 1), (*named, "P8", 1)]
    assert 8 not in broken(account)


def test_each_broker_has_its_own_delivery_to_a_process_that_has_both_in_hand(history):
    history.put(1, step=0, nats=1)
    history.work(1, step=0, broker=NATS, sequence=1)
    history.fault(length_ms=2, kind="recreate_consumer", target="nats")
    history.clock.now_ns += 5 * MS
    history.take(1, step=1, broker=NATS, sequence=1, who="worker.3")
    history.take(1, step=1, who="worker.3")
    for broker in (REDIS, NATS):
        history.say("worker.3", Event.DONE, 1, step=1, broker=broker, attempt=1)
    account = history.account(phases=READING_BOTH)
    found = {item.step: item.fault for item in account.attributions}
    # NATS repeats what Redis had done last, without an acknowledgement.
    assert found == {"done": "recreate_consumer nats", "ack_sent": "-"}


def test_a_fault_before_the_delivery_that_was_forgotten_is_not_named(history):
    history.fault(length_ms=1, kind="delete_consumer", target="nats")
    history.clock.now_ns += 5 * MS
    in_turns(history)
    account = history.account(phases=READING_BOTH)
    assert causes(account) == [("-", None, "P8", 1), ("-", None, "P8", 1)]


def test_a_copy_of_two_that_comes_again_is_what_the_consumer_forgot(history):
    history.fault(length_ms=4, kind="wire", target=LINKS[NATS], doubles=1)
    put(history)
    both_at_once(history, broker=NATS)
    history.fault(length_ms=2, kind="delete_consumer", target="nats")
    history.clock.now_ns += 5 * MS
    take(history, who="worker.3")
    end(history, who="worker.3")
    account = history.account()
    assert causes(account) == [
        (f"wire {LINKS[NATS]}", 0, "-", 1),
        ("delete_consumer nats", 1, "-", 1),
    ]


def test_the_nats_copy_of_what_a_fallback_took_from_redis_is_done_again(history):
    history.put(1, step=0, nats=1)
    history.work(1, step=0, effect=PLAIN)
    history.work(1, step=1, broker=NATS, sequence=1, effect=PLAIN)
    account = history.account(phases=READING_BOTH, effects=True)
    assert causes(account) == [("-", None, "P8", 1)]
    (finding, _effects) = [item for item in account.findings if item.invariant == 4]
    assert finding.hazard == "P8"
    assert "from their copies in jetstream" in finding.text
    assert finding.row == "→ nats_primary"


def test_a_replay_that_ends_in_the_next_phase_counts_for_the_reading_that_began_it(history):
    history.put(1, step=0, nats=1)
    history.work(1, step=0, effect=PLAIN)
    history.work(1, step=2, broker=NATS, sequence=1, effect=PLAIN)
    account = history.account(phases=READ_ONCE, effects=True)
    (duplicate,) = account.attributions
    assert (duplicate.hazard, duplicate.phase) == ("P5", "→ dual_read")


def test_what_nats_delivers_before_any_phase_reads_it_has_no_cause(history):
    history.put(1, step=0, nats=1)
    history.work(1, step=0, effect=PLAIN)
    history.work(1, step=0, broker=NATS, sequence=1, effect=PLAIN)
    account = history.account(phases=READ_ONCE, effects=True)
    assert broken(account) == [4, 8]
