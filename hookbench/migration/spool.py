"""The spool: tasks that the brokers have not acknowledged yet, durable in one SQLite file.

Standard library only: the git hook opens it inside a push.

A row says which brokers have its task, so that it can leave when all have that must. A file of the
first version, which knew of no brokers, gets that column when it is opened; such a hook goes on
with it all the same.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from hookbench.errors import SpoolError

__all__ = ["NO_BROKER", "ON_NATS", "ON_REDIS", "Spool", "Spooled"]

BUSY_TIMEOUT_S = 5.0
SCHEMA_VERSION = 2
"""1 (stored as 0): no ``acked``. 2: with it."""

NO_BROKER = 0
ON_REDIS = 1
ON_NATS = 2
"""Bits of ``acked``: the brokers that have acknowledged a task."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spool (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    task_id TEXT NOT NULL UNIQUE,
    task BLOB NOT NULL,
    intended_ns INTEGER NOT NULL,
    boot_id BLOB NOT NULL,
    rejected TEXT,
    acked INTEGER NOT NULL DEFAULT 0
)
"""

_ADD_NUMBERED = "INSERT OR IGNORE INTO spool (number, task_id, task, intended_ns, boot_id) VALUES "


class Spooled(NamedTuple):
    """One spooled task.

    Attributes:
        number: rows are numbered in the order in which they were added.
        intended_ns: monotonic time of the boot ``boot_id``.
        acked: bits of the brokers that have it.
    """

    number: int
    task: bytes
    intended_ns: int
    boot_id: bytes
    acked: int = NO_BROKER


class Spool:
    """Append, read in order, remove what was acknowledged.

    A row is on the disk when ``add`` returns (``synchronous=FULL``). Several processes may use
    one spool at a time.

    Args:
        path: of the file.
        any_thread: it is used by another thread than the one that opens it.
        connect: opens the file, as ``sqlite3.connect`` does.

    Raises:
        SpoolError: the file is a link, cannot be opened, read or written, or is of a later version.
    """

    def __init__(
        self,
        path: Path,
        *,
        any_thread: bool = False,
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect,
    ) -> None:
        self.path = path
        if path.is_symlink():
            raise SpoolError(f"spool {path}: it is a link: give the path that it leads to")
        try:
            self._db = connect(
                path,
                timeout=BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=not any_thread,
            )
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                self._prepare()
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise SpoolError(
                f"spool {path}: {error}; check that the folder exists and can be written"
            ) from error

    def _prepare(self) -> None:
        """Make the table, or bring one of the first version up to this one."""
        if self._version() == SCHEMA_VERSION:
            return
        self._db.execute("BEGIN IMMEDIATE")  # another process may be at it as well
        try:
            version = self._version()
            if version > SCHEMA_VERSION:
                raise SpoolError(
                    f"spool {self.path}: of version {version}, this hookbench knows"
                    f" {SCHEMA_VERSION}: use the one that wrote it"
                )
            self._db.execute(_SCHEMA)
            columns = {row[1] for row in self._db.execute("PRAGMA table_info(spool)")}
            if "acked" not in columns:
                self._db.execute("ALTER TABLE spool ADD COLUMN acked INTEGER NOT NULL DEFAULT 0")
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def _guard(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._db
        except sqlite3.Error as error:
            raise SpoolError(f"spool {self.path}: {error}") from error

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """What is done inside is done together, with one write to the disk at its end.

        Args:
            durable: it is on the disk afterwards. If not, a power cut may undo it (but not the end
                of a process), and a later durable one takes it along.
        """
        with self._guard() as db:
            if not durable:
                db.execute("PRAGMA synchronous=NORMAL")
            try:
                db.execute("BEGIN IMMEDIATE")
                try:
                    yield
                except BaseException:
                    db.execute("ROLLBACK")
                    raise
                db.execute("COMMIT")
            finally:
                if not durable:
                    db.execute("PRAGMA synchronous=FULL")

    def add(self, task_id: str, task: bytes, *, intended_ns: int, boot_id: bytes) -> int | None:
        """Store one task durably; a task that is there already is left as it is.

        Returns:
            Its number, ``None`` for one that was there.
        """
        with self._guard() as db:
            done = db.execute(
                "INSERT OR IGNORE INTO spool (task_id, task, intended_ns, boot_id)"
                " VALUES (?, ?, ?, ?)",
                (task_id, task, intended_ns, boot_id),
            )
            return done.lastrowid if done.rowcount > 0 else None

    def add_all(
        self, tasks: Sequence[tuple[str, bytes, int]], *, first: int, boot_id: bytes
    ) -> list[int | None]:
        """Store many tasks with one statement, under numbers that are given.

        One statement and not one for each: every statement lets another thread of the process run,
        and has to wait until that lets go again.

        Args:
            tasks: id, bytes and intended time of each, in their order.
            first: number of the first one; above all in the file.
            boot_id: of the intended times.

        Returns:
            The number of each, ``None`` for one that was there already.
        """
        values: list[object] = []
        for number, (task_id, task, intended_ns) in enumerate(tasks, first):
            values += (number, task_id, task, intended_ns, boot_id)
        with self._guard() as db:
            done = db.execute(_ADD_NUMBERED + ",".join(["(?,?,?,?,?)"] * len(tasks)), values)
            if done.rowcount == len(tasks):
                return [*range(first, first + len(tasks))]
        stored: list[int | None] = []
        for item in tasks:
            found = self._number_of(item, boot_id, first)
            stored.append(None if found in stored else found)
        return stored

    def _number_of(self, task: tuple[str, bytes, int], boot_id: bytes, first: int) -> int | None:
        """The number of a task that was just added, or that has to be: another one took it."""
        task_id, data, intended_ns = task
        with self._guard() as db:
            found = db.execute("SELECT number FROM spool WHERE task_id = ?", (task_id,)).fetchone()
        if found is None:
            return self.add(task_id, data, intended_ns=intended_ns, boot_id=boot_id)
        return int(found[0]) if found[0] >= first else None

    def oldest(self, limit: int) -> list[Spooled]:
        """Up to ``limit`` tasks, oldest first."""
        return self.lacking(NO_BROKER, limit)

    def lacking(self, broker: int, limit: int, *, after: int = 0) -> list[Spooled]:
        """Up to ``limit`` tasks that a broker has not acknowledged, oldest first.

        Args:
            broker: its bit; ``NO_BROKER`` for all tasks.
            limit: at most so many.
            after: only those with a higher number.
        """
        with self._guard() as db:
            rows = db.execute(
                "SELECT number, task, intended_ns, boot_id, acked FROM spool"
                " WHERE rejected IS NULL AND acked & ? = 0 AND number > ?"
                " ORDER BY number LIMIT ?",
                (broker, after, limit),
            ).fetchall()
        return [Spooled(*row) for row in rows]

    def acknowledge(self, marks: Iterable[tuple[int, int]], *, needed: int) -> int:
        """Note which brokers have which tasks, and forget those that every needed one has.

        Args:
            marks: number and bits; bits are added to those that a row has.
            needed: bits of the brokers that a task must be on.

        Returns:
            How many tasks left.
        """
        with self._guard() as db:
            by_bits: dict[int, list[int]] = {}
            for number, bits in marks:
                by_bits.setdefault(bits, []).append(number)
            left = 0
            for bits, numbers in by_bits.items():
                these = f"number IN ({','.join('?' * len(numbers))})"
                if bits & needed != needed:
                    db.execute(
                        f"UPDATE spool SET acked = acked | ? WHERE {these}",  # noqa: S608
                        (bits, *numbers),
                    )
                    these += f" AND acked & {needed} = {needed}"
                left += db.execute(f"DELETE FROM spool WHERE {these}", numbers).rowcount  # noqa: S608
        return left

    def settle(self, needed: int) -> int:
        """Forget every task that all needed brokers have, as after a change of the route.

        Raises:
            SpoolError: no broker is needed, so that every task would go.
        """
        if needed == NO_BROKER:
            raise SpoolError(f"spool {self.path}: no broker is needed: nothing can be settled")
        with self._guard() as db:
            return db.execute(
                "DELETE FROM spool WHERE rejected IS NULL AND acked & ? = ?", (needed, needed)
            ).rowcount

    def remove(self, number: int) -> None:
        """Forget a task that was acknowledged."""
        with self._guard() as db:
            db.execute("DELETE FROM spool WHERE number = ?", (number,))

    def reject(self, number: int, reason: str) -> None:
        """Set a task aside that can never be sent; it stays in the file with the reason."""
        with self._guard() as db:
            db.execute("UPDATE spool SET rejected = ? WHERE number = ?", (reason, number))

    def rejected(self) -> list[tuple[int, str]]:
        """Number and reason of the tasks set aside."""
        with self._guard() as db:
            return [
                (int(number), str(reason))
                for number, reason in db.execute(
                    "SELECT number, rejected FROM spool WHERE rejected IS NOT NULL ORDER BY number"
                )
            ]

    def __len__(self) -> int:
        """Tasks that wait to be sent."""
        with self._guard() as db:
            (count,) = db.execute("SELECT count(*) FROM spool WHERE rejected IS NULL").fetchone()
        return int(count)

    def last_number(self) -> int:
        """The highest number that the file has given, 0 for none."""
        with self._guard() as db:
            found = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'spool'").fetchone()
        return int(found[0]) if found is not None else 0

    def tasks(self) -> list[bytes]:
        """All tasks in the file, those set aside as well, in the order in which they were added."""
        with self._guard() as db:
            return [bytes(task) for (task,) in db.execute("SELECT task FROM spool ORDER BY number")]

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
