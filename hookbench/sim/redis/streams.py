"""Commands on streams, without their groups."""

from hookbench.sim.redis.arguments import number_of, syntax_error
from hookbench.sim.redis.database import Database
from hookbench.sim.redis.registry import command
from hookbench.sim.redis.replies import OK, CommandError, Reply
from hookbench.sim.redis.stream_value import LEAST, MOST, StreamId, StreamValue, id_text

__all__ = ["entry_of", "range_ids", "stream_id"]

_INVALID = "ERR Invalid stream ID specified as stream command argument"
_NODE_ENTRIES = 100
"""Redis' ``stream-node-max-entries``: an inexact trim removes whole nodes only."""


def stream_id(text: bytes, missing: int) -> StreamId:
    """An id; ``missing`` stands for a number that is left out."""
    if text == b"-":
        return LEAST
    if text == b"+":
        return MOST
    time_ms, dash, number = text.partition(b"-")
    try:
        found = StreamId(int(time_ms), int(number) if dash else missing)
    except ValueError:
        raise CommandError(_INVALID) from None
    if not (LEAST.time_ms <= found.time_ms <= MOST.time_ms and 0 <= found.number <= MOST.number):
        raise CommandError(_INVALID)
    return found


def range_ids(first: bytes, last: bytes) -> tuple[StreamId, StreamId]:
    """Bounds of a range, both included; ``(`` in front leaves an id itself out."""
    if first.startswith(b"("):
        low = stream_id(first[1:], 0)
        if low == MOST:
            raise CommandError("ERR invalid start ID for the interval")
        low = (
            StreamId(low.time_ms, low.number + 1)
            if low.number < MOST.number
            else StreamId(low.time_ms + 1, 0)
        )
    else:
        low = stream_id(first, 0)
    if last.startswith(b"("):
        high = stream_id(last[1:], MOST.number)
        if high == LEAST:
            raise CommandError("ERR invalid end ID for the interval")
        high = (
            StreamId(high.time_ms, high.number - 1)
            if high.number
            else StreamId(high.time_ms - 1, MOST.number)
        )
    else:
        high = stream_id(last, MOST.number)
    return low, high


def entry_of(stream: StreamValue, entry_id: StreamId) -> list[Reply]:
    """An entry as it is answered; nil for one that was deleted."""
    fields = stream.entries.get(entry_id)
    return [id_text(entry_id), None if fields is None else list(fields)]


@command("XADD", -5, grows=True)
def xadd(db: Database, words: list[bytes]) -> Reply:
    rest = words[2:]
    least: StreamId | None = None
    exact = True
    if rest[0].upper() == b"MINID":
        rest = rest[1:]
        if rest[0] in (b"~", b"="):
            exact = rest[0] == b"="
            rest = rest[1:]
        least = stream_id(rest[0], 0)
        rest = rest[1:]
    text, fields = rest[0], rest[1:]
    if not fields or len(fields) % 2:
        raise CommandError("ERR wrong number of arguments for 'xadd' command")
    stream = db.find(words[1], StreamValue)
    last = stream.last if stream is not None else LEAST
    if text == b"*":
        entry_id = max(StreamId(db.now_ms, 0), StreamId(last.time_ms, last.number + 1))
        if db.now_ms > last.time_ms:
            entry_id = StreamId(db.now_ms, 0)
    else:
        entry_id = stream_id(text, 0)
        if entry_id == LEAST:
            raise CommandError("ERR The ID specified in XADD must be greater than 0-0")
        if entry_id <= last:
            raise CommandError(
                "ERR The ID specified in XADD is equal or smaller than the target stream top item"
            )
    stream = db.find_or_make(words[1], StreamValue)
    stream.add(entry_id, fields)
    db.dirty += 1
    if least is not None:
        _trim(stream, least, exact=exact)
    db.touched.append(words[1])
    return id_text(entry_id)


def _trim(stream: StreamValue, least: StreamId, *, exact: bool) -> None:
    if exact:
        stream.trim_below(least)
        return
    # Nodes begin with the first entry that is left; what the real ones hold depends on bytes too.
    while len(stream.ids) > _NODE_ENTRIES and stream.ids[_NODE_ENTRIES - 1] < least:
        stream.trim_below(stream.ids[_NODE_ENTRIES])


@command("XLEN", 2)
def xlen(db: Database, words: list[bytes]) -> Reply:
    stream = db.find(words[1], StreamValue)
    return 0 if stream is None else len(stream.ids)


@command("XRANGE", -4)
def xrange(db: Database, words: list[bytes]) -> Reply:
    return _range(db, words, words[2], words[3], newest_first=False)


@command("XREVRANGE", -4)
def xrevrange(db: Database, words: list[bytes]) -> Reply:
    return _range(db, words, words[3], words[2], newest_first=True)


def _range(
    db: Database, words: list[bytes], first: bytes, last: bytes, *, newest_first: bool
) -> Reply:
    low, high = range_ids(first, last)
    count = None
    if len(words) > 4:  # noqa: PLR2004 - XRANGE key first last
        if len(words) != 6 or words[4].upper() != b"COUNT":  # noqa: PLR2004 - COUNT n
            raise syntax_error()
        count = max(0, number_of(words[5]))
    stream = db.find(words[1], StreamValue)
    if stream is None:
        return []
    if count == 0:
        return None
    ids = stream.between(low, high)
    if newest_first:
        ids.reverse()
    return [entry_of(stream, entry_id) for entry_id in ids[:count]]


@command("XDEL", -3, writes=True)
def xdel(db: Database, words: list[bytes]) -> Reply:
    ids = [stream_id(text, 0) for text in words[2:]]
    stream = db.find(words[1], StreamValue)
    if stream is None:
        return 0
    gone = sum(stream.delete(entry_id) for entry_id in ids)
    db.dirty += gone
    return gone


@command("XSETID", -3, writes=True)
def xsetid(db: Database, words: list[bytes]) -> Reply:
    entry_id = stream_id(words[2], 0)
    stream = db.find(words[1], StreamValue)
    if stream is None:
        raise CommandError("ERR no such key")
    if entry_id < stream.max_deleted:
        raise CommandError(
            "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id"
        )
    if stream.ids and entry_id < stream.ids[-1]:
        raise CommandError(
            "ERR The ID specified in XSETID is smaller than the target stream top item"
        )
    stream.last = entry_id
    db.dirty += 1
    return OK
