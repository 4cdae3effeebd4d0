"""One rehearsal: start, timeline, drain, account, verdict."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import msgspec

from hookbench.cancellation import cancel, raise_if_cancelled
from hookbench.clock import Clock
from hookbench.errors import BrokerUnreachableError, HookbenchError
from hookbench.ledger.model import Verdict
from hookbench.migration.phases import PhaseFile, ReadRoute, read_route
from hookbench.rehearsal.conclude import conclude
from hookbench.rehearsal.configured import compare_brokers, record_brokers
from hookbench.rehearsal.detours import Detours
from hookbench.rehearsal.done_stores import OpenedStores
from hookbench.rehearsal.equipment import Equipment, equip, prepare
from hookbench.rehearsal.fleet import Fleet
from hookbench.rehearsal.links import Links, open_links
from hookbench.rehearsal.progress import Teller
from hookbench.rehearsal.room import check_room, hold_reserve, watch_room
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.rehearsal.stage import Stage, open_stage, utc_now_label
from hookbench.rehearsal.targets import check_targets
from hookbench.rehearsal.timeline import PULSE_S, Timeline
from hookbench.results.check import verdict_of
from hookbench.results.environment import read_environment
from hookbench.results.steps import plan_steps
from hookbench.results.store import (
    MANIFEST_NAME,
    MANIFEST_SCHEMA,
    Incident,
    Manifest,
    RunFolder,
    StepRecord,
    create_run,
    write_aside,
)
from hookbench.secrets import redact

__all__ = ["Rehearsal"]

_STOP_TIMEOUT_S = 30.0
_FLUSH_TIMEOUT_S = 30.0
SCENARIO_NAME = "scenario.toml"
_RESERVE_NAME = "reserve"
_PROXY_STATS_NAME = "proxy_stats.json"


class Rehearsal:
    """Carries out one rehearsal; ``run`` may be cancelled at any await, and tidies up.

    Args:
        settings: what to carry out.
        clock: of everything in this process.
        teller: is told how it goes.
        scenario_toml: the resolved scenario, to be kept with the run.
    """

    def __init__(
        self,
        settings: RehearsalSettings,
        *,
        clock: Clock,
        teller: Teller,
        scenario_toml: str | None = None,
    ) -> None:
        settings.check()
        self._scenario_toml = scenario_toml
        self._settings = settings
        self._clock = clock
        self._teller = teller
        self._steps = plan_steps(settings.phases)
        self._records: list[StepRecord] = []
        self._unknown: list[str] = []
        self._incidents: list[Incident] = []
        self._begun = False
        self.folder: Path | None = None
        """Where the run is stored, once it has a folder."""

    async def run(self) -> tuple[Path, Manifest]:
        """The folder and the manifest of the finished run.

        Raises:
            HookbenchError: it was refused, and left nothing behind, or could not be carried on.
            asyncio.CancelledError: it was cut off; the folder is kept, and marked so.
        """
        settings = self._settings
        check_room(settings.out, processes=1 + settings.producers + settings.workers)
        environment = read_environment()
        folder = create_run(settings.out, environment.commit)
        manifest = Manifest(
            schema=MANIFEST_SCHEMA,
            run=folder.name,
            status="running",
            design=settings.design,
            seed=settings.seed,
            durability=settings.durability,
            settings=_plain_settings(settings),
            environment=environment,
            started=utc_now_label(self._clock.wall_ns()),
            brokers=[],
        )
        try:
            async with watch_room(folder.path, self._clock):
                hold_reserve(folder.work / _RESERVE_NAME)
                folder.save(manifest)
                if self._scenario_toml is not None:
                    write_aside(folder.path / SCENARIO_NAME, self._scenario_toml.encode())
                await self._carry_out(folder, manifest)
                manifest.status = "complete"
                folder.save(manifest)
        except BaseException as error:
            if self._begun or not isinstance(error, HookbenchError):
                self._keep(folder, manifest, error)
            else:  # refused before anything was done: there is nothing to keep
                shutil.rmtree(folder.path, ignore_errors=True)
            raise
        self._tidy(folder)
        self.folder = folder.finish()
        return self.folder, manifest

    def _keep(self, folder: RunFolder, manifest: Manifest, error: BaseException) -> None:
        """Store a run that was cut off, and what it knows that takes little room.

        Where there is no room even for that, the folder keeps the name of a run being made.
        """
        reason = str(error) if isinstance(error, HookbenchError) else _plain_name(error)
        if isinstance(error.__cause__, Exception):
            self._add_incident(_plain_name(error.__cause__))
        cut_off = msgspec.structs.replace(
            manifest,
            status="cut off",
            verdict=Verdict.UNKNOWN,
            unknown_because=[f"cut off: {reason}"],
            steps=self._records,
            incidents=self._incidents,
            account=None,
            residue=None,
            git=None,
        )
        self._tidy(folder)
        try:
            folder.save(cut_off)
            self.folder = folder.finish()
        except OSError as problem:
            self._teller.say(f"the run stays as it is in {folder.path}: {problem}")
            if not (folder.path / MANIFEST_NAME).exists():
                shutil.rmtree(folder.path, ignore_errors=True)

    def _tidy(self, folder: RunFolder) -> None:
        (folder.work / _RESERVE_NAME).unlink(missing_ok=True)
        if not self._settings.keep:
            shutil.rmtree(folder.work, ignore_errors=True)

    async def _carry_out(self, folder: RunFolder, manifest: Manifest) -> None:
        settings = self._settings
        detours = Detours(settings.faults, settings.topology)
        try:
            stage = await detours.start(
                asyncio.ensure_future(self._open_stage(folder, detours)),
                folder.logs,
                clock=self._clock,
            )
            await self._on_brokers(folder, manifest, stage, detours)
        finally:
            await detours.close()

    async def _open_stage(self, folder: RunFolder, detours: Detours) -> Stage:
        settings = self._settings
        return await open_stage(
            settings.redis_url,
            settings.nats_url,
            folder=folder.work,
            durability=settings.durability,
            own_names=settings.own_names,
            allow_existing=settings.allow_existing,
            run=folder.name,
            nats_monitor_url=settings.nats_monitor_url,
            topology=settings.topology,
            addresses=detours.addresses,
            replication=detours.replication,
        )

    async def _on_brokers(
        self, folder: RunFolder, manifest: Manifest, stage: Stage, detours: Detours
    ) -> None:
        settings = self._settings
        manifest.brokers = stage.lines
        try:
            raise_if_cancelled()
            await record_brokers(manifest, stage)
            for line in stage.lines:
                self._teller.say(f"brokers   {line}")
            self._teller.say(
                f"run       {folder.name}  design {settings.design}  seed {settings.seed}"
                f"  {settings.rate_per_s:,.0f} tasks/s + pushes into {settings.repositories}"
                " repositories"
            )
            check_targets(settings.faults, settings, stage)
            for fault in settings.faults:
                self._teller.say(f"planned   {fault.when:>7}  {fault.name}")
            links = await open_links(settings.faults, stage, folder.logs, clock=self._clock)
            try:
                await self._on_stage(folder, manifest, stage, links, detours)
            finally:
                await links.close()
        finally:
            self._teller.close()
            stage.close()

    async def _on_stage(
        self, folder: RunFolder, manifest: Manifest, stage: Stage, links: Links, detours: Detours
    ) -> None:
        settings = self._settings
        self._begun = True
        equipment = equip(
            settings, folder, stage, links, detours, clock=self._clock, teller=self._teller
        )
        changes, faults = equipment.changes, equipment.faults
        manifest.gates = [] if changes is None else changes.records
        manifest.faults = faults.records
        timeline = Timeline(
            settings,
            self._steps,
            clock=self._clock,
            teller=self._teller,
            fleet=equipment.fleet,
            pusher=equipment.pusher,
            observer=equipment.observer,
            control=equipment.control,
            note=self._note,
            changes=changes,
        )
        self._records = timeline.records
        watching = equipment.watch(folder)
        try:
            await prepare(settings, folder, equipment, self._teller)
            try:
                await timeline.run(stage, links, equipment.ledger, faults)
            finally:
                await faults.heal()
            self._unknown += [*faults.unknown(), *await links.troubles()]
            await links.keep_stats(folder.logs / _PROXY_STATS_NAME)
            await self._drain(equipment)
            await self._settle(stage)
            await cancel(*watching)
            if equipment.scrapes is not None:
                equipment.scrapes.close()
                self._unknown += [f"metrics: {line}" for line in equipment.scrapes.failures]
            equipment.ledger.close()
            equipment.meter.read()
            manifest.resources = equipment.meter.uses()
            await self._conclude(folder, manifest, equipment)
            if stage.foreign and settings.own_names:
                await equipment.observer.remove_own_data()
        finally:
            await equipment.close(*watching)
            self._incidents += equipment.fleet.incidents

    async def _conclude(self, folder: RunFolder, manifest: Manifest, equipment: Equipment) -> None:
        """From what was recorded to the verdict."""
        fleet, settings = equipment.fleet, self._settings
        manifest.steps = self._records
        manifest.incidents = [*self._incidents, *fleet.incidents]
        stage = equipment.stage
        stores = OpenedStores(
            stage.redis_url, stage.nats_url, stage.names, stream=stage.stream, clock=self._clock
        )
        try:
            self._unknown += await conclude(
                folder,
                manifest,
                fleet,
                equipment.pusher,
                equipment.observer,
                settings,
                ended=stores.are_done if settings.effective_measures.done_store else None,
            )
        finally:
            await stores.close()
        if manifest.metrics is not None:
            self._teller.say(f"metrics   {manifest.metrics.line}")
        self._unknown += await compare_brokers(manifest, stage)
        manifest.unknown_because = self._unknown
        manifest.verdict = verdict_of(manifest)

    def _note(self, text: str) -> None:
        """Something that happened and makes the verdict unknown."""
        self._add_incident(text)
        self._unknown.append(text)

    def _add_incident(self, text: str) -> None:
        self._incidents.append(Incident(time_ns=self._clock.monotonic_ns(), what=text))

    async def _drain(self, equipment: Equipment) -> None:
        """Nothing is written any more: wait until what the workers read is empty."""
        fleet = equipment.fleet
        left = await equipment.pusher.wait_until_flushed(_FLUSH_TIMEOUT_S)
        if left:
            self._note(f"{left} pushed tasks could not be flushed in {_FLUSH_TIMEOUT_S:.0f} s")
        # A rehearsal that is held back ends in an earlier phase than the last one.
        _step, phase = PhaseFile(fleet.of("worker")[0].phase_file).read()
        reads_nats = read_route(phase) is not ReadRoute.REDIS
        watching = asyncio.ensure_future(self._keep_polling(fleet))
        try:
            problem = await equipment.observer.drain(
                reads_redis=not reads_nats,
                reads_nats=reads_nats,
                timeout_s=self._settings.drain_timeout_s,
            )
        finally:
            await cancel(watching)
        if problem is not None:
            self._note(problem)
        killed = await fleet.stop(fleet.of("worker"), _STOP_TIMEOUT_S)
        for member in killed:
            self._note(f"{member.name} did not stop by itself and was killed")

    async def _settle(self, stage: Stage) -> None:
        """What is read back and what is left is asked of whole brokers."""
        try:
            await stage.wait_until_ready()
        except BrokerUnreachableError as error:
            self._note(f"a broker is not whole again: {error}")

    async def _keep_polling(self, fleet: Fleet) -> None:
        while True:
            fleet.poll()
            await self._clock.sleep(PULSE_S)


def _plain_settings(settings: RehearsalSettings) -> dict[str, Any]:
    """As JSON can carry them, without the passwords of URLs."""
    plain: dict[str, Any] = msgspec.to_builtins(settings, enc_hook=str)
    for name in ("redis_url", "nats_url", "nats_monitor_url"):
        if plain[name] is not None:
            plain[name] = redact(plain[name])
    return plain


def _plain_name(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "interrupted"
    return f"{type(error).__name__}: {error}"
