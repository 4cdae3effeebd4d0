"""Doubles for unit tests of the reference code; every broker behaviour is tested on real ones."""

from hookbench.ledger.events import Broker, Event


class MemoryRecorder:
    """Keeps events as tuples."""

    def __init__(self):
        self.events = []
        self.repositories = {}

    def record(self, event, task=b"", *, broker=Broker.NONE, value=0, attempt=0, repository=0):
        self.events.append((event, task, broker, value, attempt))
        if repository:
            self.repositories[task] = repository

    def kinds(self, task=None):
        return [event for event, key, *_ in self.events if task is None or key == task]

    def count(self, event):
        return sum(1 for kind, *_ in self.events if kind is event)


class FakeRedis:
    """The commands of the list queue on Python lists, with errors on demand."""

    def __init__(self):
        self.lists = {}
        self.push_error = None
        self.move_error = None

    async def lpush(self, name, *values):
        if self.push_error is not None:
            raise self.push_error
        items = self.lists.setdefault(name, [])
        for value in values:
            items.insert(0, value)
        return len(items)

    async def blmove(self, first, second, _timeout, _src, _dest):
        if self.move_error is not None:
            raise self.move_error
        items = self.lists.get(first, [])
        if not items:
            return None
        item = items.pop()
        self.lists.setdefault(second, []).insert(0, item)
        return item

    async def lrange(self, name, start, end):
        items = self.lists.get(name, [])
        return items[start:] if end == -1 else items[start : end + 1]

    async def eval(self, script, _numkeys, pending, work, *expected):
        """The script that moves the oldest tasks as long as they are the expected ones."""
        assert "LINDEX" in script
        moved = 0
        while moved < len(expected) and self.lists.get(pending, [])[-1:] == [expected[moved]]:
            await self.blmove(pending, work, 0, "RIGHT", "LEFT")
            moved += 1
        return moved

    async def lrem(self, name, count, value):
        items = self.lists.get(name, [])
        found = items.count(value)
        for _ in range(found if count == 0 else min(count, found)):
            items.remove(value)
        return found

    def pipeline(self, transaction=True):  # noqa: ARG002
        return FakePipeline(self)


class FakePipeline:
    def __init__(self, client):
        self._client = client
        self._moves = []

    def lmove(self, first, second, src, dest):
        self._moves.append((first, second, src, dest))

    async def execute(self, raise_on_error=True):  # noqa: ARG002
        return [
            await self._client.blmove(first, second, 0, src, dest)
            for first, second, src, dest in self._moves
        ]


__all__ = ["Event", "FakePipeline", "FakeRedis", "MemoryRecorder"]
