"""The producer of a phase over one process's connections."""

from contextlib import suppress

from hookbench.brokers.redis_memory import check_redis_memory
from hookbench.errors import BrokerUnreachableError, SettingError
from hookbench.ledger.events import Recorder
from hookbench.migration.measures import NO_MEASURES, Measures
from hookbench.migration.metrics import HookMetrics
from hookbench.migration.outbox import Outbox
from hookbench.migration.phases import Phase, WriteRoute, check_redis_kind, write_route
from hookbench.migration.preflight import check_sync_interval
from hookbench.migration.producer import ReceiveSyncService
from hookbench.migration.publishing import PatientPublish, PublishPatience, check_pauses
from hookbench.queues.base import NatsPublishFn
from hookbench.queues.connections import Connections
from hookbench.queues.transport import HeadersFn, make_nats_publish
from hookbench.task import DEFAULT_TASK_LIMIT_BYTES, NATS_HEADER_ROOM_BYTES, Names
from hookbench.trace_context import trace_headers

__all__ = ["open_service"]


async def open_service(
    phase: Phase,
    connections: Connections,
    names: Names,
    *,
    measures: Measures = NO_MEASURES,
    recorder: Recorder | None = None,
    metrics: HookMetrics | None = None,
    outbox: Outbox | None = None,
    patience: PublishPatience | None = None,
    traced: bool = False,
) -> ReceiveSyncService:
    """The service that ``phase`` asks for; only the brokers of its constructor are connected.

    Its size limit is the smaller of the default and what the NATS server says that it takes.

    Args:
        phase: the phase.
        connections: of this process.
        names: of the queue.
        measures: those that are on.
        recorder: of what happens to tasks.
        metrics: counters.
        outbox: of this process, which goes over to the new service; needed with that measure.
        patience: how long a publish is tried, with ``message_ids``.
        traced: tasks carry the context of a trace, which is a header of NATS then.

    Raises:
        SettingError: a retry would come after the duplicate window; the phase does not go with
            the kind of queue on Redis; or as below.
        BrokerUnreachableError, BrokerUnsuitableError, ConfigDriftError: see ``Connections``.
        BrokerUnsuitableError: with ``oom_claims``, a Redis that evicts.
        SpoolError: the outbox cannot be read.
    """
    check_redis_kind(connections.redis_kind, phase)
    if measures.outbox and outbox is None:
        raise SettingError("the measure outbox needs a spool: give --spool")
    outbox = outbox if measures.outbox else None
    publish = None
    limit_bytes = DEFAULT_TASK_LIMIT_BYTES
    if write_route(phase) is not WriteRoute.REDIS:
        publish = await _open_publish(
            connections,
            measures,
            outbox,
            patience or PublishPatience(),
            recorder,
            trace_headers if traced else None,
        )
        room = (await connections.nats()).max_payload_bytes - NATS_HEADER_ROOM_BYTES
        limit_bytes = min(limit_bytes, room)
    pool = None if phase is Phase.NATS_ONLY else connections.redis()
    if measures.oom_claims and pool is not None and write_route(phase) is not WriteRoute.NATS:
        # One that does not answer evicts nothing; its writes fail by themselves.
        with suppress(BrokerUnreachableError):
            await check_redis_memory(connections.redis_url, dialer=connections.dialer)
    service = ReceiveSyncService.for_phase(
        phase,
        pool=pool,
        nats_publish=publish,
        names=names,
        limit_bytes=limit_bytes,
        recorder=recorder,
        metrics=metrics,
    )
    service.redis_kind = connections.redis_kind
    if measures.replica_wait:
        service.replicas = connections.redis_replicas
    if outbox is not None:
        service.outbox = outbox
        await outbox.enter(service)
    return service


async def _open_publish(
    connections: Connections,
    measures: Measures,
    outbox: Outbox | None,
    patience: PublishPatience,
    recorder: Recorder | None,
    headers: HeadersFn | None,
) -> NatsPublishFn:
    """How tasks are published, by the measures."""
    if measures.synced_only:
        await check_sync_interval(connections)
    if measures.message_ids:
        patience.check(connections.duplicate_window_s)
    if outbox is not None:
        check_pauses(patience, outbox.pause_max_s, connections.duplicate_window_s)
    transport = await connections.nats()
    if not (measures.message_ids or measures.outbox):
        return make_nats_publish(transport, headers=headers)
    publish = make_nats_publish(
        transport, message_ids=True, timeout_s=patience.timeout_s, headers=headers
    )
    if outbox is not None:
        return publish
    return PatientPublish(publish, patience, clock=connections.clock, recorder=recorder)
