"""The producer of a phase over one process's connections."""

from contextlib import suppress

from hookbench.brokers.redis_memory import check_redis_memory
from hookbench.errors import BrokerUnreachableError
from hookbench.ledger.events import Recorder
from hookbench.migration.measures import NO_MEASURES, Measures
from hookbench.migration.metrics import HookMetrics
from hookbench.migration.phases import Phase, WriteRoute, write_route
from hookbench.migration.preflight import check_sync_interval
from hookbench.migration.producer import ReceiveSyncService
from hookbench.queues.connections import Connections
from hookbench.queues.transport import make_nats_publish
from hookbench.task import DEFAULT_TASK_LIMIT_BYTES, NATS_HEADER_ROOM_BYTES, Names

__all__ = ["open_service"]


async def open_service(
    phase: Phase,
    connections: Connections,
    names: Names,
    *,
    measures: Measures = NO_MEASURES,
    recorder: Recorder | None = None,
    metrics: HookMetrics | None = None,
) -> ReceiveSyncService:
    """The service that ``phase`` asks for; only the brokers of its constructor are connected.

    Its size limit is the smaller of the default and what the NATS server says that it takes.

    Raises:
        SettingError, BrokerUnreachableError, BrokerUnsuitableError, ConfigDriftError: see
            ``Connections``.
        BrokerUnsuitableError: with ``oom_claims``, a Redis that evicts.
    """
    publish = None
    limit_bytes = DEFAULT_TASK_LIMIT_BYTES
    if write_route(phase) is not WriteRoute.REDIS:
        if measures.synced_only:
            await check_sync_interval(connections)
        transport = await connections.nats()
        publish = make_nats_publish(transport)
        limit_bytes = min(limit_bytes, transport.max_payload_bytes - NATS_HEADER_ROOM_BYTES)
    pool = None if phase is Phase.NATS_ONLY else connections.redis()
    if measures.oom_claims and pool is not None and write_route(phase) is not WriteRoute.NATS:
        # One that does not answer evicts nothing; its writes fail by themselves.
        with suppress(BrokerUnreachableError):
            await check_redis_memory(connections.redis_url)
    service = ReceiveSyncService.for_phase(
        phase,
        pool=pool,
        nats_publish=publish,
        names=names,
        limit_bytes=limit_bytes,
        recorder=recorder,
        metrics=metrics,
    )
    if measures.replica_wait:
        service.replicas = connections.redis_replicas
    return service
