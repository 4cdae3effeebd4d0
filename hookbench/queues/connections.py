"""The connections of one process: opened when a phase first needs them, closed together."""

import logging

import msgspec

from hookbench.clock import Clock
from hookbench.errors import BrokerUnreachableError, SettingError
from hookbench.queues.advisories import ensure_advisory_stream
from hookbench.queues.dialing import NETWORK, Dialer
from hookbench.queues.epochs import (
    FIRST_ENTRY,
    Entry,
    Epoch,
    close_epoch,
    epoch_consumer_name,
    open_epoch,
)
from hookbench.queues.jetstream import (
    ConsumerSettings,
    StreamSettings,
    ensure_consumer,
    ensure_dead_stream,
    ensure_stream,
)
from hookbench.queues.nats_measures import GUIDE_NATS, NatsMeasures
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.redis_kind import RedisKind
from hookbench.queues.replica_wait import replicas_of
from hookbench.queues.task_types import ensure_typed_consumer
from hookbench.queues.transport import AppTransport
from hookbench.queues.watermark import EndedFn
from hookbench.task import Names

__all__ = ["Connections"]

_log = logging.getLogger(__name__)


class Connections:
    """At most one Redis client and one NATS transport.

    A process in phase 0 never talks to NATS, one in phase 4 never to Redis: an outage of the
    broker that a phase does not use does not concern it.
    """

    def __init__(
        self,
        *,
        redis_url: str | None,
        nats_url: str | None,
        names: Names,
        clock: Clock,
        block_timeout_secs: float = 5.0,
        stream: StreamSettings | None = None,
        consumer: ConsumerSettings | None = None,
        measures: NatsMeasures = GUIDE_NATS,
        nats_monitor_url: str | None = None,
        nats_sync_interval_s: float | None = None,
        redis_kind: RedisKind = RedisKind.LIST,
        dialer: Dialer = NETWORK,
    ) -> None:
        self._dialer = dialer
        self._redis_url = redis_url
        self._nats_url = nats_url
        self._names = names
        self._clock = clock
        self._block_timeout_secs = block_timeout_secs
        self._stream = stream or StreamSettings()
        self._consumer = consumer or ConsumerSettings()
        self._measures = measures
        self.stream = self._stream
        self.nats_monitor_url = nats_monitor_url
        self.nats_sync_interval_s = nats_sync_interval_s
        self.redis_kind = redis_kind
        self._epochs: dict[str, Epoch] = {}
        self._redis: RedisClient | None = None
        self._nats: AppTransport | None = None
        self._consumer_checked = False

    @property
    def clock(self) -> Clock:
        """Of this process."""
        return self._clock

    @property
    def dialer(self) -> Dialer:
        """What opens the connections of this process."""
        return self._dialer

    @property
    def duplicate_window_s(self) -> float:
        """For how long the stream knows a ``Nats-Msg-Id``: it is created so, or checked."""
        return self._stream.duplicate_window_s

    @property
    def names(self) -> Names:
        """What the queue is called on both brokers."""
        return self._names

    def redis(self) -> RedisClient:
        """The Redis client; it connects at the first command.

        Raises:
            SettingError: no URL was given, or it is none.
        """
        if self._redis is None:
            self._redis = self._dialer.redis(
                self.redis_url, block_timeout_secs=self._block_timeout_secs
            )
        return self._redis

    @property
    def redis_url(self) -> str:
        """Where Redis is.

        Raises:
            SettingError: no URL was given.
        """
        if not self._redis_url:
            raise SettingError("this phase uses Redis: give --redis-url or HOOKBENCH_REDIS_URL")
        return self._redis_url

    @property
    def redis_replicas(self) -> int:
        """How many replicas a write can wait for, see ``replicas_of``."""
        return replicas_of(self._redis_url)

    async def nats(self) -> AppTransport:
        """The NATS transport, with the hook stream created or checked.

        Raises:
            SettingError: no URL was given, or it is none.
            BrokerUnreachableError, BrokerUnsuitableError, ConfigDriftError: see ``ensure_stream``.
        """
        if self._nats is None:
            if not self._nats_url:
                raise SettingError("this phase uses NATS: give --nats-url or HOOKBENCH_NATS_URL")
            transport = await self._dialer.nats(
                self._nats_url, names=self._names, clock=self._clock, measures=self._measures
            )
            try:
                await ensure_stream(transport, self._stream)
            except BaseException:
                await transport.close()
                raise
            self._nats = transport
        return self._nats

    async def nats_for_reading(
        self, task_type: str, *, entry: Entry = FIRST_ENTRY, ended: EndedFn | None = None
    ) -> AppTransport:
        """The transport, with the consumer and the stream of dead letters created or checked.

        Args:
            task_type: what will be read.
            entry: how the caller comes to read NATS, for ``epoch_consumer``.
            ended: who knows which tasks have ended, likewise.
        """
        transport = await self.nats()
        if not self._consumer_checked:
            if not self._has_own_consumers:
                await ensure_consumer(
                    transport, msgspec.structs.replace(self._consumer, task_type=task_type)
                )
            await ensure_dead_stream(
                transport, storage=self._stream.storage, replicas=self._stream.replicas
            )
            if self._measures.advisories:
                await ensure_advisory_stream(transport, self._stream)
            self._consumer_checked = True
        await self._join(transport, task_type, entry, ended)
        return transport

    @property
    def _has_own_consumers(self) -> bool:
        measures = self._measures
        return measures.epoch_consumer or measures.consumer_per_type or measures.sized_pending

    async def _join(
        self, transport: AppTransport, task_type: str, entry: Entry, ended: EndedFn | None
    ) -> None:
        """Have the consumer of a task type that the measures ask for, and pull by it."""
        measures, names = self._measures, self._names
        settings = msgspec.structs.replace(self._consumer, task_type=task_type)
        if measures.epoch_consumer:
            epoch = await open_epoch(
                transport,
                settings,
                entry=entry,
                ended=ended,
                stream=self._stream,
                sized=measures.sized_pending,
            )
            self._epochs[task_type] = epoch
            durable = epoch_consumer_name(transport, task_type, epoch.number)
        elif self._has_own_consumers:
            durable = names.consumer_of(task_type)
            await ensure_typed_consumer(transport, settings, sized=measures.sized_pending)
        else:
            return
        await transport.bind(names.subject(task_type), durable)

    async def rejoin(self, task_type: str, *, ended: EndedFn | None = None) -> bool:
        """Look for the epoch of the fleet after a read that failed; whether it is another one.

        Raises:
            BrokerUnreachableError: the server does not answer.
        """
        before = self._epochs.get(task_type)
        if before is None:
            return False
        await self._join(await self.nats(), task_type, FIRST_ENTRY, ended)
        return self._epochs[task_type].number != before.number

    async def leave(self, task_type: str) -> None:
        """Reading NATS has ended for now: give back what is held, and close the epoch.

        An epoch that cannot be closed is known by the step that it was begun in, see ``Entry``.
        """
        transport = await self.nats()
        await transport.release()
        epoch = self._epochs.pop(task_type, None)
        if epoch is None:
            return
        try:
            await close_epoch(transport, task_type, epoch.number)
        except BrokerUnreachableError as error:
            _log.warning("epoch %d of %s is not closed: %s", epoch.number, task_type, error)

    async def close(self) -> None:
        """Close what was opened."""
        if self._nats is not None:
            await self._nats.close()
        if self._redis is not None:
            await self._redis.aclose()
