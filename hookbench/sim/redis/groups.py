"""Commands on the consumer groups of streams."""

from typing import NoReturn

from hookbench.sim.redis.arguments import number_of, syntax_error
from hookbench.sim.redis.database import Database
from hookbench.sim.redis.registry import command
from hookbench.sim.redis.replies import OK, CommandError, Reply
from hookbench.sim.redis.stream_value import (
    LEAST,
    Group,
    Pending,
    StreamId,
    StreamValue,
    id_text,
)
from hookbench.sim.redis.streams import entry_of, range_ids, stream_id

__all__ = ["ReadGroup", "distance", "parse_xreadgroup", "read_group", "tombstones_after"]

_SCANNED_PER_ENTRY = 10
"""XAUTOCLAIM looks at so many pending entries per entry that was asked for."""
_CLAIM_COUNT = 100


class ReadGroup:
    """The arguments of XREADGROUP."""

    __slots__ = ("block_ms", "consumer", "count", "group", "ids", "keys")

    def __init__(self, words: list[bytes]) -> None:
        if words[1].upper() != b"GROUP":
            raise syntax_error()
        self.group, self.consumer = words[2], words[3]
        self.count: int | None = None
        self.block_ms: int | None = None
        rest = words[4:]
        while rest and rest[0].upper() != b"STREAMS":
            option = rest[0].upper()
            if option not in (b"COUNT", b"BLOCK") or len(rest) < 2:  # noqa: PLR2004 - with its value
                raise syntax_error()
            value = number_of(rest[1], "ERR timeout is not an integer or out of range")
            if option == b"BLOCK":
                self.block_ms = value
            else:
                self.count = value or None
            rest = rest[2:]
        names = rest[1:]
        if not names or len(names) % 2:
            raise CommandError(
                "ERR Unbalanced 'xreadgroup' list of streams: for each stream key an ID, '+', or"
                " '$' must be specified."
            )
        self.keys = names[: len(names) // 2]
        self.ids = names[len(names) // 2 :]


def parse_xreadgroup(words: list[bytes]) -> ReadGroup:
    """The arguments.

    Raises:
        CommandError: they do not fit.
    """
    return ReadGroup(words)


@command("XREADGROUP", -7, writes=True)
def xreadgroup(db: Database, words: list[bytes]) -> Reply:
    """As it is where nothing can wait. See ``blocking``."""
    return read_group(db, parse_xreadgroup(words))


def read_group(db: Database, asked: ReadGroup) -> Reply:
    """Entries of each stream that has some; nil if none has."""
    found = []
    for key, text in zip(asked.keys, asked.ids, strict=True):
        stream = db.find(key, StreamValue)
        group = stream.groups.get(asked.group) if stream is not None else None
        if stream is None or group is None:
            raise CommandError(
                f"NOGROUP No such key '{key.decode()}' or consumer group"
                f" '{asked.group.decode()}' in XREADGROUP with GROUP option"
            )
        if asked.consumer not in group.consumers:
            db.dirty += 1
        group.consumers[asked.consumer] = db.now_ms
        if text == b">":
            entries = _hand_out(db, stream, group, asked)
        else:
            after = stream_id(text, 0)
            mine = [
                entry_id
                for entry_id in group.in_order()
                if group.pending[entry_id].consumer == asked.consumer and entry_id > after
            ]
            mine = mine[: asked.count]
            for held in (group.pending[item] for item in mine if item in stream.entries):
                held.delivered_ms, held.delivered = db.now_ms, held.delivered + 1
            db.dirty += len(mine)
            entries = [entry_of(stream, entry_id) for entry_id in mine]
            found.append([key, entries])  # a look at what is pending answers an empty list
            continue
        if entries:
            found.append([key, entries])
    return found or None


def _hand_out(
    db: Database, stream: StreamValue, group: Group, asked: ReadGroup
) -> list[list[Reply]]:
    ids = stream.after(group.last)[: asked.count]
    for entry_id in ids:
        if group.read is not None and not tombstones_after(stream, group.last):
            group.read += 1
        else:
            group.read = distance(stream, entry_id)
        group.last = entry_id
        group.pending[entry_id] = Pending(asked.consumer, db.now_ms, 1)
    db.dirty += len(ids)
    return [entry_of(stream, entry_id) for entry_id in ids]


def tombstones_after(stream: StreamValue, entry_id: StreamId) -> bool:
    """Whether something above an id was deleted: ``streamRangeHasTombstones``."""
    if not stream.ids or stream.max_deleted == LEAST or stream.ids[0] > stream.max_deleted:
        return False
    return entry_id <= stream.max_deleted


def distance(stream: StreamValue, entry_id: StreamId) -> int | None:
    """Entries up to an id since the first ever: ``streamEstimateDistanceFromFirstEverEntry``."""
    if not stream.added or (not stream.ids and entry_id <= stream.last):
        return stream.added
    if entry_id < stream.max_deleted:
        return None
    if entry_id >= stream.last:
        return stream.added if entry_id == stream.last else None
    if (stream.max_deleted == LEAST or stream.max_deleted < stream.ids[0]) and (
        entry_id <= stream.ids[0]
    ):
        return stream.added - len(stream.ids) + (entry_id == stream.ids[0])
    return None


@command("XGROUP", -2, grows=True)
def xgroup(db: Database, words: list[bytes]) -> Reply:
    verb = words[1].upper()
    if verb != b"CREATE":
        raise CommandError(f"ERR unknown subcommand '{words[1].decode()}'. Try XGROUP HELP.")
    if len(words) < 5:  # noqa: PLR2004 - XGROUP CREATE key group id
        raise CommandError("ERR wrong number of arguments for 'xgroup|create' command")
    options = [word.upper() for word in words[5:]]
    if options not in ([], [b"MKSTREAM"]):
        raise syntax_error()
    stream = db.find(words[2], StreamValue)
    if stream is None:
        if not options:
            raise CommandError(
                "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you"
                " may want to use the MKSTREAM option to create an empty stream automatically."
            )
        stream = db.find_or_make(words[2], StreamValue)
        db.dirty += 1
    last = stream.last if words[4] == b"$" else stream_id(words[4], 0)
    if words[3] in stream.groups:
        raise CommandError("BUSYGROUP Consumer Group name already exists")
    stream.groups[words[3]] = Group(last, None)
    db.dirty += 1
    return OK


@command("XACK", -4, writes=True)
def xack(db: Database, words: list[bytes]) -> Reply:
    ids = [stream_id(text, 0) for text in words[3:]]
    stream = db.find(words[1], StreamValue)
    group = stream.groups.get(words[2]) if stream is not None else None
    if group is None:
        return 0
    count = sum(group.pending.pop(entry_id, None) is not None for entry_id in ids)
    db.dirty += count
    return count


@command("XPENDING", -3)
def xpending(db: Database, words: list[bytes]) -> Reply:
    _stream, group = _group(db, words)
    if len(words) == 3:  # noqa: PLR2004 - XPENDING key group
        return _summary(group)
    rest = words[3:]
    least_ms = 0
    if rest[0].upper() == b"IDLE" and len(rest) > 1:
        least_ms, rest = number_of(rest[1]), rest[2:]
    if len(rest) not in (3, 4):
        raise syntax_error()
    low, high = range_ids(rest[0], rest[1])
    count = max(0, number_of(rest[2]))
    found = []
    for entry_id in group.in_order():
        held = group.pending[entry_id]
        idle_ms = max(0, db.now_ms - held.delivered_ms)
        mine = len(rest) < 4 or held.consumer == rest[3]  # noqa: PLR2004 - with a consumer
        if low <= entry_id <= high and idle_ms >= least_ms and mine:
            found.append([id_text(entry_id), held.consumer, idle_ms, held.delivered])
    return found[:count]


def _summary(group: Group) -> Reply:
    ids = group.in_order()
    if not ids:
        return [0, None, None, None]
    counts: dict[bytes, int] = {}
    for held in group.pending.values():
        counts[held.consumer] = counts.get(held.consumer, 0) + 1
    by_name = [[name, b"%d" % count] for name, count in sorted(counts.items())]
    return [len(ids), id_text(ids[0]), id_text(ids[-1]), by_name]


@command("XCLAIM", -6, writes=True)
def xclaim(db: Database, words: list[bytes]) -> Reply:
    stream, group = _group(db, words)
    least_ms = max(0, number_of(words[4], "ERR Invalid min-idle-time argument for XCLAIM"))
    at = 5
    ids = []
    while at < len(words) and words[at][:1].isdigit():
        ids.append(stream_id(words[at], 0))
        at += 1
    just_id, delivered_ms, options = False, db.now_ms, words[at:]
    while options:
        option = options[0].upper()
        if option == b"JUSTID":
            just_id, options = True, options[1:]
        elif option == b"IDLE" and len(options) > 1:
            delivered_ms, options = db.now_ms - number_of(options[1]), options[2:]
        else:
            raise CommandError(f"ERR Unrecognized XCLAIM option '{options[0].decode()}'")
    group.consumers[words[3]] = db.now_ms
    claimed = []
    for entry_id in ids:
        held = group.pending.get(entry_id)
        if held is None:
            continue
        if entry_id not in stream.entries:
            del group.pending[entry_id]
            db.dirty += 1
        elif db.now_ms - held.delivered_ms >= least_ms:
            _take(db, group, held, words[3], just_id=just_id)
            held.delivered_ms = delivered_ms
            claimed.append(entry_id)
    return [id_text(item) if just_id else entry_of(stream, item) for item in claimed]


@command("XAUTOCLAIM", -6, writes=True)
def xautoclaim(db: Database, words: list[bytes]) -> Reply:
    stream, group = _group(db, words)
    least_ms = max(0, number_of(words[4], "ERR Invalid min-idle-time argument for XAUTOCLAIM"))
    start, _end = range_ids(words[5], b"+")
    count = _CLAIM_COUNT
    if len(words) > 6:  # noqa: PLR2004 - XAUTOCLAIM key group consumer idle start
        if len(words) != 8 or words[6].upper() != b"COUNT":  # noqa: PLR2004 - COUNT n
            raise syntax_error()
        count = number_of(words[7])
        if count < 1:
            raise CommandError("ERR COUNT must be > 0")
    group.consumers.setdefault(words[3], db.now_ms)
    entries, deleted = [], []
    looks = count * _SCANNED_PER_ENTRY
    waiting = [entry_id for entry_id in group.in_order() if entry_id >= start]
    while waiting and looks > 0 and count > 0:
        looks -= 1
        entry_id = waiting.pop(0)
        held = group.pending[entry_id]
        if entry_id not in stream.entries:
            del group.pending[entry_id]
            deleted.append(id_text(entry_id))
            db.dirty += 1
            count -= 1
        elif db.now_ms - held.delivered_ms >= least_ms:
            _take(db, group, held, words[3], just_id=False)
            held.delivered_ms = db.now_ms
            entries.append(entry_of(stream, entry_id))
            count -= 1
    return [id_text(waiting[0] if waiting else LEAST), entries, deleted]


def _take(db: Database, group: Group, held: Pending, consumer: bytes, *, just_id: bool) -> None:
    group.consumers[consumer] = db.now_ms
    held.consumer = consumer
    held.delivered += not just_id
    db.dirty += 1


def _group(db: Database, words: list[bytes]) -> tuple[StreamValue, Group]:
    stream = db.find(words[1], StreamValue)
    group = stream.groups.get(words[2]) if stream is not None else None
    if stream is None or group is None:
        _no_group(words[1], words[2])
    return stream, group


def _no_group(key: bytes, name: bytes) -> NoReturn:
    raise CommandError(f"NOGROUP No such key '{key.decode()}' or consumer group '{name.decode()}'")
