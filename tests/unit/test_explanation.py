"""What a fault of a broker explains, and what it does not though it looks alike."""

import pytest

from hookbench.effects.classes import HandlerClass
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.model import Verdict
from tests.histories import MS, History

NATS, REDIS = Broker.NATS, Broker.REDIS
PLAIN = HandlerClass.PLAIN
LONG_MS = 1_000


@pytest.fixture
def history(tmp_path):
    return History(tmp_path)


def broken(account):
    return [item.number for item in account.invariants if item.verdict is Verdict.INVALID]


def causes(account, what="duplicate"):
    """Name, index and number of what is attributed."""
    return [
        (item.fault, item.fault_index, item.count)
        for item in account.attributions
        if item.what == what
    ]


def agreed(account):
    """Duplicates and losses of the faults; they are those of the attributions."""
    by_fault = [(fault.index, fault.duplicated, fault.lost) for fault in account.faults]
    for index, *numbers in by_fault:
        attributed = [
            sum(
                item.count
                for item in account.attributions
                if (item.what, item.fault_index) == (what, index)
            )
            for what in ("duplicate", "lost")
        ]
        assert attributed == numbers
    for fault in account.faults:
        assert fault.lost + fault.stuck <= fault.exposed
    return by_fault


def first(history, *, broker=NATS, ack=True, who="worker.2", sequence=1):
    """Task 1 is put and worked on, and 2 as well, by another process."""
    nats = {"redis": False, "nats": 1} if broker is NATS else {}
    history.put(1, step=3 if broker is NATS else 0, **nats)
    where = {"step": 3 if broker is NATS else 0, "broker": broker}
    history.work(1, who=who, ack=ack, effect=PLAIN, sequence=sequence, **where)


def again(history, *, broker=NATS, attempt=1, sequence=1, who="worker.3"):
    """Task 1 is worked on once more."""
    where = {"step": 3 if broker is NATS else 0, "broker": broker}
    history.work(1, who=who, attempt=attempt, sequence=sequence, effect=PLAIN, **where)


UNDOING = [
    ("kill", "nats", NATS),
    ("restart", "nats", NATS),
    ("power_cut", "nats", NATS),
    ("step_down", "nats", NATS),
    ("kill", "stream_leader", NATS),
    ("kill", "nats-2", NATS),
    ("pause", "stream_leader", NATS),
    ("recreate_consumer", "nats", NATS),
    ("delete_consumer", "nats", NATS),
    ("promote", "redis", REDIS),
    ("kill", "redis_master", REDIS),
    ("power_cut", "redis", REDIS),
]


@pytest.mark.parametrize(("kind", "target", "broker"), UNDOING)
def test_a_broker_that_forgot_an_acknowledgement_explains_the_repeat(history, kind, target, broker):
    first(history, broker=broker)
    history.clock.now_ns += 50 * MS
    history.fault(length_ms=10, kind=kind, target=target)
    history.clock.now_ns += 50 * MS
    again(history, broker=broker)
    account = history.account(effects=True)
    assert broken(account) == []
    assert (account.duplicated, account.explained) == (1, 1)
    assert (account.duplicated_effects, account.effects_explained) == (1, 1)
    assert causes(account) == [(f"{kind} {target}", 0, 1)]
    assert agreed(account) == [(0, 1, 0)]


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("kill", "redis"),
        ("power_cut", "redis"),
        ("promote", "redis"),
        ("kill", "worker-0"),
        ("wire", "workers-redis"),
        ("wire", "producers-nats"),
        ("stream_limits", "nats"),
        ("maxmemory", "redis"),
        ("poison", "nats"),
    ],
)
def test_a_fault_that_cannot_have_done_it_explains_nothing(history, kind, target):
    first(history)
    history.fault(length_ms=LONG_MS, kind=kind, target=target)
    again(history)
    account = history.account(effects=True)
    assert broken(account) == [4, 8]
    assert account.explained == 0
    assert causes(account) == [("-", None, 1)]
    assert agreed(account) == [(0, 0, 0)]


