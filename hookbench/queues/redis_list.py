"""The guide's hook queue on Redis lists: LPUSH, BLMOVE, LREM, and a Lua retry.

Keys: ``{hook}:{task_type}`` holds tasks not yet read, ``{hook}:{task_type}:work`` those in
flight. Nothing reads the work list, so a worker that dies leaves its tasks there (hazard R3).
"""

from collections.abc import Sequence
from typing import Self

from redis.exceptions import OutOfMemoryError, RedisError

from hookbench.clock import NS_PER_S, Clock, SystemClock
from hookbench.errors import DecodeError, SettingError
from hookbench.ledger.events import Broker
from hookbench.queues.base import Capabilities, Delivery, Depth
from hookbench.queues.redis_absent import push_if_absent
from hookbench.queues.redis_client import (
    RedisClient,
    ServerWaits,
)
from hookbench.queues.redis_errors import (
    broker_errors,
    put_errors,
)
from hookbench.queues.redis_scripts import CLAIM_PLAIN, at_maxmemory, run_often
from hookbench.queues.replica_wait import PUSH, put_replicated
from hookbench.task import Names, decode_task, encode_task, with_retry

__all__ = ["RedisListQueue"]

_FULL_POLL_S = 0.05

# The guide's retry: LREM from the work list, LPUSH to the queue. ARGV[4] = '1' pushes only what
# was held; the guide pushes in any case (hazard R5).
_REQUEUE = """
local held = redis.call('LREM', KEYS[1], tonumber(ARGV[3]), ARGV[1])
if held == 0 and ARGV[4] == '1' then return 0 end
redis.call('LPUSH', KEYS[2], ARGV[2])
return held
"""

# Moves the oldest tasks, each only as long as it still is the oldest: another worker may have
# taken some since they were looked at, and what comes after them is not what was asked for.
_MOVE_OLDEST = """
local moved = 0
for _, payload in ipairs(ARGV) do
  if redis.call('LINDEX', KEYS[1], -1) ~= payload then break end
  redis.call('LMOVE', KEYS[1], KEYS[2], 'RIGHT', 'LEFT')
  moved = moved + 1
end
return moved
"""


