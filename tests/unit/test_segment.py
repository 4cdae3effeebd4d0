"""Damaged ledgers: what is wrong is named, and the rest is read."""

import random
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from hookbench.errors import LedgerError
from hookbench.ledger.events import (
    HEADER,
    HEADER_BYTES,
    RECORD_BYTES,
    Broker,
    Event,
    LedgerWriter,
)
from hookbench.ledger.read import read_ledger
from hookbench.ledger.segment import RECORD_DTYPE, _longest_in_order
from tests.virtual import FixedClock

TASKS = 20
FIELDS = ("magic", "schema", "record_bytes", "capacity", "pid", "boot", "role")


@pytest.fixture
def folder(tmp_path):
    """Two writers with two segments each: 20 tasks done by each, of 22 records."""
    for writer in (1, 2):
        clock = FixedClock(monotonic_ns=1_000 * writer)
        opened = LedgerWriter(tmp_path, role="worker", writer=writer, clock=clock, capacity=12)
        for number in range(TASKS):
            clock.now_ns += 10
            task = (100 * writer + number).to_bytes(16, "big")
            opened.record(Event.DONE, task, broker=Broker.REDIS)
        opened.close()
    return tmp_path


def done_by(ledger, writer):
    mine = (ledger.records["event"] == Event.DONE) & (
        ledger.writer == ledger.writers.index(f"worker.{writer:05d}")
    )
    return int(mine.sum())


def change_header(path, **changes):
    data = bytearray(path.read_bytes())
    fields = dict(zip(FIELDS, HEADER.unpack_from(data), strict=True)) | changes
    HEADER.pack_into(data, 0, *fields.values())
    path.write_bytes(data)


def change_records(path, rows, **changes):
    data = path.read_bytes()
    records = np.frombuffer(data[HEADER_BYTES:], dtype=RECORD_DTYPE).copy()
    for name, value in changes.items():
        records[name][rows] = value
    path.write_bytes(data[:HEADER_BYTES] + records.tobytes())


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