def test_a_fault_before_the_acknowledgement_explains_nothing(history):
    history.fault(length_ms=1, kind="kill", target="nats")
    history.clock.now_ns += 5 * MS
    first(history)
    again(history)
    assert broken(history.account(effects=True)) == [4, 8]


def test_a_fault_after_the_repeat_explains_nothing(history):
    first(history)
    again(history)
    history.clock.now_ns += 5 * MS
    history.fault(length_ms=1, kind="kill", target="nats")
    assert broken(history.account(effects=True)) == [4, 8]


@pytest.mark.parametrize(("kind", "target"), [("wire", "workers-nats"), ("pause", "nats")])
def test_an_acknowledgement_sent_while_it_could_not_arrive_explains_the_repeat(
    history, kind, target
):
    history.fault(length_ms=8, kind=kind, target=target)
    first(history)
    history.clock.now_ns += 50 * MS
    again(history, attempt=2)
    account = history.account(effects=True)
    assert broken(account) == []
    assert causes(account) == [(f"{kind} {target}", 0, 1)]


@pytest.mark.parametrize(("kind", "target"), [("wire", "workers-nats"), ("pause", "nats")])
@pytest.mark.parametrize("late", [True, False])
def test_what_is_held_up_is_what_is_sent_meanwhile(history, kind, target, late):
    if late:
        first(history)
        history.clock.now_ns += 5 * MS
    history.fault(length_ms=2, kind=kind, target=target)
    if not late:
        history.clock.now_ns += 5 * MS
        first(history)
    history.clock.now_ns += 50 * MS
    again(history, attempt=2)
    account = history.account(effects=True)
    assert broken(account) == [4, 8]
    assert causes(account) == [("-", None, 1)]


def test_a_confirmed_acknowledgement_that_is_forgotten_is_named_and_not_explained(history):
    first(history)
    history.say("worker.2", Event.ACK_CONFIRMED, 1, step=3, broker=NATS)
    history.clock.now_ns += MS
    history.fault(length_ms=10, kind="power_cut", target="nats")
    again(history)
    account = history.account(effects=True)
    assert broken(account) == [4]
    assert causes(account) == [("power_cut nats", 0, 1)]


def test_a_delivery_that_is_worked_on_twice_is_no_fault_of_the_broker(history):
    first(history)
    history.fault(length_ms=LONG_MS, kind="kill", target="nats")
    history.say("worker.2", Event.STARTED, 1, step=3, broker=NATS, attempt=1)
    history.effect(1)
    history.say("worker.2", Event.DONE, 1, step=3, broker=NATS, attempt=1)
    account = history.account(effects=True)
    assert broken(account) == [4, 8]


def test_a_task_given_back_when_it_was_done_is_no_fault_of_the_broker(history):
    first(history, ack=False)
    history.say("worker.2", Event.NAK, 1, step=3, broker=NATS)
    history.fault(length_ms=LONG_MS, kind="kill", target="nats")
    again(history, attempt=2)
    assert broken(history.account(effects=True)) == [4, 8]


def test_a_copy_that_came_back_and_failed_at_first_is_the_brokers_fault(history):
    first(history, broker=REDIS)
    history.fault(length_ms=LONG_MS, kind="promote", target="redis")
    history.take(1, step=0)
    history.say("worker.2", Event.STARTED, 1, step=0, broker=REDIS, attempt=1)
    history.say("worker.2", Event.FAILED, 1, step=0, broker=REDIS, attempt=1)
    history.say("worker.2", Event.NAK, 1, step=0, broker=REDIS)
    again(history, broker=REDIS, attempt=2)
    account = history.account(effects=True)
    assert broken(account) == []
    assert causes(account) == [("promote redis", 0, 1)]


