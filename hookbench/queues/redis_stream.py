"""The guide's email queue on a Redis stream: XADD, XREADGROUP, XACK, XAUTOCLAIM.

``{hook}:{task_type}:stream`` holds tasks not yet read and tasks in flight; the consumer group's
list of pending entries says which are in flight, since when, and how often they were delivered
(https://redis.io/docs/latest/develop/data-types/streams/). The times are those of the server's
wall clock.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self, TypeVar

from redis.exceptions import ResponseError

from hookbench.clock import NS_PER_S, Clock, SystemClock
from hookbench.errors import BrokerUnreachableError, SettingError
from hookbench.ledger.events import Broker
from hookbench.queues.base import Capabilities, Delivery, Depth
from hookbench.queues.batches import Batches
from hookbench.queues.redis_absent import LOOK_MAX
from hookbench.queues.redis_client import (
    RedisClient,
    ServerWaits,
    StreamEntry,
)
from hookbench.queues.redis_errors import (
    broker_errors,
    put_errors,
)
from hookbench.queues.replica_wait import IF_REPLICATED, put_replicated
from hookbench.task import Names

__all__ = ["GROUP", "PAYLOAD_FIELD", "RedisStreamDelivery", "RedisStreamQueue"]

GROUP = "workers"
"""The one consumer group. It starts at the first entry, so that no task put before it is missed."""

PAYLOAD_FIELD = b"task"
"""The field of an entry that holds the payload."""

DEFAULT_MIN_IDLE_S = 30.0  # as JetStream's AckWait
DEFAULT_CLAIM_EVERY_S = 1.0
_MS_PER_S = 1000
_NS_PER_MS = NS_PER_S // _MS_PER_S
_FIRST_CURSOR = b"0-0"
# XAUTOCLAIM looks at 10 pending entries per entry asked for and goes on where it ended.
_CLAIM_PAGES = 16
_COUNT_PAGE = 1000
_FINISH_MAX = 256
_SEQUENCE_BITS = 20

_T = TypeVar("_T")

# Sets how long an entry has been idle, for the delivery that still has it: the delivery count
# changes with every claim, so a worker that lost its entry meanwhile cannot touch that of another.
# JUSTID leaves the count as it is.
_SET_IDLE = """
local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)
if #held == 0 or held[1][4] ~= tonumber(ARGV[4]) then return 0 end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'IDLE', ARGV[5], 'JUSTID')
return 1
"""

# KEYS: the stream. ARGV: payload, its field, how many replicas must have it, and how many of the
# newest entries are looked at. What is there already is followed by a write all the same where
# replicas are waited for: WAIT waits for the last write of its own connection.
_ADD = f"""
local replicas = tonumber(ARGV[3])
if replicas > 0 then
{IF_REPLICATED}
end
local left, before = tonumber(ARGV[4]), '+'
while left > 0 do
  local page = redis.call('XREVRANGE', KEYS[1], before, '-', 'COUNT', math.min(left, 100))
  for _, entry in ipairs(page) do
    if entry[2][2] == ARGV[1] then
      if replicas > 0 then
        local info, last = redis.call('XINFO', 'STREAM', KEYS[1]), nil
        for i = 1, #info, 2 do
          if info[i] == 'last-generated-id' then last = info[i + 1] end
        end
        redis.call('XSETID', KEYS[1], last)
      end
      return entry[1]
    end
  end
  if #page < 100 then break end
  left, before = left - #page, '(' .. page[#page][1]