# What is done to segment 0 or 1 of the first writer, what is said of it, and how many of its 20
# tasks are left.
DAMAGES = {
    "zero bytes": (0, lambda p: cut(p, 0), "0 bytes, shorter than its header", 9),
    "within the header": (1, lambda p: cut(p, 77), "77 bytes, shorter", 11),
    "a header of zeros": (0, lambda p: p.write_bytes(bytes(p.stat().st_size)), "no ledger", 9),
    "magic": (0, lambda p: change_header(p, magic=b"NOLEDGER"), "no ledger", 9),
    "record size": (0, lambda p: change_header(p, record_bytes=40), "records of 40 bytes", 9),
    "newer": (1, lambda p: change_header(p, schema=99), "schema 99, this version reads 1 to", 11),
    "older than the first": (1, lambda p: change_header(p, schema=0), "schema 0", 11),
    "role": (0, lambda p: change_header(p, role=b"producer"), "names the writer b'producer'", 20),
    "capacity": (0, lambda p: change_header(p, capacity=3), "its header says 3 at most", 20),
    "other boot": (0, lambda p: change_header(p, boot=b"x" * 16), "another boot", 9),
    "in a record": (0, lambda p: cut(p, HEADER_BYTES + 5 * RECORD_BYTES + 7), "after 5 of 12", 13),
    "between records": (1, lambda p: cut(p, HEADER_BYTES + 3 * RECORD_BYTES), "after 3 of", 14),
    "behind the header": (1, lambda p: cut(p, HEADER_BYTES), "after 0 of 12", 11),
    "event": (0, lambda p: change_records(p, [3, 4], event=99), "2 records with event 99", 18),
    "broker": (0, lambda p: change_records(p, 3, broker=9), "1 records with broker 9", 19),
    "phase": (0, lambda p: change_records(p, 3, phase=5), "1 records with phase 5", 19),
    "time zero": (0, lambda p: change_records(p, 3, time_ns=0), "1 records with time_ns 0", 19),
    "time below": (0, lambda p: change_records(p, 3, time_ns=-5), "1 records with time_ns -5", 19),
    "long ago": (0, lambda p: change_records(p, 3, time_ns=1), "1 records with a time out", 19),
    "far ahead": (0, lambda p: change_records(p, 3, time_ns=10**18), "1 records with a time", 19),
    "first long ago": (1, lambda p: change_records(p, 0, time_ns=1), "1 records with a time", 19),
    "blank": (0, lambda p: change_records(p, [3, 4], time_ns=0, commit=0), "2 records in its", 18),
    "missing": (0, lambda p: p.unlink(), "missing", 9),
    "another name": (
        0,
        lambda p: p.rename(p.with_name("odd.ledger")),
        "odd.ledger: not a segment's name",
        9,
    ),
    "a folder": (0, lambda p: (p.unlink(), p.mkdir()), "Is a directory", 9),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_is_named_and_the_rest_is_read(folder, name):
    number, damage, message, left = DAMAGES[name]
    path = folder / f"worker.00001.{number:04d}.ledger"
    damage(path)
    ledger = read_ledger(folder, lenient=True, steps=5)
    assert done_by(ledger, 1) == left
    assert done_by(ledger, 2) == TASKS
    assert message in "\n".join(ledger.damage)
    assert (ledger.records["time_ns"][1:] >= ledger.records["time_ns"][:-1]).all()
    if name != "another name":
        assert all(f"segment {path.name}" in text for text in ledger.damage)
    with pytest.raises(LedgerError, match="segment"):
        read_ledger(folder, steps=5)


def test_a_whole_ledger_is_not_damaged(folder):
    ledger = read_ledger(folder, lenient=True, same_boot=True, steps=1)
    assert (ledger.damage, ledger.torn, ledger.crashed) == ([], 0, [])
    assert done_by(ledger, 1) + done_by(ledger, 2) == 2 * TASKS


def test_a_writer_whose_last_segment_is_damaged_is_not_said_to_have_died(folder):
    for damage in (lambda p: cut(p, 0), lambda p: cut(p, HEADER_BYTES + RECORD_BYTES)):
        damage(folder / "worker.00001.0001.ledger")
        ledger = read_ledger(folder, lenient=True)
        assert ledger.damage
        assert ledger.crashed == []


def test_a_writer_that_died_is_no_damage(tmp_path):
    writer = LedgerWriter(
        tmp_path, role="worker", writer=1, clock=FixedClock(monotonic_ns=5), capacity=12
    )
    writer.record(Event.DONE, b"t" * 16)
    ledger = read_ledger(tmp_path)
    assert (ledger.damage, ledger.crashed) == ([], ["worker.00001"])
    assert len(ledger.records) == 2


def test_a_process_killed_before_the_header_is_written_leaves_no_segment(folder):
    script = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        from hookbench.clock import SystemClock
        from hookbench.ledger import events
        events.boot_id = lambda: os.kill(os.getpid(), signal.SIGKILL)
        events.LedgerWriter(Path({str(folder)!r}), role="worker", writer=3, clock=SystemClock())
        """
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (folder / "worker.00003.0000.ledger.new").exists()
    ledger = read_ledger(folder)
    assert ledger.writers == ["worker.00001", "worker.00002"]
    assert ledger.damage == []


def test_times_before_the_end_of_the_segment_before_are_named_and_kept(folder):
    """The last time before is the wrong one: the many records behind it are not thrown away."""
    change_records(folder / "worker.00001.0000.ledger", 11, time_ns=10**18)
    ledger = read_ledger(folder, lenient=True)
    assert done_by(ledger, 1) == TASKS
    assert "worker.00001.0001.ledger: its times lie before" in ledger.damage[0]


def test_where_nothing_can_be_read_the_first_reason_is_given(folder):
    for path in folder.iterdir():
        cut(path, 0)
    with pytest.raises(
        LedgerError, match=r"none of its segments .* worker\.00001\.0000\.ledger: 0"
    ):
        read_ledger(folder, lenient=True)


def test_no_folder_and_an_empty_one_are_told_apart(tmp_path):
    with pytest.raises(LedgerError, match="there is no such folder"):
        read_ledger(tmp_path / "none", lenient=True)
    with pytest.raises(LedgerError, match=r"no ledger segments .*ledger\) in [^(]*$"):
        read_ledger(tmp_path, lenient=True)


def test_garbage_is_never_taken_for_records(folder):
    """Random bytes in the middle of a segment: whatever is left can be."""
    entropy = random.Random(7)
    path = folder / "worker.00001.0000.ledger"
    whole = path.read_bytes()
    for _ in range(200):
        data = bytearray(whole)
        at = entropy.randrange(HEADER_BYTES, len(data))
        data[at : at + 60] = entropy.randbytes(min(60, len(data) - at))
        path.write_bytes(data)
        records = read_ledger(folder, lenient=True, steps=5).records
        assert set(records["event"].tolist()) <= set(Event)
        assert set(records["broker"].tolist()) <= set(Broker)
        assert records["phase"].max() < 5
        assert records["time_ns"].min() > 0


def test_the_longest_row_in_order_is_the_longest():
    """Against the textbook's quadratic recurrence."""
    entropy = random.Random(7)
    for _ in range(300):
        values = [entropy.randrange(12) for _ in range(entropy.randrange(12))]
        best = []
        for at, value in enumerate(values):
            best.append(1 + max((best[i] for i in range(at) if values[i] <= value), default=0))
        found = _longest_in_order(values)
        assert len(found) == max(best, default=0)
        kept = [values[position] for position in found]
        assert kept == sorted(kept)
        assert found == sorted(set(found))