def test_the_other_brokers_copy_is_no_fault_of_a_broker(history):
    history.put(1, step=1, nats=1)
    history.work(1, step=1, effect=PLAIN)
    history.fault(length_ms=LONG_MS, kind="kill", target="nats")
    history.fault(length_ms=LONG_MS, kind="kill", target="redis")
    history.work(1, step=2, broker=NATS, effect=PLAIN)
    account = history.account(effects=True)
    assert broken(account) == [4]
    assert [(item.fault, item.hazard) for item in account.attributions] == [("-", "P5")]


def test_a_second_copy_is_named_after_the_fault_of_its_put_and_not_explained(history):
    history.fault(length_ms=20, kind="wire", target="producers-nats")
    history.put(1, step=3, redis=False, accepted=False)
    history.say("producer.1", Event.PUT_UNKNOWN, 1, step=3, broker=NATS)
    history.put(1, step=3, redis=False, nats=2)
    history.work(1, step=3, broker=NATS, sequence=1, effect=PLAIN)
    history.fault(length_ms=1, kind="kill", target="nats")
    history.work(1, step=3, broker=NATS, sequence=2, effect=PLAIN)
    account = history.account(effects=True)
    assert broken(account) == [4]
    assert causes(account) == [("wire producers-nats", 0, 1)]
    assert agreed(account) == [(0, 1, 0), (1, 0, 0)]


def test_a_second_copy_put_without_a_fault_has_no_cause(history):
    history.put(1, step=3, redis=False, nats=1)
    history.put(1, step=3, redis=False, nats=2)
    history.work(1, step=3, broker=NATS, sequence=1, effect=PLAIN)
    history.fault(length_ms=LONG_MS, kind="wire", target="producers-nats")
    history.work(1, step=3, broker=NATS, sequence=2, effect=PLAIN)
    assert broken(history.account(effects=True)) == [4, 8]


def test_a_crash_has_the_name_of_the_fault_that_killed(history):
    first(history, ack=False)
    history.fault(length_ms=1, kind="kill", target="worker-0")
    history.clock.now_ns += 5 * MS
    again(history, attempt=2)
    account = history.account(effects=True, crashed=["worker.2"])
    assert broken(account) == []
    assert causes(account) == [("kill worker-0", 0, 1)]
    assert agreed(account) == [(0, 1, 0)]


def test_a_crash_after_the_fault_is_not_its_doing(history):
    history.fault(length_ms=1, kind="kill", target="worker-0")
    history.clock.now_ns += 5 * MS
    first(history, ack=False)
    again(history, attempt=2)
    account = history.account(effects=True, crashed=["worker.2"])
    assert causes(account) == [("worker.00002 died", None, 1)]


def test_each_killed_worker_has_its_own_fault(history):
    for number, who in ((1, "worker.2"), (2, "worker.3")):
        history.put(number, step=3, redis=False, nats=number)
        history.work(number, step=3, broker=NATS, who=who, ack=False)
        history.fault(length_ms=1, kind="kill_at_step", target="worker-0")
        history.clock.now_ns += 5 * MS
    for number in (1, 2):
        history.work(number, step=3, broker=NATS, who="worker.4", attempt=2)
    account = history.account(crashed=["worker.2", "worker.3"])
    assert causes(account) == [
        ("kill_at_step worker-0", 0, 1),
        ("kill_at_step worker-0", 1, 1),
    ]


def test_a_lease_that_ended_while_the_worker_stood_still_is_the_pause(history):
    history.put(1, step=3, redis=False, nats=1)
    history.take(1, step=3, broker=NATS)
    history.fault(length_ms=100, kind="pause", target="worker-0")
    history.clock.now_ns += 50 * MS
    again(history, attempt=2)
    history.clock.now_ns += 60 * MS
    history.say("worker.2", Event.DONE, 1, step=3, broker=NATS)
    account = history.account()
    assert account.explained == account.duplicated == 1


