"""The log of what changed a database: its file, and what replicas follow.

An entry is what one request did, with the server's time: whoever carries it out again at that time
comes to the same keys. So what a crash leaves is a beginning of the log, and a replica is another
reader of it.
"""

import msgspec

from hookbench.sim.redis.database import Database
from hookbench.sim.redis.registry import look_up
from hookbench.sim.redis.replies import CommandError
from hookbench.sim.redis.settings import Persistence

__all__ = ["LogEntry", "apply_entry", "rebuild", "survivors"]

_US_PER_S = 1_000_000


class LogEntry(msgspec.Struct, frozen=True, gc=False):
    """One request: the server's time, and the commands that changed something, in order."""

    time_us: int
    commands: tuple[tuple[bytes, ...], ...]


def apply_entry(db: Database, entry: LogEntry) -> None:
    """Carry an entry out again."""
    db.now_us = entry.time_us
    db.now_ms = entry.time_us // 1000
    for words in entry.commands:
        try:
            look_up(list(words)).run(db, list(words))
        except CommandError:
            continue  # it failed after it had changed something, and does so again
    db.touched.clear()


def rebuild(log: list[LogEntry]) -> Database:
    """The database that a log leads to."""
    db = Database()
    for entry in log:
        apply_entry(db, entry)
    return db


def survivors(log: list[LogEntry], persistence: Persistence, *, cut_us: int | None) -> int:
    """How many entries are on the disk after a crash.

    Args:
        log: all.
        persistence: what was written and synced.
        cut_us: when the power went, by the server's clock; ``None`` for a process that was killed.
    """
    if persistence is Persistence.NONE:
        return 0
    if persistence is Persistence.ALWAYS or cut_us is None:
        return len(log)
    synced_us = cut_us // _US_PER_S * _US_PER_S
    count = len(log)
    while count and log[count - 1].time_us >= synced_us:
        count -= 1
    return count
