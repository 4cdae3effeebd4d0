"""The reference producer as a scenario uses it."""

from collections.abc import Sequence
from pathlib import Path

from hookbench.clock import NS_PER_S
from hookbench.errors import OversizeError, SendError
from hookbench.ledger.boot import boot_id
from hookbench.ledger.events import LedgerWriter
from hookbench.migration.measures import Measures
from hookbench.migration.outbox import Outbox, OutboxSettings
from hookbench.migration.outbox_file import OutboxFile
from hookbench.migration.phases import Phase
from hookbench.migration.producer import ReceiveSyncService
from hookbench.migration.publishing import PublishPatience
from hookbench.migration.service import open_service
from hookbench.migration.spool import Spool
from hookbench.migration.sweeper import SweeperSettings
from hookbench.queues.connections import Connections
from hookbench.task import HookTask, Names, task_id_of

__all__ = ["Producer", "fitting_patience", "open_producer"]

_PATIENCE_S = 1.0
_POLL_S = 0.01


class Producer:
    """The reference producer in this process, with a ledger of its own.

    Args:
        service: of its phase.
        ledger: records.
        connections: of the service.
        phase: that it writes in.
        hears: whether it changes its phase when a procedure tells all producers theirs.
        outbox: where its tasks are accepted, with that measure.
        patience: how long it tries a publish.
    """

    def __init__(
        self,
        service: ReceiveSyncService,
        ledger: LedgerWriter,
        connections: Connections,
        *,
        phase: Phase,
        outbox: Outbox | None = None,
        patience: PublishPatience | None = None,
        hears: bool = True,
    ) -> None:
        self.service = service
        self.ledger = ledger
        self.connections = connections
        self.outbox = outbox
        self._left: list[str] | None = None
        self.phase = phase
        self.hears = hears
        self.patience = patience

    async def send(self, task: HookTask) -> bool:
        """Put one task; whether the caller was told that it is accepted."""
        try:
            await self.service.send(task, intended_ns=0)
        except (SendError, OversizeError):
            return False
        return True

    async def send_all(self, tasks: Sequence[HookTask]) -> int:
        """Put tasks one after the other; how many were accepted.

        An outbox is given a moment to take them to the brokers, where what follows may look.
        """
        accepted = sum([await self.send(task) for task in tasks])
        clock = self.connections.clock
        deadline_ns = clock.monotonic_ns() + int(_PATIENCE_S * NS_PER_S)
        while not await self.swept() and clock.monotonic_ns() < deadline_ns:
            await clock.sleep(_POLL_S)
        return accepted

    async def swept(self) -> bool:
        """Whether the outbox is empty; without one there is nothing to wait for."""
        return self.outbox is None or self.outbox.idle

    async def stop(self) -> list[str]:
        """Empty the outbox as far as it goes in time, and end; ids of the tasks that are left."""
        if self._left is None:
            self._left = []
            if self.outbox is not None:
                await self.outbox.drain()
                await self.outbox.close()
                with Spool(self.outbox.file.path) as spool:
                    self._left = [str(task_id_of(task)) for task in spool.tasks()]
            self.ledger.close()
        return self._left

    async def close(self) -> None:
        """Disconnect, and end the ledger in order."""
        if self._left is None and self.outbox is not None:
            self._left = []
            await self.outbox.close()
        self.ledger.close()
        await self.connections.close()


def fitting_patience(duplicate_window_s: float) -> PublishPatience:
    """The usual one, or for a stream whose duplicate window is short one that suits it."""
    usual = PublishPatience()
    if usual.horizon_s < duplicate_window_s:
        return usual
    return PublishPatience(
        horizon_s=0.9 * duplicate_window_s,
        timeout_s=0.2 * duplicate_window_s,
        pause_s=0.1 * duplicate_window_s,
        pause_max_s=0.2 * duplicate_window_s,
    )


async def open_producer(
    phase: Phase,
    connections: Connections,
    names: Names,
    *,
    measures: Measures,
    ledger: LedgerWriter,
    spool: Path,
    patience: PublishPatience,
    hears: bool = True,
) -> Producer:
    """A producer of a phase; if it cannot be opened, ledger and connections are closed.

    Args:
        phase: the phase.
        connections: of the producer alone.
        names: of the queue.
        measures: those that are on.
        ledger: of the producer alone.
        spool: file of its outbox, with that measure.
        patience: how long it tries a publish, with ``message_ids``; of an outbox the pauses.
        hears: see ``Producer``.
    """
    outbox = None
    try:
        if measures.outbox:
            clock = connections.clock
            file = OutboxFile(spool, boot_id=boot_id(), clock=clock)
            sweeper = SweeperSettings(pause_s=patience.pause_s, pause_max_s=patience.pause_max_s)
            outbox = Outbox(file, clock=clock, settings=OutboxSettings(sweeper=sweeper))
        service = await open_service(
            phase,
            connections,
            names,
            measures=measures,
            recorder=ledger,
            outbox=outbox,
            patience=patience,
        )
    except BaseException:
        if outbox is not None:
            await outbox.close()
        ledger.close()
        await connections.close()
        raise
    return Producer(
        service,
        ledger,
        connections,
        phase=phase,
        outbox=outbox,
        patience=patience,
        hears=hears,
    )
