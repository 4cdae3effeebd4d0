"""What happens while a rehearsal runs: producers and pushes all along, one step after another."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from hookbench.cancellation import cancel, raise_if_cancelled
from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import HeldBackError, HookbenchError
from hookbench.faults.schedule import FaultSchedule
from hookbench.ledger.events import Event, LedgerWriter
from hookbench.ledger.model import StepPlan
from hookbench.migration.gates import is_known
from hookbench.migration.phases import Phase, PhaseFile
from hookbench.migration.procedures import Step
from hookbench.rehearsal.arguments import producer_arguments
from hookbench.rehearsal.fleet import Fleet, Member
from hookbench.rehearsal.gated import FleetPhases, GatedChanges
from hookbench.rehearsal.links import Links
from hookbench.rehearsal.observer import Observer
from hookbench.rehearsal.progress import Pulse, Teller
from hookbench.rehearsal.pushes import Pusher
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.rehearsal.stage import Stage
from hookbench.results.store import StepRecord

__all__ = ["ENTER_TIMEOUT_S", "PULSE_S", "Timeline"]

ENTER_TIMEOUT_S = 30.0
PULSE_S = 0.25
_LEAD_S = 0.5
_END_TIMEOUT_S = 30.0
_FINISH_TIMEOUT_S = 90.0
"""Longer: one that dies meanwhile is replaced, and sends what its outbox holds."""
_PUSHES_TIMEOUT_S = 60.0


class Timeline:
    """Carries the steps of a rehearsal out.

    Args:
        control: folder of the phase files.
        note: is told what makes the verdict unknown.
        changes: carries a change of phase out by procedure, through its gates; ``None`` tells the
            processes their new phase, and asks nobody.

    Attributes:
        records: the steps that were carried out.
    """

    def __init__(
        self,
        settings: RehearsalSettings,
        steps: list[StepPlan],
        *,
        clock: Clock,
        teller: Teller,
        fleet: Fleet,
        pusher: Pusher,
        observer: Observer,
        control: Path,
        note: Callable[[str], None],
        changes: GatedChanges | None = None,
    ) -> None:
        self._settings = settings
        self._steps = steps
        self._clock = clock
        self._teller = teller
        self._fleet = fleet
        self._pusher = pusher
        self._observer = observer
        self._control = control
        self._note = note
        self._changes = changes
        self._faults: FaultSchedule | None = None
        # Where the load lasts as long as it takes, nobody knows how much procedures will add.
        self._total_s = (
            settings.phase_seconds * len(settings.phases)
            if settings.load_until_end
            else settings.seconds
        )
        self._told_faults = 0
        self._told_ns = 0
        self._told_counts = (0, 0)
        self.records: list[StepRecord] = []

    async def run(
        self, stage: Stage, links: Links, ledger: LedgerWriter, faults: FaultSchedule
    ) -> None:
        """Every step, until the producers have ended and the last push is made.

        Faults are carried out beside it; what is left of the schedule then does not fire.
        """
        self._faults = faults
        settings = self._settings
        step_ns = int(settings.phase_seconds * NS_PER_S)
        lead_s = _LEAD_S + 0.5 * settings.producers
        start_ns = self._clock.monotonic_ns() + int(lead_s * NS_PER_S)
        for number in range(settings.producers):
            arguments = producer_arguments(
                settings, stage, links, self._control.parent, number, start_ns
            )
            self._fleet.start("producer", number, arguments, (0, settings.phases[0]))
        pushes = asyncio.ensure_future(self._pusher.run(start_ns))
        faulting = asyncio.ensure_future(faults.run(start_ns))
        polling = asyncio.ensure_future(self._keep_polling())
        try:
            for plan in self._steps:
                begin_ns = max(self._clock.monotonic_ns(), start_ns + plan.index * step_ns)
                planned_ns = start_ns + plan.index * step_ns
                if self._changes is not None:
                    begin_ns = planned_ns = max(self._clock.monotonic_ns(), start_ns)
                faults.begin_phase(plan.index, begin_ns)
                held = await self._enter(plan.index) if plan.index > 0 else None
                if held is None or held.step != Step.ASK_BEFORE.value:
                    # Also if only some of the processes have changed when it is held back.
                    ledger.phase = plan.index
                    ledger.record(Event.PHASE, value=plan.index)
                    end_ns = max(begin_ns, planned_ns + step_ns)
                    if self._changes is not None:  # it has its length, however long the way was
                        end_ns = max(self._clock.monotonic_ns(), start_ns) + step_ns
                    if held is None:
                        await self._watch(plan.phase, start_ns, end_ns)
                    self.records.append(
                        StepRecord(
                            plan=plan, start_ns=begin_ns, end_ns=end_ns, planned_ns=planned_ns
                        )
                    )
                if held is not None:
                    self._note(f"held back: {held}")
                    break
            await self._end_load(pushes)
        finally:
            await cancel(pushes, faulting, polling)

    async def _keep_polling(self) -> None:
        """Who dies during a step of a procedure is replaced at once, however long that takes."""
        while True:
            self._fleet.poll()
            await self._clock.sleep(PULSE_S)

    async def _end_load(self, pushes: "asyncio.Future[None]") -> None:
        """Producers and pushes end by themselves, or are told to where the timeline says when."""
        producers = self._fleet.of("producer")
        if self._settings.load_until_end:
            self._pusher.request_stop()
            ended = await self._fleet.finish(producers, _FINISH_TIMEOUT_S)
        else:
            ended = await self._fleet.wait_for_end(producers, _END_TIMEOUT_S)
        if not ended:
            self._note("a producer did not end by itself")
        await self._end_pushes(pushes)

    async def _end_pushes(self, pushes: "asyncio.Future[None]") -> None:
        """All pushes are made, also those that are late; what git cannot do in time is said."""
        done, _pending = await asyncio.wait({pushes}, timeout=_PUSHES_TIMEOUT_S)
        if not done:
            self._note(
                f"the pushes were {_PUSHES_TIMEOUT_S:.0f} s late: {self._pusher.pushes} of"
                f" {self._settings.pushes} were made"
            )

    async def _enter(self, index: int) -> HeldBackError | None:
        """Begin a step; why not, if a gate or a process holds it back."""
        source, target = self._settings.phases[index - 1 : index + 1]
        if self._changes is None or not is_known(source, target):
            if self._changes is not None and source is not target:
                self._teller.say(f"gate      from {source.label} to {target.label} there is none")
            await self._change_phase(index)
            return None
        phases = FleetPhases(
            self._fleet,
            index,
            hooks=self._control / "hooks.json",
            measures=self._settings.effective_measures.text,
        )
        try:
            await self._changes.change(index, source, target, phases)
        except HeldBackError as error:
            return error
        except HookbenchError as error:  # a broker that does not answer holds it back as well
            return HeldBackError(
                f"{source.label} to {target.label}: {error}", step="", evidence=str(error)
            )
        return None

    async def _change_phase(self, index: int) -> None:
        """Producers first, then workers, one process at a time, and the hooks.

        One that has just died is told as well: who takes its place would begin in the old phase.
        """
        phase: Phase = self._settings.phases[index]
        fleet = self._fleet
        changing: list[Member] = [
            member
            for member in (*fleet.of("producer"), *fleet.of("worker"))
            if not member.expected_end
        ]
        PhaseFile(self._control / "hooks.json").write(index, phase)
        for member in changing:
            fleet.enter(member, index, phase)
            if member.role == "producer" and member.said.get("event") == "stopped":
                continue
            if not await fleet.wait_until_in(member, index, ENTER_TIMEOUT_S):
                self._note(f"{member.name} did not enter {phase.label}")

    async def _watch(self, phase: str, start_ns: int, end_ns: int) -> None:
        """Watch over the processes until ``end_ns``, and tell how it goes once a second."""
        fleet = self._fleet
        told = len(fleet.incidents)
        while (now_ns := self._clock.monotonic_ns()) < end_ns:
            raise_if_cancelled()
            fleet.poll()
            for incident in fleet.incidents[told:]:
                self._teller.say(f"incident  {incident.what}")
            told = len(fleet.incidents)
            self._tell_faults()
            if now_ns - max(self._told_ns, start_ns) >= NS_PER_S:
                self._tell(phase, start_ns, now_ns)
            await self._clock.sleep(min(PULSE_S, max(0.0, (end_ns - now_ns) / NS_PER_S)))

    def _tell_faults(self) -> None:
        begun = [] if self._faults is None else self._faults.begun
        for name in begun[self._told_faults :]:
            self._teller.say(f"fault     {name}")
        self._told_faults = len(begun)

    def _tell(self, phase: str, start_ns: int, now_ns: int) -> None:
        fleet, latest = self._fleet, self._observer.latest
        sent = sum(member.total("accepted") for member in fleet.of("producer"))
        done = sum(member.total("done") for member in fleet.of("worker"))
        seconds = (now_ns - self._told_ns) / NS_PER_S if self._told_ns else 1.0
        self._teller.pulse(
            Pulse(
                phase=phase,
                elapsed_s=max(0.0, (now_ns - start_ns) / NS_PER_S),
                total_s=self._total_s,
                in_per_s=max(0.0, (sent - self._told_counts[0]) / seconds),
                out_per_s=max(0.0, (done - self._told_counts[1]) / seconds),
                redis_depth=latest.redis_pending or 0,
                nats_depth=latest.nats_waiting,
                redelivered=latest.redelivered or 0,
                faults=tuple(self._faults.active) if self._faults else (),
            )
        )
        self._told_ns = now_ns
        self._told_counts = (sent, done)
