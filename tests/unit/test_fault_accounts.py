"""What is a fault's doing, and what is not."""

import pytest

from hookbench.ledger.events import Broker, Event
from hookbench.ledger.model import Place
from tests.histories import MS, History


@pytest.fixture
def history(tmp_path):
    return History(tmp_path)


def test_only_what_was_in_flight_is_exposed(history):
    history.put(1, step=0)
    history.work(1, step=0)
    history.put(2, step=0)
    history.fault(length_ms=20)
    history.work(2, step=0)
    history.put(3, step=0)
    history.clock.now_ns += 20 * MS
    history.work(3, step=0)
    history.put(4, step=0)
    history.work(4, step=0)
    (fault,) = history.account().faults
    assert (fault.name, fault.length_ns, fault.exposed) == ("kill redis", 20 * MS, 2)
    assert (fault.lost, fault.stuck, fault.duplicated) == (0, 0, 0)


def test_a_task_that_never_ended_is_the_next_faults_and_no_later_ones(history):
    history.put(1, step=0)
    history.take(1, step=0)
    history.lies(Place.REDIS_WORK, 1)
    for _ in range(3):
        history.clock.now_ns += 50 * MS
        history.fault(length_ms=5)
    history.put(2, step=0)
    assert [fault.stuck for fault in history.account().faults] == [1, 0, 0]


def test_a_loss_is_the_fault_it_spans(history):
    history.put(1, step=3, redis=False, nats=1)
    history.take(1, step=3, broker=Broker.NATS)
    history.say("worker.2", Event.ACK_SENT, 1, step=3, broker=Broker.NATS)
    history.fault(length_ms=5, target="worker-0")
    (fault,) = history.account(crashed=["worker.2"]).faults
    assert (fault.exposed, fault.lost) == (1, 1)
    assert fault.recovery_ns is None  # a worker answers nobody


def test_a_repeat_that_spans_the_fault_is_its_doing(history):
    history.put(1, step=3, redis=False, nats=1)
    history.work(1, step=3, broker=Broker.NATS, ack=False)
    history.put(2, step=3, redis=False, nats=2)
    history.work(2, step=3, broker=Broker.NATS, ack=False)
    history.work(2, step=3, broker=Broker.NATS, attempt=2, who="worker.3")
    history.put(3, step=3, redis=False, nats=3)
    history.fault(length_ms=10, target="nats")
    history.work(3, step=3, broker=Broker.NATS)
    history.work(3, step=3, broker=Broker.NATS, attempt=2, who="worker.3")
    (fault,) = history.account().faults
    assert (fault.exposed, fault.duplicated) == (1, 1)


def test_how_long_nothing_went_and_when_it_went_again(history):
    history.put(1, step=0)
    history.put(2, step=0)
    history.fault(length_ms=100)
    history.clock.now_ns += 107 * MS
    history.put(3, step=0)
    history.work(3, step=0)
    (fault,) = history.account().faults
    # Put 2 was acknowledged one event before the fault, put 3 two events after its end.
    assert fault.longest_without_ns == {"redis put": 110 * MS}
    assert fault.recovery_ns == 9 * MS
    assert fault.served_again_ns == {"redis put": 109 * MS}


def test_a_failover_is_over_before_the_fault_is(history):
    for number in range(1, 4):
        history.put(number, step=3, redis=False, nats=number)
    history.fault(length_ms=1_000, target="stream_leader")
    history.clock.now_ns += 300 * MS
    for number in range(4, 9):
        history.put(number, step=3, redis=False, nats=number)
    (fault,) = history.account().faults
    assert fault.served_again_ns == {"nats put": 302 * MS}
    assert fault.recovery_ns is None  # nothing was put after its end


def test_who_recovers_is_the_broker_of_a_node_a_role_or_a_link(history):
    for target in ("nats-2", "stream_leader", "producers-nats", "workers-nats"):
        history.fault(length_ms=2, target=target)
    history.clock.now_ns += 10 * MS
    history.put(1, step=3, redis=False, nats=1)
    faults = history.account().faults
    assert [fault.recovery_ns for fault in faults] == [10 * MS, 10 * MS, 10 * MS, None]


def test_the_time_to_the_next_start_over_all_deaths(history):
    for number, who, ms in ((1, "worker.2", 100), (2, "worker.3", 300)):
        history.put(number, step=0)
        history.take(number, step=0, who=who)
        history.clock.now_ns += ms * MS
        history.say("worker.4", Event.STARTED, number, step=0, broker=Broker.REDIS, attempt=2)
        history.say("worker.4", Event.DONE, number, step=0, broker=Broker.REDIS, attempt=2)
    account = history.account(crashed=["worker.2", "worker.3"])
    assert account.redelivery_ns["max"] == 301 * MS
    assert account.redelivery_ns["p50"] // MS == 101


def test_without_a_death_there_is_no_time_to_the_next_start(history):
    history.put(1, step=0)
    history.work(1, step=0)
    assert history.account().redelivery_ns is None


def test_the_next_start_after_a_death(history):
    history.put(1, step=0)
    history.say("worker.2", Event.RECEIVED, 1, step=0, broker=Broker.REDIS, attempt=1)
    history.clock.now_ns += 500 * MS
    history.say("worker.3", Event.RECEIVED, 1, step=0, broker=Broker.REDIS, attempt=2)
    history.say("worker.3", Event.STARTED, 1, step=0, broker=Broker.REDIS, attempt=2)
    history.say("worker.3", Event.DONE, 1, step=0, broker=Broker.REDIS, attempt=2)
    account = history.account(crashed=["worker.2"])
    assert account.crashes[0].restart_ns["max"] == 502 * MS
    assert account.crashes[0].done_by_others == 1


def test_who_was_in_doubt_and_was_served_all_the_same(history):
    history.put(1, step=0, accepted=False)
    history.say("producer.1", Event.DOUBTFUL, 1, step=0)
    history.work(1, step=0)
    account = history.account()
    assert (account.doubtful, account.recovered) == (1, 1)
