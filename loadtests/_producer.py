"""The asyncio side of publishing: ``ReceiveSyncService`` over one Locust process's connections."""

from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec
from _protocol import LEDGER_FOLDER, ProducerTotals, Ticket

from hookbench.clock import Clock, SystemClock
from hookbench.errors import HookbenchError, SendError
from hookbench.ledger.events import Event, LedgerWriter
from hookbench.load.mix import ALL_PLAIN, parse_mix
from hookbench.load.payloads import parse_payload
from hookbench.load.repositories import Repositories
from hookbench.load.workload import Workload
from hookbench.migration.measures import Measures, measures_of
from hookbench.migration.phases import Design, Phase, parse_phase
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import StreamSettings

if TYPE_CHECKING:
    from hookbench.migration.producer import ReceiveSyncService

__all__ = ["Outcome", "Producer", "producer_measures"]

_REPOSITORIES = 100


class Outcome(msgspec.Struct, frozen=True):
    """One publish: time from its intended moment to its outcome, and what went wrong if it did."""

    latency_ns: int
    payload_bytes: int
    error: HookbenchError | None


class Producer:
    """Publishes the tasks of one Locust process in one run. It imports no gevent."""

    def __init__(
        self,
        ticket: Ticket,
        connections: Connections,
        ledger: LedgerWriter,
        *,
        clock: Clock,
    ) -> None:
        self._ticket = ticket
        self._service: ReceiveSyncService | None = None
        self._connections = connections
        self._ledger = ledger
        self._clock = clock
        self._tasks = Workload(
            task_type="sync",
            mix=parse_mix(ALL_PLAIN),
            payloads=parse_payload(ticket.options.payload),
            repositories=Repositories(_REPOSITORIES),
            clock=clock,
            seed=f"{ticket.run}:{ledger.writer}",
        )
        self.totals = ProducerTotals()

    @classmethod
    async def open(cls, ticket: Ticket, writer: int) -> Self:
        """Connect, and start a ledger with the number ``writer``.

        Raises:
            HookbenchError: no broker there, or the run's folder is not on this machine.
        """
        clock = SystemClock()
        connections = Connections(
            redis_url=ticket.redis_url,
            nats_url=ticket.nats_url,
            names=ticket.names,
            clock=clock,
            stream=StreamSettings(storage=ticket.options.durability.stream_storage),
        )
        ledger = LedgerWriter(
            Path(ticket.folder) / LEDGER_FOLDER, role="producer", writer=writer, clock=clock
        )
        producer = cls(ticket, connections, ledger, clock=clock)
        try:
            await producer.enter(ticket.index, parse_phase(ticket.phase))
        except BaseException:
            await producer.close()
            raise
        return producer

    async def enter(self, index: int, phase: Phase) -> None:
        """Publish as a phase has it from now on; tasks that are on their way keep the old one.

        Raises:
            HookbenchError: the brokers of the phase cannot be had; the phase stays what it was.
        """
        self._service = await open_service(
            phase,
            self._connections,
            self._ticket.names,
            measures=producer_measures(self._ticket.options.design),
            recorder=self._ledger,
        )
        self._ledger.phase = index
        self._ledger.record(Event.PHASE, value=index)

    async def publish(self, intended_ns: int) -> Outcome:
        """Send one task; ``intended_ns`` is when it was due (monotonic), 0 for now."""
        service = self._service
        if service is None:
            raise HookbenchError("no phase was entered")
        task = self._tasks(self.totals.offered)
        self.totals.offered += 1
        start_ns = intended_ns or self._clock.monotonic_ns()
        error: HookbenchError | None = None
        try:
            await service.send(task, intended_ns=intended_ns)
        except HookbenchError as refusal:
            error = refusal
        latency_ns = self._clock.monotonic_ns() - start_ns
        self._count(error)
        return Outcome(latency_ns, len(task.payload["filling"]), error)

    def _count(self, error: HookbenchError | None) -> None:
        if error is None:
            self.totals.accepted += 1
        elif isinstance(error, SendError) and error.outcome == "unknown":
            self.totals.unknown += 1
        else:
            self.totals.refused += 1

    async def close(self) -> ProducerTotals:
        """Close ledger and connections."""
        self._ledger.close()
        await self._connections.close()
        return self.totals


def producer_measures(design: Design) -> Measures:
    """Those of the design but for the outbox, whose disk is written by a thread.

    Locust replaces threads by greenlets of its own loop, and this one is another.
    """
    return msgspec.structs.replace(measures_of(design), outbox=False)
