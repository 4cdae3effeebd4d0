"""Ledger segments as numpy columns."""

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

__all__ = ["RECORD_DTYPE", "Ledger", "read_ledger"]

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
        ("reserved", "<u4"),
        ("commit", "<u4"),
    ]
)
if RECORD_DTYPE.itemsize != RECORD_BYTES:
    raise LedgerError(f"record of {RECORD_DTYPE.itemsize} bytes, written as {RECORD_BYTES}")


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """All records of a run, sorted by time.

    Attributes:
        records: one-dimensional, of ``RECORD_DTYPE``.
        ids: shape (tasks, 16) bytes, the distinct task ids; row 0 is ``NO_TASK`` if it occurs.
        task: shape (records,), the row of ``ids`` for each record.
        writer: shape (records,), the row of ``writers`` for each record.
        writers: names of the writers, ``role.number``.
        crashed: names of writers that never wrote their closing record.
        torn: records that were cut off in the middle of their write.
    """

    records: npt.NDArray[np.void]
    ids: npt.NDArray[np.void]
    task: npt.NDArray[np.int64]
    writer: npt.NDArray[np.int64]
    writers: list[str]
    crashed: list[str]
    torn: int


def read_ledger(folder: Path, *, same_boot: bool = False) -> Ledger:
    """Read every segment in ``folder``.

    Raises:
        LedgerError: no segment, a foreign file, a newer schema, a truncated header, or (with
            ``same_boot``) a segment of another boot, whose times cannot be compared.
    """
    paths = sorted(folder.glob(f"*{SEGMENT_SUFFIX}"))
    if not paths:
        raise LedgerError(f"no ledger segments (*{SEGMENT_SUFFIX}) in {folder}")
    parts: list[npt.NDArray[np.void]] = []
    boots: set[bytes] = set()
    origins: list[npt.NDArray[np.int64]] = []
    closed: dict[str, bool] = {}
    torn = 0
    for path in paths:
        part, boot = _read_segment(path)
        boots.add(boot)
        good = part[part["commit"] == COMMIT_MARKER]
        written = part[part["time_ns"] != 0]
        torn += len(written) - len(good)
        name = ".".join(path.name.split(".")[:2])
        closed[name] = bool((good["event"] == Event.WRITER_CLOSE).any())
        parts.append(good)
        origins.append(np.full(len(good), list(closed).index(name), dtype=np.int64))
    if len(boots) > 1 or (same_boot and boots != {boot_id()}):
        raise LedgerError(f"ledger {folder}: written in another boot, its times do not compare")
    records = np.concatenate(parts)
    order = np.argsort(records["time_ns"], kind="stable")
    records = records[order]
    ids, task = np.unique(records["task"], return_inverse=True)
    crashed = sorted(name for name, ended in closed.items() if not ended)
    return Ledger(
        records=records,
        ids=ids,
        task=task.reshape(-1),
        writer=np.concatenate(origins)[order],
        writers=list(closed),
        crashed=crashed,
        torn=torn,
    )


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
