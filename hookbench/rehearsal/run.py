"""One rehearsal: start, timeline, drain, account, verdict."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec

from hookbench.brokers.resolve import redact
from hookbench.cancellation import cancel
from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import HookbenchError
from hookbench.ledger.events import Event, LedgerWriter
from hookbench.migration.phases import Phase, PhaseFile
from hookbench.rehearsal.arguments import (
    hook_settings,
    producer_arguments,
    worker_arguments,
)
from hookbench.rehearsal.conclude import conclude
from hookbench.rehearsal.configured import compare_brokers, record_brokers
from hookbench.rehearsal.fleet import Fleet, Member
from hookbench.rehearsal.observer import Observer
from hookbench.rehearsal.progress import Pulse, Teller
from hookbench.rehearsal.pushes import Pusher, PushSettings
from hookbench.rehearsal.resources import ResourceMeter
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.rehearsal.stage import Stage, open_stage, utc_now_label
from hookbench.results.check import verdict_of
from hookbench.results.environment import read_environment
from hookbench.results.steps import plan_steps
from hookbench.results.store import (
    MANIFEST_SCHEMA,
    Incident,
    Manifest,
    RunFolder,
    StepRecord,
    create_run,
)

__all__ = ["Rehearsal"]

_START_TIMEOUT_S = 30.0
_LEAD_S = 0.5
_STOP_TIMEOUT_S = 30.0
_PULSE_S = 0.25
_FLUSH_TIMEOUT_S = 30.0
_PUSHES_TIMEOUT_S = 60.0
SAMPLES_NAME = "samples.jsonl"
SCENARIO_NAME = "scenario.toml"


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
        self._told_ns = 0
        self._told_counts = (0, 0)
        self.folder: Path | None = None
        """Where the run is stored, once it has a folder."""

    async def run(self) -> tuple[Path, Manifest]:
        """The folder and the manifest of the finished run.

        Raises:
            HookbenchError: it could not be started.
            asyncio.CancelledError: it was cut off; the folder is kept, and marked so.
        """
        settings = self._settings
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
        folder.save(manifest)
        if self._scenario_toml is not None:
            (folder.path / SCENARIO_NAME).write_text(self._scenario_toml)
        try:
            await self._carry_out(folder, manifest)
        except BaseException as error:
            manifest.status = "cut off"
            manifest.steps = self._records
            manifest.incidents = self._incidents
            reason = str(error) if isinstance(error, HookbenchError) else _plain_name(error)
            manifest.unknown_because = [f"cut off: {reason}"]
            folder.save(manifest)
            self._tidy(folder)
            self.folder = folder.finish()
            raise
        manifest.status = "complete"
        folder.save(manifest)
        self._tidy(folder)
        self.folder = folder.finish()
        return self.folder, manifest

    def _tidy(self, folder: RunFolder) -> None:
        if not self._settings.keep:
            shutil.rmtree(folder.work, ignore_errors=True)

    async def _carry_out(self, folder: RunFolder, manifest: Manifest) -> None:
        settings = self._settings
        stage = await open_stage(
            settings.redis_url,
            settings.nats_url,
            folder=folder.work,
            durability=settings.durability,
            own_names=settings.own_names,
            allow_existing=settings.allow_existing,
            run=folder.name,
            nats_monitor_url=settings.nats_monitor_url,
        )
        manifest.brokers = stage.lines
        try:
            await record_brokers(manifest, stage)
            for line in stage.lines:
                self._teller.say(f"brokers   {line}")
            self._teller.say(
                f"run       {folder.name}  design {settings.design}  seed {settings.seed}"
                f"  {settings.rate_per_s:,.0f} tasks/s + pushes into {settings.repositories}"
                " repositories"
            )
            await self._on_stage(folder, manifest, stage)
        finally:
            self._teller.close()
            stage.close()

    async def _on_stage(self, folder: RunFolder, manifest: Manifest, stage: Stage) -> None:
        settings = self._settings
        control = folder.work / "control"
        control.mkdir()
        fleet = Fleet(clock=self._clock, ledger=folder.ledger, logs=folder.logs, control=control)
        pusher = Pusher(
            PushSettings(
                origins=folder.work / "origins",
                clones=folder.work / "clones",
                spool=folder.work / "spool.sqlite",
                repositories=settings.repositories,
                interval_s=settings.push_interval_s,
                count=settings.pushes,
                seed=settings.seed,
            ),
            clock=self._clock,
        )
        observer = Observer(stage.redis_url, stage.nats_url, stage.names, clock=self._clock)
        meter = ResourceMeter(
            lambda: [*stage.processes(), *fleet.processes(), ("harness", os.getpid())],
            self._clock,
        )
        watching = [
            asyncio.ensure_future(meter.record()),
            asyncio.ensure_future(observer.record(folder.path / SAMPLES_NAME)),
        ]
        ledger = LedgerWriter(folder.ledger, role="harness", writer=0, clock=self._clock)
        try:
            await self._prepare(folder, stage, fleet, pusher, control)
            await self._timeline(stage, fleet, pusher, observer, ledger, control)
            await self._drain(fleet, pusher, observer)
            await cancel(*watching)
            ledger.close()
            meter.read()
            manifest.resources = meter.uses()
            manifest.steps = self._records
            manifest.incidents = [*self._incidents, *fleet.incidents]
            self._unknown += await conclude(folder, manifest, fleet, pusher, observer, settings)
            self._unknown += await compare_brokers(manifest, stage)
            manifest.unknown_because = self._unknown
            manifest.verdict = verdict_of(manifest)
            if stage.foreign and settings.own_names:
                await observer.remove_own_data()
        finally:
            fleet.kill_all()
            pusher.stop_flush()
            await cancel(*watching)
            ledger.close()
            self._incidents += fleet.incidents
            await observer.close()

    async def _prepare(
        self, folder: RunFolder, stage: Stage, fleet: Fleet, pusher: Pusher, control: Path
    ) -> None:
        """Repositories with hooks, and workers that are ready."""
        for name in ("origins", "clones", "mirrors"):
            (folder.work / name).mkdir()
        hook_phase = control / "hooks.json"
        first = self._settings.phases[0]
        PhaseFile(hook_phase).write(0, first)
        await pusher.prepare(hook_settings(self._settings, stage, folder, hook_phase))
        for number in range(self._settings.workers):
            fleet.start(
                "worker", number, worker_arguments(self._settings, stage, folder), (0, first)
            )
        workers = fleet.of("worker")
        for member in workers:
            if not await fleet.wait_until_in(member, 0, _START_TIMEOUT_S):
                raise HookbenchError(f"{member.name} did not start: {fleet.log_tail(member)}")
        pids = ", ".join(str(member.child.pid) for member in workers)
        self._teller.say(f"workers   {len(workers)} processes: pid {pids}")

    async def _timeline(
        self,
        stage: Stage,
        fleet: Fleet,
        pusher: Pusher,
        observer: Observer,
        ledger: LedgerWriter,
        control: Path,
    ) -> None:
        """Producers, pushes and samples all along; one step after another."""
        settings = self._settings
        step_ns = int(settings.phase_seconds * NS_PER_S)
        start_ns = self._clock.monotonic_ns() + int((_LEAD_S + 0.5 * settings.producers) * NS_PER_S)
        for number in range(settings.producers):
            fleet.start(
                "producer",
                number,
                producer_arguments(settings, stage, number, start_ns),
                (0, settings.phases[0]),
            )
        pushes = asyncio.ensure_future(pusher.run(start_ns))
        try:
            for plan in self._steps:
                planned_ns = start_ns + plan.index * step_ns
                begin_ns = max(self._clock.monotonic_ns(), planned_ns)
                if plan.index > 0:
                    await self._change_phase(fleet, control, plan.index)
                ledger.phase = plan.index
                ledger.record(Event.PHASE, value=plan.index)
                end_ns = planned_ns + step_ns
                await self._watch(fleet, observer, plan.phase, start_ns, end_ns)
                self._records.append(
                    StepRecord(plan=plan, start_ns=begin_ns, end_ns=end_ns, planned_ns=planned_ns)
                )
            producers = fleet.of("producer")
            if not await fleet.wait_for_end(producers, _STOP_TIMEOUT_S):
                self._unknown.append("a producer did not end by itself")
            await asyncio.wait({pushes}, timeout=_PUSHES_TIMEOUT_S)
            if not pushes.done():
                self._note(
                    f"the pushes were {_PUSHES_TIMEOUT_S:.0f} s late: {pusher.pushes} were made"
                )
            else:
                pushes.result()
        finally:
            await cancel(pushes)

    async def _change_phase(self, fleet: Fleet, control: Path, index: int) -> None:
        """Producers first, then workers, one process at a time, and the hooks."""
        phase: Phase = self._settings.phases[index]
        changing: list[Member] = [
            member
            for member in (*fleet.of("producer"), *fleet.of("worker"))
            if member.child.exit_code is None
        ]
        PhaseFile(control / "hooks.json").write(index, phase)
        for member in changing:
            fleet.enter(member, index, phase)
            if member.role == "producer" and member.said.get("event") == "stopped":
                continue
            if not await fleet.wait_until_in(member, index, _START_TIMEOUT_S):
                self._note(f"{member.name} did not enter {phase.label}")

    def _note(self, text: str) -> None:
        self._incidents.append(Incident(time_ns=self._clock.monotonic_ns(), what=text))
        self._unknown.append(text)

    async def _watch(
        self, fleet: Fleet, observer: Observer, phase: str, start_ns: int, end_ns: int
    ) -> None:
        """Watch over the processes until ``end_ns``, and tell how it goes once a second."""
        told = len(fleet.incidents)
        while (now_ns := self._clock.monotonic_ns()) < end_ns:
            fleet.poll()
            for incident in fleet.incidents[told:]:
                self._teller.say(f"incident  {incident.what}")
            told = len(fleet.incidents)
            if now_ns - max(self._told_ns, start_ns) >= NS_PER_S:
                self._tell(fleet, observer, phase, start_ns, now_ns)
            await self._clock.sleep(min(_PULSE_S, max(0.0, (end_ns - now_ns) / NS_PER_S)))

    def _tell(
        self, fleet: Fleet, observer: Observer, phase: str, start_ns: int, now_ns: int
    ) -> None:
        sent = sum(int(member.said.get("accepted", 0)) for member in fleet.of("producer"))
        done = sum(
            member.done_before + int(member.said.get("done", 0)) for member in fleet.of("worker")
        )
        seconds = (now_ns - self._told_ns) / NS_PER_S if self._told_ns else 1.0
        self._teller.pulse(
            Pulse(
                phase=phase,
                elapsed_s=max(0.0, (now_ns - start_ns) / NS_PER_S),
                total_s=self._settings.phase_seconds * len(self._steps),
                in_per_s=max(0.0, (sent - self._told_counts[0]) / seconds),
                out_per_s=max(0.0, (done - self._told_counts[1]) / seconds),
                redis_depth=observer.latest.redis_pending or 0,
                nats_depth=observer.latest.nats_waiting,
                redelivered=observer.latest.redelivered or 0,
            )
        )
        self._told_ns = now_ns
        self._told_counts = (sent, done)

    async def _drain(self, fleet: Fleet, pusher: Pusher, observer: Observer) -> None:
        """Nothing is written any more: wait until what the last phase reads is empty."""
        left = await pusher.wait_until_flushed(_FLUSH_TIMEOUT_S)
        if left:
            self._note(f"{left} pushed tasks could not be flushed in {_FLUSH_TIMEOUT_S:.0f} s")
        last = self._steps[-1]
        watching = asyncio.ensure_future(self._keep_polling(fleet))
        try:
            problem = await observer.drain(
                reads_redis=last.reads_redis and not last.reads_nats,
                reads_nats=last.reads_nats,
                timeout_s=self._settings.drain_timeout_s,
            )
        finally:
            await cancel(watching)
        if problem is not None:
            self._note(problem)
        killed = await fleet.stop(fleet.of("worker"), _STOP_TIMEOUT_S)
        for member in killed:
            self._note(f"{member.name} did not stop by itself and was killed")

    async def _keep_polling(self, fleet: Fleet) -> None:
        while True:
            fleet.poll()
            await self._clock.sleep(_PULSE_S)


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
