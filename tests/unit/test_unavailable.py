"""Times in which an operation on a broker was attempted, and none succeeded."""

import pytest

from hookbench.clock import NS_PER_MS
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.unavailable import MAX_WINDOWS, UNAVAILABLE_NS
from hookbench.migration.phases import Phase
from tests.histories import FORWARD, MS, History

NATS, REDIS = Broker.NATS, Broker.REDIS
LONG_MS = 3 * UNAVAILABLE_NS // NS_PER_MS
ONE_STEP = (Phase.REDIS_ONLY,)


@pytest.fixture
def history(tmp_path):
    return History(tmp_path)


def windows(account):
    """Broker, operation, length in ms and fault of each."""
    return [
        (item.broker, item.operation, item.length_ns // MS, item.fault)
        for item in account.unavailable
    ]


def wait(history, ms):
    history.clock.now_ns += ms * MS


def warm_up(history, *, step, broker):
    """As many deliveries without a gap as tell what is usual."""
    nats = {"redis": False, "nats": 1} if broker is NATS else {}
    wait(history, step * 100)
    for number in range(100, 130):
        history.put(number, step=step, **nats)
        history.work(number, step=step, broker=broker)


def put_slowly(history, number, ms, *, step=0, event=Event.PUT_OK, broker=REDIS):
    """A put that takes its time; one event more than ``ms``."""
    more = {"value": history.clock.now_ns, "repository": 1}
    history.say("producer.1", Event.PUT_INVOKED, number, step=step, **more)
    wait(history, ms)
    history.say("producer.1", event, number, step=step, broker=broker)


def test_a_put_that_hangs_is_a_window(history):
    history.put(1, step=0)
    wait(history, 10)
    put_slowly(history, 2, LONG_MS)
    account = history.account(phases=ONE_STEP)
    assert windows(account) == [("redis", "put", LONG_MS + 1, "-")]
    (window,) = account.unavailable
    # From the start of the first step at 1,000 ms: three events, 10 ms, and the call itself.
    assert (window.since_start_ns, window.phase) == (14 * MS, "redis_only")


def test_a_time_without_attempts_is_none(history):
    history.put(1, step=0)
    wait(history, 10 * LONG_MS)
    history.put(2, step=0)
    wait(history, 10 * LONG_MS)
    assert windows(history.account(phases=ONE_STEP)) == []


@pytest.mark.parametrize(("ms", "count"), [(200, 1), (199, 0)])
def test_a_window_is_longer_than_the_bound(history, ms, count):
    history.put(1, step=0)
    put_slowly(history, 2, ms)
    assert len(history.account(phases=ONE_STEP).unavailable) == count


def test_puts_that_fail_until_one_succeeds_are_one_window(history):
    history.put(1, step=0)
    for number in range(2, 6):
        put_slowly(history, number, 100, event=Event.PUT_UNKNOWN)
    history.put(6, step=0)
    history.put(7, step=0)
    assert windows(history.account(phases=ONE_STEP)) == [("redis", "put", 409, "-")]


def test_a_broker_that_never_comes_back_has_a_window_to_the_last_attempt(history):
    history.put(1, step=0)
    for number in range(2, 6):
        put_slowly(history, number, 100, event=Event.PUT_FAIL)
    wait(history, 10 * LONG_MS)
    history.say("producer.1", Event.PHASE, 0, step=0)
    assert windows(history.account(phases=ONE_STEP)) == [("redis", "put", 407, "-")]


def test_a_broker_that_was_not_there_from_the_beginning(history):
    put_slowly(history, 1, LONG_MS, event=Event.PUT_FAIL)
    history.put(2, step=0)
    assert windows(history.account(phases=ONE_STEP)) == [("redis", "put", LONG_MS + 3, "-")]


def test_a_put_that_was_under_way_at_the_last_success_counts_from_it(history):
    more = {"value": history.clock.now_ns, "repository": 1}
    history.say("producer.1", Event.PUT_INVOKED, 1, step=0, **more)
    history.put(2, step=0, who="producer.4")
    wait(history, LONG_MS)
    history.say("producer.1", Event.PUT_OK, 1, step=0, broker=REDIS)
    ((broker, operation, ms, _),) = windows(history.account(phases=ONE_STEP))
    assert (broker, operation, ms) == ("redis", "put", LONG_MS + 2)


def test_each_broker_has_its_own(history):
    history.put(1, step=0)
    put_slowly(history, 2, LONG_MS, broker=NATS)
    history.put(3, step=0, redis=False, nats=3)
    put_slowly(history, 4, LONG_MS, broker=REDIS)
    found = windows(history.account(phases=ONE_STEP))
    assert [item[:3] for item in found] == [
        ("nats", "put", LONG_MS + 1),
        ("redis", "put", LONG_MS + 1),
    ]


def test_tasks_that_wait_while_nobody_gets_any_are_a_window(history):
    warm_up(history, step=3, broker=NATS)
    history.put(2, step=3, redis=False, nats=2)
    wait(history, LONG_MS)
    history.work(2, step=3, broker=NATS)
    assert windows(history.account()) == [("nats", "receive", LONG_MS + 2, "-")]


@pytest.mark.parametrize("step", [1, 2])
def test_redis_as_a_fallback_need_not_be_read(history, step):
    warm_up(history, step=1, broker=REDIS)
    history.put(2, step=1)
    wait(history, LONG_MS)
    history.work(2, step=step)
    found = windows(history.account(phases=FORWARD))
    assert len(found) == (1 if step == 1 else 0)


def test_tasks_wait_for_the_phase_that_reads_them_and_not_longer(history):
    history.put(1, step=1, nats=1)
    wait(history, 10 * LONG_MS)
    history.work(1, step=3, broker=NATS)
    (window,) = history.account().unavailable
    # Step 2, which reads NATS first, begins 200 ms after the run.
    assert (window.operation, window.phase) == ("receive", "dual_read")
    assert window.since_start_ns == 200 * MS


def test_a_redelivery_says_nothing_about_who_waited(history):
    warm_up(history, step=3, broker=NATS)
    history.put(1, step=3, redis=False, nats=1)
    history.take(1, step=3, broker=NATS)
    wait(history, LONG_MS)
    history.work(1, step=3, broker=NATS, attempt=2)
    history.put(2, step=3, redis=False, nats=2)
    history.work(2, step=3, broker=NATS)
    assert windows(history.account()) == []


def test_slow_handlers_are_no_broker_that_is_away(history):
    for number in range(1, 6):
        history.put(number, step=3, redis=False, nats=number)
    for number in range(1, 6):
        history.take(number, step=3, broker=NATS)
        wait(history, LONG_MS)
    assert windows(history.account()) == []


def test_an_acknowledgement_that_hangs_is_a_window(history):
    history.put(1, step=0)
    history.work(1, step=0)
    history.put(2, step=0)
    history.work(2, step=0, ack=False)
    wait(history, LONG_MS)
    history.say("worker.2", Event.ACK_SENT, 2, step=0, broker=REDIS)
    assert windows(history.account(phases=ONE_STEP)) == [("redis", "ack", LONG_MS + 1, "-")]


def test_a_slow_handler_is_no_acknowledgement_that_hangs(history):
    history.put(1, step=0)
    history.work(1, step=0)
    history.put(2, step=0)
    history.take(2, step=0)
    wait(history, LONG_MS)
    history.say("worker.2", Event.DONE, 2, step=0, broker=REDIS)
    history.say("worker.2", Event.ACK_SENT, 2, step=0, broker=REDIS)
    assert windows(history.account(phases=ONE_STEP)) == []


@pytest.mark.parametrize(
    ("kind", "target", "named"),
    [
        ("pause", "redis", True),
        ("wire", "producers-redis", True),
        ("kill", "producer-0", True),
        ("pause", "nats", False),
        ("wire", "workers-redis", False),
        ("kill", "worker-0", False),
    ],
)
def test_a_window_has_the_name_of_a_fault_that_can_have_to_do_with_it(history, kind, target, named):
    history.put(1, step=0)
    history.fault(length_ms=LONG_MS, kind=kind, target=target)
    put_slowly(history, 2, LONG_MS)
    (window,) = history.account(phases=ONE_STEP).unavailable
    expected = (f"{kind} {target}", 0) if named else ("-", None)
    assert (window.fault, window.fault_index) == expected


def test_of_several_faults_the_one_that_lasted_for_most_of_it(history):
    history.put(1, step=0)
    history.fault(length_ms=2, kind="wire", target="producers-redis")
    history.fault(length_ms=LONG_MS, kind="pause", target="redis")
    put_slowly(history, 2, LONG_MS)
    history.fault(length_ms=LONG_MS, kind="kill", target="redis")
    (window,) = history.account(phases=ONE_STEP).unavailable
    assert (window.fault, window.fault_index) == ("pause redis", 1)


def test_only_the_longest_are_kept(history):
    history.put(0, step=0)
    for number in range(1, MAX_WINDOWS + 2):
        put_slowly(history, number, 201 + 2 * number)
    found = history.account(phases=ONE_STEP).unavailable
    assert len(found) == MAX_WINDOWS
    assert min(item.length_ns for item in found) // MS == 206
    assert [item.since_start_ns for item in found] == sorted(item.since_start_ns for item in found)
