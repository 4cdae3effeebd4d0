"""The done-stores on both brokers, as gates and procedures ask them."""

import uuid
from collections.abc import Collection

from hookbench.clock import Clock
from hookbench.migration.done_store import Authority, retention_s
from hookbench.migration.records import Unmoved, catch_up, find_unmoved
from hookbench.queues.jetstream import StreamSettings
from hookbench.queues.kv_bucket import ensure_bucket
from hookbench.queues.kv_done_store import KvDoneStore
from hookbench.queues.reading import connect_reading_nats, connect_reading_redis
from hookbench.queues.redis_client import RedisClient, connect_redis
from hookbench.queues.redis_done_store import RedisDoneStore
from hookbench.queues.replica_wait import replicas_of
from hookbench.queues.transport import AppTransport
from hookbench.task import Names

__all__ = ["BothStores", "OpenedStores"]


class BothStores:
    """The store of Redis and the one of NATS; which of them is the authority, follows the phase.

    Args:
        redis: connection to Redis, that its owner closes; ``None`` without Redis.
        transport: likewise to NATS.
        names: of the queue; by default those of the transport.
        stream: settings of the hook stream; the bucket is stored alike.
        clock: of leases.
        replicas: how many replicas of Redis must have what is written there.
    """

    def __init__(
        self,
        redis: RedisClient | None,
        transport: AppTransport | None,
        *,
        names: Names | None = None,
        stream: StreamSettings,
        clock: Clock,
        replicas: int = 0,
    ) -> None:
        self._transport = transport
        self._stream = stream
        self._retention_s = retention_s(stream.max_age_s)
        self._compared: set[Authority] = set()
        """Where this process has once compared all records, and what it saw since agrees."""
        self._redis: RedisDoneStore | None = None
        self._kv: KvDoneStore | None = None
        if transport is not None:
            self._kv = KvDoneStore(transport, clock=clock)
        if redis is not None:
            if names is None and transport is not None:
                names = transport.names
            self._redis = RedisDoneStore(
                redis, names=names, retention_s=self._retention_s, replicas=replicas
            )

    async def are_done(self, task_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
        """Which of these tasks have ended, by either store; nothing is created.

        Raises:
            BrokerUnreachableError: one of them did not answer.
        """
        done: set[uuid.UUID] = set()
        if self._redis is not None:
            done |= await self._redis.are_done(task_ids)
        if self._kv is not None:
            done |= await self._kv.are_done(set(task_ids) - done)
        return done

    async def forget(self, task_ids: Collection[uuid.UUID]) -> int:
        """Remove the records of ended tasks from both, so that they may run again.

        Raises:
            BrokerUnreachableError: one of them did not answer.
        """
        count = 0
        for store in (self._redis, self._kv):
            if store is not None:
                count += await store.forget(task_ids)
        return count

    async def move_records(self, target: Authority) -> int:
        """Copy what the other store knows to that one; how many records were new there.

        The first time in a process everything is compared, and again after a comparison in
        which something was missing; else what changed since.

        Raises:
            BrokerUnreachableError, BrokerUnsuitableError, ConfigDriftError: see ``ensure_bucket``.
        """
        stores = self._from_and_to(target)
        if stores is None or self._transport is None:
            return 0
        await ensure_bucket(
            self._transport,
            retention_s=self._retention_s,
            storage=self._stream.storage,
            replicas=self._stream.replicas,
        )
        moved = await catch_up(*stores, whole=target not in self._compared)
        self._note(target, whole=True, agrees=not moved.missing)
        return moved.copied

    async def unmoved(self, target: Authority, *, whole: bool = True) -> Unmoved:
        """Tasks that the other store knows as ended or claimed, and that one does not.

        Raises:
            BrokerUnreachableError: one of them did not answer.
        """
        stores = self._from_and_to(target)
        if stores is None:
            return Unmoved(ages_s={}, whole=True)
        found = await find_unmoved(*stores, whole=whole)
        self._note(target, whole=False, agrees=not (found.whole and found.ages_s))
        return found

    def _from_and_to(
        self, target: Authority
    ) -> tuple[RedisDoneStore | KvDoneStore, RedisDoneStore | KvDoneStore] | None:
        """``None`` where there are not both."""
        if self._redis is None or self._kv is None:
            return None
        stores = (self._redis, self._kv)
        return stores if target is Authority.NATS else stores[::-1]

    def _note(self, target: Authority, *, whole: bool, agrees: bool) -> None:
        if not agrees:
            self._compared.discard(target)
        elif whole:
            self._compared.add(target)


class OpenedStores:
    """The same over connections of its own, made when they are first needed.

    Args:
        redis_url, nats_url: of the brokers; ``None`` for one that is not asked.
        names: of the queue.
        stream: settings of the hook stream.
        clock: of leases.
        reads_only: over connections that refuse to write.
    """

    def __init__(
        self,
        redis_url: str | None,
        nats_url: str | None,
        names: Names,
        *,
        stream: StreamSettings,
        clock: Clock,
        reads_only: bool = False,
    ) -> None:
        connect = connect_reading_redis if reads_only else connect_redis
        self._reads_only = reads_only
        self._nats_url = nats_url
        self._names = names
        self._stream = stream
        self._clock = clock
        self._redis = connect(redis_url) if redis_url else None
        self._replicas = replicas_of(redis_url)
        self._transport: AppTransport | None = None
        self._both: BothStores | None = None

    async def _open(self) -> BothStores:
        if self._both is None:
            if self._nats_url:
                connect = connect_reading_nats if self._reads_only else AppTransport.connect
                self._transport = await connect(
                    self._nats_url, names=self._names, clock=self._clock
                )
            self._both = BothStores(
                self._redis,
                self._transport,
                names=self._names,
                stream=self._stream,
                clock=self._clock,
                replicas=self._replicas,
            )
        return self._both

    async def are_done(self, task_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
        """See ``BothStores``."""
        return await (await self._open()).are_done(task_ids)

    async def unmoved(self, target: Authority, *, whole: bool = True) -> Unmoved:
        """See ``BothStores``."""
        return await (await self._open()).unmoved(target, whole=whole)

    async def forget(self, task_ids: Collection[uuid.UUID]) -> int:
        """See ``BothStores``."""
        return await (await self._open()).forget(task_ids)

    async def close(self) -> None:
        """Disconnect."""
        if self._transport is not None:
            await self._transport.close()
        if self._redis is not None:
            await self._redis.aclose()
