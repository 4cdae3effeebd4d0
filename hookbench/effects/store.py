"""The effect store: one SQLite file that all workers of a run write to.

It is no queue and no broker, and no fault is aimed at it: what it holds is what happened. A row
survives the SIGKILL of its process (the write-ahead log is in the page cache), not a power cut.
"""

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Protocol

from hookbench.clock import Clock
from hookbench.effects.classes import Execution, HandlerClass
from hookbench.errors import EffectStoreError

__all__ = ["EFFECTS_SCHEMA", "EffectStore", "SqliteEffectStore", "seal_effects"]

EFFECTS_SCHEMA = 1
"""``user_version`` of the file. 1: first form. A reader refuses a higher number."""
BUSY_TIMEOUT_S = 2.0
_PAGE_BYTES = 1024
"""A transaction writes whole pages to the log, with a checksum of each: of small ones a fifth of
the time of an effect is saved."""

_TABLES = """
CREATE TABLE IF NOT EXISTS effects (
    number INTEGER PRIMARY KEY,
    task BLOB NOT NULL,
    class INTEGER NOT NULL,
    writer INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    token INTEGER NOT NULL,
    time_ns INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS done (task BLOB PRIMARY KEY, token INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (task BLOB PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""
_INSERT = (
    "INSERT INTO effects (task, class, writer, attempt, token, time_ns) VALUES (?, ?, ?, ?, ?, ?)"
)


class EffectStore(Protocol):
    """Where handlers have their effects. Tasks are given by their 16 id bytes."""

    def append(self, task: bytes, execution: Execution) -> None:
        """A plain effect: it happens once more."""
        ...

    def set_state(self, task: bytes, execution: Execution, value: int) -> None:
        """An idempotent effect: the state of the task is ``value`` afterwards."""
        ...

    def apply_once(self, task: bytes, execution: Execution) -> bool:
        """A transactional effect; whether it happened now (``False``: it had happened before)."""
        ...


class SqliteEffectStore:
    """The store of a run, opened by each of its workers.

    Each effect is one transaction of about 30 us that the caller waits for: a handler that
    returned has its effect in the store. ``writer`` is the number of the worker's ledger.

    Raises:
        EffectStoreError: the file cannot be opened or written, or is locked for 2 s.
    """

    def __init__(self, path: Path, *, writer: int, clock: Clock) -> None:
        self.path = path
        self._writer = writer
        self._clock = clock
        try:
            if not path.exists():
                _create(path)
            self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            try:
                self._db.execute("PRAGMA synchronous=OFF")
                self._db.execute("SELECT count(*) FROM done LIMIT 1")
            except BaseException:
                self._db.close()
                raise
        except (sqlite3.Error, OSError) as error:
            raise EffectStoreError(
                f"effect store {path}: {error}; check that the folder exists and can be written"
            ) from error

    def append(self, task: bytes, execution: Execution) -> None:
        """A plain effect."""
        try:
            self._db.execute(_INSERT, self._row(task, HandlerClass.PLAIN, execution))
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def set_state(self, task: bytes, execution: Execution, value: int) -> None:
        """An idempotent effect: state and execution in one transaction."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            with self._db:
                self._db.execute(
                    "INSERT INTO state (task, value) VALUES (?, ?)"
                    " ON CONFLICT (task) DO UPDATE SET value = excluded.value",
                    (task, value),
                )
                self._db.execute(_INSERT, self._row(task, HandlerClass.IDEMPOTENT, execution))
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def apply_once(self, task: bytes, execution: Execution) -> bool:
        """A transactional effect: done-record and effect in one transaction.

        Raises:
            EffectStoreError: the token is lower than the one that the task was done with.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            with self._db:
                claimed = self._db.execute(
                    "INSERT INTO done (task, token) VALUES (?, ?) ON CONFLICT (task) DO NOTHING",
                    (task, execution.token),
                ).rowcount
                if claimed:
                    row = self._row(task, HandlerClass.TRANSACTIONAL, execution)
                    self._db.execute(_INSERT, row)
                    return True
                (token,) = self._db.execute(
                    "SELECT token FROM done WHERE task = ?", (task,)
                ).fetchone()
        except sqlite3.Error as error:
            raise self._failure(error) from error
        if execution.token < token:
            raise EffectStoreError(
                f"effect store {self.path}: token {execution.token} of task {task.hex()} is older"
                f" than {token}, which it was done with: the claim of this worker has expired"
            )
        return False

    def _row(
        self, task: bytes, handler_class: HandlerClass, execution: Execution
    ) -> tuple[bytes, int, int, int, int, int]:
        return (
            task,
            int(handler_class),
            self._writer,
            execution.attempt,
            execution.token,
            self._clock.monotonic_ns(),
        )

    def _failure(self, error: sqlite3.Error) -> EffectStoreError:
        return EffectStoreError(f"effect store {self.path}: {error}")

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _create(path: Path) -> None:
    """Make an empty store aside and give it its name, unless another process has done so.

    Two processes that make one in place meet in the change to the write-ahead log, which fails at
    once where another has the file open, however long a lock may be waited for.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    db = sqlite3.connect(aside, isolation_level=None)
    try:
        db.execute(f"PRAGMA page_size={_PAGE_BYTES}")  # of an empty file, which this is
        db.execute(
            "PRAGMA synchronous=OFF"
        )  # before the next: the change of the journal syncs as well
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(_TABLES)
        db.execute(f"PRAGMA user_version={EFFECTS_SCHEMA}")
    finally:
        db.close()
    try:
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(aside)
    finally:
        aside.unlink()


def seal_effects(path: Path) -> None:
    """Make the store one file that can be read from a folder that cannot be written.

    Raises:
        EffectStoreError: a process still has it open, or it cannot be written.
    """
    try:
        db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            (mode,) = db.execute("PRAGMA journal_mode=DELETE").fetchone()
        finally:
            db.close()
    except sqlite3.Error as error:
        raise EffectStoreError(f"effect store {path}: {error}") from error
    if mode != "delete":
        raise EffectStoreError(f"effect store {path}: a process still writes to it")
