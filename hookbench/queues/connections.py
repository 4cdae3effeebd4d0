"""The connections of one process: opened when a phase first needs them, closed together."""

import msgspec

from hookbench.clock import Clock
from hookbench.errors import SettingError
from hookbench.queues.jetstream import (
    ConsumerSettings,
    StreamSettings,
    ensure_consumer,
    ensure_dead_stream,
    ensure_stream,
)
from hookbench.queues.redis_client import RedisClient, connect_redis
from hookbench.queues.transport import AppTransport
from hookbench.task import Names

__all__ = ["Connections"]


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
    ) -> None:
        self._redis_url = redis_url
        self._nats_url = nats_url
        self._names = names
        self._clock = clock
        self._block_timeout_secs = block_timeout_secs
        self._stream = stream or StreamSettings()
        self._consumer = consumer or ConsumerSettings()
        self._redis: RedisClient | None = None
        self._nats: AppTransport | None = None
        self._consumer_checked = False

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
            if not self._redis_url:
                raise SettingError("this phase uses Redis: give --redis-url or HOOKBENCH_REDIS_URL")
            self._redis = connect_redis(
                self._redis_url, block_timeout_secs=self._block_timeout_secs
            )
        return self._redis

    async def nats(self) -> AppTransport:
        """The NATS transport, with the hook stream created or checked.

        Raises:
            SettingError: no URL was given, or it is none.
            BrokerUnreachableError, BrokerUnsuitableError, ConfigDriftError: see ``ensure_stream``.
        """
        if self._nats is None:
            if not self._nats_url:
                raise SettingError("this phase uses NATS: give --nats-url or HOOKBENCH_NATS_URL")
            transport = await AppTransport.connect(
                self._nats_url, names=self._names, clock=self._clock
            )
            try:
                await ensure_stream(transport, self._stream)
            except BaseException:
                await transport.close()
                raise
            self._nats = transport
        return self._nats

    async def nats_for_reading(self, task_type: str) -> AppTransport:
        """The transport, with the consumer and the stream of dead letters created or checked."""
        transport = await self.nats()
        if not self._consumer_checked:
            await ensure_consumer(
                transport, msgspec.structs.replace(self._consumer, task_type=task_type)
            )
            await ensure_dead_stream(
                transport, storage=self._stream.storage, replicas=self._stream.replicas
            )
            self._consumer_checked = True
        return transport

    async def close(self) -> None:
        """Close what was opened."""
        if self._nats is not None:
            await self._nats.close()
        if self._redis is not None:
            await self._redis.aclose()
