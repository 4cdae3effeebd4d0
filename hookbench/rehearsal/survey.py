"""Reads both brokers for a gate: nothing is written, and what does not answer is said."""

import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec
import nats.errors
import nats.js.errors

from hookbench.cancellation import raise_if_cancelled
from hookbench.clock import NS_PER_MS, Clock
from hookbench.errors import BrokerUnreachableError, ConfigDriftError, HookbenchError
from hookbench.ids import Entropy
from hookbench.migration.records import Unmoved
from hookbench.migration.snapshot import (
    NEVER,
    Announcement,
    ConsumerView,
    NatsView,
    RedisView,
    Snapshot,
)
from hookbench.queues.authority import Authority
from hookbench.queues.dialing import NETWORK, Dialer
from hookbench.queues.epochs import consumer_drift
from hookbench.queues.jetstream import ConsumerSettings, StreamSettings, ensure_stream
from hookbench.queues.moving import AreDone, newest_consumers
from hookbench.queues.reading import connect_reading_nats, connect_reading_redis
from hookbench.queues.redis_lists import RedisLists
from hookbench.queues.stream_memory import StreamMemory
from hookbench.queues.stream_sample import sample_stream
from hookbench.queues.transport import AppTransport
from hookbench.queues.watermark import id_of_payload
from hookbench.task import KNOWN_TASK_TYPES, Names
from hookbench.worker.letters import (
    LetterBox,
    LetterFilter,
    NatsLetterBox,
    RedisLetterBox,
    read_letters,
)

if TYPE_CHECKING:
    from hookbench.queues.redis_client import RedisClient

__all__ = ["BrokerSurvey", "FindUnmoved", "Sample"]

MAX_TASKS = 1_000_000
"""Entries that are read of a list and of the stream; with more the survey is not whole."""


