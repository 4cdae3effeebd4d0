"""Doubles for unit tests of the reference code; every broker behaviour is tested on real ones."""

import dataclasses

from redis.exceptions import NoScriptError

from hookbench.errors import BrokerUnreachableError
from hookbench.ids import uuid7_wall_ms
from hookbench.ledger.events import Broker, Event
from hookbench.migration.done_store import Claim, ClaimOutcome
from hookbench.queues.redis_scripts import CLAIM_PLAIN


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
        return await self._move(first, second)

    async def _move(self, first, second):
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

    async def evalsha(self, _digest, _numkeys, *_arguments):
        raise NoScriptError("it is sent the text")

    async def eval(self, script, _numkeys, pending, work, *arguments):
        """The scripts that move the oldest tasks: all, or as long as they are the expected ones."""
        if script == CLAIM_PLAIN:
            found = [await self._move(pending, work) for _ in range(arguments[0])]
            return [item for item in found if item is not None]
        assert "LINDEX" in script
        moved = 0
        while moved < len(arguments) and self.lists.get(pending, [])[-1:] == [arguments[moved]]:
            await self._move(pending, work)
            moved += 1
        return moved

    async def lrem(self, name, count, value):
        items = self.lists.get(name, [])
        found = items.count(value)
        for _ in range(found if count == 0 else min(count, found)):
            items.remove(value)
        return found


@dataclasses.dataclass
class _Kept:
    state: str = "released"
    token: int = 0
    until_ns: int = 0
    owner: str = ""
    failures: int = 0
    losses: int = 0
    last_failure: str = ""


class MemoryDoneStore:
    """An authority in this process, for virtual time; it passes the contract of the real ones.

    ``away`` makes it answer nothing; ``asked`` is what it was asked, in order.
    """

    def __init__(self, clock, kept=None, last=None):
        self.clock = clock
        self.kept = {} if kept is None else kept
        self.last = {} if last is None else last
        self.away = False
        self.asked = []

    def _ask(self, what):
        self.asked.append(what)
        if self.away:
            raise BrokerUnreachableError("the done-store is away")

    async def claim(self, task_id, owner, lease_s, *, repository="", most=0):
        self._ask("claim")
        kept = self.kept.setdefault(task_id, _Kept())
        left_ns = kept.until_ns - self.clock.monotonic_ns()
        if kept.state == "done":
            return Claim(task_id=task_id, outcome=ClaimOutcome.DONE)
        if kept.state == "superseded":
            return Claim(task_id=task_id, outcome=ClaimOutcome.SUPERSEDED)
        if kept.state == "claimed" and kept.owner != owner:
            if left_ns > 0:
                return Claim(
                    task_id=task_id, outcome=ClaimOutcome.HELD, held_for_s=left_ns / 1_000_000_000
                )
            kept.losses += 1
        spent = 0 < most <= kept.failures + kept.losses
        if repository and self.last.get(repository, 0) > uuid7_wall_ms(task_id) and not spent:
            kept.state = "superseded"
            return Claim(task_id=task_id, outcome=ClaimOutcome.SUPERSEDED)
        kept.state, kept.owner = "claimed", owner
        kept.token = 1 + max(other.token for other in self.kept.values())
        kept.until_ns = self.clock.monotonic_ns() + int(lease_s * 1_000_000_000)
        return Claim(
            task_id=task_id,
            outcome=ClaimOutcome.GRANTED,
            token=kept.token,
            failures=kept.failures,
            losses=kept.losses,
            last_failure=kept.last_failure,
            repository=repository,
        )

    def _ours(self, what, claim, *states):
        self._ask(what)
        kept = self.kept.get(claim.task_id, _Kept())
        return kept if kept.token == claim.token and kept.state in states else None

    async def renew(self, claim, lease_s):
        kept = self._ours("renew", claim, "claimed")
        if kept is None:
            return False
        kept.until_ns = self.clock.monotonic_ns() + int(lease_s * 1_000_000_000)
        return True

    async def complete(self, claim):
        kept = self._ours("complete", claim, "claimed", "done")
        if kept is None:
            return False
        kept.state = "done"
        if claim.repository:
            done_ms = uuid7_wall_ms(claim.task_id)
            self.last[claim.repository] = max(done_ms, self.last.get(claim.repository, 0))
        return True

    async def release(self, claim, *, failure=""):
        kept = self._ours("release", claim, "claimed")
        if kept is None:
            return False
        kept.state = "released"
        if failure:
            kept.failures += 1
            kept.last_failure = failure[:200]
        return True

    async def are_done(self, task_ids):
        self._ask("are_done")
        ended = ("done", "superseded")
        return {item for item in task_ids if item in self.kept and self.kept[item].state in ended}

    async def forget(self, task_ids):
        self._ask("forget")
        found = await self.are_done(task_ids)
        for item in found:
            self.kept[item] = _Kept(token=self.kept[item].token)
        return len(found)


__all__ = ["Event", "FakeRedis", "MemoryDoneStore", "MemoryRecorder"]
