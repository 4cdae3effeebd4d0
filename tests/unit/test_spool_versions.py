"""Which brokers have a task, and spools of the version before that was written down."""

import sqlite3

import pytest

from hookbench.errors import SpoolError
from hookbench.migration.spool import NO_BROKER, ON_NATS, ON_REDIS, Spool

BOOT = bytes(16)
BOTH = ON_REDIS | ON_NATS
FIRST_VERSION = """
CREATE TABLE spool (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    task_id TEXT NOT NULL UNIQUE,
    task BLOB NOT NULL,
    intended_ns INTEGER NOT NULL,
    boot_id BLOB NOT NULL,
    rejected TEXT
)
"""
ADD = "INSERT INTO spool (task_id, task, intended_ns, boot_id) VALUES (?, ?, 5, ?)"


@pytest.fixture
def spool(tmp_path):
    with Spool(tmp_path / "spool") as opened:
        yield opened


def fill(spool, count):
    return [
        spool.add(f"id-{number}", b"%d" % number, intended_ns=0, boot_id=BOOT)
        for number in range(count)
    ]


def numbers(rows):
    return [row.number for row in rows]


def test_a_row_is_told_apart_from_one_that_was_there(spool):
    assert spool.add("id", b"1", intended_ns=0, boot_id=BOOT) == 1
    assert spool.add("id", b"1", intended_ns=0, boot_id=BOOT) is None
    assert spool.add("other", b"2", intended_ns=0, boot_id=BOOT) > 1


def numbered(*numbers):
    return [(f"id-{number}", b"%d" % number, 0) for number in numbers]


def test_many_are_added_at_once_in_their_order(spool):
    assert spool.add_all(numbered(1, 2, 3), first=1, boot_id=BOOT) == [1, 2, 3]
    assert spool.add_all(numbered(4), first=4, boot_id=BOOT) == [4]
    assert [row.task for row in spool.oldest(9)] == [b"1", b"2", b"3", b"4"]
    assert spool.last_number() == 4


def test_of_many_those_that_were_there_are_told(spool):
    spool.add_all(numbered(1, 2), first=1, boot_id=BOOT)
    assert spool.add_all(numbered(2, 3, 1), first=3, boot_id=BOOT) == [None, 4, None]
    assert [row.task for row in spool.oldest(9)] == [b"1", b"2", b"3"]


def test_one_that_is_twice_in_a_group_is_one_row(spool):
    assert spool.add_all(numbered(1, 1), first=1, boot_id=BOOT) == [1, None]
    assert len(spool) == 1


def test_a_number_that_another_process_took_costs_no_task(spool):
    fill(spool, 2)
    assert spool.add_all(numbered(7, 8, 9), first=2, boot_id=BOOT) == [5, 3, 4]
    assert {row.task for row in spool.oldest(9)} == {b"0", b"1", b"7", b"8", b"9"}


def test_numbers_are_not_given_twice(spool):
    rows = fill(spool, 3)
    spool.acknowledge([(number, BOTH) for number in rows], needed=BOTH)
    assert len(spool) == 0
    assert spool.last_number() == 3
    assert spool.add("new", b"new", intended_ns=0, boot_id=BOOT) == 4


def test_a_task_leaves_when_every_needed_broker_has_it_and_not_before(spool):
    first, second, third = fill(spool, 3)
    assert spool.acknowledge([(first, ON_REDIS), (second, ON_NATS)], needed=BOTH) == 0
    assert numbers(spool.lacking(ON_NATS, 9)) == [first, third]
    assert numbers(spool.lacking(ON_REDIS, 9)) == [second, third]
    assert spool.acknowledge([(first, ON_NATS), (third, BOTH)], needed=BOTH) == 2
    assert [(row.number, row.acked) for row in spool.oldest(9)] == [(second, ON_NATS)]


def test_one_needed_broker_is_enough_when_the_route_has_one(spool):
    first, second = fill(spool, 2)
    assert spool.acknowledge([(first, ON_NATS), (second, ON_REDIS)], needed=ON_NATS) == 1
    assert numbers(spool.oldest(9)) == [second]


def test_another_route_settles_what_it_needs_no_more(spool):
    first, second, third = fill(spool, 3)
    spool.acknowledge([(first, ON_NATS), (second, ON_REDIS)], needed=BOTH)
    assert spool.settle(ON_NATS) == 1
    assert numbers(spool.lacking(ON_NATS, 9)) == [second, third]


def test_no_route_settles_nothing(spool):
    fill(spool, 1)
    with pytest.raises(SpoolError, match="no broker is needed"):
        spool.settle(NO_BROKER)
    assert len(spool) == 1


def test_reading_goes_on_after_a_number(spool):
    rows = fill(spool, 4)
    assert numbers(spool.lacking(ON_NATS, 2, after=rows[0])) == rows[1:3]


def test_what_is_set_aside_waits_for_no_broker_and_is_still_there(spool):
    first, second = fill(spool, 2)
    spool.reject(first, "too large")
    assert numbers(spool.lacking(ON_NATS, 9)) == [second]
    assert spool.tasks() == [b"0", b"1"]
    assert spool.last_number() == second


def test_a_transaction_is_whole_or_not_at_all(spool):
    def break_off():
        with spool.transaction():
            fill(spool, 2)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert len(spool) == 0
    with spool.transaction(durable=False):
        fill(spool, 2)
    assert len(spool) == 2
    assert spool._db.execute("PRAGMA synchronous").fetchone() == (2,)


@pytest.fixture
def first_version(tmp_path):
    path = tmp_path / "spool"
    with sqlite3.connect(path) as db:
        db.execute(FIRST_VERSION)
        db.execute(ADD, ("old", b"old task", BOOT))
    db.close()
    return path


def test_a_spool_of_the_first_version_is_read_and_brought_up_to_date(first_version):
    with Spool(first_version) as spool:
        assert [(row.task, row.intended_ns, row.acked) for row in spool.oldest(9)] == [
            (b"old task", 5, NO_BROKER)
        ]
        (row,) = spool.oldest(1)
        assert spool.acknowledge([(row.number, ON_REDIS)], needed=BOTH) == 0
    with Spool(first_version) as spool:
        assert [row.acked for row in spool.oldest(9)] == [ON_REDIS]


def test_a_hook_of_the_first_version_goes_on_with_it(first_version):
    Spool(first_version).close()
    with sqlite3.connect(first_version) as db:
        db.execute(ADD, ("new", b"new task", BOOT))
        rows = db.execute("SELECT task FROM spool WHERE rejected IS NULL").fetchall()
    db.close()
    assert rows == [(b"old task",), (b"new task",)]
    with Spool(first_version) as spool:
        assert [row.task for row in spool.lacking(ON_NATS, 9)] == [b"old task", b"new task"]


def test_two_that_bring_it_up_to_date_at_once(first_version):
    with Spool(first_version) as first, Spool(first_version) as second:
        assert len(first) == len(second) == 1


def test_a_later_version_is_left_alone(tmp_path):
    path = tmp_path / "spool"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 3")
    db.close()
    with pytest.raises(SpoolError, match="version 3"):
        Spool(path)
