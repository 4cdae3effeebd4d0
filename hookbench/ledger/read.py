"""Ledger segments as numpy columns."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from hookbench.errors import LedgerError
from hookbench.ledger.boot import boot_id
from hookbench.ledger.events import (
    COMMIT_MARKER,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    RECORD_BYTES,
    SCHEMA_VERSION,
    SEGMENT_SUFFIX,
    Event,
)

__all__ = ["EVENT_DTYPE", "RECORD_DTYPE", "Ledger", "read_ledger"]

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
_LEFT_OUT = ("task", "commit", "flags", "writer")
if RECORD_DTYPE.itemsize != RECORD_BYTES:
    raise LedgerError(f"record of {RECORD_DTYPE.itemsize} bytes, written as {RECORD_BYTES}")


EVENT_DTYPE = np.dtype(
    [(name, RECORD_DTYPE[name]) for name in RECORD_DTYPE.names or () if name not in _LEFT_OUT]
)
"""A record in memory: without its id, which ``Ledger.task`` has as a number, and its marker."""


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """All records of a run, sorted by time.

    Attributes:
        records: one-dimensional, of ``EVENT_DTYPE``.
        ids: shape (tasks,), 16 bytes each, the distinct task ids in the order of their keys;
            ``NO_TASK`` among them if it occurs.
        task: shape (records,), the row of ``ids`` for each record.
        writer: shape (records,), the row of ``writers`` for each record.
        writers: names of the writers, ``role.number``.
        crashed: names of writers that never wrote their closing record.
        torn: records that were cut off in the middle of their write.
    """

    records: npt.NDArray[np.void]
    ids: npt.NDArray[np.void]
    task: npt.NDArray[np.int32]
    writer: npt.NDArray[np.uint16]
    writers: list[str]
    crashed: list[str]
    torn: int

    def find(self, wanted: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
        """The row of each id, shape of ``wanted``; -1 for one that does not occur."""
        if len(wanted) == 0 or len(self.ids) == 0:
            return np.full(len(wanted), -1, dtype=np.int64)
        keys = _keys(_halves(self.ids))
        rows = np.searchsorted(keys, _keys(_halves(wanted))).clip(0, len(keys) - 1)
        return np.where(self.ids[rows] == wanted, rows, -1)

    def rows_of(self, ids: Sequence[bytes]) -> npt.NDArray[np.int64]:
        """The row of each id that occurs in the ledger; the others are left out."""
        rows = self.find(np.frombuffer(b"".join(ids), dtype=RECORD_DTYPE["task"]))
        return rows[rows >= 0]


def _halves(ids: npt.NDArray[np.void]) -> npt.NDArray[np.uint64]:
    """Shape (n, 2): the ids as two integers each."""
    return np.ascontiguousarray(ids).view(np.uint64).reshape(-1, 2)


def _keys(halves: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """One integer per id: the random half, with the other one mixed in. Collisions are checked."""
    return halves[:, 1] ^ (halves[:, 0] * np.uint64(0x9E3779B97F4A7C15))


def read_ledger(folder: Path, *, same_boot: bool = False) -> Ledger:
    """Read every segment in ``folder``; about 70 bytes of memory per record at the peak.

    Raises:
        LedgerError: no segment, a foreign file, a newer schema, a truncated header, or (with
            ``same_boot``) a segment of another boot, whose times cannot be compared.
    """
    paths = sorted(folder.glob(f"*{SEGMENT_SUFFIX}"))
    if not paths:
        raise LedgerError(f"no ledger segments (*{SEGMENT_SUFFIX}) in {folder}")
    room = sum(max(0, path.stat().st_size - HEADER_BYTES) for path in paths) // RECORD_BYTES
    records = np.empty(room, dtype=EVENT_DTYPE)
    halves = np.empty((room, 2), dtype=np.uint64)
    writer = np.empty(room, dtype=np.uint16)
    boots: set[bytes] = set()
    closed: dict[str, bool] = {}
    torn = used = 0
    for path in paths:
        part, boot = _read_segment(path)
        boots.add(boot)
        whole = part["commit"] == COMMIT_MARKER
        torn += int(((part["time_ns"] != 0) & ~whole).sum())
        part = part[whole][: room - used]
        name = ".".join(path.name.split(".")[:2])
        closed[name] = bool((part["event"] == Event.WRITER_CLOSE).any())
        end = used + len(part)
        for column in EVENT_DTYPE.names or ():
            records[column][used:end] = part[column]
        halves[used:end] = _halves(part["task"])
        writer[used:end] = list(closed).index(name)
        used = end
    if len(boots) > 1 or (same_boot and boots != {boot_id()}):
        raise LedgerError(f"ledger {folder}: written in another boot, its times do not compare")
    ids, task = _number(halves[:used])
    del halves
    order = np.argsort(records["time_ns"][:used], kind="stable")
    return Ledger(
        records=records[:used][order],
        ids=ids,
        task=task[order],
        writer=writer[:used][order],
        writers=list(closed),
        crashed=sorted(name for name, ended in closed.items() if not ended),
        torn=torn,
    )


def _number(
    halves: npt.NDArray[np.uint64],
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.int32]]:
    """The distinct ids, and for each record the row of its id."""
    keys = _keys(halves)
    order = np.argsort(keys, kind="stable")
    first = np.ones(len(order), dtype=bool)
    sorted_keys = keys[order]
    first[1:] = sorted_keys[1:] != sorted_keys[:-1]
    row_of_sorted = np.cumsum(first, dtype=np.int32) - np.int32(1)
    task = np.empty(len(order), dtype=np.int32)
    task[order] = row_of_sorted
    distinct = halves[order[first]]
    for half in (0, 1):
        if not np.array_equal(distinct[task, half], halves[:, half]):
            raise LedgerError("two task ids have the same key: the ledger cannot be numbered")
    ids = np.ascontiguousarray(distinct).view(RECORD_DTYPE["task"]).reshape(-1)
    return ids, task


def _read_segment(path: Path) -> tuple[npt.NDArray[np.void], bytes]:
    size = path.stat().st_size
    if size < HEADER_BYTES:
        raise LedgerError(f"ledger segment {path}: {size} bytes, shorter than its header")
    with path.open("rb") as file:
        head = file.read(HEADER.size)
    magic, schema, record_bytes, _capacity, _pid, boot, _role = HEADER.unpack(head)
    if magic != MAGIC:
        raise LedgerError(f"ledger segment {path}: no ledger (it begins with {magic!r})")
    if schema > SCHEMA_VERSION:
        raise LedgerError(
            f"ledger segment {path}: schema {schema}, this version reads up to {SCHEMA_VERSION};"
            " read it with the hookbench that wrote it, or a newer one"
        )
    if record_bytes != RECORD_BYTES:
        raise LedgerError(f"ledger segment {path}: records of {record_bytes} bytes")
    count = (size - HEADER_BYTES) // RECORD_BYTES
    with path.open("rb") as file:
        file.seek(HEADER_BYTES)
        return np.fromfile(file, dtype=RECORD_DTYPE, count=count), boot
