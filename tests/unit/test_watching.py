"""What a scenario of a hazard reads from the ledger."""

import uuid

from hookbench.clock import SystemClock
from hookbench.hazards.watching import first_ns
from hookbench.ledger.events import Event, LedgerWriter
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
