"""What a scenario of a hazard reads from the ledger."""

import uuid

from hookbench.clock import SystemClock
from hookbench.hazards.watching import first_ns
from hookbench.ledger.events import Broker, Event, LedgerWriter
from hookbench.ledger.read import read_ledger


def test_the_first_of_each_task_counts_and_phases_are_no_tasks(tmp_path):
    one, two, three = (uuid.UUID(int=number) for number in (1, 2, 3))
    writer = LedgerWriter(tmp_path, role="worker", writer=1, clock=SystemClock())
    writer.record(Event.PHASE, value=0)
    writer.record(Event.DEAD)  # bytes that are no task
    for item in (two, one, two):
        writer.record(Event.DEAD, item.bytes)
    writer.record(Event.DONE, three.bytes)
    writer.close()
    ledger = read_ledger(tmp_path)
    dead = first_ns(ledger, Event.DEAD)
    assert set(dead) == {str(one), str(two)}
    assert dead[str(two)] < dead[str(one)]
    last_ns = ledger.records["time_ns"][ledger.records["event"] == Event.DEAD].max()
    assert dead[str(one)] < last_ns
    assert first_ns(ledger, Event.STARTED) == {}


def test_only_what_concerned_a_broker_counts_where_one_is_named(tmp_path):
    one, two = (uuid.UUID(int=number) for number in (1, 2))
    writer = LedgerWriter(tmp_path, role="producer", writer=1, clock=SystemClock())
    writer.record(Event.PUT_OK, one.bytes, broker=Broker.REDIS)
    writer.record(Event.PUT_OK, two.bytes, broker=Broker.NATS)
    writer.record(Event.PUT_FAIL, one.bytes, broker=Broker.NATS)
    writer.close()
    ledger = read_ledger(tmp_path)
    assert set(first_ns(ledger, Event.PUT_OK, broker=Broker.REDIS)) == {str(one)}
    assert set(first_ns(ledger, Event.PUT_OK)) == {str(one), str(two)}
