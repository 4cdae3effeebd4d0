"""Puts back what lies in the work lists of workers that are gone, and looks at all of them."""

import uuid
from collections.abc import Callable, Sequence

from hookbench.errors import BrokerUnreachableError
from hookbench.ledger.events import NO_TASK
from hookbench.queues.base import Depth
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_errors import broker_errors
from hookbench.queues.redis_scripts import ADOPT, DEPTH, REAP, RELEASE, at_maxmemory
from hookbench.task import Names

__all__ = ["RedisReaper", "RedisSurvey", "task_ids"]

BATCH = 100
"""Tasks that one script moves: a script stops the server for everybody else."""

_MAX_BATCHES = 100
_FORGOTTEN_AFTER_S = 120.0  # the longest BLMOVE is a third of a lease
_MS_PER_S = 1000
_SCAN_COUNT = 1000


class RedisReaper:
    """The reaper of one task type; any number may work at once.

    Args:
        client: the commands.
        names: prefix of the keys.
        task_type: which lists.
        adopt_after_s: how long an entry of the guide's shared work list lies there before it is
            put back.
        allow_oom: also at maxmemory, see ``at_maxmemory``.
        requeued: is told the ids of what was put back.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        names: Names,
        task_type: str,
        adopt_after_s: float,
        allow_oom: bool,
        requeued: Callable[[list[bytes]], None],
    ) -> None:
        self._client = client
        self._names = names
        self._task_type = task_type
        self._adopt_after_ms = round(adopt_after_s * _MS_PER_S)
        self._allow_oom = allow_oom
        self._requeued = requeued

    async def reap(self, owners: Sequence[bytes]) -> None:
        """Put back the tasks of owners whose lease has ended, and what nobody owns.

        Raises:
            BrokerUnreachableError: no answer; what was put back may not have been told.
        """
        names, kind = self._names, self._task_type
        pending, attempts = names.pending_key(kind), names.attempts_key(kind)
        for owner in owners:
            work = names.own_work_key(kind, owner.decode())
            await self._batches(
                REAP,
                [names.leases_key(kind), work, pending, attempts],
                [owner, BATCH, round(_FORGOTTEN_AFTER_S * _MS_PER_S)],
            )
        with broker_errors(f"a look at {names.work_key(kind)}"):
            adopted = await self._client.eval(
                self._script(ADOPT),
                4,
                names.seen_key(kind),
                names.work_key(kind),
                pending,
                attempts,
                BATCH,
                self._adopt_after_ms,
            )
        self._requeued(task_ids(adopted))

    async def release(self, owner: str, *, forget: bool) -> None:
        """Put back what an owner still has, and end its lease.

        Args:
            owner: whose list.
            forget: nothing can come into the list any more.

        Raises:
            BrokerUnreachableError: no answer, or there is no end of tasks.
        """
        names, kind = self._names, self._task_type
        work = names.own_work_key(kind, owner)
        await self._batches(
            RELEASE,
            [work, names.pending_key(kind), names.leases_key(kind)],
            [owner, BATCH, "1" if forget else "0"],
        )

    async def _batches(
        self, script: str, keys: list[str], arguments: list[bytes | str | int]
    ) -> None:
        for _ in range(_MAX_BATCHES):
            with broker_errors(f"putting back what {keys[0]} tells of"):
                left, *moved = await self._client.eval(
                    self._script(script), len(keys), *keys, *arguments
                )
            self._requeued(task_ids(moved))
            if not left:
                return
        raise BrokerUnreachableError(
            f"after {_MAX_BATCHES * BATCH} tasks there are more in the list: again later"
        )

    def _script(self, script: str) -> str:
        return at_maxmemory(script) if self._allow_oom else script


class RedisSurvey:
    """All lists of one task type, whoever owns them.

    Args:
        client: the commands.
        names: prefix of the keys.
        task_type: which lists.
    """

    def __init__(
        self, client: RedisClient, *, names: Names | None = None, task_type: str = "sync"
    ) -> None:
        self._client = client
        self._names = names or Names()
        self._task_type = task_type
        self._pending = self._names.pending_key(task_type)
        self._work = self._names.work_key(task_type)
        self._leases = self._names.leases_key(task_type)

    async def depth(self) -> Depth:
        """What is not yet read, and what is in all work lists, at one moment."""
        depth, _leases = await self.depth_and_leases()
        return depth

    async def depth_and_leases(self) -> tuple[Depth, int]:
        """The depth, and how many workers have a lease that lasts."""
        with broker_errors(f"LLEN {self._pending}"):
            pending, held, leases = await self._client.eval(
                DEPTH, 3, self._pending, self._work, self._leases
            )
        return Depth(pending=pending, in_flight=held), leases

    async def contents(self) -> tuple[list[bytes], list[bytes]]:
        """All payloads of the pending list, and of all work lists."""
        with broker_errors(f"LRANGE {self._pending}"):
            pending = await self._client.lrange(self._pending, 0, -1)
            work: list[bytes] = []
            for key in await self.work_keys():
                work += await self._client.lrange(key, 0, -1)
        return pending, work

    async def work_keys(self) -> list[str]:
        """The guide's work list, and those that have an owner."""
        return [self._work, *await self.own_work_keys()]

    async def own_work_keys(self) -> list[str]:
        """The work lists that have an owner, whether or not that still has a lease."""
        pattern = f"{_glob(self._work)}:*"
        with broker_errors(f"SCAN {pattern}"):
            keys = {
                key.decode()
                async for key in self._client.scan_iter(match=pattern, count=_SCAN_COUNT)
            }
        return sorted(keys)

    async def keys(self) -> list[str]:
        """All keys that the queues on lists may have left, but for dead letters."""
        names, kind = self._names, self._task_type
        return [
            self._pending,
            self._work,
            self._leases,
            names.attempts_key(kind),
            names.seen_key(kind),
            *await self.own_work_keys(),
        ]


def task_ids(found: Sequence[bytes]) -> list[bytes]:
    """The 16 bytes of each id, ``NO_TASK`` for what has none."""
    ids = []
    for item in found:
        try:
            ids.append(uuid.UUID(item.decode()).bytes)
        except ValueError:
            ids.append(NO_TASK)
    return ids


def _glob(text: str) -> str:
    return "".join(f"\\{char}" if char in "*?[]\\" else char for char in text)
