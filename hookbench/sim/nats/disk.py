"""What is on the disk of a simulated JetStream, and when it came there.

A stream's messages are written before they are acknowledged, so that SIGKILL takes none of them;
they are synced with each write (``sync_interval: always``) or once in an interval, which begins
somewhere in its first half. The state of a consumer is a file of its own that is written behind the
acknowledgements, ten times a second at most, whatever the interval: SIGKILL takes up to 0.1 s of
it, also of what was confirmed. That file is synced where every write is; else the kernel writes it
back within half a minute (``vm.dirty_expire_centisecs``), as all that nobody syncs.

From server/filestore.go of 2.15 (``flushLoop``, ``setSyncTimer``, ``writeFileWithOptionalSync``).
Measured: with 2,200 confirmed acknowledgements a second SIGKILL took 95 to 114 of a consumer, with
an interval of 1 s and with ``always``, and no message.
"""

import random
from collections.abc import Sequence
from typing import Protocol

import msgspec

from hookbench.brokers.durability import Durability
from hookbench.clock import NS_PER_S

__all__ = ["Crash", "Disk", "SyncTimes", "state_kept"]

_STATE_EVERY_NS = NS_PER_S // 10
_WRITE_BACK_NS = 30 * NS_PER_S
_AS_SHIPPED_S = 120.0


class Timed(Protocol):
    """What happened at a time."""

    @property
    def time_ns(self) -> int:
        """By the wall clock."""
        ...


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """How a server syncs.

    Attributes:
        sync_interval_s: 0 for ``always``; as shipped it is two minutes.
    """

    sync_interval_s: float = _AS_SHIPPED_S

    @classmethod
    def of(cls, durability: Durability) -> "Disk":
        """That of a durability class."""
        interval = durability.nats_sync_interval
        return cls(sync_interval_s=0.0 if interval == "always" else float(interval.rstrip("s")))

    @property
    def always(self) -> bool:
        """Whether every write is synced."""
        return self.sync_interval_s <= 0


class Crash(msgspec.Struct, frozen=True):
    """How a server ended.

    Attributes:
        time_ns: when, by its clock.
        power: without power, and not by SIGKILL alone.
    """

    time_ns: int
    power: bool


class SyncTimes:
    """When one file store is synced: in the second half of the first interval, then after each.

    Args:
        disk: of its server.
        begin_ns: when the store was opened.
        entropy: what the first time is drawn from.
    """

    def __init__(self, disk: Disk, begin_ns: int, entropy: random.Random) -> None:
        self._disk = disk
        self._every_ns = int(disk.sync_interval_s * NS_PER_S)
        half_ns = self._every_ns // 2
        self._first_ns = begin_ns + half_ns + (entropy.randrange(half_ns) if half_ns else 0)

    def last_ns(self, now_ns: int) -> int:
        """The last sync up to a time; that time itself with ``always``, and 0 for none."""
        if self._disk.always:
            return now_ns
        if now_ns < self._first_ns:
            return 0
        return self._first_ns + (now_ns - self._first_ns) // self._every_ns * self._every_ns

    def kept(self, written: Sequence[Timed], crash: Crash) -> int:
        """How many of a sequence of writes are there after a crash: a beginning of it."""
        if not crash.power:
            return len(written)
        reached_ns = max(self.last_ns(crash.time_ns), crash.time_ns - _WRITE_BACK_NS)
        return _until(written, reached_ns)


def state_kept(changes: Sequence[Timed], disk: Disk, crash: Crash) -> int:
    """How many changes of a consumer its state file has after a crash.

    The file is written as soon as something changes, and not again within 0.1 s.
    """
    reached_ns = crash.time_ns
    if crash.power and not disk.always:
        reached_ns -= _WRITE_BACK_NS
    written_ns, kept = -_STATE_EVERY_NS, 0
    while kept < len(changes):
        write_ns = max(changes[kept].time_ns, written_ns + _STATE_EVERY_NS)
        if write_ns > reached_ns:
            break
        written_ns = write_ns
        kept = _until(changes, write_ns, kept)
    return kept


def _until(written: Sequence[Timed], time_ns: int, begin: int = 0) -> int:
    count = begin
    while count < len(written) and written[count].time_ns <= time_ns:
        count += 1
    return count
