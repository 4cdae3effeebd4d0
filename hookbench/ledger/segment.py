"""One segment of a ledger as it lies on the disk, and what is wrong with it.

A segment is judged before it is believed. One whose header makes no sense is not read; of one that
was cut off or damaged the rest is, and the damage is named.
"""

import re
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hookbench.errors import LedgerError
from hookbench.ledger.events import (
    COMMIT_MARKER,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    RECORD_BYTES,
    SCHEMA_VERSION,
    Broker,
    Event,
)

__all__ = ["MAX_STEPS", "RECORD_DTYPE", "Segment", "SegmentPart", "open_segment", "read_segment"]

RECORD_DTYPE = np.dtype(
    [
        ("time_ns", "<i8"),
        ("task", "V16"),
        ("value", "<i8"),
        ("event", "u1"),
        ("broker", "u1"),
        ("phase", "u1"),
        ("flags", "u1"),
        ("attempt", "<u2"),
        ("writer", "<u2"),
        ("repository", "<u4"),
        ("commit", "<u4"),
    ]
)
if RECORD_DTYPE.itemsize != RECORD_BYTES:
    raise LedgerError(f"record of {RECORD_DTYPE.itemsize} bytes, written as {RECORD_BYTES}")

MAX_SLOTS = 64 * 1024 * 1024
"""3 GiB: a file may be as long as it likes and take no room, but reading it would."""
MAX_STEPS = 256
"""A step of the timeline is one byte of a record."""
_NAME = re.compile(r"(?P<role>.+)\.(?P<writer>\d{5})\.(?P<number>\d{4,})\.ledger")
_EVENTS = np.isin(np.arange(256), list(Event))
_BROKERS = np.isin(np.arange(256), list(Broker))

Report = Callable[[str], None]
"""Is told of each damage, in a text that begins with the segment's name."""


class Segment(NamedTuple):
    """What name and header say.

    Attributes:
        writer: ``role.number``.
        number: its place among the segments of its writer, from 0.
        slots: records that the file has room for.
        capacity: records that it was allocated for.
    """

    path: Path
    writer: str
    number: int
    slots: int
    capacity: int
    boot: bytes


class SegmentPart(NamedTuple):
    """The records that can be used.

    Attributes:
        records: of ``RECORD_DTYPE``, in the order of their time.
        torn: records that were cut off in the middle of their write.
        closed: whether it holds its writer's closing record.
        cut: whether records are missing at its end.
    """

    records: npt.NDArray[np.void]
    torn: int
    closed: bool
    cut: bool


def open_segment(path: Path, report: Report) -> Segment:
    """What name and header of a segment say; ``report`` is told what can be worked around.

    Raises:
        LedgerError: it cannot be read at all. The text begins with the segment's name.
    """
    what = f"segment {path.name}"
    found = _NAME.fullmatch(path.name)
    if found is None:
        raise LedgerError(f"{what}: not a segment's name (worker.00001.0000.ledger)")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(HEADER.size)
    except OSError as error:
        raise LedgerError(f"{what}: {error.strerror}") from error
    if size < HEADER_BYTES or len(head) < HEADER.size:
        raise LedgerError(f"{what}: {size} bytes, shorter than its header of {HEADER_BYTES}")
    magic, schema, record_bytes, capacity, _pid, boot, role = HEADER.unpack(head)
    if magic != MAGIC:
        raise LedgerError(f"{what}: no ledger (it begins with {magic!r})")
    if not 1 <= schema <= SCHEMA_VERSION:
        raise LedgerError(
            f"{what}: schema {schema}, this version reads 1 to {SCHEMA_VERSION}; read it with the"
            " hookbench that wrote it, or a newer one"
        )
    if record_bytes != RECORD_BYTES:
        raise LedgerError(f"{what}: records of {record_bytes} bytes, not {RECORD_BYTES}")
    if role.rstrip(b"\0") != found["role"].encode()[: len(role)]:
        report(f"{what}: its header names the writer {role.rstrip(bytes(1))!r}; read by its name")
    slots = (size - HEADER_BYTES) // RECORD_BYTES
    if slots > MAX_SLOTS:
        raise LedgerError(f"{what}: {slots:,} records, no segment has more than {MAX_SLOTS:,}")
    if slots > capacity:
        report(f"{what}: {slots:,} records, its header says {capacity:,} at most")
    writer = f"{found['role']}.{found['writer']}"
    return Segment(path, writer, int(found["number"]), slots, capacity, boot)


