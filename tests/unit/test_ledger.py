import os
import signal
import subprocess
import sys
import textwrap

import pytest

from hookbench.errors import LedgerError
from hookbench.ledger.events import (
    HEADER,
    HEADER_BYTES,
    MAGIC,
    NO_TASK,
    RECORD_BYTES,
    Broker,
    Event,
    LedgerWriter,
)
from hookbench.ledger.read import read_ledger
from tests.virtual import FixedClock


def open_writer(folder, clock=None, *, writer=1, capacity=1024):
    return LedgerWriter(
        folder,
        role="worker",
        writer=writer,
        clock=clock or FixedClock(monotonic_ns=1),
        capacity=capacity,
    )


def test_a_record_is_small_enough():
    assert RECORD_BYTES <= 48


def test_what_is_recorded_is_read(tmp_path):
    clock = FixedClock(monotonic_ns=10)
    writer = open_writer(tmp_path, clock)
    writer.phase = 3
    clock.now_ns = 20
    writer.record(Event.RECEIVED, b"t" * 16, broker=Broker.NATS, value=-5, attempt=2)
    writer.close()
    ledger = read_ledger(tmp_path, same_boot=True)
    assert ledger.records["event"].tolist() == [
        Event.WRITER_OPEN,
        Event.RECEIVED,
        Event.WRITER_CLOSE,
    ]
    row = ledger.records[1]
    assert (row["time_ns"], row["value"], row["broker"], row["phase"], row["attempt"]) == (
        20,
        -5,
        Broker.NATS,
        3,
        2,
    )
    assert sorted(bytes(item) for item in ledger.ids) == [NO_TASK, b"t" * 16]
    tasks = [bytes(ledger.ids[row]) for row in ledger.task]
    assert tasks == [NO_TASK, b"t" * 16, NO_TASK]
    assert ledger.crashed == []
    assert ledger.torn == 0


def test_attempts_beyond_the_column_are_kept_at_its_end(tmp_path):
    writer = open_writer(tmp_path)
    writer.record(Event.RECEIVED, attempt=10**9)
    writer.close()
    assert read_ledger(tmp_path).records["attempt"].max() == 0xFFFF


def test_segments_rotate_and_lose_nothing(tmp_path):
    clock = FixedClock(monotonic_ns=1)
    writer = open_writer(tmp_path, clock, capacity=10)
    for number in range(95):
        clock.now_ns += 1
        writer.record(Event.DONE, number.to_bytes(16, "big"))
    writer.close()
    assert len(list(tmp_path.glob("*.ledger"))) == 10
    ledger = read_ledger(tmp_path)
    done = ledger.ids[ledger.task[ledger.records["event"] == Event.DONE]]
    assert [int.from_bytes(bytes(task), "big") for task in done] == list(range(95))


def test_writers_are_merged_in_time_order(tmp_path):
    clock = FixedClock(monotonic_ns=1)
    writers = [open_writer(tmp_path, clock, writer=number) for number in (1, 2)]
    for number in range(10):
        clock.now_ns += 1
        writers[number % 2].record(Event.DONE, number.to_bytes(16, "big"))
    for writer in writers:
        writer.close()
    ledger = read_ledger(tmp_path)
    done = ledger.records["event"] == Event.DONE
    assert ledger.records["value"][done].size == 10
    assert (ledger.records["time_ns"][1:] >= ledger.records["time_ns"][:-1]).all()
    assert ledger.writer[done].tolist() == [0, 1] * 5
    assert ledger.writers == ["worker.00001", "worker.00002"]


def test_records_survive_sigkill(tmp_path):
    script = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        from hookbench.clock import SystemClock
        from hookbench.ledger.events import Event, LedgerWriter
        writer = LedgerWriter(Path({str(tmp_path)!r}), role="worker", writer=1,
                              clock=SystemClock(), capacity=50)
        for number in range(1, 121):
            writer.record(Event.DONE, number.to_bytes(16, "big"))
        print("written", flush=True)
        sys.stdin.read()
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout.readline() == b"written\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    ledger = read_ledger(tmp_path, same_boot=True)
    assert (ledger.records["event"] == Event.DONE).sum() == 120
    assert ledger.crashed == ["worker.00001"]


def only_segment(folder):
    (path,) = folder.glob("*.ledger")
    return path


def test_a_record_without_its_commit_marker_is_torn(tmp_path):
    writer = open_writer(tmp_path)
    writer.record(Event.DONE, b"a" * 16)
    writer.close()
    path = only_segment(tmp_path)
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + 2 * RECORD_BYTES - 4 : HEADER_BYTES + 2 * RECORD_BYTES] = bytes(4)
    path.write_bytes(data)
    ledger = read_ledger(tmp_path)
    assert ledger.torn == 1
    assert Event.DONE not in ledger.records["event"]


def rewrite_header(path, **changes):
    data = bytearray(path.read_bytes())
    names = ("magic", "schema", "record_bytes", "capacity", "pid", "boot", "role")
    fields = dict(zip(names, HEADER.unpack_from(data), strict=True)) | changes
    HEADER.pack_into(data, 0, *fields.values())
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"magic": b"NOLEDGER"}, "no ledger"),
        ({"schema": 99}, "schema 99"),
        ({"record_bytes": 40}, "40 bytes"),
        ({"boot": b"x" * 16}, "another boot"),
    ],
)
def test_what_is_no_ledger_of_ours_is_named(tmp_path, changes, message):
    assert len(MAGIC) == 8
    open_writer(tmp_path).close()
    rewrite_header(only_segment(tmp_path), **changes)
    with pytest.raises(LedgerError, match=message):
        read_ledger(tmp_path, same_boot=True)


def test_an_empty_folder_and_a_short_file_are_named(tmp_path):
    with pytest.raises(LedgerError, match="no ledger segments"):
        read_ledger(tmp_path)
    (tmp_path / "worker.00001.0000.ledger").write_bytes(b"HOOK")
    with pytest.raises(LedgerError, match="4 bytes"):
        read_ledger(tmp_path)


def test_a_segment_is_never_written_over(tmp_path):
    open_writer(tmp_path).close()
    with pytest.raises(LedgerError, match="File exists"):
        open_writer(tmp_path)


def test_writing_after_the_close_is_an_error(tmp_path):
    writer = open_writer(tmp_path)
    writer.close()
    writer.close()
    with pytest.raises(LedgerError, match="closed"):
        writer.record(Event.DONE)


def test_rows_are_found_by_id_and_foreign_ids_are_left_out(tmp_path):
    writer = open_writer(tmp_path)
    ids = [number.to_bytes(16, "big") for number in range(1, 200)]
    for item in ids:
        writer.record(Event.DONE, item)
    writer.close()
    ledger = read_ledger(tmp_path)
    rows = ledger.rows_of([ids[5], b"f" * 16, ids[7], ids[5]])
    assert [bytes(ledger.ids[row]) for row in rows] == [ids[5], ids[7], ids[5]]
    assert ledger.rows_of([]).tolist() == []


def test_ids_with_the_same_key_are_an_error_and_no_confusion(tmp_path):
    """Two ids whose halves mix to one integer: a half that undoes the other."""
    factor = 0x9E3779B97F4A7C15
    first = (0).to_bytes(8, "little") + (factor).to_bytes(8, "little")
    second = (1).to_bytes(8, "little") + (0).to_bytes(8, "little")
    writer = open_writer(tmp_path)
    writer.record(Event.DONE, first)
    writer.record(Event.DONE, second)
    writer.close()
    with pytest.raises(LedgerError, match="same key"):
        read_ledger(tmp_path)
