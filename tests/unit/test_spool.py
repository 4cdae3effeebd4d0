import sqlite3

import pytest

from hookbench.errors import SpoolError
from hookbench.migration.spool import Spool

BOOT = bytes(16)


def add(spool, number, task=b"{}"):
    spool.add(f"id-{number}", task, intended_ns=number, boot_id=BOOT)


def test_tasks_come_out_in_order_and_leave_when_removed(tmp_path):
    with Spool(tmp_path / "spool") as spool:
        for number in range(5):
            add(spool, number, f"{number}".encode())
        assert len(spool) == 5
        oldest = spool.oldest(3)
        assert [(row.task, row.intended_ns) for row in oldest] == [(b"0", 0), (b"1", 1), (b"2", 2)]
        for row in oldest:
            spool.remove(row.number)
        assert [row.task for row in spool.oldest(9)] == [b"3", b"4"]


def test_the_same_id_is_kept_once(tmp_path):
    with Spool(tmp_path / "spool") as spool:
        add(spool, 1, b"first")
        add(spool, 1, b"second")
        assert [row.task for row in spool.oldest(9)] == [b"first"]


def test_what_was_added_is_there_for_the_next_process(tmp_path):
    with Spool(tmp_path / "spool") as spool:
        add(spool, 1)
    with Spool(tmp_path / "spool") as spool:
        assert len(spool) == 1


def test_two_at_a_time(tmp_path):
    with Spool(tmp_path / "spool") as first, Spool(tmp_path / "spool") as second:
        add(first, 1)
        add(second, 2)
        assert len(first) == len(second) == 2


def test_a_task_set_aside_waits_no_more_and_keeps_its_reason(tmp_path):
    with Spool(tmp_path / "spool") as spool:
        add(spool, 1)
        (row,) = spool.oldest(1)
        spool.reject(row.number, "too large")
        assert len(spool) == 0
        assert spool.oldest(9) == []
        assert spool.rejected() == [(row.number, "too large")]


def test_commits_are_synchronous(tmp_path):
    with Spool(tmp_path / "spool") as spool:
        assert spool._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SpoolError, match="missing"):
        Spool(tmp_path / "missing" / "spool")


def test_a_file_that_is_no_spool_is_named(tmp_path):
    path = tmp_path / "spool"
    path.write_bytes(b"this is no database, and long enough to be looked at" * 40)
    with pytest.raises(SpoolError, match="spool"):
        Spool(path)
    assert path.read_bytes().startswith(b"this is no database")
    assert sqlite3.sqlite_version


def test_what_an_installed_hook_of_0_1_0_spooled_is_read(tmp_path):
    """The statements are written out, apart from the code: a spool outlives an upgrade."""
    path = tmp_path / "spool"
    with sqlite3.connect(path) as old:
        old.execute("PRAGMA journal_mode=WAL")
        old.execute(
            "CREATE TABLE spool (number INTEGER PRIMARY KEY AUTOINCREMENT,"
            " task_id TEXT NOT NULL UNIQUE, task BLOB NOT NULL, intended_ns INTEGER NOT NULL,"
            " boot_id BLOB NOT NULL, rejected TEXT)"
        )
        insert = (
            "INSERT INTO spool (task_id, task, intended_ns, boot_id, rejected) VALUES (?,?,?,?,?)"
        )
        old.execute(insert, ("id-1", b"waits", 1, BOOT, None))
        old.execute(insert, ("id-2", b"too big", 2, BOOT, "set aside"))
    old.close()
    with Spool(path) as spool:
        assert [tuple(row) for row in spool.oldest(9)] == [(1, b"waits", 1, BOOT, 0)]
        add(spool, 3)
        assert len(spool) == 2
