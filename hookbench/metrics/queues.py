"""How full both queues are, by queue, task type and state; over connections that only read.

Of each task type a handful of commands: lengths, and the one task at the old end of a list, whose
id tells its age. No key is looked for, which would go through all of a Redis: work lists of single
workers are found by the leases of those.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

import msgspec
import nats.errors
import nats.js.errors

from hookbench.cancellation import raise_if_cancelled
from hookbench.clock import NS_PER_MS, NS_PER_S, Clock
from hookbench.errors import BrokerUnreachableError, HookbenchError
from hookbench.ids import uuid7_wall_ms
from hookbench.queues.moving import newest_consumers
from hookbench.queues.reading import ReadingRedis, connect_reading_nats, connect_reading_redis
from hookbench.queues.redis_errors import broker_errors
from hookbench.queues.redis_kind import RedisKind
from hookbench.queues.redis_stream import PAYLOAD_FIELD
from hookbench.queues.stream_gets import get_from
from hookbench.queues.stream_survey import StreamSurvey
from hookbench.queues.transport import AppTransport
from hookbench.queues.watermark import id_of_payload
from hookbench.task import Names

__all__ = ["ALL_TYPES", "DOWN", "BrokerLook", "QueueReader"]

LOOK_TIMEOUT_S = 2.0
"""A broker that has not told all by then does not answer."""
ALL_TYPES = "all"
"""Stands for the task type where a broker does not tell them apart."""
_LIST, _STREAM, _JETSTREAM = "redis_list", "redis_stream", "jetstream"


class BrokerLook(msgspec.Struct, frozen=True, kw_only=True):
    """What one broker holds.

    Attributes:
        up: it answered; without that nothing else is told.
        tasks: by queue, task type and state.
        oldest_s: age of the oldest task that is not finished, by queue and task type.
        lag: of a consumer behind its stream, by queue and task type.
    """

    up: bool
    tasks: dict[tuple[str, ...], int] = {}
    oldest_s: dict[tuple[str, ...], float] = {}
    lag: dict[tuple[str, ...], int] = {}


DOWN = BrokerLook(up=False)


class QueueReader:
    """Looks at the brokers again and again; belongs to one event loop.

    Args:
        redis_url, nats_url: of the brokers; ``None`` for one that is not looked at.
        names: of the queue.
        task_types: whose tasks are counted on Redis.
        redis_kind: what holds them there.
        clock: for ages.
        depths: whether queues are looked into, or brokers are only asked whether they answer.
    """

    def __init__(
        self,
        redis_url: str | None,
        nats_url: str | None,
        names: Names,
        *,
        task_types: Sequence[str],
        redis_kind: RedisKind,
        clock: Clock,
        depths: bool = True,
    ) -> None:
        self._depths = depths
        self._redis_url = redis_url
        self._nats_url = nats_url
        self._names = names
        self._task_types = task_types
        self._redis_kind = redis_kind
        self._clock = clock
        self._redis: ReadingRedis | None = None
        self._transport: AppTransport | None = None

    @property
    def brokers(self) -> list[str]:
        """Those that are looked at."""
        urls = {"redis": self._redis_url, "nats": self._nats_url}
        return [name for name, url in urls.items() if url]

    async def look(self) -> dict[str, BrokerLook]:
        """Each broker now, in two seconds at the most; ``DOWN`` for one that does not answer."""
        looks: dict[str, Callable[[], Coroutine[Any, Any, BrokerLook]]] = {
            "redis": self._look_at_redis,
            "nats": self._look_at_nats,
        }
        names = self.brokers
        found = await asyncio.gather(*(_within(looks[name]()) for name in names))
        return dict(zip(names, found, strict=True))

    async def close(self) -> None:
        """Disconnect."""
        if self._transport is not None:
            await self._transport.close()
        if self._redis is not None:
            await self._redis.aclose()

    async def _look_at_redis(self) -> BrokerLook:
        if self._redis is None:
            self._redis = cast("ReadingRedis", connect_reading_redis(self._redis_url or ""))
        look = BrokerLook(up=True)
        if not self._depths:
            with broker_errors("a question to Redis"):
                await self._redis.time()
            return look
        read = self._lists if self._redis_kind is RedisKind.LIST else self._stream
        for task_type in self._task_types:
            with broker_errors(f"a look at {task_type} on Redis"):
                await read(self._redis, task_type, look)
        return look

    async def _lists(self, client: ReadingRedis, task_type: str, look: BrokerLook) -> None:
        names = self._names
        pending = names.pending_key(task_type)
        owners = [owner.decode() for owner in await client.zrange(names.leases_key(task_type))]
        work = [names.work_key(task_type), *(names.own_work_key(task_type, o) for o in owners)]
        look.tasks[_LIST, task_type, "pending"] = await client.llen(pending)
        look.tasks[_LIST, task_type, "in_work"] = sum([await client.llen(key) for key in work])
        look.tasks[_LIST, task_type, "dead"] = await client.llen(names.dead_key(task_type))
        # Lists are filled at their head: what has lain there the longest is at their end.
        oldest = [
            payload for key in (pending, *work) for payload in await client.lrange(key, -1, -1)
        ]
        self._tell_age(look, (_LIST, task_type), oldest)

    async def _stream(self, client: ReadingRedis, task_type: str, look: BrokerLook) -> None:
        survey = StreamSurvey(cast("Any", client), names=self._names, task_type=task_type)
        depth = await survey.depth()
        look.tasks[_STREAM, task_type, "pending"] = depth.pending
        look.tasks[_STREAM, task_type, "ack_pending"] = depth.in_flight
        letters = await client.llen(self._names.dead_key(task_type))
        look.tasks[_STREAM, task_type, "dead"] = letters
        first = await client.xrange(survey.key, b"-", b"+", 1)
        oldest = [fields.get(PAYLOAD_FIELD, b"") for _entry, fields in first]
        self._tell_age(look, (_STREAM, task_type), oldest)

    def _tell_age(self, look: BrokerLook, where: tuple[str, str], payloads: list[bytes]) -> None:
        """Of the oldest task among these; bytes that are none have no age."""
        ids = [task_id for payload in payloads if (task_id := id_of_payload(payload)) is not None]
        made_ms = [ms for task_id in ids if (ms := uuid7_wall_ms(task_id)) is not None]
        if made_ms:
            age_ns = self._clock.wall_ns() - min(made_ms) * NS_PER_MS
            look.oldest_s[where] = max(0.0, age_ns / NS_PER_S)

    async def _look_at_nats(self) -> BrokerLook:
        names = self._names
        if self._transport is None:
            self._transport = await connect_reading_nats(
                self._nats_url or "", names=names, clock=self._clock
            )
        transport, look = self._transport, BrokerLook(up=True)
        if not transport.client.is_connected:
            raise BrokerUnreachableError("NATS is not connected (reconnecting)")
        if not self._depths:
            await _answers(transport)
            return look
        stored = await _stream_state(transport, names.stream)
        if stored is None:
            return look
        messages, last_sequence = stored
        look.tasks[_JETSTREAM, ALL_TYPES, "stream"] = messages
        letters = await _stream_state(transport, names.dead_stream)
        look.tasks[_JETSTREAM, ALL_TYPES, "dead"] = letters[0] if letters is not None else 0
        for subject, info in (await newest_consumers(transport)).items():
            task_type = subject.rpartition(".")[2] or ALL_TYPES
            pending, held = info.num_pending or 0, info.num_ack_pending or 0
            floor = info.ack_floor.stream_seq if info.ack_floor is not None else 0
            look.tasks[_JETSTREAM, task_type, "pending"] = pending
            look.tasks[_JETSTREAM, task_type, "ack_pending"] = held
            look.lag[_JETSTREAM, task_type] = max(0, last_sequence - floor)
            if pending or held:
                oldest = await get_from(transport, names.stream, floor + 1, subject or None)
                if oldest is not None:
                    self._tell_age(look, (_JETSTREAM, task_type), [oldest.payload])
        return look


async def _within(look: Coroutine[Any, Any, BrokerLook]) -> BrokerLook:
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            return await look
    except (HookbenchError, TimeoutError):
        raise_if_cancelled()
        return DOWN


async def _answers(transport: AppTransport) -> None:
    """JetStream as a whole, whatever streams there are."""
    try:
        await transport.jetstream.account_info()
    except (nats.errors.Error, OSError) as error:
        raise BrokerUnreachableError(f"JetStream: {error!r}") from error


async def _stream_state(transport: AppTransport, stream: str) -> tuple[int, int] | None:
    """Messages in a stream and its last sequence; ``None`` where there is no such stream."""
    try:
        state = (await transport.jetstream.stream_info(stream)).state
    except nats.js.errors.NotFoundError:
        return None
    except (nats.errors.Error, OSError) as error:
        raise BrokerUnreachableError(f"stream {stream}: {error!r}") from error
    return state.messages, state.last_seq
