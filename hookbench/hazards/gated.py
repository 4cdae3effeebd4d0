"""Phases of a scenario entered by procedure, through their gates."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hookbench import __version__
from hookbench.migration.announcements import announcement_of
from hookbench.migration.checks import GateBounds
from hookbench.migration.phases import Phase
from hookbench.migration.reconcile import Patience
from hookbench.migration.service import open_service
from hookbench.migration.snapshot import Announcement
from hookbench.rehearsal.fleet import Member
from hookbench.rehearsal.gated import GatedChanges, open_done_stores

if TYPE_CHECKING:
    from hookbench.hazards.bench import Bench

__all__ = ["enter_by_procedure"]

# A gate waits for the claim of a worker that died: longer than its lease.
_PATIENCE = Patience(gate_s=14.0, ask_every_s=0.2, announce_s=4.0, drain_s=8.0, work_s=1.0)
_BOUNDS = GateBounds(settle_s=0.2)
"""A scenario puts its tasks one after the other, and looks when the last is acknowledged."""


class _BenchFleet:
    """The producers and workers of a scenario, some of which may not hear."""

    def __init__(self, bench: "Bench", workers: Sequence[Member] | None) -> None:
        self._bench = bench
        self._hearing = None if workers is None else [member.name for member in workers]

    def _workers(self) -> list[Member]:
        return [item for item in self._bench.fleet.of("worker") if not item.expected_end]

    async def enter(self, role: str, phase: Phase) -> None:
        """Processes by their phase files, the producers of this process by another service."""
        bench = self._bench
        if role == "worker":
            for member in self._workers():
                if self._hearing is None or member.name in self._hearing:
                    bench.fleet.enter(member, len(bench.phases) - 1, phase)
            return
        for producer in bench.producers:
            if producer.hears and producer.phase is not phase:
                producer.service = await open_service(
                    phase,
                    producer.connections,
                    bench.names,
                    measures=bench.measures,
                    recorder=producer.ledger,
                    outbox=producer.outbox,
                    patience=producer.patience,
                )
                producer.phase = phase

    async def not_in(self, role: str, phase: Phase) -> list[str]:
        """Those that are in another phase."""
        return [
            item.name for item in self.announcements() if item.role == role and item.phase != phase
        ]

    async def refresh(self) -> None:
        """They are polled when they are asked."""

    def announcements(self) -> list[Announcement]:
        """Of all that are there; a producer of this process cannot but say where it is."""
        self._bench.fleet.poll()
        workers = [
            found
            for member in self._workers()
            if (found := announcement_of(member.name, "worker", member.said)) is not None
        ]
        producers = [
            Announcement(
                name=f"producer-{number}",
                role="producer",
                phase=producer.phase,
                version=__version__,
                measures=self._bench.measures.text,
            )
            for number, producer in enumerate(self._bench.producers)
        ]
        return workers + producers


async def enter_by_procedure(
    bench: "Bench", phase: Phase, *, workers: Sequence[Member] | None
) -> None:
    """Go from the current phase to the next one.

    Args:
        bench: whose processes and brokers.
        phase: the next one.
        workers: those that hear of it, all by default.

    Raises:
        HeldBackError: a gate says no, or a process does not follow.
    """
    source = bench.phases[-1]
    bench.begin(phase)
    ledger = bench.open_ledger("procedure")
    changes = GatedChanges(
        bench.topology.redis_url,
        bench.topology.nats_url,
        bench.names,
        stream=bench.stream,
        clock=bench.clock,
        folder=bench.folder / "control",
        open_stores=open_done_stores(bench.measures, bench.stream, bench.clock),
        bounds=_BOUNDS,
        patience=_PATIENCE,
        recorder=ledger,
        say=bench.note,
    )
    try:
        await changes.change(len(bench.phases) - 1, source, phase, _BenchFleet(bench, workers))
    finally:
        await changes.close()
        ledger.close()
