"""A schedule of the simulator as a scenario of a rehearsal, as far as its faults exist there."""

from collections.abc import Callable, Sequence

import msgspec

from hookbench.brokers.durability import Durability
from hookbench.brokers.topology import SINGLE
from hookbench.errors import SettingError
from hookbench.faults.power_cut import PowerCut
from hookbench.faults.process import Kill, Pause, Restart
from hookbench.faults.promote import Promote
from hookbench.faults.registry import AnyFault
from hookbench.faults.step import KillAtStep
from hookbench.faults.wire_fault import Wire
from hookbench.migration.phases import Design
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.scenarios.resolved import scenario_toml
from hookbench.sim.schedule import BROKERS, OPERATOR, PRODUCER, FaultKind, SimFault
from hookbench.sim.shared_faults import SHARED, shared_fault
from hookbench.sim.shrink import Minimal
from hookbench.sim.trial import Scope

__all__ = ["AsRehearsal", "as_rehearsal", "rehearsal_toml"]

_MS_PER_S = 1_000
_WITH_REPLICA, _REPLICATED = "redis_replica", "replicated"
_WHO_LEADS = {"redis": "redis_master", "nats": "stream_leader"}
"""Of several nodes the simulator aims at the one that leads."""
_LEAST_FOR_S = 0.1
_LEAD_S = 2.0
"""Before that the processes of a rehearsal may not run yet, and those of the simulator do."""
_LEAST_RATE_PER_S = 10.0
_NO_PUSHES_S = 3_600.0
_CUT_BACK_S = 0.5
_REPOSITORIES = 10
_ACTIONS = {
    FaultKind.LOSE: "drop",
    FaultKind.REPEAT: "duplicate",
    FaultKind.HOLD: "delay",
    FaultKind.RESET: "reset",
}
_ALWAYS = (
    (
        "Times are those of the simulator: on real brokers who is where at them is chance, so"
        " repeat it (repeats) before it is said not to fail."
    ),
    (
        "AckWait and the lease of a work list are those of a worker as shipped, and longer than in"
        " the simulator."
    ),
)


class AsRehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """A minimal schedule as a rehearsal of it.

    Attributes:
        notes: what it says otherwise than the simulator, or cannot say.
        left_out: how many faults have no place in it.
    """

    settings: RehearsalSettings
    notes: tuple[str, ...]
    left_out: int


def as_rehearsal(minimal: Minimal) -> AsRehearsal:
    """The rehearsal of a minimal schedule.

    Faults that a rehearsal does not have are replaced by the nearest that it has, and named.
    """
    notes: list[str] = []
    scope, planned, lead_s = minimal.scope, minimal.faults, 0.0
    if any(fault.at_s < _LEAD_S for fault in planned):
        if len(scope.phases) == 1:
            lead_s = _LEAD_S
            tasks = round(scope.plan.tasks * (scope.phase_s + lead_s) / scope.phase_s)
            scope = msgspec.structs.replace(scope, phase_s=scope.phase_s + lead_s, tasks=tasks)
            notes.append(f"All of it is {lead_s:g} s later: until then processes may still start.")
        else:
            notes.append("Processes may still start when the first fault fires.")
    later = (msgspec.structs.replace(item, at_s=round(item.at_s + lead_s, 3)) for item in planned)
    faults = [item for fault in later if (item := _convert(fault, minimal, notes))]
    if _rate_of(scope) < _LEAST_RATE_PER_S:
        notes.append(
            f"Tasks come at {_LEAST_RATE_PER_S:g} a second, as in the search: at the"
            f" {_rate_of(scope):g} of the minimal schedule a fault might meet none here."
        )
    if minimal.scope.design is Design.HARDENED:
        notes.append(
            "With all measures phases are entered through gates, which take another time in a"
            " rehearsal: the times of faults count from the start all the same."
        )
    return AsRehearsal(
        settings=_settings(scope, minimal.seed, faults),
        notes=tuple(notes),
        left_out=len(planned) - len(faults),
    )


def rehearsal_toml(minimal: Minimal) -> str:
    """The scenario, with what it cannot express in comments at its head."""
    made = as_rehearsal(minimal)
    head = [
        f"Found by the simulator: seed {minimal.seed}, {minimal.scope.name}.",
        f"{minimal.cause.text}.",
        *_ALWAYS,
        *made.notes,
    ]
    comments = "".join(f"# {line}\n" for line in head)
    return comments + "\n" + scenario_toml(made.settings)


def _rate_of(scope: Scope) -> float:
    """Tasks per second."""
    return scope.plan.tasks / (scope.phase_s * len(scope.phases))


def _settings(scope: Scope, seed: int, faults: Sequence[AnyFault]) -> RehearsalSettings:
    return RehearsalSettings(
        scenario=f"sim_{scope.design}_{seed}",
        design=scope.design,
        measures=scope.measures,
        phases=scope.phases,
        phase_seconds=scope.phase_s,
        rate_per_s=max(_rate_of(scope), _LEAST_RATE_PER_S),
        producers=1,
        workers=scope.workers,
        concurrency=scope.concurrency,
        synthetic_repositories=_REPOSITORIES,
        service_ms=scope.service_s * _MS_PER_S,
        mix="plain=1,idempotent=1,transactional=1",
        repositories=1,
        push_interval_s=_NO_PUSHES_S,
        durability=scope.durability,
        topology=_topology(scope, faults),
        max_inversions=scope.max_inversions,
        seed=seed,
        faults=tuple(faults),
    )


