"""The disk of a simulated machine, from which a power cut takes what was not synced.

The code above it is the one of a real disk, SQLite included. A file is what SQLite has written, as
a row of images: one for each transaction that is not synced yet, behind the one that is. What was
written is there for whoever opens the file next, also when its writer was killed, for the kernel
keeps it; a power cut leaves the synced image, or one of those behind it, for the log of SQLite is
good up to the first frame that is missing (https://www.sqlite.org/walformat.html).
"""

import asyncio
import random
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hookbench.clock import Clock
from hookbench.errors import SpoolError
from hookbench.migration.spool import Spool
from hookbench.sim.processes import PROCESS, Process

__all__ = ["SimulatedDisk"]

Answer = TypeVar("Answer")

_BEGIN_S = 0.000_05
"""Until a thread takes its next piece of work, on average."""
_SYNC_S = 0.001
"""How long a sync takes, on average."""
_WRITES = frozenset(("COMMIT", "CREATE", "ALTER", "DELETE", "INSERT", "UPDATE"))


class SimulatedDisk:
    """``OutboxDisk`` of one simulated machine.

    Args:
        clock: of the simulation.
        entropy: for how long it takes, and what a power cut leaves.
    """

    def __init__(self, clock: Clock, entropy: random.Random) -> None:
        self._clock = clock
        self._entropy = entropy
        self._files: dict[Path, _File] = {}
        self._holders: dict[Path, Process | None] = {}
        self._unsynced: dict[_File, int] | None = None

    @contextmanager
    def hold(self, path: Path) -> Iterator[None]:
        """See ``hold_outbox``; the end of a process gives it back.

        Raises:
            SpoolError: another process has it.
        """
        if path in self._holders:
            holder = self._holders[path]
            if holder is None or holder.alive:
                raise SpoolError(f"outbox {path}: another process has it")
        mine = self._holders[path] = PROCESS.get()
        try:
            yield
        finally:
            if self._holders.get(path) is mine:
                del self._holders[path]

    def open(self, path: Path) -> Spool:
        """See ``OutboxDisk``."""
        return Spool(path, any_thread=True, connect=self.connect)

    def thread(self) -> "_Thread":
        """See ``OutboxDisk``."""
        return _Thread(self)

    def connect(self, path: Path, **options: Any) -> sqlite3.Connection:
        """What ``sqlite3.connect`` is for a real file."""
        file = self._files.setdefault(path, _File())
        database: _Database = sqlite3.connect(":memory:", factory=_Database, **options)
        database.wrote = lambda durable: self._wrote(file, database, durable=durable)
        if image := file.written:
            database.deserialize(image)
        return database

    def lose_power(self) -> None:
        """Forget what was not synced, or some of it; who runs there has to be killed before."""
        for file in self._files.values():
            file.lose_power(self._entropy)

    def _wrote(self, file: "_File", database: sqlite3.Connection, *, durable: bool) -> None:
        number = file.write(database.serialize())
        if not durable:
            return
        if self._unsynced is None:
            file.sync(number)
        else:
            self._unsynced[file] = number

    async def carry_out(self, work: Callable[[], Answer]) -> Answer:
        """Do something in a thread, and wait for the disk.

        A process may die, or the power fail, behind it without having seen the end of it.
        """
        unsynced: dict[_File, int] = {}
        self._unsynced = unsynced
        try:
            answer = work()
        finally:
            self._unsynced = None
        if unsynced:
            await self._pass(_SYNC_S)
            for file, number in unsynced.items():
                file.sync(number)
        return answer

    async def pause(self) -> None:
        """Until a thread takes its next piece of work."""
        await self._pass(_BEGIN_S)

    async def _pass(self, mean_s: float) -> None:
        await self._clock.sleep(mean_s * self._entropy.expovariate(1.0))


class _File:
    """The images of a file, and which of them is synced."""

    def __init__(self) -> None:
        self._synced = 0
        self._images: list[bytes] = [b""]

    @property
    def written(self) -> bytes:
        """What who opens it reads."""
        return self._images[-1]

    def write(self, image: bytes) -> int:
        """Its number."""
        self._images.append(image)
        return self._synced + len(self._images) - 1

    def sync(self, number: int) -> None:
        """Everything up to this image is on the disk."""
        if number > self._synced:
            del self._images[: number - self._synced]
            self._synced = number

    def lose_power(self, entropy: random.Random) -> None:
        """Fall back to the synced image, or to one of those that were written since."""
        del self._images[1 + entropy.randrange(len(self._images)) :]


class _Database(sqlite3.Connection):
    """A connection that tells of each transaction that it has written.

    Attributes:
        wrote: called with whether SQLite waits for the disk, as it does with ``synchronous=FULL``.
    """

    wrote: Callable[[bool], None]
    _durable = True

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """As SQLite does."""
        cursor = super().execute(sql, parameters)
        verb, *words = sql.split(None, 2)
        if verb == "PRAGMA" and words[0].startswith("synchronous="):
            self._durable = words[0] == "synchronous=FULL"
        elif verb in _WRITES and not self.in_transaction:
            self.wrote(self._durable)
        return cursor


class _Thread:
    """``DiskThread`` of a process, which dies with it."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self._disk = disk
        self._work: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._running: asyncio.Task[None] | None = None

    def run(self, work: Callable[[], Answer]) -> Awaitable[Answer]:
        """See ``DiskThread``."""
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._work.append((work, done))
        if self._running is None:
            self._running = asyncio.ensure_future(self._run())
        return done

    async def _run(self) -> None:
        try:
            while self._work:
                await self._disk.pause()
                work, done = self._work.popleft()
                if not done.cancelled():
                    await self._carry_out(work, done)
        finally:
            self._running = None

    async def _carry_out(self, work: Callable[[], Any], done: "asyncio.Future[Any]") -> None:
        try:
            answer = await self._disk.carry_out(work)
        except Exception as error:  # noqa: BLE001 - it belongs to whoever gave the work
            if not done.done():
                done.set_exception(error)
        else:
            if not done.done():
                done.set_result(answer)

    def shutdown(self) -> None:
        """See ``DiskThread``: what runs is finished, and nothing is given to it any more."""
