"""``nats_consume`` of a worker whose consumer may be another one tomorrow."""

from hookbench.errors import BrokerUnreachableError
from hookbench.queues.base import AckFn, NatsConsumeFn
from hookbench.queues.connections import Connections
from hookbench.queues.transport import AppTransport
from hookbench.queues.watermark import EndedFn

__all__ = ["make_epoch_consume"]


def make_epoch_consume(
    connections: Connections,
    transport: AppTransport,
    task_type: str,
    *,
    wait_s: float,
    ended: EndedFn | None,
) -> NatsConsumeFn:
    """As ``make_nats_consume``; a read that fails looks for the epoch of the fleet.

    So a worker whose consumer was deleted moves to a new epoch, and those beside it follow; a
    failure that another epoch does not explain is raised.
    """

    async def nats_consume(subject: str, batch: int) -> list[tuple[bytes, AckFn]]:
        try:
            messages = await transport.pull(subject, batch, wait_s)
        except BrokerUnreachableError:
            if not transport.client.is_connected:
                raise
            if not await connections.rejoin(task_type, ended=ended):
                raise
            messages = await transport.pull(subject, batch, wait_s)
        return [(message.payload, message) for message in messages]

    return nats_consume
