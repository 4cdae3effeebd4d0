"""Fixed-width records in mmap'd segments, one writer each.

A record is on the page of a shared file mapping as soon as it is packed, so it survives the
SIGKILL of its process (not a power cut). The commit marker is the last field that is written: a
record without it was cut off in the middle and is not counted.

Times are integer nanoseconds of the machine's monotonic clock, comparable between processes of
one boot only: the header carries the boot id.
"""

import enum
import errno
import mmap
import os
import struct
import zlib
from pathlib import Path
from typing import Protocol

from hookbench.clock import Clock
from hookbench.errors import LedgerError
from hookbench.ledger.boot import boot_id

__all__ = [
    "COMMIT_MARKER",
    "HEADER",
    "HEADER_BYTES",
    "MAGIC",
    "NO_TASK",
    "RECORD_BYTES",
    "SCHEMA_VERSION",
    "SEGMENT_BYTES",
    "SEGMENT_SUFFIX",
    "Broker",
    "Event",
    "LedgerWriter",
    "NullRecorder",
    "Recorder",
    "repository_number",
]

SCHEMA_VERSION = 3
"""1: first form. 2: ``repository``, zero before. 3: ``SKIPPED`` and ``STALE``, and the token of
``CLAIMED``. Every version reads those before it."""
MAGIC = b"HOOKLEDG"
SEGMENT_SUFFIX = ".ledger"
COMMIT_MARKER = 0x600DC0DE
NO_TASK = bytes(16)
"""The task of an event that has none: a phase change, or bytes that are no task."""

# magic, schema, record bytes, capacity, pid, boot id, role
HEADER = struct.Struct("<8sIIII16s24s")
HEADER_BYTES = 128
# time, task, value, event, broker, phase, flags, attempt, writer, repository, and last the commit
# marker: pack_into writes one field after the other, into zeros.
_RECORD = struct.Struct("<q16sqBBBBHHII")
RECORD_BYTES = _RECORD.size
_pack_into = _RECORD.pack_into
DEFAULT_CAPACITY = 65_536
SEGMENT_BYTES = HEADER_BYTES + DEFAULT_CAPACITY * RECORD_BYTES
"""Room that a writer takes at once, at its start and whenever a segment is full."""
_ASIDE_SUFFIX = ".new"
_MAX_ATTEMPT = 0xFFFF


class Event(enum.IntEnum):
    """What can happen to a task. ``value`` is what stands in the record's value column."""

    PUT_INVOKED = 1  # value: intended time in ns; with the repository's number
    PUT_OK = 2  # value: sequence (NATS) or list length (Redis)
    PUT_FAIL = 3  # the broker said no
    PUT_UNKNOWN = 4  # no answer: the broker may hold it
    ACCEPTED = 5  # acknowledged to the caller
    REFUSED = 6  # the caller was told that it failed
    DOUBTFUL = 7  # the caller was told that the outcome is unknown
    RECEIVED = 10  # value: stream sequence, 0 on Redis
    CLAIMED = 11  # value: fencing token; attempt: as the authority counts
    STARTED = 12
    EFFECT = 13  # value: handler class; the effect store, not this, is what is believed
    DONE = 14
    FAILED = 15  # the handler raised
    ACK_SENT = 16
    ACK_CONFIRMED = 17
    ACK_FAILED = 18
    NAK = 19  # value: delay in ns
    TERM = 20
    REQUEUED = 21
    DEAD = 22
    SUPERSEDED = 23
    SKIPPED = 24  # the authority knows that it has ended: acknowledged without an execution
    STALE = 25  # the handler returned, and its claim was another's by then: not done by this one
    PHASE = 30  # value: index in the timeline
    WRITER_OPEN = 31  # value: pid
    WRITER_CLOSE = 32  # value: 0 when the writer stopped by itself
    FAULT_BEGIN = 40
    FAULT_END = 41


class Broker(enum.IntEnum):
    """Which broker an event concerns."""

    NONE = 0
    REDIS = 1
    NATS = 2
    MEMORY = 3


def repository_number(repo_id: str) -> int:
    """32 bits that stand for a repository in a record; never 0, which stands for none.

    A checksum and not a table, which all processes would have to share. Two of 1,000 repositories
    have the same number in one run of 8,600, and are then one repository for the order of tasks.
    """
    return zlib.crc32(repo_id.encode()) or 1