end
return redis.call('XADD', KEYS[1], '*', ARGV[2], ARGV[1])
"""


class RedisStreamQueue:
    """One task type of a queue on a Redis stream with one consumer group.

    Redis hands a pending entry out again to whoever claims it once it has been idle for
    ``min_idle_s``: that is the lease of a delivery. It has no nak; a nak sets the idle time so
    that the entry can be claimed after the delay, which therefore is ``max_nak_delay_s`` at most.

    Args:
        client: the commands; connections are the client's business.
        names: prefix of the key.
        task_type: which stream.
        consumer: name of this worker in the group, for observers. It may be shared, and is never
            removed: XGROUP DELCONSUMER forgets what the consumer has pending.
        min_idle_s: how long a delivery may be silent before its task is delivered again.
        claim_every_s: how often a waiting ``receive`` looks for such tasks.
        replicas: how many must have a task before its put is a success.
        delete_acked: XDEL what is acknowledged, for XACK leaves it in the stream for good and
            nothing else trims that. False keeps the history, and its memory.
        clock: for the wait of a ``receive``.

    Raises:
        SettingError: a time is shorter than 1 ms, the resolution of Redis.
    """

    name = "redis_stream"
    capabilities = Capabilities(
        redelivery=True, delayed_nak=True, in_progress=True, attempts=True, ordered=True
    )

    def __init__(
        self,
        client: RedisClient,
        *,
        names: Names | None = None,
        task_type: str = "sync",
        consumer: str = "worker",
        min_idle_s: float = DEFAULT_MIN_IDLE_S,
        claim_every_s: float = DEFAULT_CLAIM_EVERY_S,
        delete_acked: bool = True,
        replicas: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self._client = client
        self._replicas = replicas
        self._key = (names or Names()).stream_key(task_type)
        self._consumer = consumer
        self._min_idle_ms = _milliseconds("min_idle_s", min_idle_s)
        self._claim_every_ms = _milliseconds("claim_every_s", claim_every_s)
        self._delete_acked = delete_acked
        self._clock = clock or SystemClock()
        self._grouped = False
        self._cursor = _FIRST_CURSOR
        self._closed = False
        self._waits = ServerWaits()
        self._finishing: Batches[bytes, None] = Batches(self._finish, limit=_FINISH_MAX)

    @property
    def max_nak_delay_s(self) -> float:
        """The longest delay of a nak: an entry cannot be idle for less than no time."""
        return self._min_idle_ms / _MS_PER_S

    async def put(self, payload: bytes) -> int:
        """XADD; the id of the entry as a number that grows from entry to entry."""
        if self._replicas:
            return await self._add(payload, look=0)
        with put_errors(f"XADD {self._key}", payload):
            return _number(await self._client.xadd(self._key, {PAYLOAD_FIELD: payload}))

    async def put_if_absent(self, payload: bytes) -> int:
        """XADD unless one of the newest ``LOOK_MAX`` entries, read or unread, has these bytes.

        In one step, so that two who do it at once add it once. The number of the entry.
        """
        return await self._add(payload, look=LOOK_MAX)

    async def _add(self, payload: bytes, *, look: int) -> int:
        arguments = (payload, PAYLOAD_FIELD, self._replicas, look)
        if not self._replicas:
            with put_errors(f"XADD {self._key}", payload):
                return _number(await self._client.eval(_ADD, 1, self._key, *arguments))
        pipeline = self._client.pipeline(transaction=False)
        pipeline.eval(_ADD, 1, self._key, *arguments)
        added = await put_replicated(pipeline, f"XADD {self._key}", payload, self._replicas)
        return _number(added)

    async def receive(self, limit: int, wait_s: float) -> list[Delivery]:
        """XAUTOCLAIM for tasks whose delivery fell silent, then XREADGROUP for new ones.

        The wait is on the server, in slices of at most ``claim_every_s``. It must not be
        cancelled (a reply that is lost costs an attempt and ``min_idle_s``); ``close`` lets the
        slice end by itself.

        Raises:
            SettingError: ``wait_s`` is shorter than 1 ms (BLOCK 0 waits for ever).
            BrokerUnreachableError: no answer; what was handed over is pending and comes again.
        """
        left_ms = _milliseconds("wait", wait_s)
        deadline_ns = self._clock.monotonic_ns() + left_ms * _NS_PER_MS
        with self._waits:
            while left_ms > 0 and not self._closed:
                stale = await self._claim(limit)
                if stale:
                    return stale + await self._top_up(limit - len(stale))
                block_ms = min(left_ms, self._claim_every_ms)
                fresh = await self._read(limit, block_ms)
                if fresh:
                    return fresh
                # An idle server may end a block up to a tenth of a second late (its hz is 10).
                left_ms = (deadline_ns - self._clock.monotonic_ns()) // _NS_PER_MS
        return []

    async def _claim(self, limit: int) -> list[Delivery]:
        for _ in range(_CLAIM_PAGES):
            with broker_errors(f"XAUTOCLAIM {self._key}"):
                cursor, found, *_deleted = await self._with_group(
                    lambda: self._client.xautoclaim(
                        self._key, GROUP, self._consumer, self._min_idle_ms, self._cursor, limit
                    )
                )
            self._cursor = cursor
            # Redis 6.2 answers nil for an entry that was deleted while it was pending.
            entries = [entry for entry in found if entry[1] is not None]
            if entries:
                return await self._counted(entries)
            if cursor == _FIRST_CURSOR:
                break
        return []

    async def _counted(self, entries: list[StreamEntry]) -> list[Delivery]:
        pipeline = self._client.pipeline(transaction=False)
        for entry_id, _fields in entries:
            pipeline.xpending_range(self._key, GROUP, entry_id, entry_id, 1)
        with broker_errors(f"XPENDING {self._key}"):
            answers = await pipeline.execute()
        # No answer for an entry: its earlier worker has acknowledged it in between.
        return [
            RedisStreamDelivery(self, entry, attempt=answer[0]["times_delivered"])
            for entry, answer in zip(entries, answers, strict=True)
            if answer
        ]

    async def _top_up(self, limit: int) -> list[Delivery]:
        if limit <= 0:
            return []
        try:
            return await self._read(limit, None)
        except BrokerUnreachableError:
            return []  # the claimed tasks are in hand and must reach the worker

    async def _read(self, limit: int, block_ms: int | None) -> list[Delivery]:
        with broker_errors(f"XREADGROUP {self._key}"):
            answer = await self._with_group(
                lambda: self._client.xreadgroup(
                    GROUP, self._consumer, {self._key: ">"}, limit, block_ms
                )
            )
        return [
            RedisStreamDelivery(self, entry, attempt=1)
            for _key, entries in answer
            for entry in entries
        ]

    async def _with_group(self, command: Callable[[], Awaitable[_T]]) -> _T:
        """Run a command that needs the group; a broker that lost it gets a new one."""
        if not self._grouped:
            await self._create_group()
        try:
            return await command()
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
        await self._create_group()
        return await command()

    async def _create_group(self) -> None:
        try:
            await self._client.xgroup_create(self._key, GROUP, "0", True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        self._grouped = True

    async def finish(self, entry_id: bytes) -> None:
        """XACK, and XDEL in the same transaction where acknowledged entries are deleted.

        What is finished in one turn of the event loop goes together.
        """
        await self._finishing.ask(entry_id)

    async def _finish(self, entry_ids: Sequence[bytes]) -> Sequence[None]:
        with broker_errors(f"XACK {self._key}"):
            if self._delete_acked:
                pipeline = self._client.pipeline(transaction=True)
                pipeline.xack(self._key, GROUP, *entry_ids)
                pipeline.xdel(self._key, *entry_ids)
                await pipeline.execute()
            else:
                await self._client.xack(self._key, GROUP, *entry_ids)
        return [None] * len(entry_ids)

    async def set_lease(self, entry_id: bytes, attempt: int, lease_s: float) -> bool:
        """Let the entry be claimed after ``lease_s``; False if this attempt has it no more."""
        idle_ms = max(0, self._min_idle_ms - round(lease_s * _MS_PER_S))
        with broker_errors(f"XCLAIM {self._key}"):
            held = await self._client.eval(
                _SET_IDLE, 1, self._key, GROUP, self._consumer, entry_id, attempt, idle_ms
            )
        return bool(held)

    async def depth(self) -> Depth:
        """The group's lag, and its pending entries: in flight, or given back with a delay."""
        with broker_errors(f"XINFO GROUPS {self._key}"):
            pipeline = self._client.pipeline(transaction=True)
            pipeline.xinfo_groups(self._key)
            pipeline.xlen(self._key)
            groups, length = await pipeline.execute(raise_on_error=False)
            if isinstance(groups, ResponseError):
                if str(groups) != "no such key":
                    raise groups
                return Depth(pending=0, in_flight=0)
            for group in groups:
                if group["name"] == GROUP.encode():
                    pending = await self._lag(group, length)
                    return Depth(pending=pending, in_flight=group["pending"])
        return Depth(pending=length, in_flight=0)

    async def _lag(self, group: dict[str, Any], length: int) -> int:
        """Entries not yet read.

        Redis answers null when the last entry that was read is deleted, so on most queues that
        were drained once (https://redis.io/docs/latest/commands/xinfo-groups/); Redis 6.2 has none.
        """
        lag: int | None = group.get("lag")
        if lag is not None:
            return lag
        if self._delete_acked:  # then the stream holds what is unread and what is pending
            return max(0, length - int(group["pending"]))
        start, unread = group["last-delivered-id"], 0
        for _ in range(length // _COUNT_PAGE + 1):
            page = await self._client.xrange(self._key, b"(" + start, b"+", _COUNT_PAGE)
            unread += len(page)
            if len(page) < _COUNT_PAGE:
                break
            start = page[-1][0]
        return unread

    async def close(self) -> None:
        """Take nothing more, and wait for a blocked XREADGROUP to run out on the server."""
        self._closed = True
        await self._waits.ended()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()


class RedisStreamDelivery:
    """A pending entry of the group."""

    broker = Broker.REDIS
    __slots__ = ("_entry_id", "_queue", "attempt", "payload")

    def __init__(self, queue: RedisStreamQueue, entry: StreamEntry, *, attempt: int) -> None:
        self._queue = queue
        self._entry_id, fields = entry
        # An entry of somebody else's may lack the field: empty bytes are no task either.
        self.payload = fields.get(PAYLOAD_FIELD, b"")
        self.attempt = attempt

    @property
    def sequence(self) -> int:
        """The number that ``put`` answered."""
        return _number(self._entry_id)

    async def ack(self) -> None:
        """XACK: also by a worker whose entry was claimed by another, for the task is finished."""
        await self._queue.finish(self._entry_id)

    async def nak(self, delay_s: float = 0.0) -> None:
        """XCLAIM with the idle time that makes it claimable after ``delay_s``, at most a lease."""
        await self._queue.set_lease(self._entry_id, self.attempt, delay_s)

    async def term(self, reason: str) -> None:  # noqa: ARG002 - the dead letter holds it
        """XACK: the dead letter is stored already."""
        await self._queue.finish(self._entry_id)

    async def in_progress(self) -> None:
        """XCLAIM with no idle time: the lease begins again, and the attempt stays the same."""
        await self._queue.set_lease(self._entry_id, self.attempt, self._queue.max_nak_delay_s)


def _milliseconds(name: str, seconds: float) -> int:
    value = round(seconds * _MS_PER_S)
    if value < 1:
        raise SettingError(f"{name} of {seconds} s: Redis needs at least 1 ms (0 waits for ever)")
    return value


def _number(entry_id: bytes) -> int:
    """The id ``ms-n`` as one integer, in order as long as a millisecond has under 2**20 entries."""
    time_ms, _, number = entry_id.partition(b"-")
    return int(time_ms) << _SEQUENCE_BITS | min(int(number), (1 << _SEQUENCE_BITS) - 1)
