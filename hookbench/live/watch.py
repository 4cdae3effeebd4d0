"""Both queues as they are now, for ``hookbench watch``: counts alone, no task is read but one.

The oldest task of a list is at its end, and tells by its id how long it has waited.
"""

import msgspec
import nats.errors
import nats.js.errors

from hookbench.cancellation import raise_if_cancelled
from hookbench.clock import NS_PER_MS, NS_PER_S, Clock
from hookbench.errors import BrokerUnreachableError, HookbenchError
from hookbench.ids import uuid7_wall_ms
from hookbench.queues.moving import newest_consumers
from hookbench.queues.reading import connect_reading_nats, connect_reading_redis
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_errors import broker_errors
from hookbench.queues.redis_lists import RedisLists
from hookbench.queues.transport import AppTransport
from hookbench.queues.watermark import id_of_payload
from hookbench.secrets import redact
from hookbench.task import KNOWN_TASK_TYPES, Names

__all__ = ["Look", "NatsLook", "RedisLook", "Watch"]

_MS_PER_S = 1000


class RedisLook(msgspec.Struct, frozen=True, kw_only=True):
    """The lists of Redis.

    Attributes:
        pending, work, dead: entries in lists not read, in work lists, and dead letters.
        oldest_s: age of the oldest pending task; ``None`` without one.
    """

    pending: int
    work: int
    dead: int
    oldest_s: float | None
    used_bytes: int
    max_bytes: int


class NatsLook(msgspec.Struct, frozen=True, kw_only=True):
    """The stream and its consumers.

    Attributes:
        messages: in the stream, finished ones among them.
        pending, ack_pending, redelivered: of all consumers together.
        last_sequence: rises with each publish.
        ack_floor: the least of all consumers; rises as tasks are finished.
        put_per_s: by the sequence, since the look before; ``None`` at the first.
        dead: letters in their stream.
    """

    exists: bool
    messages: int = 0
    size_bytes: int = 0
    pending: int = 0
    ack_pending: int = 0
    redelivered: int = 0
    consumers: int = 0
    last_sequence: int = 0
    ack_floor: int = 0
    put_per_s: float | None = None
    finished_per_s: float | None = None
    dead: int = 0


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """Both queues at one moment; ``None`` for a broker that does not answer, see ``problems``."""

    wall_ms: int
    redis: RedisLook | None
    nats: NatsLook | None
    problems: dict[str, str]


class Watch:
    """Looks again and again.

    Args:
        redis_url, nats_url: of the brokers; ``None`` for one that is not looked at.
        names: of the queue.
        clock: for ages and rates.
    """

    def __init__(
        self, redis_url: str | None, nats_url: str | None, names: Names, *, clock: Clock
    ) -> None:
        self._redis: RedisClient | None = connect_reading_redis(redis_url) if redis_url else None
        self._nats_url = nats_url
        self._names = names
        self._clock = clock
        self._transport: AppTransport | None = None
        self._before: tuple[int, NatsLook] | None = None

    async def look(self) -> Look:
        """Both queues now; what does not answer is said, and looked for again the next time."""
        problems: dict[str, str] = {}
        redis = nats_look = None
        try:
            if self._redis is not None:
                redis = await self._look_at_redis(self._redis)
        except HookbenchError as error:
            problems["redis"] = redact(str(error))
        try:
            if self._nats_url:
                nats_look = await self._look_at_nats(self._nats_url)
        except HookbenchError as error:
            problems["nats"] = redact(str(error))
        raise_if_cancelled()
        wall_ms = self._clock.wall_ns() // NS_PER_MS
        return Look(wall_ms=wall_ms, redis=redis, nats=nats_look, problems=problems)

    async def _look_at_redis(self, client: RedisClient) -> RedisLook:
        lists = RedisLists(client, self._names)
        memory = await lists.memory()
        pending, work = 0, 0
        ages: list[float] = []
        with broker_errors("LLEN"):
            for task_type in KNOWN_TASK_TYPES:
                key = self._names.pending_key(task_type)
                pending += await client.llen(key)
                ages += [self._age_s(payload) for payload in await client.lrange(key, -1, -1)]
            for key in await lists.work_keys():
                work += await client.llen(key)
        return RedisLook(
            pending=pending,
            work=work,
            dead=await lists.letters(),
            oldest_s=max(ages, default=None),
            used_bytes=memory.used_bytes,
            max_bytes=memory.max_bytes,
        )

    def _age_s(self, payload: bytes) -> float:
        """Of a task, by its id; 0 for what is none."""
        task_id = id_of_payload(payload)
        wall_ms = None if task_id is None else uuid7_wall_ms(task_id)
        if wall_ms is None:
            return 0.0
        return max(0.0, self._clock.wall_ns() / NS_PER_S - wall_ms / _MS_PER_S)

    async def _look_at_nats(self, url: str) -> NatsLook:
        if self._transport is None:
            self._transport = await connect_reading_nats(url, names=self._names, clock=self._clock)
        transport = self._transport
        if not transport.client.is_connected:
            raise BrokerUnreachableError("NATS is not connected (reconnecting)")
        try:
            info = await transport.jetstream.stream_info(self._names.stream)
        except nats.js.errors.NotFoundError:
            return NatsLook(exists=False)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnreachableError(f"stream {self._names.stream}: {error!r}") from error
        infos = list((await newest_consumers(transport)).values())
        floors = [item.ack_floor.stream_seq for item in infos if item.ack_floor is not None]
        found = NatsLook(
            exists=True,
            messages=info.state.messages,
            size_bytes=info.state.bytes,
            pending=sum(item.num_pending or 0 for item in infos),
            ack_pending=sum(item.num_ack_pending or 0 for item in infos),
            redelivered=sum(item.num_redelivered or 0 for item in infos),
            consumers=len(infos),
            last_sequence=info.state.last_seq,
            ack_floor=min(floors, default=0),
            dead=await self._dead(transport),
        )
        return self._with_rates(found)

    async def _dead(self, transport: AppTransport) -> int:
        try:
            info = await transport.jetstream.stream_info(self._names.dead_stream)
        except nats.js.errors.NotFoundError:
            return 0
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnreachableError(f"stream {self._names.dead_stream}: {error!r}") from error
        return int(info.state.messages)

    def _with_rates(self, found: NatsLook) -> NatsLook:
        now_ns = self._clock.monotonic_ns()
        before, self._before = self._before, (now_ns, found)
        if before is None or now_ns <= before[0]:
            return found
        seconds = (now_ns - before[0]) / NS_PER_S
        return msgspec.structs.replace(
            found,
            put_per_s=(found.last_sequence - before[1].last_sequence) / seconds,
            finished_per_s=max(0, found.ack_floor - before[1].ack_floor) / seconds,
        )

    async def close(self) -> None:
        """Disconnect."""
        if self._transport is not None:
            await self._transport.close()
        if self._redis is not None:
            await self._redis.aclose()
