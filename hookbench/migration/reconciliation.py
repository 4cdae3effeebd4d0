"""What only one broker has is put on the other, by id, while both are written.

A round looks at the tasks in the lists of Redis and at those in the stream, window by window, so
that it holds a bounded number of them however many there are. What is missing on one side is
looked for once more after a while, for a producer may be between its two writes; it is put if it is
missing still, and not done.

What lies in a list is not done, or a copy that nobody has removed yet. What lies in the stream may
well be done, for the stream keeps it: so tasks go from the stream to Redis only where a done-store
tells which these are.
"""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Protocol

import msgspec

from hookbench.clock import Clock
from hookbench.errors import (
    DecodeError,
    OversizeError,
    PublishRefusedError,
    PublishUnknownError,
    SettingError,
)
from hookbench.ids import uuid7_wall_ms
from hookbench.ledger.events import Broker, Event, NullRecorder, Recorder
from hookbench.migration.done_store import DoneStore
from hookbench.queues.base import NatsPublishFn
from hookbench.queues.redis_absent import lies_in, push_if_absent
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_errors import broker_errors
from hookbench.queues.stream_log import StoredTask
from hookbench.task import Names, task_id_of

__all__ = ["ReconcileSettings", "ReconcileTotals", "Reconciler", "StreamReader"]

_NEAR_MS = 1_000
"""A task is in the stream within moments of its creation as a rule: that is looked at first."""
_SKEW_MS = 60_000
"""How far the clocks of producers and of the NATS server may be apart."""
_CHUNK = 256
"""Tasks of the stream that are read at a time."""


class StreamReader(Protocol):
    """The stream by sequence; ``StreamLog`` is one."""

    async def bounds(self) -> tuple[int, int]:
        """First and last sequence."""
        ...

    async def read(self, first: int, last: int) -> list[StoredTask]:
        """The tasks of a range."""
        ...

    async def first_since(self, wall_ms: int) -> int:
        """From where on everything lies that was stored at that time or later."""
        ...


class ReconcileSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of a reconciliation.

    Attributes:
        window: tasks that are held at a time, of either side.
        grace_s: how long a missing task is given to turn up.
        period_s: from the end of a round to the next one.
    """

    window: int = 2_000
    grace_s: float = 2.0
    period_s: float = 5.0

    def check(self) -> None:
        """Refuse bounds that are none.

        Raises:
            SettingError: the text names the value.
        """
        if self.window < 1 or self.grace_s < 0 or self.period_s <= 0:
            raise SettingError(
                f"window {self.window}, grace {self.grace_s:g} s, period {self.period_s:g} s: use"
                " at least 1, at least 0 s, and more than 0 s"
            )


class ReconcileTotals(msgspec.Struct):
    """What a reconciliation did.

    Attributes:
        in_redis, in_stream: tasks that were looked at.
        done: of these, what is done by the done-store.
        turned_up: missing at first, and not after the grace.
        put_on_nats, put_on_redis: put where they were missing.
        refused, unknown: puts that failed, or had no answer: the next round looks again.
        stream_judged: whether tasks could go from the stream to Redis: a done-store was given.
    """

    in_redis: int = 0
    in_stream: int = 0
    done: int = 0
    turned_up: int = 0
    put_on_nats: int = 0
    put_on_redis: int = 0
    refused: int = 0
    unknown: int = 0
    stream_judged: bool = False


WorkLists = Callable[[], Awaitable[list[str]]]
"""The keys of the lists in which tasks in work lie."""


class Reconciler:
    """Compares the brokers for one task type.

    Args:
        redis: the commands.
        stream: the stream by sequence.
        publish: with the task's id as ``Nats-Msg-Id``.
        names: of the queue.
        clock: for the grace.
        task_type: which lists, and which subject.
        done: which tasks are done.
        work_lists: by default the guide's one list.
        settings: the bounds.
        recorder: is told of puts.
    """

    def __init__(
        self,
        redis: RedisClient,
        stream: StreamReader,
        publish: NatsPublishFn,
        names: Names,
        *,
        clock: Clock,
        task_type: str = "sync",
        done: DoneStore | None = None,
        work_lists: WorkLists | None = None,
        settings: ReconcileSettings | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._redis = redis
        self._stream = stream
        self._publish = publish
        self._clock = clock
        self._done = done
        self._settings = settings or ReconcileSettings()
        self._settings.check()
        self._recorder = recorder or NullRecorder()
        self._pending = names.pending_key(task_type)
        self._work = names.work_key(task_type)
        self._subject = names.subject(task_type)
        self._work_lists = work_lists or self._guides_work_list
        self._first_open = 1
        """Every task in the stream below this sequence is done."""

    async def round(self) -> ReconcileTotals:
        """Look at everything once, and put what is missing.

        Raises:
            BrokerUnreachableError: a broker or the done-store did not answer; what was put by then
                is put.
        """
        totals = ReconcileTotals(stream_judged=self._done is not None)
        await self._redis_to_nats(totals)
        if self._done is not None:
            await self._nats_to_redis(self._done, totals)
        return totals

    async def _redis_to_nats(self, totals: ReconcileTotals) -> None:
        lists = [self._pending, *await self._work_lists()]
        async for window in self._listed(lists):
            totals.in_redis += len(window)
            missing = await self._not_done(window, totals)
            looked_to = await self._look_for(missing)
            if not missing:
                continue
            count = len(missing)
            await self._clock.sleep(self._settings.grace_s)
            await self._drop_stored(missing, looked_to + 1)
            for task_id, payload in list(missing.items()):
                if not await lies_in(self._redis, lists, payload):
                    del missing[task_id]  # a worker has finished it meanwhile
            totals.turned_up += count - len(missing)
            for task_id, payload in missing.items():
                write = self._publish(self._subject, payload)
                if await self._put(task_id, Broker.NATS, write, totals):
                    totals.put_on_nats += 1

    async def _nats_to_redis(self, done: DoneStore, totals: ReconcileTotals) -> None:
        first, last = await self._stream.bounds()
        begin, size = max(first, self._first_open), self._settings.window
        all_done = True
        for low in range(begin, last + 1, size):
            high = min(low + size - 1, last)
            stored = [
                item for item in await self._stream.read(low, high) if item.subject == self._subject
            ]
            totals.in_stream += len(stored)
            missing = await self._not_done({item.task_id: item.payload for item in stored}, totals)
            if all_done:
                still_open = [item.sequence for item in stored if item.task_id in missing]
                all_done = not still_open
                self._first_open = high + 1 if all_done else min(still_open)
            await self._drop_listed(missing)
            if missing:
                await self._push_missing(done, missing, totals)

    async def _push_missing(
        self, done: DoneStore, missing: dict[uuid.UUID, bytes], totals: ReconcileTotals
    ) -> None:
        """Give a window of tasks their time to turn up, and push what has not."""
        count = len(missing)
        await self._clock.sleep(self._settings.grace_s)
        await self._drop_listed(missing)
        for task_id in await done.are_done([*missing]):  # after the lists: it may have left them
            del missing[task_id]
        totals.turned_up += count - len(missing)
        work = await self._work_lists()
        for task_id, payload in missing.items():
            write = push_if_absent(self._redis, self._pending, work, payload)
            if await self._put(task_id, Broker.REDIS, write, totals):
                totals.put_on_redis += 1

    async def _put(
        self, task_id: uuid.UUID, broker: Broker, write: Awaitable[int], totals: ReconcileTotals
    ) -> bool:
        try:
            number = await write
        except (PublishUnknownError, TimeoutError):
            self._recorder.record(Event.PUT_UNKNOWN, task_id.bytes, broker=broker)
            totals.unknown += 1
            return False
        except (PublishRefusedError, OversizeError):
            self._recorder.record(Event.PUT_FAIL, task_id.bytes, broker=broker)
            totals.refused += 1
            return False
        self._recorder.record(Event.PUT_OK, task_id.bytes, broker=broker, value=number)
        return True

    async def _not_done(
        self, tasks: dict[uuid.UUID, bytes], totals: ReconcileTotals
    ) -> dict[uuid.UUID, bytes]:
        if self._done is None or not tasks:
            return dict(tasks)
        finished = await self._done.are_done([*tasks])
        totals.done += len(finished)
        return {task_id: data for task_id, data in tasks.items() if task_id not in finished}

    async def _look_for(self, missing: dict[uuid.UUID, bytes]) -> int:
        """Forget those that the stream holds; up to where it was looked through.

        A task is not stored before it is created, and ids tell that time: so from there on, and as
        far back as clocks may be apart for what is not found so.
        """
        if not missing:
            return 0
        ages = [uuid7_wall_ms(task_id) for task_id in missing]
        known = [age for age in ages if age is not None]
        if len(known) < len(ages):
            return await self._drop_stored(missing, 1)
        near = await self._stream.first_since(min(known) - _NEAR_MS)
        looked_to = await self._drop_stored(missing, near)
        if missing:
            far = await self._stream.first_since(min(known) - _SKEW_MS)
            await self._drop_stored(missing, far, near - 1)
        return looked_to

    async def _drop_stored(
        self, missing: dict[uuid.UUID, bytes], since: int, until: int | None = None
    ) -> int:
        """Forget those that the stream holds in a range of sequences; where that ended."""
        first, last = await self._stream.bounds()
        last = last if until is None else min(last, until)
        for low in range(max(first, since), last + 1, _CHUNK):
            if not missing:
                break
            for item in await self._stream.read(low, min(low + _CHUNK - 1, last)):
                missing.pop(item.task_id, None)
        return last

    async def _drop_listed(self, missing: dict[uuid.UUID, bytes]) -> None:
        """Forget those that lie in a list: pending first, for that is where they leave."""
        if not missing:
            return
        async for window in self._listed([self._pending, *await self._work_lists()]):
            for task_id in window:
                missing.pop(task_id, None)
            if not missing:
                return

    async def _listed(self, keys: Collection[str]) -> AsyncIterator[dict[uuid.UUID, bytes]]:
        """The tasks in the lists, window by window, from the head.

        What is pushed meanwhile moves the rest on, so that some are seen twice and none is missed;
        what is taken is taken from the tail. Where a copy is removed from the middle one may be
        missed, until the next round.
        """
        size = self._settings.window
        for key in keys:
            start = 0
            while True:
                with broker_errors(f"LRANGE {key}"):
                    items = await self._redis.lrange(key, start, start + size - 1)
                tasks = {}
                for item in items:
                    try:
                        tasks[task_id_of(item)] = item
                    except DecodeError:
                        continue
                if tasks:
                    yield tasks
                if len(items) < size:
                    break
                start += size

    async def _guides_work_list(self) -> list[str]:
        return [self._work]