class RedisListQueue:
    """One task type of the hook queue on Redis.

    Args:
        client: the commands; connections are the client's business.
        names: prefix of the keys.
        task_type: which pair of lists.
        lrem_count: 0 as in the guide removes every equal payload (hazard R4), 1 only one.
        requeue_only_held: requeue only what the work list still held; the guide does not look.
        one_by_one: take each task by a BLMOVE of its own, as the guide does.
        allow_oom: take tasks and put them back at maxmemory as well (hazard R6), from Redis 7 on.
        replicas: how many replicas must have a task before it is put (hazard R7).
        clock: for the wait at maxmemory, which cannot be on the server.
    """

    name = "redis_list"
    capabilities = Capabilities(
        redelivery=False, delayed_nak=False, in_progress=False, attempts=False, ordered=True
    )

    def __init__(
        self,
        client: RedisClient,
        *,
        names: Names | None = None,
        task_type: str = "sync",
        lrem_count: int = 0,
        requeue_only_held: bool = False,
        one_by_one: bool = False,
        allow_oom: bool = False,
        replicas: int = 0,
        clock: Clock | None = None,
    ) -> None:
        names = names or Names()
        self._client = client
        self._pending = names.pending_key(task_type)
        self._work = names.work_key(task_type)
        self._lrem_count = lrem_count
        self._requeue_only_held = requeue_only_held
        self._one_by_one = one_by_one
        self._allow_oom = allow_oom
        self._replicas = replicas
        self._clock = clock or SystemClock()
        self._closed = False
        self._waits = ServerWaits()

    async def put(self, payload: bytes) -> int:
        """LPUSH; the length of the list afterwards."""
        if self._replicas:
            return await self._put_replicated(payload)
        with put_errors(f"LPUSH {self._pending}", payload):
            return await self._client.lpush(self._pending, payload)

    async def _put_replicated(self, payload: bytes) -> int:
        pipeline = self._client.pipeline(transaction=False)
        pipeline.eval(PUSH, 1, self._pending, payload, self._replicas)
        what = f"LPUSH {self._pending}"
        return int(await put_replicated(pipeline, what, payload, self._replicas))

    async def put_if_absent(self, payload: bytes) -> int:
        """LPUSH unless the task lies in one of both lists, see ``push_if_absent``."""
        return await push_if_absent(
            self._client, self._pending, [self._work], payload, replicas=self._replicas
        )

    async def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        """BLMOVE for the first task, then one script of LMOVEs for what else is there.

        It must not be cancelled: a reply that arrives for a cancelled call is lost (hazard R2).
        The wait is on the server, and ``close`` lets it end by itself.
        """
        if wait_s <= 0:
            raise SettingError(f"wait of {wait_s} s: BLMOVE needs more than 0 (0 waits for ever)")
        if self._closed:
            return []
        with self._waits:
            if self._allow_oom:
                payloads = await self._claim_at_maxmemory(limit, wait_s)
                return [RedisListDelivery(self, payload) for payload in payloads]
            with broker_errors(f"BLMOVE {self._pending}"):
                first = await self._client.blmove(
                    self._pending, self._work, wait_s, "RIGHT", "LEFT"
                )
            if first is None:
                return []
            payloads = [first]
            if limit > 1 and not self._one_by_one:
                payloads += await self._move(limit - 1)
            return [RedisListDelivery(self, payload) for payload in payloads]

    async def _claim_at_maxmemory(self, limit: int, wait_s: float) -> list[bytes]:
        """A script takes what is there; BLMOVE waits for more, where Redis has room for it."""
        deadline_ns = self._clock.monotonic_ns() + int(wait_s * NS_PER_S)
        script = at_maxmemory(CLAIM_PLAIN)
        while not self._closed:
            with broker_errors(f"claim from {self._pending}"):
                found: list[bytes] = await run_often(
                    self._client, script, (self._pending, self._work), (limit,)
                )
                left_s = (deadline_ns - self._clock.monotonic_ns()) / NS_PER_S
                if found or left_s <= 0:
                    return found
                try:
                    first = await self._client.blmove(
                        self._pending, self._work, left_s, "RIGHT", "LEFT"
                    )
                except OutOfMemoryError:
                    await self._clock.sleep(min(left_s, _FULL_POLL_S))
                else:
                    return [] if first is None else [first]
        return []

    async def _move(self, limit: int) -> list[bytes]:
        keys = (self._pending, self._work)
        try:
            found: list[bytes] = await run_often(self._client, CLAIM_PLAIN, keys, (limit,))
        except RedisError:
            # The first task is in hand and must reach the worker; whatever the script moved
            # without an answer lies in the work list, as with any lost reply (hazard R1).
            return []
        return found

    async def oldest(self, count: int) -> list[bytes]:
        """Up to ``count`` tasks that would be taken next, the first of them first; none moves."""
        with broker_errors(f"LRANGE {self._pending}"):
            tail = await self._client.lrange(self._pending, -count, -1)
        return tail[::-1]

    async def take_oldest(self, expected: Sequence[bytes]) -> list[Delivery]:
        """Take these tasks, in order, as far as they are still the oldest; never waits."""
        if self._closed or not expected:
            return []
        with self._waits, broker_errors(f"LMOVE {self._pending}"):
            moved = await self._client.eval(_MOVE_OLDEST, 2, self._pending, self._work, *expected)
        return [RedisListDelivery(self, payload) for payload in expected[: int(moved)]]

    async def remove(self, payload: bytes) -> int:
        """LREM from the work list; how many entries went."""
        with broker_errors(f"LREM {self._work}"):
            return await self._client.lrem(self._work, self._lrem_count, payload)

    async def requeue(self, payload: bytes, replacement: bytes) -> int:
        """The guide's Lua retry; how many entries the work list held."""
        with broker_errors(f"retry from {self._work}"):
            held = await self._client.eval(
                at_maxmemory(_REQUEUE) if self._allow_oom else _REQUEUE,
                2,
                self._work,
                self._pending,
                payload,
                replacement,
                self._lrem_count,
                "1" if self._requeue_only_held else "0",
            )
        return int(held)

    async def depth(self) -> Depth:
        """LLEN of both lists."""
        with broker_errors(f"LLEN {self._pending}"):
            pending = await self._client.llen(self._pending)
            work = await self._client.llen(self._work)
        return Depth(pending=pending, in_flight=work)

    async def contents(self) -> tuple[list[bytes], list[bytes]]:
        """All payloads of the pending and of the work list, for observers."""
        with broker_errors(f"LRANGE {self._pending}"):
            pending = await self._client.lrange(self._pending, 0, -1)
            work = await self._client.lrange(self._work, 0, -1)
        return pending, work

    async def close(self) -> None:
        """Take nothing more, and wait for a blocked BLMOVE to run out on the server."""
        self._closed = True
        await self._waits.ended()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()


class RedisListDelivery:
    """A task in the work list."""

    broker = Broker.REDIS
    sequence = 0
    attempt = 1  # the broker does not count; the task carries its retries
    __slots__ = ("_queue", "payload")

    def __init__(self, queue: RedisListQueue, payload: bytes) -> None:
        self._queue = queue
        self.payload = payload

    async def ack(self) -> None:
        """LREM from the work list."""
        await self._queue.remove(self.payload)

    async def nak(self, delay_s: float = 0.0) -> None:  # noqa: ARG002 - see capabilities
        """Back to the queue at once with one more retry counted; a list cannot delay."""
        try:
            replacement = encode_task(with_retry(decode_task(self.payload)))
        except DecodeError:
            replacement = self.payload
        await self._queue.requeue(self.payload, replacement)

    async def give_back(self) -> None:
        """Back to the queue as it is: no attempt was made."""
        await self._queue.requeue(self.payload, self.payload)

    async def term(self, reason: str) -> None:  # noqa: ARG002 - the dead letter holds it
        """LREM: the dead letter is stored already."""
        await self._queue.remove(self.payload)

    async def in_progress(self) -> None:
        """Nothing to put off: a list does not deliver again."""
