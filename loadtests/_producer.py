"""The asyncio side of publishing: ``ReceiveSyncService`` over one Locust process's connections."""

import contextlib
import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec
from _lanes import Lanes
from _protocol import LEDGER_FOLDER, ProducerTotals, Ticket

from hookbench.clock import Clock, SystemClock
from hookbench.errors import HookbenchError, SendError
from hookbench.ledger.boot import boot_id
from hookbench.ledger.events import Event, LedgerWriter
from hookbench.load.mix import ALL_PLAIN, parse_mix
from hookbench.load.payloads import parse_payload
from hookbench.load.repositories import Repositories
from hookbench.load.workload import Workload
from hookbench.migration.measures import Measures, measures_of
from hookbench.migration.outbox import Outbox
from hookbench.migration.outbox_file import OutboxFile, hold_outbox
from hookbench.migration.phases import Design, Phase, parse_phase
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import StreamSettings

if TYPE_CHECKING:
    from hookbench.migration.producer import ReceiveSyncService

__all__ = [
    "OUTBOX_NAMES",
    "Burst",
    "Outcome",
    "Producer",
    "PublishError",
    "producer_measures",
    "without_ids",
]

_REPOSITORIES = 100
_OUTBOX_NAME = "outbox-{}.sqlite"
OUTBOX_NAMES = _OUTBOX_NAME.format("*")
"""In the folder of a run: what was accepted and is not sent yet."""
_TASK_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class PublishError(HookbenchError):
    """What Locust shows of a task that was not acknowledged."""


def without_ids(error: Exception | None) -> Exception | None:
    """The error without task ids: Locust counts equal texts in one row."""
    return None if error is None else PublishError(_TASK_ID.sub("...", str(error)))


class Outcome(msgspec.Struct, frozen=True):
    """One publish: time from its intended moment to its outcome, and what went wrong if it did."""

    latency_ns: int
    payload_bytes: int
    error: HookbenchError | None


class Burst(msgspec.Struct, frozen=True):
    """What became of tasks that were sent at once; ``defect`` is of one that has no outcome."""

    outcomes: list[Outcome]
    defect: Exception | None


class Producer:
    """Publishes the tasks of one Locust process in one run. It imports no gevent."""

    def __init__(
        self,
        ticket: Ticket,
        connections: Connections,
        ledger: LedgerWriter,
        *,
        clock: Clock,
        measures: Measures,
        outbox: Outbox | None,
        closing: contextlib.AsyncExitStack,
    ) -> None:
        self._measures = measures
        self._outbox = outbox
        self._closing = closing
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
        self._lanes = Lanes(functools.partial(self.publish, 0))
        self.totals = ProducerTotals()

    @classmethod
    async def open(
        cls, ticket: Ticket, writer: int, *, clock: Clock | None = None, threads: bool = False
    ) -> Self:
        """Connect, and start a ledger with the number ``writer``.

        Args:
            ticket: of the run.
            writer: see above.
            clock: of everything.
            threads: whether the process has real ones, see ``producer_measures``.

        Raises:
            HookbenchError: no broker there, or the run's folder is not on this machine.
        """
        clock = clock or SystemClock()
        measures = producer_measures(ticket.options.design, threads=threads)
        folder = Path(ticket.folder)
        async with contextlib.AsyncExitStack() as closing:
            ledger = LedgerWriter(
                folder / LEDGER_FOLDER, role="producer", writer=writer, clock=clock
            )
            closing.callback(ledger.close)
            connections = Connections(
                redis_url=ticket.redis_url,
                nats_url=ticket.nats_url,
                names=ticket.names,
                clock=clock,
                stream=StreamSettings(storage=ticket.options.durability.stream_storage),
                measures=measures.nats,
                redis_kind=ticket.options.redis_kind,
            )
            closing.push_async_callback(connections.close)
            outbox = None
            if measures.outbox:
                path = folder / _OUTBOX_NAME.format(writer)
                closing.enter_context(hold_outbox(path))
                file = OutboxFile(path, boot_id=boot_id(), clock=clock)
                outbox = Outbox(file, clock=clock)
                closing.push_async_callback(outbox.close)
            producer = cls(
                ticket, connections, ledger, clock=clock, measures=measures, outbox=outbox,
                closing=closing,
            )  # fmt: skip
            await producer.enter(ticket.index, parse_phase(ticket.phase))
            producer._closing = closing.pop_all()
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
            measures=self._measures,
            recorder=self._ledger,
            outbox=self._outbox,
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

    async def publish_burst(self, count: int) -> Burst:
        """Send so many tasks at once; returns with the last outcome."""
        return Burst(*await self._lanes.run(count))

    def _count(self, error: HookbenchError | None) -> None:
        if error is None:
            self.totals.accepted += 1
        elif isinstance(error, SendError) and error.outcome == "unknown":
            self.totals.unknown += 1
        else:
            self.totals.refused += 1

    async def close(self) -> ProducerTotals:
        """Let the outbox send what it has, if it can; then close all."""
        self._lanes.close()
        if self._outbox is not None:
            self.totals.spooled = await self._outbox.drain()
        await self._closing.aclose()
        return self.totals


def producer_measures(design: Design, *, threads: bool) -> Measures:
    """Those of the design, without the outbox where there are no threads to write its disk.

    Locust replaces threads by greenlets of its own loop, and the bridge has another one.
    """
    measures = measures_of(design)
    return measures if threads else msgspec.structs.replace(measures, outbox=False)
