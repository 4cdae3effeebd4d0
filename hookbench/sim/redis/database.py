"""The keys of a simulated Redis, and what lies under them.

Every access names the time, so a database that is made again from its log, or that follows another
one, comes to the same: expiry, stream ids and idle times are those of the original moment.
"""

import random
from collections import deque
from collections.abc import Iterator
from typing import Any, TypeVar

from hookbench.sim.redis.replies import WRONG_TYPE, CommandError
from hookbench.sim.redis.stream_value import StreamValue

__all__ = ["Database", "ListValue", "SortedSet"]

Value = TypeVar("Value")

# What jemalloc and the dictionary take per key and per element, roughly; only limits look at it.
_KEY_BYTES = 64
_ELEMENT_BYTES = 16


class ListValue(deque[bytes]):
    """Elements; the left end is the head."""


class SortedSet(dict[bytes, float]):
    """Scores by member; sorted when asked, for those here are short."""

    def in_order(self) -> list[tuple[float, bytes]]:
        """By score, then by member."""
        return sorted((score, member) for member, score in self.items())


class Database:
    """Keys, their values and their expiry.

    Attributes:
        now_ms: the server's wall clock, set before each command.
        dirty: grows with each change, as Redis' ``server.dirty``: what did not grow it is neither
            logged nor replicated.
        touched: lists and streams that something was added to since the server looked.
    """

    def __init__(self) -> None:
        self._values: dict[bytes, Any] = {}
        self._expires_ms: dict[bytes, int] = {}
        self.now_ms = 0
        self.now_us = 0
        self.dirty = 0
        self.touched: list[bytes] = []

    def find(self, key: bytes, kind: type[Value]) -> Value | None:
        """The value of a key; ``None`` if there is none.

        Raises:
            CommandError: it is of another kind.
        """
        value = self.any_of(key)
        if value is None:
            return None
        if type(value) is not kind:
            raise CommandError(WRONG_TYPE)
        return value

    def any_of(self, key: bytes) -> Any:
        """The value of a key, whatever its kind."""
        due_ms = self._expires_ms.get(key)
        if due_ms is not None and due_ms <= self.now_ms:
            self.remove(key)
            self.dirty -= 1  # a replica, and a reader of the log, finds it expired by itself
            return None
        return self._values.get(key)

    def find_or_make(self, key: bytes, kind: type[Value]) -> Value:
        """As ``find``, and an empty one where there is none."""
        value = self.find(key, kind)
        if value is None:
            value = kind()
            self._values[key] = value
        return value

    def put(self, key: bytes, value: Any, *, expires_ms: int | None = None) -> None:
        """Set a key, whatever it was."""
        self._values.pop(key, None)
        self._values[key] = value
        if expires_ms is None:
            self._expires_ms.pop(key, None)
        else:
            self._expires_ms[key] = expires_ms
        self.dirty += 1

    def remove(self, key: bytes) -> bool:
        """Delete a key; whether it was there."""
        self._expires_ms.pop(key, None)
        if self._values.pop(key, None) is None:
            return False
        self.dirty += 1
        return True

    def remove_if_empty(self, key: bytes) -> None:
        """Redis has no empty lists, hashes and sets; a stream may be empty."""
        if not self._values[key]:
            del self._values[key]
            self._expires_ms.pop(key, None)

    def expiry_ms(self, key: bytes) -> int | None:
        """When a key that is there expires."""
        return self._expires_ms.get(key)

    def expire_at(self, key: bytes, due_ms: int) -> None:
        """Let a key that is there expire."""
        if due_ms <= self.now_ms:
            self.remove(key)
        else:
            self._expires_ms[key] = due_ms
            self.dirty += 1

    def all_keys(self) -> list[bytes]:
        """Of all that has not expired."""
        return [key for key in list(self._values) if self.any_of(key) is not None]

    def used_bytes(self) -> int:
        """About what the keys take; only to be compared with a limit."""
        total = len(self._values) * _KEY_BYTES
        for key, value in self._values.items():
            total += len(key)
            # Most are texts, and each look at the memory comes here.
            total += _ELEMENT_BYTES + len(value) if type(value) is bytes else _size(value)
        return total

    def evict(self, entropy: random.Random, *, volatile: bool) -> bool:
        """Remove one key, as ``allkeys-*`` or ``volatile-*`` do; whether there was one."""
        pool = list(self._expires_ms) if volatile else list(self._values)
        if not pool:
            return False
        return self.remove(pool[entropy.randrange(len(pool))])


def _size(value: Any) -> int:
    return sum(_ELEMENT_BYTES + len(item) for item in _elements(value))


def _elements(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, StreamValue):
        for fields in value.entries.values():
            yield from fields
    elif isinstance(value, SortedSet):
        yield from value
    elif isinstance(value, dict):
        for field, content in value.items():
            yield field
            if content is not None:  # of a set there are only the members
                yield content
    else:
        yield from value
