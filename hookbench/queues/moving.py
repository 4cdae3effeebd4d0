"""Moves tasks from one broker to the other: each step can be repeated, and none loses a task.

What is moved is put first and removed when the put is acknowledged. Towards NATS a repeated move
finds the task in the stream, by its id; towards Redis the put and a note of the id are one step, so
that a second one does not push it again.
"""

import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import nats.errors
import nats.js.errors
from nats.js.api import ConsumerInfo

from hookbench.clock import NS_PER_MS, NS_PER_S, Clock
from hookbench.errors import BrokerUnreachableError
from hookbench.ids import uuid7_wall_ms
from hookbench.ledger.events import Broker, Event, NullRecorder, Recorder
from hookbench.queues.authority import Authority
from hookbench.queues.nats_message import NatsMessage
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_errors import broker_errors
from hookbench.queues.redis_lists import ListEntry, RedisLists
from hookbench.queues.replica_wait import write_replicated
from hookbench.queues.stored import last_sequence, read_stream
from hookbench.queues.stream_windows import read_windows
from hookbench.queues.transport import AppTransport
from hookbench.queues.watermark import id_of_payload
from hookbench.task import KNOWN_TASK_TYPES, Names

__all__ = [
    "AreDone",
    "Assure",
    "MoveRecords",
    "Mover",
    "moved_key",
    "newest_consumers",
    "nobody_else",
]

AreDone = Callable[[Collection[uuid.UUID]], Awaitable[set[uuid.UUID]]]
"""Which of these tasks have ended; of a done-store."""

MoveRecords = Callable[[Authority], Awaitable[int]]
"""Copies done-records to that store; how many."""

Assure = Callable[[], Awaitable[None]]
"""Raises where nothing may be moved any more, since somebody else does."""

MAX_ENTRIES = 1_000_000
_BATCH = 100
_PULL_WAIT_S = 0.5
_MOVED = "reconcile:moved"

# KEYS: moved ids, list. ARGV: id, payload. The note and the push are one step. The note is written
# anew where it is there, for replicas may not have it yet (see ``write_replicated``).
_PUSH_ONCE = """
local moved = redis.call('SREM', KEYS[1], ARGV[1])
redis.call('SADD', KEYS[1], ARGV[1])
if moved == 1 then return 0 end
redis.call('LPUSH', KEYS[2], ARGV[2])
return 1
"""


async def nobody_else() -> None:
    """Whoever moves tasks knows that it is the only one."""


def moved_key(names: Names) -> str:
    """Where the ids are noted of what was pushed to Redis."""
    return f"{names.prefix}:{_MOVED}"


async def newest_consumers(transport: AppTransport) -> dict[str, ConsumerInfo]:
    """The durable consumers of the hook stream, of each filter the newest; by filter.

    Raises:
        BrokerUnreachableError: no answer. A stream that is not there has none.
    """
    try:
        infos = await transport.jetstream.consumers_info(transport.names.stream)
    except nats.js.errors.NotFoundError:
        return {}
    except (nats.errors.Error, TimeoutError) as error:
        raise BrokerUnreachableError(f"consumers: no answer ({error!r})") from error
    found: dict[str, ConsumerInfo] = {}
    for info in sorted(infos, key=lambda item: str(item.created or "")):
        if info.config.durable_name:
            found[info.config.filter_subject or ""] = info
    return found


def _left(consumers: Mapping[str, ConsumerInfo]) -> int:
    """Tasks that were not delivered, or whose acknowledgement is waited for."""
    return sum((info.num_pending or 0) + (info.num_ack_pending or 0) for info in consumers.values())


