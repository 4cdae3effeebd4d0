"""The spool: tasks that no broker has acknowledged yet, durable in one SQLite file.

Standard library only: the git hook opens it inside a push.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from hookbench.errors import SpoolError

__all__ = ["Spool", "Spooled"]

BUSY_TIMEOUT_S = 5.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spool (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    task_id TEXT NOT NULL UNIQUE,
    task BLOB NOT NULL,
    intended_ns INTEGER NOT NULL,
    boot_id BLOB NOT NULL,
    rejected TEXT
)
"""


class Spooled(NamedTuple):
    """One spooled task; ``intended_ns`` is monotonic time of the boot ``boot_id``."""

    number: int
    task: bytes
    intended_ns: int
    boot_id: bytes


class Spool:
    """Append, read in order, remove what was acknowledged.

    A row is on the disk when ``add`` returns (``synchronous=FULL``). Several processes may use
    one spool at a time.

    Raises:
        SpoolError: the file cannot be opened, read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                self._db.execute(_SCHEMA)
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise SpoolError(
                f"spool {path}: {error}; check that the folder exists and can be written"
            ) from error

    @contextmanager
    def _guard(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._db
        except sqlite3.Error as error:
            raise SpoolError(f"spool {self.path}: {error}") from error

    def add(self, task_id: str, task: bytes, *, intended_ns: int, boot_id: bytes) -> None:
        """Store one task durably; a task that is there already is left as it is."""
        with self._guard() as db:
            db.execute(
                "INSERT OR IGNORE INTO spool (task_id, task, intended_ns, boot_id)"
                " VALUES (?, ?, ?, ?)",
                (task_id, task, intended_ns, boot_id),
            )

    def oldest(self, limit: int) -> list[Spooled]:
        """Up to ``limit`` tasks, oldest first."""
        with self._guard() as db:
            rows = db.execute(
                "SELECT number, task, intended_ns, boot_id FROM spool"
                " WHERE rejected IS NULL ORDER BY number LIMIT ?",
                (limit,),
            ).fetchall()
        return [Spooled(*row) for row in rows]

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

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