class FindUnmoved(Protocol):
    """Compares the records of both done-stores."""

    async def __call__(self, target: Authority, *, whole: bool) -> Unmoved:
        """Which of the other store that one does not know, by all or by what changed last."""
        ...


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a list and of the stream is read, and what decides where."""

    count: int
    entropy: Entropy


class BrokerSurvey:
    """Looks at the hook queue on both brokers.

    Args:
        redis_url, nats_url: of the brokers; ``None`` for one that nobody knows.
        names: of the queue.
        clock: tells when it was.
        stream: settings that the stream should have, ``None`` not to compare them.
        consumer: likewise.
        are_done: of a done-store, ``None`` without one.
        unmoved: which records one done-store has and the other one has not; ``None`` where there
            are not both.
        task_types: whose lists are looked at.
        reads_only: over connections that refuse to write, and make no consumer.
        sample: how much is read; ``None`` for everything.
        dialer: opens the connections.
    """

    def __init__(
        self,
        redis_url: str | None,
        nats_url: str | None,
        names: Names,
        *,
        clock: Clock,
        stream: StreamSettings | None = None,
        consumer: ConsumerSettings | None = None,
        are_done: AreDone | None = None,
        unmoved: FindUnmoved | None = None,
        task_types: Sequence[str] = KNOWN_TASK_TYPES,
        reads_only: bool = False,
        sample: Sample | None = None,
        dialer: Dialer = NETWORK,
    ) -> None:
        self._sample = sample
        self._reads_only = reads_only
        self._dialer = dialer
        connect = connect_reading_redis if reads_only else dialer.redis
        self._redis: RedisClient | None = connect(redis_url) if redis_url else None
        self._nats_url = nats_url
        self._names = names
        self._clock = clock
        self._stream = stream
        self._consumer = consumer
        self._are_done = are_done
        self._unmoved = unmoved
        self._task_types = task_types
        self._transport: AppTransport | None = None
        self._memory = StreamMemory()
        self._over: dict[uuid.UUID, int] = {}
        """Tasks that had ended at an earlier look, with the sequence that they had then: one that
        is put again, as a dead letter is, has another one, or lies in Redis."""

    async def look(
        self,
        announcements: Iterable[Announcement] | None = None,
        *,
        earlier_sequence: int = NEVER,
        records_to: Authority | None = None,
        whole: bool = True,
    ) -> Snapshot:
        """Everything that a gate decides by, as it is now.

        Args:
            announcements: what the processes say of themselves.
            earlier_sequence: the stream's last sequence at an earlier look.
            records_to: the done-store that is to know what the other one does; ``None``: the
                records are not compared.
            whole: whether all of them are, and not only what changed last.
        """
        problems: dict[str, str] = {}
        unmoved = None
        try:
            # Before the queues, which take longer: soon after a copy little is missing.
            if records_to is not None and self._unmoved is not None:
                unmoved = (await self._unmoved(records_to, whole=whole)).ages_s
        except HookbenchError as error:
            problems["records"] = str(error)
        redis = nats_view = None
        try:
            redis = await self._look_at_redis()
        except HookbenchError as error:
            problems["redis"] = str(error)
        try:
            nats_view = await self._look_at_nats(redis)
        except HookbenchError as error:
            problems["nats"] = str(error)
        raise_if_cancelled()
        ended = None
        try:
            ended = await self._ended(redis, nats_view)
        except HookbenchError as error:
            problems["done-store"] = str(error)
        return Snapshot(
            redis=redis,
            nats=nats_view,
            announcements=None if announcements is None else tuple(announcements),
            ended=ended,
            unmoved=unmoved,
            problems=problems,
            wall_ms=self._clock.wall_ns() // NS_PER_MS,
            earlier_sequence=earlier_sequence,
        )

    async def _look_at_redis(self) -> RedisView:
        if self._redis is None:
            raise BrokerUnreachableError("no Redis URL was given")
        lists = RedisLists(self._redis, self._names, self._task_types)
        memory = await lists.memory()
        held: Counter[str] = Counter()
        entries = lists.entries(MAX_TASKS)
        if self._sample is not None:
            entries = lists.sampled_entries(self._sample.count, self._sample.entropy, held)
        largest: tuple[int, uuid.UUID | None] = (0, None)
        ids: dict[str, list[uuid.UUID]] = {"pending": [], "work": []}
        read: Counter[str] = Counter()
        types: set[str] = set()
        junk = 0
        async for entry in entries:
            read[entry.key] += 1
            types.add(entry.task_type)
            task_id = id_of_payload(entry.payload)
            if task_id is None:
                junk += 1
                continue
            ids[entry.kind].append(task_id)
            if len(entry.payload) > largest[0]:
                largest = len(entry.payload), task_id
        if self._sample is None:
            held = read
        return RedisView(
            pending=tuple(ids["pending"]),
            work=tuple(ids["work"]),
            junk=junk,
            letters=await lists.letters(),
            types=frozenset(types),
            whole=all(count < MAX_TASKS for count in read.values()),
            held=held.total(),
            sampled=read.total() < held.total(),
            largest=largest[1],
            largest_bytes=largest[0],
            used_bytes=memory.used_bytes,
            max_bytes=memory.max_bytes,
            policy=memory.policy,
        )

    async def _nats(self) -> AppTransport:
        if self._transport is None:
            if not self._nats_url:
                raise BrokerUnreachableError("no NATS URL was given")
            connect = connect_reading_nats if self._reads_only else self._dialer.nats
            self._transport = await connect(self._nats_url, names=self._names, clock=self._clock)
        if not self._transport.client.is_connected:
            raise BrokerUnreachableError("NATS is not connected (reconnecting)")
        return self._transport

    async def _look_at_nats(self, redis: RedisView | None) -> NatsView:
        transport = await self._nats()
        try:
            info = await transport.jetstream.stream_info(self._names.stream)
        except nats.js.errors.NotFoundError:
            return NatsView(exists=False, max_payload_bytes=transport.max_payload_bytes)
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerUnreachableError(f"stream {self._names.stream}: {error!r}") from error
        consumers = await self._consumers(transport)
        if self._sample is None:
            entries = await self._memory.read(transport, info, limit=MAX_TASKS)
        else:
            floors = [item.ack_floor for item in consumers]
            wanted = frozenset[uuid.UUID]() if redis is None else redis.ids
            entries = await sample_stream(
                transport, info, count=self._sample.count, beyond=floors, wanted=wanted
            )
        sequences: dict[uuid.UUID, int] = {}
        task_types: dict[uuid.UUID, str] = {}
        for item in entries:
            if item.task_id is not None:
                sequences[item.task_id] = item.sequence
                task_types[item.task_id] = item.task_type
        config = info.config
        return NatsView(
            sequences=sequences,
            task_types=task_types,
            types=dict(Counter(item.task_type for item in entries)),
            messages=info.state.messages,
            size_bytes=info.state.bytes,
            max_messages=config.max_msgs or 0,
            max_bytes=config.max_bytes or 0,
            max_age_s=config.max_age or 0.0,
            last_sequence=info.state.last_seq,
            consumers=consumers,
            drift=await self._drift(transport),
            whole=len(entries) < MAX_TASKS,
            sampled=len(entries) < info.state.messages and self._sample is not None,
            max_payload_bytes=transport.max_payload_bytes,
        )

    async def _consumers(self, transport: AppTransport) -> tuple[ConsumerView, ...]:
        return tuple(
            ConsumerView(
                name=info.name,
                task_type=subject.rpartition(".")[2].strip(">*"),
                pending=info.num_pending or 0,
                ack_pending=info.num_ack_pending or 0,
                max_ack_pending=info.config.max_ack_pending or 0,
                redelivered=info.num_redelivered or 0,
                ack_floor=info.ack_floor.stream_seq if info.ack_floor else 0,
                delivered=info.delivered.stream_seq if info.delivered else 0,
            )
            for subject, info in (await newest_consumers(transport)).items()
        )

    async def _drift(self, transport: AppTransport) -> tuple[str, ...]:
        """What differs; both exist, so that comparing creates nothing."""
        found = []
        if self._stream is not None:
            try:
                await ensure_stream(transport, self._stream)
            except ConfigDriftError as error:
                found.append(str(error))
        if self._consumer is not None:
            found += await consumer_drift(transport, self._consumer)
        return tuple(found)

    async def _ended(
        self, redis: RedisView | None, nats_view: NatsView | None
    ) -> frozenset[uuid.UUID] | None:
        """Done by the done-store, or dead: a letter holds them."""
        if self._are_done is None:
            return None
        sequences = nats_view.sequences if nats_view is not None else {}
        asked = {task for task, at in sequences.items() if self._over.get(task) != at}
        if redis is not None:
            asked |= redis.ids
        boxes: list[LetterBox] = []
        if self._redis is not None:
            boxes.append(RedisLetterBox(self._redis, self._names, self._task_types))
        boxes.append(NatsLetterBox(await self._nats()))
        letters, _more = await read_letters(boxes, LetterFilter())
        dead = {stored.task_id for stored in letters if stored.task_id is not None}
        ended = await self._are_done(asked) | (dead & asked)
        known = sequences.keys() - asked
        self._over = {task: sequences[task] for task in known | (ended & sequences.keys())}
        return frozenset(ended | known)

    async def close(self) -> None:
        """Disconnect."""
        if self._transport is not None:
            await self._transport.close()
        if self._redis is not None:
            await self._redis.aclose()