def test_a_worker_that_worked_on_through_a_pause_was_not_the_one(history):
    first(history, ack=False)
    history.fault(length_ms=100, kind="pause", target="worker-1")
    history.clock.now_ns += 50 * MS
    history.put(2, step=3, redis=False, nats=2)
    history.take(2, step=3, broker=NATS)
    again(history, attempt=2)
    account = history.account(effects=True)
    assert causes(account) == [("lease", None, 1)]


def test_a_worker_that_stood_still_has_the_name_of_the_pause(history):
    first(history, ack=False)
    history.fault(length_ms=100, kind="pause", target="worker-1")
    history.clock.now_ns += 50 * MS
    again(history, attempt=2)
    history.clock.now_ns += 60 * MS
    account = history.account(effects=True)
    assert causes(account) == [("pause worker-1", 0, 1)]


@pytest.mark.parametrize(
    ("since_ms", "who", "attempt", "explained"),
    [
        (1, "worker.2", 2, True),
        (400, "worker.2", 2, True),
        (600, "worker.2", 2, False),  # by then it has taken what came while it stood still
        (1, "worker.3", 2, False),  # another process did not stand still
        (1, "worker.2", 1, False),  # the broker does not say that it is the second delivery
    ],
)
def test_one_that_stood_still_takes_a_delivery_and_its_repetition(
    history, since_ms, who, attempt, explained
):
    """The lease ended meanwhile; the first one is acknowledged, and then the second is taken."""
    history.say("worker.2", Event.RECEIVED, 2, step=3, broker=NATS)
    history.say("worker.3", Event.RECEIVED, 3, step=3, broker=NATS)
    history.put(1, step=3, redis=False, nats=1)
    history.fault(length_ms=100, kind="pause", target="worker-0")
    history.say("worker.3", Event.RECEIVED, 3, step=3, broker=NATS)
    history.clock.now_ns += 101 * MS
    history.take(1, step=3, broker=NATS, sequence=1)
    history.say("worker.2", Event.ACK_SENT, 1, step=3, broker=NATS)
    history.say("worker.2", Event.STARTED, 1, step=3, broker=NATS, attempt=1)
    history.clock.now_ns += since_ms * MS
    history.take(1, step=3, broker=NATS, sequence=1, attempt=attempt, who=who)
    history.say(who, Event.ACK_SENT, 1, step=3, broker=NATS)
    history.say(who, Event.STARTED, 1, step=3, broker=NATS, attempt=attempt)
    for name, number in (("worker.2", 1), (who, attempt)):
        history.effect(1, who=name, attempt=number)
        history.say(name, Event.DONE, 1, step=3, broker=NATS, attempt=number)
    account = history.account(effects=True)
    assert account.explained == (1 if explained else 0)
    assert causes(account) == [("pause worker-0", 0, 1) if explained else ("-", None, 1)]


def test_a_delivery_that_was_acknowledged_before_the_pause_is_none_of_its(history):
    """The repetition came in spite of an acknowledgement that was in time."""
    history.put(1, step=3, redis=False, nats=1)
    history.take(1, step=3, broker=NATS, sequence=1)
    history.say("worker.2", Event.ACK_SENT, 1, step=3, broker=NATS)
    history.say("worker.2", Event.STARTED, 1, step=3, broker=NATS, attempt=1)
    history.effect(1, who="worker.2", attempt=1)
    history.say("worker.2", Event.DONE, 1, step=3, broker=NATS, attempt=1)
    history.clock.now_ns += 10 * MS
    history.fault(length_ms=100, kind="pause", target="worker-0")
    history.clock.now_ns += 101 * MS
    history.take(1, step=3, broker=NATS, sequence=1, attempt=2)
    history.say("worker.2", Event.STARTED, 1, step=3, broker=NATS, attempt=2)
    history.effect(1, who="worker.2", attempt=2)
    history.say("worker.2", Event.DONE, 1, step=3, broker=NATS, attempt=2)
    account = history.account(effects=True)
    assert account.explained == 0
    assert causes(account) == [("-", None, 1)]


