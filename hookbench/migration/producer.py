"""The guide's producer: ``ReceiveSyncService``."""

import logging
from collections.abc import Awaitable, Callable
from typing import Self
from uuid import UUID

import msgspec

from hookbench.errors import (
    OversizeError,
    PublishRefusedError,
    PublishUnknownError,
    SendError,
    SettingError,
    SpoolError,
)
from hookbench.ledger.events import Broker, Event, NullRecorder, Recorder, repository_number
from hookbench.migration.metrics import HookMetrics
from hookbench.migration.outbox import Outbox
from hookbench.migration.phases import Phase, WriteRoute, write_route
from hookbench.migration.sweeper import Outgoing, PutOutcome
from hookbench.queues.base import NatsPublishFn
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_kind import RedisKind
from hookbench.queues.redis_list import RedisListQueue
from hookbench.queues.redis_stream import RedisStreamQueue
from hookbench.task import DEFAULT_TASK_LIMIT_BYTES, HookTask, Names, check_size, encode_task

__all__ = ["Receipt", "ReceiveSyncService"]

_log = logging.getLogger(__name__)

# Read for each task: of an enum they cost ten times what a global does (Python 3.11).
_INVOKED, _PUT_OK, _ACCEPTED = Event.PUT_INVOKED, Event.PUT_OK, Event.ACCEPTED
_ON_REDIS, _ON_NATS = Broker.REDIS, Broker.NATS


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller of ``send`` is told once a task is acknowledged.

    Attributes:
        sequence: the stream sequence, ``None`` where NATS was not written or did not take it.
        redis_length: length of the Redis list after the push, ``None`` likewise.
        spooled: it is in the outbox, and on its way to the brokers.
    """

    sequence: int | None = None
    redis_length: int | None = None
    spooled: bool = False


class ReceiveSyncService:
    """Puts hook tasks on Redis, on NATS, or on both.

    The plain constructor is Redis only, and so the way back at any time; ``with_nats`` adds NATS
    with the guide's injected function; ``nats_only`` is what remains after the removal of Redis.

    Acknowledged to the caller means, as in the guide: in a dual route either write succeeded, in
    a single route that write did. With an ``outbox`` it means that the task is on its disk; it is
    put by the outbox, which calls ``put_on``.

    Attributes:
        replicas: how many replicas of Redis must have a task before that write is a success.
        redis_kind: what holds the tasks on Redis.
    """

    def __init__(
        self,
        pool: RedisClient | None,
        prefix: str = "{hook}",
        *,
        names: Names | None = None,
        limit_bytes: int = DEFAULT_TASK_LIMIT_BYTES,
        recorder: Recorder | None = None,
        metrics: HookMetrics | None = None,
    ) -> None:
        self._pool = pool
        self._names = names or Names(prefix=prefix)
        self._limit_bytes = limit_bytes
        self._recorder = recorder or NullRecorder()
        self._metrics = metrics or HookMetrics()
        self._nats_publish: NatsPublishFn | None = None
        self._queues: dict[str, RedisListQueue | RedisStreamQueue] = {}
        self.replicas = 0
        self.redis_kind = RedisKind.LIST
        self.route = WriteRoute.REDIS
        self.outbox: Outbox | None = None
        """Where tasks are accepted; without one they are accepted by the brokers."""
        self.trouble: dict[Broker, str] = {}
        """Why the last put of the outbox on a broker failed; of one that works there is nothing."""

    @property
    def route(self) -> WriteRoute:
        """Where tasks are written."""
        return self._route

    @route.setter
    def route(self, route: WriteRoute) -> None:
        self._route = route
        self._writes_nats = route is not WriteRoute.REDIS
        self._writes_redis = route in (WriteRoute.REDIS, WriteRoute.BOTH)
        self._falls_back = route is WriteRoute.NATS_THEN_REDIS

    @classmethod
    def with_nats(
        cls,
        pool: RedisClient,
        nats_publish: NatsPublishFn,
        prefix: str = "{hook}",
        *,
        route: WriteRoute = WriteRoute.NATS_THEN_REDIS,
        names: Names | None = None,
        limit_bytes: int = DEFAULT_TASK_LIMIT_BYTES,
        recorder: Recorder | None = None,
        metrics: HookMetrics | None = None,
    ) -> Self:
        """With both brokers: NATS first, then Redis as a fallback, or another ``route``."""
        service = cls(
            pool,
            prefix,
            names=names,
            limit_bytes=limit_bytes,
            recorder=recorder,
            metrics=metrics,
        )
        service._nats_publish = nats_publish
        service.route = route
        return service

    @classmethod
    def nats_only(
        cls,
        nats_publish: NatsPublishFn,
        *,
        names: Names | None = None,
        limit_bytes: int = DEFAULT_TASK_LIMIT_BYTES,
        recorder: Recorder | None = None,
        metrics: HookMetrics | None = None,
    ) -> Self:
        """Without Redis: phase 4."""
        service = cls(
            None, names=names, limit_bytes=limit_bytes, recorder=recorder, metrics=metrics
        )
        service._nats_publish = nats_publish
        service.route = WriteRoute.NATS
        return service

    @classmethod
    def for_phase(
        cls,
        phase: Phase,
        *,
        pool: RedisClient | None,
        nats_publish: NatsPublishFn | None,
        names: Names,
        limit_bytes: int = DEFAULT_TASK_LIMIT_BYTES,
        recorder: Recorder | None = None,
        metrics: HookMetrics | None = None,
    ) -> Self:
        """The service that a phase asks for, by the constructor that the guide names for it.

        Raises:
            SettingError: the phase writes to a broker that was not given.
        """
        route = write_route(phase)
        if route is WriteRoute.REDIS:
            if pool is None:
                raise SettingError(f"phase {phase.label} writes to Redis: give a Redis URL")
            return cls(
                pool, names=names, limit_bytes=limit_bytes, recorder=recorder, metrics=metrics
            )
        if nats_publish is None:
            raise SettingError(f"phase {phase.label} writes to NATS: give a NATS URL")
        if phase is Phase.NATS_ONLY:
            return cls.nats_only(
                nats_publish,
                names=names,
                limit_bytes=limit_bytes,
                recorder=recorder,
                metrics=metrics,
            )
        if pool is None:
            raise SettingError(f"phase {phase.label} keeps Redis: give a Redis URL")
        return cls.with_nats(
            pool,
            nats_publish,
            route=route,
            names=names,
            limit_bytes=limit_bytes,
            recorder=recorder,
            metrics=metrics,
        )

    async def send(self, task: HookTask, *, intended_ns: int = 0) -> Receipt:
        """Put one task; returns once it is acknowledged.

        Args:
            task: the task.
            intended_ns: when it was to be sent (monotonic), for the ledger.

        Raises:
            OversizeError: larger than the smallest limit of the brokers; nothing was written.
            SendError: no broker of the route acknowledged it, or the outbox did not take it;
                ``outcome`` says whether it may come out all the same.
        """
        data = encode_task(task)
        key = task.id.bytes
        record = self._recorder.record
        record(_INVOKED, key, value=intended_ns, repository=repository_number(task.repo_id))
        try:
            check_size(data, self._limit_bytes)
        except OversizeError:
            record(Event.REFUSED, key)
            raise
        if self.outbox is not None:
            return await self._spool(self.outbox, task, data, intended_ns)
        errors: list[PublishRefusedError | PublishUnknownError | OversizeError] = []
        sequence: int | None = None
        length: int | None = None
        if self._writes_nats:
            sequence = await self._put(key, _ON_NATS, lambda: self._to_nats(task, data), errors)
        if self._writes_redis or (self._falls_back and sequence is None):
            length = await self._put(key, _ON_REDIS, lambda: self._to_redis(task, data), errors)
        if sequence is None and length is None:
            raise self._give_up(task, key, errors)
        record(_ACCEPTED, key)
        return Receipt(sequence=sequence, redis_length=length)

    async def _spool(
        self, outbox: Outbox, task: HookTask, data: bytes, intended_ns: int
    ) -> Receipt:
        key = task.id.bytes
        try:
            await outbox.accept(task, data, intended_ns=intended_ns)
        except SendError:
            self._recorder.record(Event.REFUSED, key)
            raise
        except SpoolError as error:
            self._recorder.record(Event.DOUBTFUL, key)
            raise SendError(
                f"task {task.id} could not be stored: {error}", outcome="unknown"
            ) from error
        self._recorder.record(Event.ACCEPTED, key)
        return Receipt(spooled=True)

    async def put_on(self, broker: Broker, item: Outgoing, *, doubtful: bool) -> PutOutcome:
        """Put a task of the outbox on one broker; what became of it is recorded.

        Args:
            broker: Redis or NATS.
            item: the task.
            doubtful: an earlier put may have been stored, so that the lists of Redis are searched
                first. The stream knows a repeat by its id.
        """
        errors: list[PublishRefusedError | PublishUnknownError | OversizeError] = []

        def write() -> Awaitable[int]:
            if broker is Broker.NATS:
                return self._to_nats(item.task, item.data)
            return self._to_redis(item.task, item.data, look=doubtful)

        if await self._put(item.task.id.bytes, broker, write, errors) is not None:
            self._tell(broker, "")
            return PutOutcome.OK
        if isinstance(errors[-1], OversizeError):
            return PutOutcome.TOO_LARGE
        self._tell(broker, str(errors[-1]))
        unknown = isinstance(errors[-1], PublishUnknownError)
        return PutOutcome.UNKNOWN if unknown else PutOutcome.FAIL

    def _tell(self, broker: Broker, trouble: str) -> None:
        """The outbox hides a broker's trouble from callers, so each change of it is logged."""
        before = self.trouble.get(broker, "")
        if trouble == before:
            return
        name = broker.name.lower()
        if trouble:
            self.trouble[broker] = trouble
            _log.warning("tasks for %s stay in the outbox: %s", name, trouble)
        else:
            del self.trouble[broker]
            _log.warning("%s takes tasks of the outbox again", name)

    def _give_up(
        self,
        task: HookTask,
        key: bytes,
        errors: list[PublishRefusedError | PublishUnknownError | OversizeError],
    ) -> SendError:
        unknown = any(isinstance(error, PublishUnknownError) for error in errors)
        self._recorder.record(Event.DOUBTFUL if unknown else Event.REFUSED, key)
        reasons = "; ".join(str(error) for error in errors)
        return SendError(
            f"task {task.id} was not acknowledged by any broker of route {self.route}: {reasons}",
            outcome="unknown" if unknown else "fail",
        )

    async def _put(
        self,
        key: bytes,
        broker: Broker,
        write: Callable[[], Awaitable[int]],
        errors: list[PublishRefusedError | PublishUnknownError | OversizeError],
    ) -> int | None:
        try:
            number = await write()
        except (PublishRefusedError, OversizeError) as error:
            self._recorder.record(Event.PUT_FAIL, key, broker=broker)
            errors.append(error)
            return None
        except PublishUnknownError as error:
            self._recorder.record(Event.PUT_UNKNOWN, key, broker=broker)
            errors.append(error)
            return None
        except TimeoutError as error:  # from an injected function that is not ours
            self._recorder.record(Event.PUT_UNKNOWN, key, broker=broker)
            errors.append(PublishUnknownError(f"no answer in time: {error}"))
            return None
        on_nats = broker is _ON_NATS
        (self._metrics.queued_nats if on_nats else self._metrics.queued_redis).inc()
        if _log.isEnabledFor(logging.INFO):
            name = "NATS" if on_nats else "Redis"
            _log.info("hook task queued to %s", name, extra={"task_id": str(UUID(bytes=key))})
        self._recorder.record(_PUT_OK, key, broker=broker, value=number)
        return number

    def _to_nats(self, task: HookTask, data: bytes) -> Awaitable[int]:
        if self._nats_publish is None:
            raise SettingError(f"route {self.route} without nats_publish: use with_nats")
        return self._nats_publish(self._names.subject(task.task_type), data)

    def _to_redis(self, task: HookTask, data: bytes, *, look: bool = False) -> Awaitable[int]:
        if self._pool is None:
            raise SettingError(f"route {self.route} without a Redis pool")
        queue = self._redis_queue(self._pool, task.task_type)
        return queue.put_if_absent(data) if look else queue.put(data)

    def _redis_queue(self, pool: RedisClient, task_type: str) -> RedisListQueue | RedisStreamQueue:
        queue = self._queues.get(task_type)
        if queue is None:
            kind = RedisStreamQueue if self.redis_kind is RedisKind.STREAM else RedisListQueue
            queue = kind(pool, names=self._names, task_type=task_type, replicas=self.replicas)
            self._queues[task_type] = queue
        return queue