def read_segment(
    segment: Segment, report: Report, *, steps: int, not_before_ns: int
) -> SegmentPart:
    """The records of a segment that can be used.

    Args:
        segment: what ``open_segment`` said.
        report: is told of each damage.
        steps: length of the timeline: a record of a later step is damaged.
        not_before_ns: time of the last record of the same writer before this segment.

    Raises:
        LedgerError: it cannot be read at all.
    """
    what = f"segment {segment.path.name}"
    try:
        with segment.path.open("rb") as file:
            file.seek(HEADER_BYTES)
            records = np.fromfile(file, dtype=RECORD_DTYPE, count=segment.slots)
            beyond = len(file.read(RECORD_BYTES))
    except OSError as error:
        raise LedgerError(f"{what}: {error.strerror}") from error
    whole = records["commit"] == COMMIT_MARKER
    torn = int(((records["time_ns"] != 0) & ~whole).sum())
    last = len(whole) - int(whole[::-1].argmax()) if whole.any() else 0
    blank = int((~whole[:last] & (records["time_ns"][:last] == 0)).sum())
    if blank:
        report(f"{what}: {blank:,} records in its middle are blank")
    if last < len(whole) or not whole[:last].all():
        records = records[whole]
    # A writer cuts its last segment after its closing record; one that died leaves all of it.
    closed = bool((records["event"] == Event.WRITER_CLOSE).any())
    cut = segment.slots < segment.capacity and not closed
    if cut or beyond:
        report(f"{what}: cut off after {segment.slots:,} of {segment.capacity:,} records")
    records = _without_impossible(records, report, what, steps=steps)
    return SegmentPart(_in_order(records, report, what, not_before_ns), torn, closed, cut)


def _without_impossible(
    records: npt.NDArray[np.void], report: Report, what: str, *, steps: int
) -> npt.NDArray[np.void]:
    """The records whose values can be."""
    checks = (
        ("event", _EVENTS[records["event"]]),
        ("broker", _BROKERS[records["broker"]]),
        ("phase", records["phase"] < steps),
        ("time_ns", records["time_ns"] > 0),
    )
    good = checks[0][1] & checks[1][1] & checks[2][1] & checks[3][1]
    if good.all():
        return records
    possible: npt.NDArray[np.void] = records[good]
    for name, mask in checks:
        if not mask.all():
            value = int(records[name][~mask][0])
            report(f"{what}: {int((~mask).sum()):,} records with {name} {value} or the like")
    return possible


def _in_order(
    records: npt.NDArray[np.void], report: Report, what: str, not_before_ns: int
) -> npt.NDArray[np.void]:
    """The records in the order of their time: one writer's clock does not go back.

    Out of order are those beside the longest row of records that is in order, so that one wrong
    time, early or late, costs one record. That search is slow and made for damaged segments only.
    """
    times_ns = records["time_ns"]
    early = times_ns < not_before_ns
    if 2 * int(early.sum()) > len(early):
        report(f"{what}: its times lie before the end of the segment before it")
        early[:] = False
    if not early.any() and bool((times_ns[1:] >= times_ns[:-1]).all()):
        return records
    candidates = np.flatnonzero(~early)
    kept = candidates[_longest_in_order(times_ns[candidates].tolist())]
    report(f"{what}: {len(records) - len(kept):,} records with a time out of their order")
    ordered: npt.NDArray[np.void] = records[kept]
    return ordered


def _longest_in_order(values: list[int]) -> list[int]:
    """Positions of the longest subsequence that does not fall (patience sorting)."""
    tails: list[int] = []
    ends: list[int] = []
    before: list[int] = []
    for position, value in enumerate(values):
        place = bisect_right(tails, value)
        before.append(ends[place - 1] if place else -1)
        if place == len(tails):
            tails.append(value)
            ends.append(position)
        else:
            tails[place] = value
            ends[place] = position
    found: list[int] = []
    position = ends[-1] if ends else -1
    while position >= 0:
        found.append(position)
        position = before[position]
    return found[::-1]
