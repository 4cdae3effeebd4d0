"""What a rehearsal has on its brokers: processes, pushes, observers and records."""

import asyncio
import dataclasses
import os
from pathlib import Path

from hookbench.cancellation import cancel
from hookbench.clock import Clock
from hookbench.errors import HookbenchError
from hookbench.faults.schedule import FaultSchedule
from hookbench.ledger.events import LedgerWriter
from hookbench.metrics.kept import METRICS_FOLDER
from hookbench.migration.phases import PhaseFile
from hookbench.rehearsal.arguments import hook_settings, worker_arguments
from hookbench.rehearsal.detours import Detours
from hookbench.rehearsal.fleet import MAX_RESTARTS, Fleet
from hookbench.rehearsal.gated import GatedChanges, open_changes
from hookbench.rehearsal.links import Links
from hookbench.rehearsal.observer import Observer
from hookbench.rehearsal.progress import Teller
from hookbench.rehearsal.pushes import Pusher, PushSettings
from hookbench.rehearsal.resources import ResourceMeter
from hookbench.rehearsal.scrapes import Scrapes
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.rehearsal.stage import Stage
from hookbench.rehearsal.targets import RunTargets
from hookbench.rehearsal.timeline import ENTER_TIMEOUT_S
from hookbench.results.samples import SAMPLES_NAME
from hookbench.results.store import RunFolder

__all__ = ["Equipment", "equip", "prepare"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Equipment:
    """One of each for a whole run; ``close`` ends what still runs.

    Attributes:
        control: folder of the phase files and of what procedures note.
        scrapes: of the processes, ``None`` where they serve no metrics.
        ledger: of the harness itself.
        changes: of phase by procedure, ``None`` where nobody asks gates.
    """

    stage: Stage
    links: Links
    control: Path
    fleet: Fleet
    scrapes: Scrapes | None
    pusher: Pusher
    observer: Observer
    meter: ResourceMeter
    ledger: LedgerWriter
    changes: GatedChanges | None
    faults: FaultSchedule

    def watch(self, folder: RunFolder) -> "list[asyncio.Future[None]]":
        """Begin to sample resources and depths, until that is cancelled."""
        return [
            asyncio.ensure_future(self.meter.record()),
            asyncio.ensure_future(self.observer.record(folder.path / SAMPLES_NAME)),
        ]

    async def close(self, *watching: "asyncio.Future[None]") -> None:
        """End every process, and disconnect."""
        self.fleet.kill_all()
        if self.scrapes is not None:
            self.scrapes.close()
        await self.pusher.stop_flushes()
        await cancel(*watching)
        self.ledger.close()
        await self.observer.close()
        if self.changes is not None:
            await self.changes.close()


def equip(
    settings: RehearsalSettings,
    folder: RunFolder,
    stage: Stage,
    links: Links,
    detours: Detours,
    *,
    clock: Clock,
    teller: Teller,
) -> Equipment:
    """What a run needs on brokers that are there; no process is started yet."""
    control = folder.work / "control"
    control.mkdir()
    scrapes = Scrapes(folder.path / METRICS_FOLDER) if settings.metrics else None
    fleet = Fleet(
        clock=clock,
        ledger=folder.ledger,
        logs=folder.logs,
        control=control,
        spare=MAX_RESTARTS + settings.expected_restarts,
        scrapes=scrapes,
    )
    meter = ResourceMeter(
        lambda: [
            *stage.processes(),
            *links.processes(),
            *detours.processes(),
            *fleet.processes(),
            ("harness", os.getpid()),
        ],
        clock,
    )
    ledger = LedgerWriter(folder.ledger, role="harness", writer=0, clock=clock)
    targets = RunTargets(stage, fleet, links, detours, clock=clock)
    return Equipment(
        stage=stage,
        links=links,
        control=control,
        fleet=fleet,
        scrapes=scrapes,
        pusher=Pusher(_push_settings(settings, folder), clock=clock),
        observer=Observer(stage.redis_url, stage.nats_url, stage.names, clock=clock),
        meter=meter,
        ledger=ledger,
        changes=open_changes(
            settings.effective_measures,
            stage,
            control,
            clock=clock,
            recorder=ledger,
            has_faults=bool(settings.faults),
            say=lambda text: teller.say(f"gate      {text}"),
        ),
        faults=FaultSchedule(settings.faults, targets, ledger),
    )


async def prepare(
    settings: RehearsalSettings, folder: RunFolder, equipment: Equipment, teller: Teller
) -> None:
    """Repositories with hooks, and workers that are ready.

    Raises:
        HookbenchError: a worker did not start; the text has the end of its log.
    """
    fleet, stage = equipment.fleet, equipment.stage
    for name in ("origins", "clones", "mirrors"):
        (folder.work / name).mkdir()
    hook_phase = equipment.control / "hooks.json"
    first = settings.phases[0]
    PhaseFile(hook_phase).write(0, first)
    await equipment.pusher.prepare(hook_settings(settings, stage, folder, hook_phase))
    for number in range(settings.workers):
        arguments = worker_arguments(settings, stage, equipment.links, folder)
        fleet.start("worker", number, arguments, (0, first))
    workers = fleet.of("worker")
    for member in workers:
        if not await fleet.wait_until_in(member, 0, ENTER_TIMEOUT_S):
            raise HookbenchError(f"{member.name} did not start: {fleet.log_tail(member)}")
    pids = ", ".join(str(member.child.pid) for member in workers)
    teller.say(f"workers   {len(workers)} processes: pid {pids}")


def _push_settings(settings: RehearsalSettings, folder: RunFolder) -> PushSettings:
    """Where the repositories of a run are, and how often they are pushed to."""
    return PushSettings(
        origins=folder.work / "origins",
        clones=folder.work / "clones",
        spool=folder.work / "spool.sqlite",
        repositories=settings.repositories,
        interval_s=settings.push_interval_s,
        count=settings.pushes,
        seed=settings.seed,
    )