class Recorder(Protocol):
    """Where producers and workers say what happens; a ledger, or nothing."""

    def record(
        self,
        event: Event,
        task: bytes = NO_TASK,
        *,
        broker: Broker = Broker.NONE,
        value: int = 0,
        attempt: int = 0,
        repository: int = 0,
    ) -> None:
        """Append one event of the task with the 16 id bytes ``task``."""
        ...


class NullRecorder:
    """Records nothing: for a worker that is run by hand."""

    def record(
        self,
        event: Event,
        task: bytes = NO_TASK,
        *,
        broker: Broker = Broker.NONE,
        value: int = 0,
        attempt: int = 0,
        repository: int = 0,
    ) -> None:
        """Ignore the event."""


class LedgerWriter:
    """Appends records to segments ``{role}.{writer:05d}.{n:04d}.ledger`` in ``folder``.

    Each segment is allocated in full before it is mapped, because a write to a sparse page on a
    full disk kills the process with SIGBUS; a full disk is an error at that point instead. It gets
    its name when its header is written: a process killed before that leaves no segment.

    Raises:
        LedgerError: a segment exists already, or there is no room for one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        role: str,
        writer: int,
        clock: Clock,
        capacity: int = DEFAULT_CAPACITY,
    ) -> None:
        self.folder = folder
        self.role = role
        self.writer = writer
        self.phase = 0
        """Index of the current phase in the timeline; goes into every record."""
        self._now_ns = clock.monotonic_ns
        self._capacity = capacity
        self._segment = 0
        self._is_closed = False
        self._map: mmap.mmap
        self._path = folder
        self._offset = 0
        self._end = 0
        self._open_segment()
        self.record(Event.WRITER_OPEN, value=os.getpid())

    def record(
        self,
        event: Event,
        task: bytes = NO_TASK,
        *,
        broker: Broker = Broker.NONE,
        value: int = 0,
        attempt: int = 0,
        repository: int = 0,
    ) -> None:
        """Append one event; about half a microsecond."""
        offset = self._offset
        if offset >= self._end:
            offset = self._turn_over()
        _pack_into(
            self._map,
            offset,
            self._now_ns(),
            task,
            value,
            event,
            broker,
            self.phase,
            0,
            attempt if attempt < _MAX_ATTEMPT else _MAX_ATTEMPT,  # noqa: FURB136 - min() is slow
            self.writer,
            repository,
            COMMIT_MARKER,
        )
        self._offset = offset + RECORD_BYTES

    def close(self) -> None:
        """Write the closing record and cut the segment to what it holds."""
        if self._map.closed:  # before, or because there was no room for another one
            self._is_closed = True
            return
        self.record(Event.WRITER_CLOSE)
        self._close_segment()
        self._is_closed = True

    def _turn_over(self) -> int:
        """Begin the next segment; where its first record goes."""
        if self._is_closed:
            raise LedgerError(f"ledger {self._path}: written to after it was closed")
        self._close_segment()
        self._open_segment()
        return self._offset

    def _open_segment(self) -> None:
        name = f"{self.role}.{self.writer:05d}.{self._segment:04d}{SEGMENT_SUFFIX}"
        self._path = self.folder / name
        size = HEADER_BYTES + self._capacity * RECORD_BYTES
        aside = self._path.with_name(name + _ASIDE_SUFFIX)
        try:
            descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except OSError as error:
            raise LedgerError(f"ledger segment {self._path}: {error.strerror}") from error
        try:
            if self._path.exists():
                raise LedgerError(f"ledger segment {self._path}: {os.strerror(errno.EEXIST)}")
            _allocate(descriptor, size)
            target = mmap.mmap(descriptor, size)
            header = (MAGIC, SCHEMA_VERSION, RECORD_BYTES, self._capacity, os.getpid(), boot_id())
            HEADER.pack_into(target, 0, *header, self.role.encode()[:24])
            aside.rename(self._path)
        except OSError as error:
            what = "no room left" if error.errno == errno.ENOSPC else error.strerror
            raise LedgerError(
                f"ledger segment {self._path} of {size} bytes: {what}; free some room or choose"
                " another folder with --out"
            ) from error
        finally:
            os.close(descriptor)
            aside.unlink(missing_ok=True)
        self._map = target
        self._segment += 1
        self._offset = HEADER_BYTES
        self._end = size

    def _close_segment(self) -> None:
        if self._map.closed:
            return
        self._map.close()
        self._end = 0
        os.truncate(self._path, self._offset)


def _allocate(descriptor: int, size: int) -> None:
    """Reserve ``size`` bytes on the disk, zero-filled."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    os.write(descriptor, bytes(size))
