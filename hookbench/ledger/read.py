"""Ledger segments as numpy columns."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from hookbench.errors import LedgerError
from hookbench.ledger.boot import boot_id
from hookbench.ledger.events import SEGMENT_SUFFIX
from hookbench.ledger.segment import (
    MAX_STEPS,
    RECORD_DTYPE,
    Segment,
    open_segment,
    read_segment,
)

__all__ = ["EVENT_DTYPE", "RECORD_DTYPE", "Ledger", "read_ledger"]

_LEFT_OUT = ("task", "commit", "flags", "writer")
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
        damage: what could not be read, one text per segment and kind of damage; empty for a
            ledger that is whole. Records and segments named there are left out of all others.
    """

    records: npt.NDArray[np.void]
    ids: npt.NDArray[np.void]
    task: npt.NDArray[np.int32]
    writer: npt.NDArray[np.uint16]
    writers: list[str]
    crashed: list[str]
    torn: int
    damage: list[str] = []

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


def read_ledger(
    folder: Path,
    *,
    same_boot: bool = False,
    lenient: bool = False,
    steps: int = MAX_STEPS,
    share: tuple[int, int] = (0, 1),
) -> Ledger:
    """Read every segment in ``folder``; about 70 bytes of memory per record at the peak.

    Args:
        folder: where the segments lie.
        same_boot: they must be of this boot, else of one boot, whichever: the times of two boots
            do not compare.
        lenient: read what can be read, and list the rest in ``Ledger.damage``.
        steps: length of the timeline; a record of a later step is damaged.
        share: which of how many: the records of a part of the tasks, by their ids, and those of no
            task. Of all shares every task is in one, so that a long run can be read in little
            memory; what is said of whole writers is the same in each.

    Raises:
        LedgerError: no segment that can be read; or, unless ``lenient``, one that is damaged, is
            no ledger, is of another boot, or has a newer schema.
    """
    damage: list[str] = []
    found, unreadable = _open_segments(folder, damage.append)
    segments = _of_one_boot(found, damage.append, boot_id() if same_boot else None)
    unreadable |= {segment.writer for segment in set(found) - set(segments)}
    if damage and not lenient:
        raise LedgerError(f"ledger {folder}: {damage[0]}")
    if not segments:
        raise LedgerError(
            f"ledger {folder}: none of its segments can be read: {damage[0]}; restore them from a"
            " copy, or rehearse again"
        )
    ledger = _merge(segments, unreadable, damage, steps=steps, share=share)
    if damage and not lenient:
        raise LedgerError(f"ledger {folder}: {damage[0]}")
    return ledger


def _open_segments(folder: Path, report: Callable[[str], None]) -> tuple[list[Segment], set[str]]:
    """The segments that can be read, in the order of writers; the writers of others."""
    paths = sorted(folder.glob(f"*{SEGMENT_SUFFIX}"))
    if not paths:
        why = "" if folder.is_dir() else " (there is no such folder)"
        raise LedgerError(f"no ledger segments (*{SEGMENT_SUFFIX}) in {folder}{why}")
    segments: list[Segment] = []
    unreadable: set[str] = set()
    for path in paths:
        try:
            segments.append(open_segment(path, report))
        except LedgerError as error:
            report(str(error))
            unreadable.add(".".join(path.name.split(".")[:-2]))
    segments.sort(key=lambda segment: (segment.writer, segment.number))
    present = {path.name for path in paths}
    for segment in segments:
        if segment.number == 0:
            continue
        before = f"{segment.writer}.{segment.number - 1:04d}{SEGMENT_SUFFIX}"
        if before not in present:
            report(f"segment {before}: missing")
    return segments, unreadable


def _of_one_boot(
    segments: list[Segment], report: Callable[[str], None], wanted: bytes | None
) -> list[Segment]:
    """The segments of the boot that is wanted, else of the one that has the most of them."""
    if wanted is None:
        boots = Counter(segment.boot for segment in segments)
        wanted = max(boots, key=boots.__getitem__, default=b"")
    for segment in segments:
        if segment.boot != wanted:
            report(
                f"segment {segment.path.name}: written in another boot, its times do not compare"
            )
    return [segment for segment in segments if segment.boot == wanted]


def _merge(
    segments: list[Segment],
    unreadable: set[str],
    damage: list[str],
    *,
    steps: int,
    share: tuple[int, int],
) -> Ledger:
    """All records as columns. Each segment is dropped before the next one is read."""
    room = sum(segment.slots for segment in segments)
    records = np.empty(room, dtype=EVENT_DTYPE)
    halves = np.empty((room, 2), dtype=np.uint64)
    writer = np.empty(room, dtype=np.uint16)
    died: dict[str, bool] = {}
    last_ns: dict[str, int] = {}
    torn = used = 0
    for segment in segments:
        name = segment.writer
        died.setdefault(name, name not in unreadable)
        try:
            part = read_segment(
                segment, damage.append, steps=steps, not_before_ns=last_ns.get(name, 0)
            )
        except LedgerError as error:
            damage.append(str(error))
            died[name] = False
            continue
        torn += part.torn
        # Whether a writer closed its ledger cannot be told where the end of it is missing.
        died[name] &= not (part.closed or part.cut)
        if len(part.records):
            last_ns[name] = int(part.records["time_ns"][-1])
        wanted = _of_share(part.records, share)
        end = used + len(wanted)
        for column in EVENT_DTYPE.names or ():
            records[column][used:end] = wanted[column]
        halves[used:end] = _halves(wanted["task"])
        writer[used:end] = list(died).index(name)
        used = end
    ids, task = _number(halves[:used])
    del halves
    order = np.argsort(records["time_ns"][:used], kind="stable")
    return Ledger(
        records=records[:used][order],
        ids=ids,
        task=task[order],
        writer=writer[:used][order],
        writers=list(died),
        crashed=sorted(name for name, dead in died.items() if dead),
        torn=torn,
        damage=damage,
    )


def _of_share(records: npt.NDArray[np.void], share: tuple[int, int]) -> npt.NDArray[np.void]:
    """Those of the tasks of a share, by the random half of their ids, and of no task."""
    number, count = share
    if count == 1:
        return records
    halves = _halves(records["task"])
    mine = (_keys(halves) % np.uint64(count)) == np.uint64(number)
    found: npt.NDArray[np.void] = records[mine | ~halves.any(axis=1)]
    return found


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
