"""One rehearsal: start, timeline, drain, account, verdict."""

import asyncio
import contextlib
import os
import random
import shutil
import traceback
from pathlib import Path

import msgspec

from hookbench.clock import NS_PER_MS, NS_PER_S, Clock
from hookbench.errors import HookbenchError
from hookbench.githook.config import HookConfig
from hookbench.ledger.account import make_account
from hookbench.ledger.events import Event, LedgerWriter
from hookbench.ledger.model import Verdict
from hookbench.ledger.read import read_ledger
from hookbench.migration.phases import Phase, PhaseFile
from hookbench.rehearsal.fleet import Fleet, Member
from hookbench.rehearsal.observer import Observer
from hookbench.rehearsal.progress import Pulse, Teller
from hookbench.rehearsal.pushes import Pusher, PushSettings, check_mirrors
from hookbench.rehearsal.settings import RehearsalSettings, plan_steps
from hookbench.rehearsal.stage import Stage, open_stage, utc_now_label
from hookbench.results.environment import read_environment
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
LAG_BOUND_NS = 50 * NS_PER_MS
"""Schedule lag (p99) above which the latencies of a run are not to be believed."""
SAMPLES_NAME = "samples.jsonl"


class Rehearsal:
    """Carries out one rehearsal; ``run`` may be cancelled at any await, and tidies up."""

    def __init__(self, settings: RehearsalSettings, *, clock: Clock, teller: Teller) -> None:
        settings.check()
        self._settings = settings
        self._clock = clock
        self._teller = teller
        self._steps = plan_steps(settings.phases)
        self._records: list[StepRecord] = []
        self._unknown: list[str] = []
        self._incidents: list[Incident] = []

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
            settings=msgspec.to_builtins(settings, enc_hook=str),
            environment=environment,
            started=utc_now_label(self._clock.wall_ns()),
            brokers=[],
        )
        folder.save(manifest)
        try:
            await self._carry_out(folder, manifest)
        except BaseException as error:
            manifest.status = "cut off"
            manifest.steps = self._records
            manifest.incidents = self._incidents
            reason = str(error) if isinstance(error, HookbenchError) else type(error).__name__
            manifest.unknown_because = [f"cut off: {reason}"]
            folder.save(manifest)
            self._tidy(folder)
            folder.finish()
            raise
        manifest.status = "complete"
        folder.save(manifest)
        self._tidy(folder)
        return folder.finish(), manifest

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
        )
        manifest.brokers = stage.lines
        try:
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
                seed=settings.seed,
            ),
            clock=self._clock,
        )
        observer = Observer(stage.redis_url, stage.nats_url, stage.names, clock=self._clock)
        ledger = LedgerWriter(folder.ledger, role="harness", writer=0, clock=self._clock)
        try:
            await self._prepare(folder, stage, fleet, pusher, control)
            await self._timeline(folder, stage, fleet, pusher, observer, ledger, control)
            await self._drain(fleet, pusher, observer)
            ledger.close()
            await self._conclude(folder, manifest, fleet, pusher, observer)
            if stage.foreign and settings.own_names:
                await observer.remove_own_data()
        finally:
            fleet.kill_all()
            pusher.stop_flush()
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
        await pusher.prepare(self._hook(folder, stage, hook_phase))
        for number in range(self._settings.workers):
            fleet.start("worker", number, self._worker_arguments(folder, stage), (0, first))
        workers = fleet.of("worker")
        for member in workers:
            if not await fleet.wait_until_in(member, 0, _START_TIMEOUT_S):
                raise HookbenchError(f"{member.name} did not start: {fleet.log_tail(member)}")
        pids = ", ".join(str(member.child.pid) for member in workers)
        self._teller.say(f"workers   {len(workers)} processes: pid {pids}")

    def _common_arguments(self, stage: Stage) -> list[str]:
        names = stage.names
        return [
            "--redis-url", stage.redis_url,
            "--nats-url", stage.nats_url,
            f"--prefix={names.prefix}",
            f"--subject-root={names.subject_root}",
            f"--stream={names.stream}",
            f"--storage={self._settings.durability.stream_storage}",
        ]  # fmt: skip

    def _worker_arguments(self, folder: RunFolder, stage: Stage) -> list[str]:
        settings = self._settings
        return [
            *self._common_arguments(stage),
            "--ack", settings.design.ack_mode,
            "--concurrency", str(settings.concurrency),
            "--block-timeout", str(settings.block_timeout_secs),
            "--handler", "git",
            "--service-ms", str(settings.service_ms),
            "--origins", str((folder.work / "origins").resolve()),
            "--mirrors", str((folder.work / "mirrors").resolve()),
        ]  # fmt: skip

    def _producer_arguments(self, stage: Stage, number: int, start_ns: int) -> list[str]:
        settings = self._settings
        rate = settings.rate_per_s / settings.producers
        seconds = settings.phase_seconds * len(settings.phases)
        seed = random.Random(f"{settings.seed}:{number}").getrandbits(32)
        return [
            *self._common_arguments(stage),
            "--rate", str(rate),
            "--count", str(round(rate * seconds)),
            "--seed", str(seed),
            "--start-ns", str(start_ns),
        ]  # fmt: skip

    def _hook(self, folder: RunFolder, stage: Stage, phase_file: Path) -> HookConfig:
        names = stage.names
        return HookConfig(
            repo_id="-",
            spool=str((folder.work / "spool.sqlite").resolve()),
            redis_url=stage.redis_url,
            nats_url=stage.nats_url,
            phase_file=str(phase_file.resolve()),
            prefix=names.prefix,
            subject_root=names.subject_root,
            stream=names.stream,
            storage=self._settings.durability.stream_storage,
            ledger=str(folder.ledger.resolve()),
            owner_pid=os.getpid(),
        )

    async def _timeline(
        self,
        folder: RunFolder,
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
                self._producer_arguments(stage, number, start_ns),
                (0, settings.phases[0]),
            )
        stop_pushes = asyncio.Event()
        pushes = asyncio.ensure_future(pusher.run(stop_pushes))
        samples = asyncio.ensure_future(observer.record(folder.path / SAMPLES_NAME))
        try:
            for plan in self._steps:
                begin_ns = max(self._clock.monotonic_ns(), start_ns + plan.index * step_ns)
                if plan.index > 0:
                    await self._change_phase(fleet, control, plan.index)
                ledger.phase = plan.index
                ledger.record(Event.PHASE, value=plan.index)
                end_ns = start_ns + (plan.index + 1) * step_ns
                await self._watch(fleet, observer, plan.phase, start_ns, end_ns)
                self._records.append(StepRecord(plan=plan, start_ns=begin_ns, end_ns=end_ns))
            producers = fleet.of("producer")
            if not await fleet.wait_for_end(producers, _STOP_TIMEOUT_S):
                self._unknown.append("a producer did not end by itself")
        finally:
            stop_pushes.set()
            samples.cancel()
            await asyncio.gather(samples, return_exceptions=True)
        await pushes

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
        total_s = self._settings.phase_seconds * len(self._steps)
        told = len(fleet.incidents)
        before: tuple[int, int, int] | None = None
        while (now_ns := self._clock.monotonic_ns()) < end_ns:
            fleet.poll()
            for incident in fleet.incidents[told:]:
                self._teller.say(f"incident  {incident.what}")
            told = len(fleet.incidents)
            sent = sum(int(member.said.get("accepted", 0)) for member in fleet.of("producer"))
            done = sum(
                member.done_before + int(member.said.get("done", 0))
                for member in fleet.of("worker")
            )
            if before is None or now_ns - before[0] >= NS_PER_S:
                rates = (0.0, 0.0)
                if before is not None:
                    seconds = (now_ns - before[0]) / NS_PER_S
                    rates = ((sent - before[1]) / seconds, (done - before[2]) / seconds)
                before = (now_ns, sent, done)
                self._teller.pulse(
                    Pulse(
                        phase=phase,
                        elapsed_s=max(0.0, (now_ns - start_ns) / NS_PER_S),
                        total_s=total_s,
                        in_per_s=max(0.0, rates[0]),
                        out_per_s=max(0.0, rates[1]),
                        depth=observer.latest.backlog,
                        redelivered=observer.latest.redelivered or 0,
                    )
                )
            await self._clock.sleep(min(_PULSE_S, max(0.0, (end_ns - now_ns) / NS_PER_S)))

    async def _drain(self, fleet: Fleet, pusher: Pusher, observer: Observer) -> None:
        """Nothing is written any more: wait until what the last phase reads is empty."""
        left = await pusher.wait_until_flushed(_FLUSH_TIMEOUT_S)
        if left:
            self._note(f"{left} pushed tasks could not be flushed in {_FLUSH_TIMEOUT_S:.0f} s")
        last = self._steps[-1]
        watching = asyncio.ensure_future(self._keep_polling(fleet))
        try:
            problem = await observer.drain(
                reads_redis=last.reads_redis,
                reads_nats=last.reads_nats,
                timeout_s=self._settings.drain_timeout_s,
            )
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        if problem is not None:
            self._note(problem)
        killed = await fleet.stop(fleet.of("worker"), _STOP_TIMEOUT_S)
        for member in killed:
            self._note(f"{member.name} did not stop by itself and was killed")

    async def _keep_polling(self, fleet: Fleet) -> None:
        while True:
            fleet.poll()
            await self._clock.sleep(_PULSE_S)

    async def _conclude(
        self,
        folder: RunFolder,
        manifest: Manifest,
        fleet: Fleet,
        pusher: Pusher,
        observer: Observer,
    ) -> None:
        """Account for every task; a checker that crashes makes the verdict unknown."""
        manifest.steps = self._records
        manifest.incidents = [*self._incidents, *fleet.incidents]
        manifest.lag = _lag(fleet)
        try:
            residue = await observer.residue(pusher.spooled_ids())
            manifest.residue = residue
            account = make_account(
                read_ledger(folder.ledger, same_boot=True),
                self._steps,
                residue,
                step_starts_ns=[record.start_ns for record in self._records],
            )
            manifest.account = account
            manifest.git = await check_mirrors(
                folder.work / "origins",
                folder.work / "mirrors",
                pusher.repo_ids,
                pushes=pusher.pushes,
                tasks=account.pushed_tasks,
            )
        except Exception as error:  # noqa: BLE001 - a checker that crashes is an unknown verdict
            with contextlib.suppress(OSError):
                (folder.logs / "checker.log").write_text(traceback.format_exc())
            self._unknown.append(f"a checker crashed: {type(error).__name__}: {error}")
        self._check_offered(manifest, fleet)
        if pusher.failures:
            self._note(f"{len(pusher.failures)} pushes failed, e.g. {pusher.failures[0]}")
        manifest.unknown_because = self._unknown
        manifest.verdict = _verdict(manifest)

    def _check_offered(self, manifest: Manifest, fleet: Fleet) -> None:
        """The ledger must hold at least what the producers say that they offered."""
        offered = sum(int(member.said.get("offered", 0)) for member in fleet.of("producer"))
        if manifest.account is None:
            return
        synthetic = manifest.account.tasks - manifest.account.pushed_tasks
        if synthetic < offered:
            self._unknown.append(
                f"the ledger holds {synthetic} synthetic tasks, the producers offered {offered}"
            )


def _lag(fleet: Fleet) -> dict[str, int]:
    """The worst producer's schedule lag."""
    said = [member.said for member in fleet.of("producer")]
    return {
        name: max((int(item.get(name, 0)) for item in said), default=0)
        for name in ("lag_p50_ns", "lag_p99_ns", "lag_max_ns")
    }


def _verdict(manifest: Manifest) -> Verdict:
    account, git = manifest.account, manifest.git
    if manifest.unknown_because or account is None or git is None:
        return Verdict.UNKNOWN
    bad = any(row.verdict is Verdict.INVALID for row in account.rows)
    if bad or git.equal < git.repositories or git.tasks < git.pushes:
        return Verdict.INVALID
    return Verdict.VALID
