"""The producer of a phase over one process's connections."""

from hookbench.ledger.events import Recorder
from hookbench.migration.metrics import HookMetrics
from hookbench.migration.phases import Phase, WriteRoute, write_route
from hookbench.migration.producer import ReceiveSyncService
from hookbench.queues.connections import Connections
from hookbench.queues.transport import make_nats_publish
from hookbench.task import Names

__all__ = ["open_service"]


async def open_service(
    phase: Phase,
    connections: Connections,
    names: Names,
    *,
    recorder: Recorder | None = None,
    metrics: HookMetrics | None = None,
) -> ReceiveSyncService:
    """The service that ``phase`` asks for; only the brokers of its constructor are connected.

    Raises:
        SettingError, BrokerUnreachableError, BrokerUnsuitableError, ConfigDriftError: see
            ``Connections``.
    """
    publish = None
    if write_route(phase) is not WriteRoute.REDIS:
        publish = make_nats_publish(await connections.nats())
    pool = None if phase is Phase.NATS_ONLY else connections.redis()
    return ReceiveSyncService.for_phase(
        phase, pool=pool, nats_publish=publish, names=names, recorder=recorder, metrics=metrics
    )
