"""A ledger that comes from another machine, record by record."""

import uuid

import numpy as np
import pytest

from hookbench.errors import LedgerError
from hookbench.ledger.events import DEFAULT_CAPACITY, RECORD_BYTES, Event, LedgerWriter
from hookbench.ledger.read import read_ledger
from hookbench.ledger.relay import LedgerRelay
from hookbench.ledger.tail import LedgerTail
from tests.virtual import FixedClock

AHEAD_NS = 10**14


def write(writer, clock, count):
    for number in range(count):
        clock.now_ns += 1_000
        task = uuid.UUID(int=number + 1).bytes
        writer.record(Event.PUT_INVOKED, task, value=clock.now_ns - 500, repository=3)
        writer.record(Event.ACCEPTED, task)


def carry(tail, relay, offset_ns):
    count = 0
    for records in tail.read():
        relay.add(records.tobytes(), offset_ns)
        count += len(records)
    return count


@pytest.fixture
def folders(tmp_path):
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    return there, here


@pytest.mark.parametrize("count", [1, 100, DEFAULT_CAPACITY])
def test_it_is_the_same_ledger_by_another_clock(folders, count):
    there, here = folders
    clock = FixedClock(monotonic_ns=10**9)
    writer = LedgerWriter(there, role="producer", writer=5, clock=clock)
    tail, relay = LedgerTail(there, "producer"), LedgerRelay(here, role="producer", writer=5)
    write(writer, clock, count)
    carried = carry(tail, relay, AHEAD_NS)
    assert carry(tail, relay, AHEAD_NS) == 0
    writer.close()
    assert carry(tail, relay, AHEAD_NS) == 1
    relay.close()
    assert carried == 2 * count + 1
    theirs, ours = read_ledger(there, same_boot=True), read_ledger(here, same_boot=True)
    assert (ours.damage, ours.crashed, ours.torn) == (theirs.damage, theirs.crashed, theirs.torn)
    assert (ours.writers, ours.crashed) == (["producer.00005"], theirs.crashed)
    np.testing.assert_array_equal(ours.ids, theirs.ids)
    np.testing.assert_array_equal(ours.records["time_ns"], theirs.records["time_ns"] + AHEAD_NS)
    due = ours.records["event"] == Event.PUT_INVOKED
    np.testing.assert_array_equal(
        ours.records["value"][due], theirs.records["value"][due] + AHEAD_NS
    )
    np.testing.assert_array_equal(ours.records["value"][~due], theirs.records["value"][~due])
    for name in ("event", "broker", "phase", "attempt", "repository"):
        np.testing.assert_array_equal(ours.records[name], theirs.records[name])


def test_times_do_not_go_back_when_more_is_known_of_the_clock(folders):
    there, here = folders
    clock = FixedClock(monotonic_ns=10**9)
    writer = LedgerWriter(there, role="producer", writer=1, clock=clock)
    tail, relay = LedgerTail(there, "producer"), LedgerRelay(here, role="producer", writer=1)
    for offset_ns in (5_000_000, 4_000_000, 4_500_000):
        write(writer, clock, 50)
        carry(tail, relay, offset_ns)
    writer.close()
    carry(tail, relay, 0)
    relay.close()
    found = read_ledger(here, same_boot=True)
    assert found.damage == []
    assert (np.diff(found.records["time_ns"]) >= 0).all()


def test_what_was_not_closed_has_crashed(folders):
    there, here = folders
    clock = FixedClock(monotonic_ns=10**9)
    writer = LedgerWriter(there, role="producer", writer=1, clock=clock)
    write(writer, clock, 3)
    relay = LedgerRelay(here, role="producer", writer=1)
    carry(LedgerTail(there, "producer"), relay, 0)
    relay.close()
    writer.close()
    assert set(read_ledger(here, same_boot=True).crashed) == {"producer.00001"}


def test_half_a_record_is_refused(folders):
    relay = LedgerRelay(folders[1], role="producer", writer=1)
    with pytest.raises(LedgerError, match=r"producer\.1: no whole records"):
        relay.add(bytes(RECORD_BYTES + 3), 0)
    relay.add(b"", 0)
    assert list(folders[1].iterdir()) == []


def test_a_segment_that_is_there_is_not_written_over(folders):
    (folders[1] / "producer.00001.0000.ledger").write_bytes(b"somebody else's")
    relay = LedgerRelay(folders[1], role="producer", writer=1)
    with pytest.raises(LedgerError, match="File exists"):
        relay.add(bytes(RECORD_BYTES), 0)
