"""The file of an outbox: a spool that one process writes from a thread of its own.

Many sends share one write to the disk: what is added while the thread is busy goes into its next
transaction. Acknowledgements need not be on the disk at once, for a task that is found again after
a crash is put again with the same id; they go along with the next additions, or by themselves a
moment later.
"""

import asyncio
import fcntl
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from hookbench.cancellation import cancel
from hookbench.clock import Clock
from hookbench.errors import SpoolError
from hookbench.migration.outbox_disk import OutboxDisk
from hookbench.migration.spool import NO_BROKER, Spool, Spooled

__all__ = ["LOCAL_DISK", "Added", "LocalDisk", "OutboxFile", "hold_outbox"]

_log = logging.getLogger(__name__)

GROUP_MAX = 1_000
"""Tasks in one transaction."""
MARK_PAUSE_S = 0.05
"""How long acknowledgements wait for a transaction that they can go along with."""

Answer = TypeVar("Answer")


class Added(NamedTuple):
    """A task that is to be stored; ``stored`` has its number, ``None`` if it was there already."""

    task_id: str
    task: bytes
    intended_ns: int
    stored: "asyncio.Future[int | None]"


@contextmanager
def hold_outbox(path: Path) -> Iterator[None]:
    """Keep every other process from sweeping this outbox; the end of a process gives it back.

    Raises:
        SpoolError: another process has it, or the lock file cannot be made.
    """
    lock = path.with_name(f"{path.name}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise SpoolError(f"outbox {path}: lock file {lock.name}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SpoolError(
                f"outbox {path}: another process has it: give each producer a spool of its own"
            ) from None
        yield
    finally:
        os.close(descriptor)


class _LocalThread:
    """A thread of this process."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="outbox")

    def run(self, work: Callable[[], Answer]) -> Awaitable[Answer]:
        """See ``DiskThread``."""
        return asyncio.get_running_loop().run_in_executor(self._executor, work)

    def shutdown(self) -> None:
        """See ``DiskThread``."""
        self._executor.shutdown(wait=False)


class LocalDisk:
    """A disk of this machine."""

    hold = staticmethod(hold_outbox)

    def open(self, path: Path) -> Spool:
        """See ``OutboxDisk``."""
        return Spool(path, any_thread=True)

    def thread(self) -> _LocalThread:
        """See ``OutboxDisk``."""
        return _LocalThread()


LOCAL_DISK = LocalDisk()
"""It has no state."""


class OutboxFile:
    """Adds, reads and acknowledges without blocking the event loop.

    Args:
        path: of the spool; tasks that are in it stay.
        boot_id: of this boot, which the intended times belong to.
        clock: for the pause of acknowledgements.
        disk: which it lies on.

    Attributes:
        needed: bits of the brokers that must have a task before it leaves.
        rejected: tasks that were set aside.
    """

    def __init__(
        self, path: Path, *, boot_id: bytes, clock: Clock, disk: OutboxDisk = LOCAL_DISK
    ) -> None:
        self._spool = disk.open(path)
        self._boot_id = boot_id
        self._clock = clock
        self._thread = disk.thread()
        self._adds: list[Added] = []
        self._marks: dict[int, int] = {}
        self._writer: asyncio.Task[None] | None = None
        self._marker: asyncio.Task[None] | None = None
        self._found = len(self._spool)
        self._last_found = self._spool.last_number()
        self._next = self._last_found + 1
        self._added = 0
        self._cleared = 0  # written by the thread alone
        self.rejected = 0
        self.needed = NO_BROKER

    @property
    def path(self) -> Path:
        """The file."""
        return self._spool.path

    def was_found(self, number: int) -> bool:
        """Whether a row was there before this process opened the file."""
        return number <= self._last_found

    @property
    def cleared(self) -> int:
        """Tasks that have left it."""
        return self._cleared

    @property
    def waiting(self) -> int:
        """Tasks in it, as far as this process knows."""
        return self._found + self._added - self._cleared - self.rejected

    def add(self, task_id: str, task: bytes, *, intended_ns: int) -> "asyncio.Future[int | None]":
        """Store a task; the future has its number once it is on the disk.

        Raises:
            SpoolError: from the future: it could not be stored.
        """
        stored: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._adds.append(Added(task_id, task, intended_ns, stored))
        if self._writer is None:
            self._writer = asyncio.ensure_future(self._write())
        return stored

    def acknowledge(self, number: int, broker: int) -> bool:
        """A broker has a task; whether every needed one has it, as far as this process knows."""
        bits = self._marks.get(number, 0) | broker
        self._marks[number] = bits
        if self._marker is None:
            self._marker = asyncio.ensure_future(self._mark_later())
        return bits & self.needed == self.needed

    async def lacking(self, broker: int, limit: int, *, after: int = 0) -> list[Spooled]:
        """See ``Spool.lacking``; what is acknowledged is left out.

        Raises:
            SpoolError: the file cannot be read.
        """
        return await self._marked(lambda: self._spool.lacking(broker, limit, after=after))

    async def settle(self) -> None:
        """Write down what is acknowledged, and forget what all needed brokers have."""

        def settle() -> None:
            self._cleared += self._spool.settle(self.needed)

        await self._marked(settle)

    async def reject(self, number: int, reason: str) -> None:
        """See ``Spool.reject``."""
        await self._marked(lambda: self._spool.reject(number, reason))
        self.rejected += 1

    async def left(self) -> int:
        """Tasks in the file now, those that other processes added as well."""
        return await self._marked(lambda: len(self._spool))

    async def close(self) -> None:
        """Write what is to be written, and close the file."""
        while self._writer is not None:
            await asyncio.wait({self._writer})
        if self._marker is not None:
            await cancel(self._marker)
        try:
            await self._marked(lambda: None)
        finally:
            await self._run(self._spool.close)
            self._thread.shutdown()

    async def _run(self, work: Callable[[], Answer]) -> Answer:
        return await self._thread.run(work)

    async def _marked(self, work: Callable[[], Answer]) -> Answer:
        """Run ``work`` in the thread, after what is acknowledged has been written down."""
        marks = self._take_marks()

        def run() -> Answer:
            self._mark(marks)
            return work()

        try:
            return await self._run(run)
        except SpoolError:
            self._give_back(marks)
            raise

    async def _write(self) -> None:
        try:
            while self._adds:
                adds, self._adds = self._adds[:GROUP_MAX], self._adds[GROUP_MAX:]
                await self._write_group(adds)
        finally:
            self._writer = None

    async def _write_group(self, adds: Sequence[Added]) -> None:
        marks = self._take_marks()
        try:
            numbers = await self._run(lambda: self._store(adds, marks))
        except SpoolError as error:
            self._give_back(marks)
            for added in adds:
                if not added.stored.done():
                    added.stored.set_exception(error)
            return
        self._added += sum(number is not None for number in numbers)
        for added, number in zip(adds, numbers, strict=True):
            if not added.stored.done():
                added.stored.set_result(number)

    def _store(self, adds: Sequence[Added], marks: dict[int, int]) -> list[int | None]:
        """In the thread: one transaction, on the disk when it returns."""
        gone = 0
        tasks = [added[:3] for added in adds]
        with self._spool.transaction():
            if marks:
                gone = self._spool.acknowledge(marks.items(), needed=self.needed)
            numbers = self._spool.add_all(tasks, first=self._next, boot_id=self._boot_id)
        self._next += len(tasks)
        self._cleared += gone
        return numbers

    def _take_marks(self) -> dict[int, int]:
        marks, self._marks = self._marks, {}
        return marks

    def _give_back(self, marks: dict[int, int]) -> None:
        """Acknowledgements that could not be written down, for the next time."""
        for number, bits in marks.items():
            self._marks[number] = self._marks.get(number, 0) | bits

    def _mark(self, marks: dict[int, int]) -> None:
        """In the thread: write acknowledgements down, without waiting for the disk."""
        if marks:
            with self._spool.transaction(durable=False):
                gone = self._spool.acknowledge(marks.items(), needed=self.needed)
            self._cleared += gone

    async def _mark_later(self) -> None:
        """Write acknowledgements down that nothing else took along."""
        try:
            while True:
                await self._clock.sleep(MARK_PAUSE_S)
                if not self._marks:
                    return
                try:
                    await self._marked(lambda: None)
                except SpoolError as error:
                    _log.warning("%s; again in %.2f s", error, MARK_PAUSE_S)
        finally:
            self._marker = None
