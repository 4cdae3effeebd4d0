"""The parts of a worker that its measures ask for, over the connections of one process."""

import logging
from typing import NamedTuple

import msgspec

from hookbench.clock import Clock
from hookbench.ids import Entropy
from hookbench.ledger.events import Recorder
from hookbench.migration.done_store import (
    Authority,
    DoneStore,
    MovingStore,
    authority_of,
    retention_s,
)
from hookbench.migration.joint_store import JointStore
from hookbench.migration.measures import Measures
from hookbench.migration.phases import Phase, ReadRoute, read_route
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import ConsumerSettings, StreamSettings
from hookbench.queues.kv_bucket import ensure_bucket
from hookbench.queues.kv_done_store import KvDoneStore
from hookbench.queues.redis_done_store import RedisDoneStore
from hookbench.task import Names
from hookbench.worker.claims import Claims, ClaimSettings
from hookbench.worker.heartbeats import Heart
from hookbench.worker.limits import WorkerTotals
from hookbench.worker.protections import Protections
from hookbench.worker.retries import NakDelays
from hookbench.worker.trimming import Trimmer

__all__ = ["MeasureSettings", "MeasuredParts", "consumer_of"]

_log = logging.getLogger(__name__)

_OWNER_BITS = 64
_ORDERED_TYPE = "sync"
"""The one type of which a later task covers an earlier one: it mirrors the whole repository."""


class MeasureSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of what the measures do.

    Attributes:
        authority: of claims and done-records; by default as the phase has it.
        claims: leases and waits.
        nak_delays: of a task that failed.
    """

    authority: Authority | None = None
    claims: ClaimSettings = msgspec.field(default_factory=ClaimSettings)
    nak_delays: NakDelays = msgspec.field(default_factory=NakDelays)


def consumer_of(settings: ConsumerSettings, measures: Measures) -> ConsumerSettings:
    """The consumer of a worker that counts attempts itself gives no task up.

    Nor does that of one that claims: a delivery that is given back since another worker has the
    task is no attempt, and would use up the consumer's bound.
    """
    if not (measures.own_attempts or _claims(measures)):
        return settings
    return msgspec.structs.replace(settings, max_deliver=-1)


def _claims(measures: Measures) -> bool:
    """Whether tasks are claimed: the order of a repository is kept by the same authority."""
    return measures.done_store or measures.repository_order


class _Side(NamedTuple):
    """A store, and the same with the others told what is completed there."""

    store: RedisDoneStore | KvDoneStore
    moving: MovingStore


class MeasuredParts:
    """Makes the protections of each phase, and closes what has to be closed."""

    def __init__(
        self,
        measures: Measures,
        settings: MeasureSettings,
        connections: Connections,
        *,
        names: Names,
        task_type: str,
        stream: StreamSettings,
        ack_wait_s: float,
        clock: Clock,
        entropy: Entropy,
        recorder: Recorder | None = None,
    ) -> None:
        self._measures = measures
        self._settings = settings
        self._connections = connections
        self._names = names
        self._task_type = task_type
        self._stream = stream
        self._clock = clock
        self._entropy = entropy
        self._recorder = recorder
        self._claims: dict[Authority, Claims] = {}
        self._owner = f"{entropy.getrandbits(_OWNER_BITS):016x}"
        self._asked: Authority | None = None
        self._stores: dict[Authority, _Side] = {}
        self._joint: JointStore | None = None
        self._trimmer: Trimmer | None = None
        self._heart: Heart | None = None
        if measures.heartbeats:
            lease_s = settings.claims.lease_s if _claims(measures) else ack_wait_s
            self._heart = Heart(min(lease_s, ack_wait_s), clock)

    async def of(self, phase: Phase, *, has_redis: bool) -> Protections:
        """What protects a worker in a phase.

        Args:
            phase: the phase.
            has_redis: whether the process knows a Redis.

        Raises:
            SettingError, BrokerUnreachableError, BrokerUnsuitableError, ConfigDriftError: the
                authority cannot be used.
        """
        measures = self._measures
        has_redis = has_redis and phase is not Phase.NATS_ONLY
        if not has_redis:
            # The gate of that phase has seen that Redis holds no task.
            await self._close_trimmer(look=not measures.gates)
        elif measures.trim and read_route(phase) is not ReadRoute.REDIS:
            if self._trimmer is None:
                self._trimmer = Trimmer(
                    self._connections.redis(),
                    names=self._names,
                    task_type=self._task_type,
                    clock=self._clock,
                )
            self._trimmer.reopen()
        return Protections(
            claims=await self._claims_of(phase) if _claims(measures) else None,
            heart=self._heart,
            nak_delays=self._settings.nak_delays if measures.growing_nak else None,
            entropy=self._entropy,
            own_attempts=measures.own_attempts or _claims(measures),
            trim=self._trimmer.trim if has_redis and self._trimmer is not None else None,
        )

    async def store_of(self, phase: Phase) -> DoneStore | None:
        """The authority of a phase; ``None`` without ``done_store``.

        Raises:
            SettingError, BrokerUnreachableError, BrokerUnsuitableError, ConfigDriftError: it
                cannot be used.
        """
        if not self._measures.done_store:
            return None
        return await self._store(authority_of(phase, self._settings.authority))

    async def _claims_of(self, phase: Phase) -> Claims:
        authority = authority_of(phase, self._settings.authority)
        store = await self._store(authority)
        if authority is not self._asked:
            await self._change_authority(authority)
        claims = self._claims.get(authority)
        if claims is None:
            claims = self._claims[authority] = Claims(
                store,
                owner=self._owner,
                clock=self._clock,
                settings=self._settings.claims,
                recorder=self._recorder,
                ordered_type=_ORDERED_TYPE if self._measures.repository_order else None,
            )
        return claims

    async def _change_authority(self, authority: Authority) -> None:
        """What ends under claims that are still held is told to whoever is asked from now on.

        Records go along too, but with ``gates`` that is for the procedure to do: once, and not by
        each worker.
        """
        redis, kv = self._stores.get(Authority.REDIS), self._stores.get(Authority.NATS)
        if redis is not None and kv is not None:
            if not self._measures.gates and self._asked is not None:
                if authority is Authority.NATS:
                    moved = await redis.moving.hand_over(kv.store)
                    _log.info("the authority moves to JetStream: %s", moved)
                elif authority is Authority.REDIS:
                    moved = await kv.moving.hand_over(redis.store)
                    _log.info("the authority moves to Redis: %s", moved)
            redis.moving.tell(*([] if authority is Authority.REDIS else [kv.store]))
            kv.moving.tell(*([] if authority is Authority.NATS else [redis.store]))
        self._asked = authority

    @property
    def _replicas(self) -> int:
        return self._connections.redis_replicas if self._measures.replica_wait else 0

    async def _store(self, authority: Authority) -> DoneStore:
        """The same one for whoever asks: what is told to another authority is told by this one."""
        if authority is not Authority.BOTH:
            return (await self._side(authority)).moving
        if self._joint is None:
            redis, kv = [
                (await self._side(side)).store for side in (Authority.REDIS, Authority.NATS)
            ]
            assert isinstance(redis, RedisDoneStore)
            assert isinstance(kv, KvDoneStore)
            self._joint = JointStore(redis, kv)
        return self._joint

    async def _side(self, authority: Authority) -> _Side:
        side = self._stores.get(authority)
        if side is None:
            store = await (self._redis() if authority is Authority.REDIS else self._kv())
            side = self._stores[authority] = _Side(store, MovingStore(store))
        return side

    async def _redis(self) -> RedisDoneStore:
        return RedisDoneStore(
            self._connections.redis(),
            names=self._names,
            retention_s=retention_s(self._stream.max_age_s),
            replicas=self._replicas,
        )

    async def _kv(self) -> KvDoneStore:
        transport = await self._connections.nats()
        direct = await ensure_bucket(
            transport,
            retention_s=retention_s(self._stream.max_age_s),
            storage=self._stream.storage,
            replicas=self._stream.replicas,
        )
        return KvDoneStore(transport, clock=self._clock, direct=direct)

    def count(self, totals: WorkerTotals) -> None:
        """Add what happens beside the worker's loop."""
        if self._trimmer is not None:
            totals.trimmed, totals.untrimmed = self._trimmer.trimmed, self._trimmer.missed

    async def _close_trimmer(self, *, look: bool = True) -> None:
        if self._trimmer is not None:
            await self._trimmer.close(look=look)

    async def close(self) -> None:
        """Finish what happens beside the worker's loop; the connections must still be open."""
        await self._close_trimmer()
