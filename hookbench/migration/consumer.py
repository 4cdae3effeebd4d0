"""The guide's consumer: ``RedisConsumer``, which reads Redis, or NATS with Redis behind it."""

import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Self

from hookbench.errors import (
    BrokerUnreachableError,
    PublishUnknownError,
    SettingError,
)
from hookbench.ledger.events import Broker, Event, NullRecorder, Recorder
from hookbench.migration.metrics import HookMetrics
from hookbench.migration.phases import AckMode, Phase, ReadRoute, read_route
from hookbench.migration.read_both import AgedQueue, AgedTasks
from hookbench.migration.received import Received, decode_delivery
from hookbench.queues.base import AckFn, Delivery, NatsConsumeFn, Queue
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_list import RedisListQueue
from hookbench.task import HookTask, Names

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RedisConsumer"]

_log = logging.getLogger(__name__)


class _InjectedDelivery:
    """A pair of the guide's ``nats_consume``; what a plain ``ack`` function lacks is refused."""

    broker = Broker.NATS
    __slots__ = ("_ack", "attempt", "payload", "sequence")

    def __init__(self, payload: bytes, ack: AckFn) -> None:
        self.payload = payload
        self._ack = ack
        self.attempt: int = getattr(ack, "attempt", 1)
        self.sequence: int = getattr(ack, "sequence", 0)

    async def ack(self) -> None:
        await self._ack()

    @property
    def confirms(self) -> bool:
        """Whether ``send_ack`` may be called."""
        return bool(getattr(self._ack, "confirms", False))

    def send_ack(self) -> Awaitable[Awaitable[None]]:
        sent: Awaitable[Awaitable[None]] = getattr(self._ack, "send_ack")()  # noqa: B009
        return sent

    async def nak(self, delay_s: float = 0.0) -> None:
        """Without a ``nak`` the broker delivers again after its AckWait."""
        nak = getattr(self._ack, "nak", None)
        if nak is not None:
            await nak(delay_s)

    async def term(self, reason: str) -> None:
        """Without a ``term`` an acknowledgement ends the delivery just as well."""
        term = getattr(self._ack, "term", None)
        if term is None:
            await self._ack()
        else:
            await term(reason)

    async def in_progress(self) -> None:
        in_progress = getattr(self._ack, "in_progress", None)
        if in_progress is not None:
            await in_progress()


