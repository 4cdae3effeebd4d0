"""What an outbox lies on: the seam at which the simulator brings a disk that can lose its power."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeVar

from hookbench.migration.spool import Spool

__all__ = ["DiskThread", "OutboxDisk"]

Answer = TypeVar("Answer")


class DiskThread(Protocol):
    """Does what would block the event loop, one after the other."""

    def run(self, work: Callable[[], Answer]) -> Awaitable[Answer]:
        """What ``work`` returns; it goes on if nobody waits for it any more."""
        ...

    def shutdown(self) -> None:
        """Take no more work; what runs is finished."""
        ...


class OutboxDisk(Protocol):
    """``LocalDisk``, or what stands in for it."""

    def hold(self, path: Path) -> AbstractContextManager[None]:
        """See ``hold_outbox``."""
        ...

    def open(self, path: Path) -> Spool:
        """The file of an outbox, to be used by a thread of this disk."""
        ...

    def thread(self) -> DiskThread:
        """A thread of its own for one outbox."""
        ...
