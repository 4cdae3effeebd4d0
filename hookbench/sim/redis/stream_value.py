"""What a stream is made of: entries, groups, and what is pending in them."""

import bisect
from typing import NamedTuple

__all__ = ["Group", "Pending", "StreamId", "StreamValue", "id_text"]


class StreamId(NamedTuple):
    """Milliseconds and a number within them."""

    time_ms: int
    number: int


LEAST = StreamId(0, 0)
MOST = StreamId(2**64 - 1, 2**64 - 1)


def id_text(entry_id: StreamId) -> bytes:
    """``1700000000000-0``."""
    return b"%d-%d" % entry_id


class Pending:
    """An entry that was handed to a consumer and is not acknowledged."""

    __slots__ = ("consumer", "delivered", "delivered_ms")

    def __init__(self, consumer: bytes, delivered_ms: int, delivered: int) -> None:
        self.consumer = consumer
        self.delivered_ms = delivered_ms
        self.delivered = delivered


class Group:
    """A consumer group.

    Attributes:
        last: up to where entries were handed out.
        pending: by entry, in order of their ids when iterated with ``in_order``.
        consumers: when each was last heard of (ms).
        read: how many entries were read, as far as that is known (``entries-read``).
    """

    def __init__(self, last: StreamId, read: int | None) -> None:
        self.last = last
        self.read = read
        self.pending: dict[StreamId, Pending] = {}
        self.consumers: dict[bytes, int] = {}

    def in_order(self) -> list[StreamId]:
        """Ids that are pending."""
        return sorted(self.pending)


class StreamValue:
    """Entries in the order of their ids.

    Attributes:
        entries: fields and values, flat, by id.
        ids: of the entries, sorted.
        last: the highest id that was ever given.
        added: entries that were ever added (``entries-added``).
        max_deleted: the highest id that was deleted with XDEL.
    """

    def __init__(self) -> None:
        self.entries: dict[StreamId, list[bytes]] = {}
        self.ids: list[StreamId] = []
        self.last = LEAST
        self.added = 0
        self.max_deleted = LEAST
        self.groups: dict[bytes, Group] = {}

    def __bool__(self) -> bool:
        return True  # a stream may be empty

    def add(self, entry_id: StreamId, fields: list[bytes]) -> None:
        """Append an entry, whose id is above the last."""
        self.entries[entry_id] = fields
        self.ids.append(entry_id)
        self.last = entry_id
        self.added += 1

    def delete(self, entry_id: StreamId) -> bool:
        """XDEL of one entry; whether it was there."""
        if self.entries.pop(entry_id, None) is None:
            return False
        del self.ids[bisect.bisect_left(self.ids, entry_id)]
        self.max_deleted = max(self.max_deleted, entry_id)
        return True

    def trim_below(self, least: StreamId) -> int:
        """Remove entries below an id; how many."""
        count = bisect.bisect_left(self.ids, least)
        for entry_id in self.ids[:count]:
            del self.entries[entry_id]
        del self.ids[:count]
        return count

    def between(self, first: StreamId, last: StreamId) -> list[StreamId]:
        """Ids from the one to the other, both included."""
        return self.ids[bisect.bisect_left(self.ids, first) : bisect.bisect_right(self.ids, last)]

    def after(self, entry_id: StreamId) -> list[StreamId]:
        """Ids above one."""
        return self.ids[bisect.bisect_right(self.ids, entry_id) :]