class RedisConsumer:
    """Takes hook tasks from Redis, from NATS, or from NATS with Redis as a fallback.

    The plain constructor is Redis only; ``with_nats`` reads NATS and, after a read that failed
    (an exception or no response, not an empty answer), reads Redis once for at most the block
    timeout, then NATS again; ``nats_only`` is what remains after the removal of Redis. With
    ``aged``, NATS and Redis are read in turns, Redis only where a task has waited for too long.

    Attributes:
        redis_queue: opens the Redis queue of a task type; ``None`` for the guide's lists.
    """

    def __init__(
        self,
        pool: RedisClient | None,
        prefix: str = "{hook}",
        block_timeout_secs: float = 5.0,
        *,
        names: Names | None = None,
        recorder: Recorder | None = None,
        metrics: HookMetrics | None = None,
    ) -> None:
        self._pool = pool
        self._names = names or Names(prefix=prefix)
        self._block_timeout_secs = block_timeout_secs
        self._recorder = recorder or NullRecorder()
        self._metrics = metrics or HookMetrics()
        self._nats_consume: NatsConsumeFn | None = None
        self._ack_mode = AckMode.IMMEDIATE
        self._queues: dict[str, Queue] = {}
        self.redis_queue: Callable[[str], Queue] | None = None
        self._aged: AgedTasks | None = None
        self._nats_has_more = False
        self._nats_next = False
        self.route = ReadRoute.REDIS

    @classmethod
    def with_nats(
        cls,
        pool: RedisClient,
        prefix: str,
        block_timeout_secs: float,
        nats_consume: NatsConsumeFn,
        *,
        ack: AckMode = AckMode.IMMEDIATE,
        aged: AgedTasks | None = None,
        names: Names | None = None,
        recorder: Recorder | None = None,
        metrics: HookMetrics | None = None,
    ) -> Self:
        """NATS, with Redis behind it; with ``aged``, with Redis beside it."""
        consumer = cls(
            pool, prefix, block_timeout_secs, names=names, recorder=recorder, metrics=metrics
        )
        consumer._nats_consume = nats_consume
        consumer._ack_mode = ack
        consumer._aged = aged
        consumer.route = ReadRoute.NATS_THEN_REDIS
        return consumer

    @classmethod
    def nats_only(
        cls,
        nats_consume: NatsConsumeFn,
        *,
        ack: AckMode = AckMode.IMMEDIATE,
        names: Names | None = None,
        recorder: Recorder | None = None,
        metrics: HookMetrics | None = None,
    ) -> Self:
        """Without Redis: phases 3 and 4."""
        consumer = cls(None, names=names, recorder=recorder, metrics=metrics)
        consumer._nats_consume = nats_consume
        consumer._ack_mode = ack
        consumer.route = ReadRoute.NATS
        return consumer

    @classmethod
    def for_phase(
        cls,
        phase: Phase,
        *,
        pool: RedisClient | None,
        nats_consume: NatsConsumeFn | None,
        names: Names,
        block_timeout_secs: float,
        ack: AckMode,
        aged: AgedTasks | None = None,
        recorder: Recorder | None = None,
        metrics: HookMetrics | None = None,
    ) -> Self:
        """The consumer that a phase asks for.

        Raises:
            SettingError: the phase reads from a broker that was not given.
        """
        route = read_route(phase)
        if route is not ReadRoute.NATS and pool is None:
            raise SettingError(f"phase {phase.label} reads Redis: give a Redis URL")
        if route is ReadRoute.REDIS:
            return cls(
                pool,
                block_timeout_secs=block_timeout_secs,
                names=names,
                recorder=recorder,
                metrics=metrics,
            )
        if nats_consume is None:
            raise SettingError(f"phase {phase.label} reads NATS: give a NATS URL")
        if pool is None or route is ReadRoute.NATS:
            return cls.nats_only(
                nats_consume, ack=ack, names=names, recorder=recorder, metrics=metrics
            )
        return cls.with_nats(
            pool,
            names.prefix,
            block_timeout_secs,
            nats_consume,
            ack=ack,
            aged=aged,
            names=names,
            recorder=recorder,
            metrics=metrics,
        )

    async def receive(self, task_type: str, limit: int) -> list[Received]:
        """Up to ``limit`` tasks of a type; empty when none came within the wait of the route.

        Raises:
            BrokerUnreachableError: the read failed and the route has no fallback.
        """
        if self.route is ReadRoute.REDIS:
            return await self._from_redis(task_type, limit)
        if self._aged is not None and not self._nats_next:
            aged = await self._aged.take(self._redis_lists(task_type), limit)
            if aged:
                # In turns while both have tasks; a NATS that had none would only be waited for.
                self._nats_next = self._nats_has_more
                return self._decoded_redis(aged)
        self._nats_next = False
        try:
            received = await self._from_nats(task_type, limit)
            self._nats_has_more = bool(received)
        except (BrokerUnreachableError, PublishUnknownError, TimeoutError) as error:
            if self.route is ReadRoute.NATS:
                raise
            _log.warning("NATS read failed, reading Redis once: %s", error)
            return await self._from_redis(task_type, limit)
        return received

    async def close(self) -> None:
        """Let a blocked Redis read run out; nothing is taken afterwards."""
        for queue in self._queues.values():
            await queue.close()

    def _redis_queue(self, task_type: str) -> Queue:
        queue = self._queues.get(task_type)
        if queue is None:
            if self._pool is None:
                raise SettingError(f"route {self.route} without a Redis pool")
            if self.redis_queue is not None:
                queue = self.redis_queue(task_type)
            else:
                queue = RedisListQueue(self._pool, names=self._names, task_type=task_type)
            self._queues[task_type] = queue
        return queue

    def _redis_lists(self, task_type: str) -> AgedQueue:
        """As above; where Redis is read beside NATS it is read from lists."""
        queue: object = self._redis_queue(task_type)
        if not isinstance(queue, AgedQueue):
            raise SettingError("only lists on Redis are read beside NATS")
        return queue

    async def _from_redis(self, task_type: str, limit: int) -> list[Received]:
        queue = self._redis_queue(task_type)
        return self._decoded_redis(await queue.receive(limit, self._block_timeout_secs))

    def _decoded_redis(self, deliveries: list[Delivery]) -> list[Received]:
        received = [decode_delivery(delivery, self._recorder) for delivery in deliveries]
        self._metrics.consumed_redis.inc(len(received))
        if _log.isEnabledFor(logging.INFO):
            for item in received:
                _log.info("task dequeued", extra={"task_id": str(item.task and item.task.id)})
        return received

    async def _from_nats(self, task_type: str, limit: int) -> list[Received]:
        if self._nats_consume is None:
            raise SettingError(f"route {self.route} without nats_consume: use with_nats")
        pairs = await self._nats_consume(self._names.subject(task_type), limit)
        deliveries = [_InjectedDelivery(data, ack) for data, ack in pairs]
        received = [decode_delivery(delivery, self._recorder) for delivery in deliveries]
        self._metrics.consumed_nats.inc(len(received))
        for item in received:
            if _log.isEnabledFor(logging.INFO):
                _log.info(
                    "task dequeued from NATS", extra={"task_id": str(item.task and item.task.id)}
                )
            if self._ack_mode is AckMode.IMMEDIATE and item.task is not None:
                await self._ack_now(item, item.task)
        return received

    async def _ack_now(self, item: Received, task: HookTask) -> None:
        """The guide's known limit: acknowledged after decoding, before any work is done."""
        try:
            await item.delivery.ack()
        except (BrokerUnreachableError, PublishUnknownError) as error:
            self._recorder.record(Event.ACK_FAILED, task.id.bytes, broker=Broker.NATS)
            _log.warning("task %s: early ack failed: %s", task.id, error)
            return
        self._recorder.record(Event.ACK_SENT, task.id.bytes, broker=Broker.NATS)
        item.settled = True