LOSING = [
    ("power_cut", "nats", NATS),
    ("kill", "nats", NATS),
    ("stream_limits", "nats", NATS),
    ("promote", "redis", REDIS),
    ("kill", "redis_master", REDIS),
    ("maxmemory", "redis", REDIS),
]


def accept(history, broker):
    step = 3 if broker is NATS else 0
    history.put(1, step=step, redis=broker is REDIS, nats=1 if broker is NATS else 0)


@pytest.mark.parametrize(("kind", "target", "broker"), LOSING)
def test_a_task_lost_by_its_only_broker_is_the_faults_loss(history, kind, target, broker):
    accept(history, broker)
    history.clock.now_ns += 50 * MS
    history.fault(length_ms=10, kind=kind, target=target)
    account = history.account(effects=True)
    assert broken(account) == [1]
    (cause,) = account.attributions
    assert (cause.what, cause.fault, cause.fault_index) == ("lost", f"{kind} {target}", 0)
    assert cause.phase == ("nats_primary" if broker is NATS else "redis_only")
    assert cause.step == "accepted"
    assert agreed(account) == [(0, 0, 1)]


@pytest.mark.parametrize(
    ("kind", "target"),
    [("power_cut", "redis"), ("kill", "worker-0"), ("pause", "nats"), ("wire", "workers-nats")],
)
def test_a_task_lost_without_a_fault_that_can_lose_it_has_no_cause(history, kind, target):
    accept(history, NATS)
    history.fault(length_ms=LONG_MS, kind=kind, target=target)
    account = history.account(effects=True)
    assert broken(account) == [1, 8]
    assert agreed(account) == [(0, 0, 0)]


def test_a_task_put_after_the_fault_is_not_its_loss(history):
    history.fault(length_ms=1, kind="power_cut", target="nats")
    history.clock.now_ns += 5 * MS
    accept(history, NATS)
    assert broken(history.account(effects=True)) == [1, 8]


@pytest.mark.parametrize("both", [True, False])
def test_a_task_with_two_copies_is_lost_by_two_faults(history, both):
    history.put(1, step=1, nats=1)
    history.clock.now_ns += 5 * MS
    history.fault(length_ms=1, kind="power_cut", target="nats")
    history.clock.now_ns += 5 * MS
    if both:
        history.fault(length_ms=1, kind="promote", target="redis")
    account = history.account(effects=True)
    assert broken(account) == ([1] if both else [1, 8])
    assert causes(account, "lost") == [("promote redis", 1, 1) if both else ("-", None, 1)]


def test_a_loss_after_an_early_acknowledgement_is_what_its_worker_died_of(history):
    accept(history, NATS)
    history.take(1, step=3, broker=NATS)
    history.say("worker.2", Event.ACK_SENT, 1, step=3, broker=NATS)
    history.fault(length_ms=5, kind="kill", target="worker-0")
    history.fault(length_ms=5, kind="power_cut", target="nats")
    account = history.account(crashed=["worker.2"])
    (cause,) = account.attributions
    assert (cause.fault, cause.fault_index, cause.hazard) == ("kill worker-0", 0, "P10")
    assert agreed(account) == [(0, 0, 1), (1, 0, 0)]


def test_of_two_kills_the_first_one_after_the_acknowledgement_is_named(history):
    history.fault(length_ms=1, kind="kill", target="nats")
    history.clock.now_ns += 5 * MS
    first(history)
    for _ in range(2):
        history.fault(length_ms=1, kind="kill", target="nats")
        history.clock.now_ns += 5 * MS
    again(history)
    assert causes(history.account(effects=True)) == [("kill nats", 1, 1)]


def test_a_fault_that_was_not_healed_lasts_to_the_end(history):
    first(history)
    history.fault(length_ms=None, kind="partition", target="nats")
    again(history)
    account = history.account(effects=True)
    assert broken(account) == []
    assert causes(account) == [("partition nats", 0, 1)]
