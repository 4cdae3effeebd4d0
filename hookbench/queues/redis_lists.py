"""All lists of the hook queue on a Redis, work lists of single workers included, from outside."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence

import msgspec

from hookbench.ids import Entropy
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_errors import broker_errors
from hookbench.task import KNOWN_TASK_TYPES, Names

__all__ = ["MEMORY", "ListEntry", "RedisLists", "RedisMemory"]

_PAGE = 1000
_SLICES = 10
_SCAN_COUNT = 1000
_PENDING, _WORK, _DEAD = "pending", "work", "dead"
# A script runs where its key is, also in a Redis Cluster.
MEMORY = "return redis.call('INFO', 'memory')"


class ListEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a list.

    Attributes:
        key: of the list.
        kind: ``pending`` or ``work``.
        task_type: by the key.
    """

    key: str
    kind: str
    task_type: str
    payload: bytes


class RedisMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Memory in use, its limit (0 for none), and what happens at the limit."""

    used_bytes: int
    max_bytes: int
    policy: str


class RedisLists:
    """Finds and reads the lists.

    Args:
        client: the commands.
        names: prefix of the keys.
        task_types: whose lists are looked at; work lists of other types are found as well.
    """

    def __init__(
        self, client: RedisClient, names: Names, task_types: Sequence[str] = KNOWN_TASK_TYPES
    ) -> None:
        self._client = client
        self._names = names
        self._task_types = task_types

    async def work_keys(self) -> dict[str, str]:
        """Every work list and its task type: the shared one, and those of single workers."""
        prefix = f"{self._names.prefix}:"
        found: dict[str, str] = {}
        pattern = f"{prefix}*:{_WORK}*"
        with broker_errors(f"SCAN {pattern}"):
            async for raw in self._client.scan_iter(match=pattern, count=_SCAN_COUNT):
                key = raw.decode()
                task_type, _, rest = key.removeprefix(prefix).partition(":")
                if rest == _WORK or rest.startswith(f"{_WORK}:"):
                    found[key] = task_type
        return dict(sorted(found.items()))

    async def entries(self, limit: int) -> AsyncIterator[ListEntry]:
        """Up to ``limit`` entries of each list, pending ones first and the oldest first.

        A task that moves meanwhile may be met twice, or not at all.
        """
        for key, (kind, task_type) in (await self._keys()).items():
            for start in range(0, limit, _PAGE):
                with broker_errors(f"LRANGE {key}"):
                    page = await self._client.lrange(key, -start - _PAGE, -start - 1)
                for payload in reversed(page):
                    yield ListEntry(key=key, kind=kind, task_type=task_type, payload=payload)
                if len(page) < _PAGE:
                    break

    async def sampled_entries(
        self, count: int, entropy: Entropy, held: Counter[str]
    ) -> AsyncIterator[ListEntry]:
        """About ``count`` entries of each list, in slices over its length; both ends among them.

        Args:
            count: of a list; one that is no longer is read whole.
            entropy: where in its part of the list a slice lies.
            held: is told the length of each list.
        """
        for key, (kind, task_type) in (await self._keys()).items():
            with broker_errors(f"LLEN {key}"):
                held[key] = await self._client.llen(key)
            for first, last in _slices(held[key], count, entropy):
                with broker_errors(f"LRANGE {key}"):
                    page = await self._client.lrange(key, first, last)
                for payload in reversed(page):
                    yield ListEntry(key=key, kind=kind, task_type=task_type, payload=payload)

    async def _keys(self) -> dict[str, tuple[str, str]]:
        """Every list with its kind and task type, pending ones first."""
        keys: dict[str, tuple[str, str]] = {
            self._names.pending_key(task_type): (_PENDING, task_type)
            for task_type in self._task_types
        }
        for key, task_type in (await self.work_keys()).items():
            keys.setdefault(self._names.pending_key(task_type), (_PENDING, task_type))
            keys[key] = (_WORK, task_type)
        return keys

    async def letters(self) -> int:
        """How many dead letters Redis holds."""
        count = 0
        for task_type in {*self._task_types, *(await self.work_keys()).values()}:
            key = self._names.dead_key(task_type)
            with broker_errors(f"LLEN {key}"):
                count += await self._client.llen(key)
        return count

    async def memory(self) -> RedisMemory:
        """``INFO memory`` of the node that the queue's keys are on."""
        with broker_errors("INFO memory"):
            text = await self._client.eval(MEMORY, 1, self._names.pending_key("sync"))
        lines = dict(
            line.split(":", 1) for line in bytes(text).decode().splitlines() if ":" in line
        )
        return RedisMemory(
            used_bytes=int(lines.get("used_memory", 0)),
            max_bytes=int(lines.get("maxmemory", 0)),
            policy=lines.get("maxmemory_policy", "noeviction"),
        )


def _slices(length: int, count: int, entropy: Entropy) -> list[tuple[int, int]]:
    """Indexes of the first and the last entry of each slice; the old end of a list is its last."""
    if length <= count:
        return [(0, length - 1)] if length else []
    size = max(1, count // _SLICES)
    part = length / _SLICES
    found = []
    for number in range(_SLICES):
        begin = int(number * part)
        room = max(0, int((number + 1) * part) - begin - size)
        if number == _SLICES - 1:
            begin = length - size
        elif number and room:
            begin += entropy.getrandbits(32) % (room + 1)
        found.append((begin, begin + size - 1))
    return found