class Mover:
    """Moves the tasks of one hook queue.

    Args:
        client: of Redis.
        transport: of NATS.
        clock: for waits.
        are_done: who knows which tasks have ended; ``None``: nobody.
        move_records: copies what the other done-store knows to the one that it is given; how
            many records it copied. ``None`` where there are not both.
        task_types: whose lists are looked at.
        settle_s: younger tasks may be on their way to the second broker, and are let alone where
            it matters.
        recorder: is told each put, so that the ledger knows where a task lies.
        replicas: how many replicas of Redis must have a task before it is acknowledged to NATS.
        assure: is asked before each task is moved.
    """

    def __init__(
        self,
        client: RedisClient,
        transport: AppTransport,
        *,
        clock: Clock,
        are_done: AreDone | None = None,
        move_records: MoveRecords | None = None,
        task_types: Sequence[str] = KNOWN_TASK_TYPES,
        settle_s: float = 5.0,
        recorder: Recorder | None = None,
        replicas: int = 0,
        assure: Assure = nobody_else,
    ) -> None:
        self._assure = assure
        self._replicas = replicas
        self._client = client
        self._transport = transport
        self._names: Names = transport.names
        self._clock = clock
        self._are_done = are_done
        self._move_records = move_records
        self._settle_ms = int(settle_s * 1000)
        self._lists = RedisLists(client, self._names, task_types)
        self._recorder = recorder or NullRecorder()

    async def redis_to_nats(self) -> int:
        """Move what is left in any Redis list to the stream; how many were published.

        What the stream has already, or is done, is only removed. Nobody may read Redis any more:
        a task in a work list is taken for an orphan.

        Raises:
            BrokerUnreachableError, PublishRefusedError, PublishUnknownError: moved in part.
        """
        entries = [item async for item in self._lists.entries(MAX_ENTRIES)]
        if not entries:
            return 0
        ids = {found for item in entries if (found := id_of_payload(item.payload)) is not None}
        known = set(await self._sequences()) | await self._done(ids)
        published = 0
        for entry in entries:
            await self._assure()
            task_id = id_of_payload(entry.payload)
            if task_id is None or task_id not in known:
                await self._publish(entry, task_id)
                published += 1
                if task_id is not None:
                    known.add(task_id)
            await self._remove(entry)
        return published

    async def _publish(self, entry: ListEntry, task_id: uuid.UUID | None) -> None:
        """Under the id of the task, which the stream knows again; junk has none."""
        subject = self._names.subject(entry.task_type)
        ack = await self._transport.publish(
            subject, entry.payload, msg_id=None if task_id is None else str(task_id)
        )
        if ack.duplicate and not await self._holds(ack.sequence):
            # The stream knows the id of a task that is gone from it: it would store none.
            ack = await self._transport.publish(subject, entry.payload)
        if task_id is not None:
            self._recorder.record(
                Event.PUT_OK, task_id.bytes, broker=Broker.NATS, value=ack.sequence
            )

    async def _holds(self, sequence: int) -> bool:
        entries = read_stream(self._transport, self._names.stream, first_sequence=sequence, limit=1)
        return any([item.sequence == sequence async for item in entries])

    async def _remove(self, entry: ListEntry) -> None:
        with broker_errors(f"LREM {entry.key}"):
            await self._client.lrem(entry.key, 1, entry.payload)

    async def trim_copies(self) -> int:
        """Remove pending Redis copies of tasks that have ended; how many went.

        They have ended if the done-store says so, or if every consumer's acknowledgements are
        beyond them and it waits for none.
        """
        entries = [
            item async for item in self._lists.entries(MAX_ENTRIES) if item.kind == "pending"
        ]
        ids = {found for item in entries if (found := id_of_payload(item.payload)) is not None}
        ended = await self._done(ids) | await self._acknowledged()
        trimmed = 0
        for entry in entries:
            if id_of_payload(entry.payload) in ended:
                await self._assure()
                await self._remove(entry)
                trimmed += 1
        return trimmed

    async def _acknowledged(self) -> set[uuid.UUID]:
        found: set[uuid.UUID] = set()
        for subject, info in (await newest_consumers(self._transport)).items():
            floor = info.ack_floor.stream_seq if info.ack_floor is not None else 0
            sequences = await self._sequences(subject or None)
            found |= {item for item, sequence in sequences.items() if sequence <= floor}
        return found

    async def nats_only_to_redis(self) -> int:
        """Push what the stream alone has to do to Redis; how many that were.

        Without a done-store nothing is: what Redis has done lies in the stream as well.
        """
        if self._are_done is None:
            return 0
        in_redis = await self._ids_in_redis()
        newest_ms = self._clock.wall_ns() // NS_PER_MS - self._settle_ms
        pushed = 0
        async for window in read_windows(self._transport, self._names.stream):
            tasks = {
                item: found for item in window if (found := id_of_payload(item.payload)) is not None
            }
            done = await self._done(set(tasks.values()))
            for item, task_id in tasks.items():
                young = (uuid7_wall_ms(task_id) or 0) > newest_ms
                if not young and task_id not in in_redis and task_id not in done:
                    await self._assure()
                    task_type = item.subject.rpartition(".")[2]
                    pushed += await self._push_once(task_id, item.payload, task_type)
        return pushed

    async def drain_to_redis(self, *, timeout_s: float = 60.0) -> int:
        """Take what NATS has not got acknowledged, push it to Redis, then acknowledge it.

        Until every consumer has nothing pending and waits for no acknowledgement: what a worker
        has in hand comes when it is done, or when its AckWait is over.

        Args:
            timeout_s: without progress.

        Raises:
            BrokerUnreachableError: a broker does not answer, or nothing moves any more.
        """
        in_redis = await self._ids_in_redis()
        pushed = 0
        still_since_ns = self._clock.monotonic_ns()
        pulling = AppTransport(
            self._transport.client,
            names=self._names,
            consumers={},
            sync_ack=True,
            clock=self._clock,
        )
        try:
            # Looked for each time: one that is made anew meanwhile is to be drained as well.
            while _left(consumers := await newest_consumers(self._transport)) > 0:
                taken = 0
                for subject, info in consumers.items():
                    await pulling.bind(subject, info.name)
                    messages = await pulling.pull(subject, _BATCH, _PULL_WAIT_S)
                    task_type = subject.rpartition(".")[2]
                    pushed += await self._take_over(messages, task_type, in_redis)
                    taken += len(messages)
                now_ns = self._clock.monotonic_ns()
                if taken:
                    still_since_ns = now_ns
                elif now_ns - still_since_ns > timeout_s * NS_PER_S:
                    raise BrokerUnreachableError(
                        f"NATS keeps {_left(consumers)} tasks and hands none out: a worker"
                        " has them in hand, or they have been delivered too often"
                    )
        finally:
            await pulling.release()
        return pushed

    async def _take_over(
        self, messages: Sequence[NatsMessage], task_type: str, in_redis: set[uuid.UUID]
    ) -> int:
        pushed = 0
        ids = [id_of_payload(message.payload) for message in messages]
        done = await self._done({item for item in ids if item is not None})
        for message, task_id in zip(messages, ids, strict=True):
            await self._assure()
            if task_id is None or (task_id not in done and task_id not in in_redis):
                # Junk is told apart by its sequence, and becomes a dead letter at a worker.
                mark = task_id if task_id is not None else uuid.UUID(int=message.sequence)
                pushed += await self._push_once(mark, message.payload, task_type)
            await message.ack()
        return pushed

    async def _push_once(self, task_id: uuid.UUID, payload: bytes, task_type: str) -> int:
        key = self._names.pending_key(task_type)
        arguments = (moved_key(self._names), key, task_id.bytes, payload)
        if self._replicas:
            pipeline = self._client.pipeline(transaction=False)
            pipeline.eval(_PUSH_ONCE, 2, *arguments)
            pushed = int(await write_replicated(pipeline, self._replicas, f"LPUSH {key}"))
        else:
            with broker_errors(f"LPUSH {key}"):
                pushed = int(await self._client.eval(_PUSH_ONCE, 2, *arguments))
        if pushed:
            self._recorder.record(Event.PUT_OK, task_id.bytes, broker=Broker.REDIS)
        return pushed

    async def left_on_nats(self) -> int:
        """Tasks that a consumer has not delivered, or waits for the acknowledgement of."""
        return _left(await newest_consumers(self._transport))

    async def left_in_work(self) -> int:
        """Entries of all work lists."""
        return sum([1 async for item in self._lists.entries(MAX_ENTRIES) if item.kind == "work"])

    async def letters_to_nats(self) -> int:
        """Move the dead letters of Redis to the stream of those; how many they were.

        Raises:
            PublishRefusedError: there is no such stream: no worker has read NATS yet.
        """
        moved = 0
        for task_type in KNOWN_TASK_TYPES:
            key = self._names.dead_key(task_type)
            with broker_errors(f"LRANGE {key}"):
                letters = await self._client.lrange(key, 0, -1)
            for letter in reversed(letters):
                await self._assure()
                digest = uuid.uuid5(uuid.NAMESPACE_OID, letter.hex())
                subject = self._names.dead_subject(task_type)
                await self._transport.publish(subject, letter, msg_id=str(digest))
                with broker_errors(f"LREM {key}"):
                    await self._client.lrem(key, 1, letter)
                moved += 1
        return moved

    async def records_to_nats(self) -> int:
        """Copy the records of the done-store of Redis; how many were copied."""
        return await self._copy_records(Authority.NATS)

    async def records_to_redis(self) -> int:
        """Copy the records of the done-store of NATS; how many were copied."""
        return await self._copy_records(Authority.REDIS)

    async def _copy_records(self, target: Authority) -> int:
        return 0 if self._move_records is None else await self._move_records(target)

    async def last_sequence(self) -> int:
        """The highest that the hook stream has given."""
        return await last_sequence(self._transport, self._names.stream)

    async def forget_moves(self) -> None:
        """Remove the notes of what was pushed: the procedure is over."""
        with broker_errors(f"DEL {moved_key(self._names)}"):
            await self._client.delete(moved_key(self._names))

    async def _ids_in_redis(self) -> set[uuid.UUID]:
        return {
            found
            async for item in self._lists.entries(MAX_ENTRIES)
            if (found := id_of_payload(item.payload)) is not None
        }

    async def _sequences(self, subject: str | None = None) -> dict[uuid.UUID, int]:
        found: dict[uuid.UUID, int] = {}
        async for window in read_windows(self._transport, self._names.stream, subject=subject):
            for item in window:
                task_id = id_of_payload(item.payload)
                if task_id is not None:
                    found[task_id] = item.sequence
        return found

    async def _done(self, ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
        if self._are_done is None or not ids:
            return set()
        return await self._are_done(ids)
