"""The reference producer as a scenario uses it."""

from collections.abc import Sequence

from hookbench.errors import OversizeError, SendError
from hookbench.ledger.events import LedgerWriter
from hookbench.migration.phases import Phase
from hookbench.migration.producer import ReceiveSyncService
from hookbench.queues.connections import Connections
from hookbench.task import HookTask

__all__ = ["Producer"]


class Producer:
    """The reference producer in this process, with a ledger of its own.

    Args:
        service: of its phase.
        ledger: records.
        connections: of the service.
        phase: that it writes in.
        hears: whether it changes its phase when a procedure tells all producers theirs.
    """

    def __init__(
        self,
        service: ReceiveSyncService,
        ledger: LedgerWriter,
        connections: Connections,
        *,
        phase: Phase,
        hears: bool = True,
    ) -> None:
        self.service = service
        self.ledger = ledger
        self.connections = connections
        self.phase = phase
        self.hears = hears

    async def send(self, task: HookTask) -> bool:
        """Put one task; whether the caller was told that it is accepted."""
        try:
            await self.service.send(task, intended_ns=0)
        except (SendError, OversizeError):
            return False
        return True

    async def send_all(self, tasks: Sequence[HookTask]) -> int:
        """Put tasks one after the other; how many were accepted."""
        return sum([await self.send(task) for task in tasks])

    async def close(self) -> None:
        """Disconnect, and end the ledger in order."""
        self.ledger.close()
        await self.connections.close()
