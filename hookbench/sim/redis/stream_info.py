"""XINFO: what a stream and its groups say of themselves."""

from hookbench.sim.redis.database import Database
from hookbench.sim.redis.groups import distance, tombstones_after
from hookbench.sim.redis.registry import command
from hookbench.sim.redis.replies import CommandError, Reply
from hookbench.sim.redis.stream_value import LEAST, Group, StreamValue, id_text
from hookbench.sim.redis.streams import entry_of

__all__ = ["lag_of"]


@command("XINFO", -2)
def xinfo(db: Database, words: list[bytes]) -> Reply:
    verb = words[1].upper()
    if len(words) < 3 or verb not in (b"STREAM", b"GROUPS", b"CONSUMERS"):  # noqa: PLR2004
        raise CommandError(f"ERR unknown subcommand '{words[1].decode()}'. Try XINFO HELP.")
    stream = db.find(words[2], StreamValue)
    if stream is None:
        raise CommandError("ERR no such key")
    if verb == b"STREAM":
        return _stream(stream)
    if verb == b"GROUPS":
        return [_told(stream, name, group) for name, group in sorted(stream.groups.items())]
    return _consumers(db, stream, words)


def _stream(stream: StreamValue) -> Reply:
    ends = [stream.ids[0], stream.ids[-1]] if stream.ids else []
    first, last = [entry_of(stream, entry_id) for entry_id in ends] or (None, None)
    return [
        b"length",
        len(stream.ids),
        b"last-generated-id",
        id_text(stream.last),
        b"max-deleted-entry-id",
        id_text(stream.max_deleted),
        b"entries-added",
        stream.added,
        b"recorded-first-entry-id",
        id_text(stream.ids[0] if stream.ids else LEAST),
        b"groups",
        len(stream.groups),
        b"first-entry",
        first,
        b"last-entry",
        last,
    ]


def _told(stream: StreamValue, name: bytes, group: Group) -> Reply:
    return [
        b"name",
        name,
        b"consumers",
        len(group.consumers),
        b"pending",
        len(group.pending),
        b"last-delivered-id",
        id_text(group.last),
        b"entries-read",
        group.read,
        b"lag",
        lag_of(stream, group),
    ]


def lag_of(stream: StreamValue, group: Group) -> int | None:
    """Entries not yet read, where that is known: ``streamReplyWithCGLag`` of Redis 8."""
    if not stream.added or not stream.ids:
        return 0
    if group.last < stream.ids[0] and stream.max_deleted < stream.ids[0]:
        return len(stream.ids)
    read = group.read
    if read is None or tombstones_after(stream, group.last):
        read = distance(stream, group.last)
    return None if read is None else stream.added - read


def _consumers(db: Database, stream: StreamValue, words: list[bytes]) -> Reply:
    if len(words) != 4:  # noqa: PLR2004 - XINFO CONSUMERS key group
        raise CommandError("ERR wrong number of arguments for 'xinfo|consumers' command")
    group = stream.groups.get(words[3])
    if group is None:
        raise CommandError(
            f"NOGROUP No such consumer group '{words[3].decode()}' for key name"
            f" '{words[2].decode()}'"
        )
    return [
        [
            b"name",
            name,
            b"pending",
            sum(held.consumer == name for held in group.pending.values()),
            b"idle",
            max(0, db.now_ms - seen_ms),
        ]
        for name, seen_ms in sorted(group.consumers.items())
    ]