def _topology(scope: Scope, faults: Sequence[AnyFault]) -> str:
    if scope.durability is Durability.REPLICATED:
        return _REPLICATED
    return _WITH_REPLICA if any(isinstance(item, Promote) for item in faults) else SINGLE


def _convert(fault: SimFault, minimal: Minimal, notes: list[str]) -> AnyFault | None:
    """The nearest fault of a rehearsal; ``None`` for none, which is noted."""
    of_outbox = fault.kind is FaultKind.POWER_CUT and fault.target == PRODUCER
    if of_outbox or fault.target == OPERATOR:
        notes.append(f"Left out, for a rehearsal has nothing like it: {fault.name}.")
        return None
    made = _HOW[fault.kind](fault, minimal.scope.design, notes)
    if minimal.scope.durability is Durability.REPLICATED and isinstance(made, Kill | Pause):
        target = _WHO_LEADS.get(made.target, made.target)
        made = msgspec.structs.replace(made, target=target)
    try:
        made.check()
    except SettingError as error:
        notes.append(f"Left out, for a rehearsal has nothing like it: {fault.name} ({error}).")
        return None
    return made


def _target(fault: SimFault) -> str:
    return f"{PRODUCER}-0" if fault.target == PRODUCER else fault.target


def _kill(fault: SimFault, _design: Design, notes: list[str]) -> AnyFault:
    if fault.kind is FaultKind.KILL_AT_MESSAGE:
        notes.append(
            f"A rehearsal cannot kill at a message: instead of '{fault.name}' it kills"
            f" {fault.target} when the simulator began to wait for that."
        )
    if fault.target in BROKERS:
        return Kill(target=fault.target, at_s=fault.at_s, for_s=max(fault.for_s, _LEAST_FOR_S))
    return Kill(target=_target(fault), at_s=fault.at_s)


def _kill_at_step(fault: SimFault, _design: Design, _notes: list[str]) -> AnyFault:
    return KillAtStep(
        target=fault.target,
        at_s=fault.at_s,
        step=fault.step,
        nth=fault.nth,
        turns=fault.turns,
    )


def _power_cut(fault: SimFault, _design: Design, notes: list[str]) -> AnyFault:
    notes.append(
        f"A power cut of a rehearsal takes {_CUT_BACK_S:g} s from the disk of {fault.target},"
        " synced or not; that of the simulator takes nothing that was synced."
    )
    return PowerCut(
        target=fault.target,
        at_s=max(fault.at_s, _CUT_BACK_S),
        for_s=max(fault.for_s, _LEAST_FOR_S),
        rollback_s=_CUT_BACK_S,
    )


def _pause(fault: SimFault, _design: Design, _notes: list[str]) -> AnyFault:
    return Pause(target=_target(fault), at_s=fault.at_s, for_s=max(fault.for_s, _LEAST_FOR_S))


def _restart(fault: SimFault, _design: Design, _notes: list[str]) -> AnyFault:
    return Restart(target=_target(fault), at_s=fault.at_s)


def _link(fault: SimFault, notes: list[str]) -> str:
    role = fault.target.partition("-")[0]
    if role == "worker":
        notes.append(
            f"A rehearsal's link is that of all workers, not of {fault.target} alone:"
            f" '{fault.name}'."
        )
    return f"{role}s-{fault.broker}"


def _cut(fault: SimFault, _design: Design, notes: list[str]) -> AnyFault:
    return Wire(
        target=_link(fault, notes),
        at_s=fault.at_s,
        for_s=max(fault.for_s, _LEAST_FOR_S),
        action="partition",
        direction=fault.way or None,
    )


def _latency(fault: SimFault, _design: Design, notes: list[str]) -> AnyFault:
    return Wire(
        target=_link(fault, notes),
        at_s=fault.at_s,
        for_s=max(fault.for_s, _LEAST_FOR_S),
        action="latency",
        delay_ms=fault.delay_ms,
        jitter_ms=fault.delay_ms,
    )


def _on_a_message(fault: SimFault, design: Design, notes: list[str]) -> AnyFault:
    command: str | None = fault.command or None
    if command == "publish":
        command = "PUB" if design is Design.GUIDE else "HPUB"
    return Wire(
        target=_link(fault, notes),
        at_s=fault.at_s,
        for_s=max(fault.for_s, _LEAST_FOR_S),
        action=_ACTIONS[fault.kind],
        direction=fault.way,
        command=command,
        nth=fault.nth,
        delay_ms=fault.delay_ms,
    )


def _promote(fault: SimFault, _design: Design, _notes: list[str]) -> AnyFault:
    return Promote(
        target=fault.target,
        at_s=fault.at_s,
        for_s=max(fault.for_s, _LEAST_FOR_S),
        pause_s=min(fault.at_s, fault.delay_ms / _MS_PER_S),
        kill_master=True,
    )


_HOW: dict[FaultKind, Callable[[SimFault, Design, list[str]], AnyFault]] = {
    FaultKind.KILL: _kill,
    FaultKind.KILL_AT_MESSAGE: _kill,
    FaultKind.KILL_AT_STEP: _kill_at_step,
    FaultKind.RESTART: _restart,
    FaultKind.POWER_CUT: _power_cut,
    FaultKind.PAUSE: _pause,
    FaultKind.CUT: _cut,
    FaultKind.LATENCY: _latency,
    FaultKind.LOSE: _on_a_message,
    FaultKind.REPEAT: _on_a_message,
    FaultKind.HOLD: _on_a_message,
    FaultKind.RESET: _on_a_message,
    FaultKind.PROMOTE: _promote,
    **dict.fromkeys(SHARED, lambda fault, _design, _notes: shared_fault(fault)),
}
