"""The plan of a matrix: its cells, and the order in which their trials are made."""

import random
from pathlib import Path
from typing import Any, Literal

import msgspec

from hookbench.brokers.durability import Durability
from hookbench.brokers.topology import SINGLE
from hookbench.decoding import decode_json, read_document
from hookbench.errors import ResultsError, SettingError
from hookbench.faults.process import Kill
from hookbench.migration.phases import Design, Phase, parse_phase
from hookbench.queues.redis_kind import RedisKind
from hookbench.rehearsal.capacity import NULL, QUEUES, route_of
from hookbench.rehearsal.counted import check_warm_up
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.results.store import write_aside

__all__ = [
    "KINDS",
    "PLAN_NAME",
    "Cell",
    "Kind",
    "MatrixPlan",
    "PlannedTrial",
    "StoredPlan",
    "cell_settings",
    "cells_of",
    "load_stored_plan",
    "new_stored_plan",
    "payload_label",
    "plan_differences",
    "save_stored_plan",
    "with_more_repeats",
]

PLAN_NAME = "plan.json"
PLAN_SCHEMA = 1
Kind = Literal["throughput", "latency", "redelivery"]
KINDS: tuple[Kind, ...] = ("throughput", "latency", "redelivery")
MAX_REPEATS = 1000
MAX_TRIALS = 10_000
MAX_KILLS = 10
_REPLICATED = "replicated"
_NO_PUSHES_S = 3600.0
_REPOSITORIES = 100
_OF_THEIR_OWN = 100_000
"""Repositories, so that hardly two tasks have one in common: with ``repository_order`` a later task
of the same one would take the place of a task that comes again, which would end as superseded."""
_DRAIN_TIMEOUT_S = 600.0
"""At saturation producers may put ten times as fast as workers work: the rest is done after it."""


class MatrixPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a matrix is made of; a TOML file has these keys.

    Attributes:
        queues: each alone, in the phase that uses it alone.
        phases: each with both brokers.
        durability: classes.
        payload: sizes, see ``parse_payload``.
        kinds: ``throughput``: as fast as it goes, in a windowed loop, the latency of which says
            nothing. ``latency``: at a fixed rate in an open loop, from the intended time.
            ``redelivery``: the same, with a worker that is killed some times over.
        design: of all cells.
        repeats: of each cell and kind.
        seconds: length of a trial.
        warm_up_s: of it, what does not count.
        rate_per_s: of the trials of latency and redelivery.
        arrivals: likewise, see ``parse_arrivals``.
        callers: of the trials of throughput: so many tasks are being put all the time.
        producers, workers: processes.
        concurrency: tasks at once in a worker.
        service_ms: time that a task takes.
        kills: of the trials of redelivery: how often a worker is killed, evenly after the warm-up.
        killed_service_ms: of the same: time that a task takes, so that a worker has some in hand.
        most_others_cores: that others may keep busy beside a trial, or it is made once more.
        seed: of the order, and of the load: the same for each cell, another for each repeat.
    """

    queues: tuple[str, ...] = tuple(QUEUES)
    phases: tuple[str, ...] = ("dual_write", "dual_read", "nats_primary")
    durability: tuple[Durability, ...] = (Durability.MEMORY, Durability.LAZY, Durability.FSYNC)
    payload: tuple[int | str, ...] = (64, 4096)
    kinds: tuple[Kind, ...] = KINDS
    design: Design = Design.GUIDE
    repeats: int = 5
    seconds: float = 8.0
    warm_up_s: float = 2.0
    rate_per_s: float = 500.0
    arrivals: str = "poisson"
    callers: int = 100
    producers: int = 1
    workers: int = 1
    concurrency: int = 32
    service_ms: float = 0.0
    kills: int = 2
    killed_service_ms: float = 20.0
    most_others_cores: float = 0.3
    seed: int = 7


class Cell(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One cell; ``route`` is a queue, or a phase that uses both brokers."""

    route: str
    durability: Durability
    payload: str

    @property
    def label(self) -> str:
        """For a line of text."""
        return f"{self.route} {self.durability} {payload_label(self.payload)}"

    @property
    def phase(self) -> Phase:
        """That its trials are made in."""
        return route_of(self.route)[0] if self.route in QUEUES else parse_phase(self.route)


class PlannedTrial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One trial of a plan; ``repeat`` counts from 1."""

    cell: Cell
    kind: Kind
    repeat: int

    @property
    def label(self) -> str:
        """For a line of text."""
        return f"{self.cell.label}  {self.kind}, repeat {self.repeat}"


class StoredPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plan with every trial in the order in which they are made, as ``plan.json`` has it."""

    schema: int
    plan: MatrixPlan
    trials: tuple[PlannedTrial, ...]


def payload_label(payload: str) -> str:
    """A size with its unit, a distribution as it is."""
    return f"{int(payload):,} B" if payload.isdigit() else payload


def cells_of(plan: MatrixPlan) -> tuple[list[Cell], list[str]]:
    """The cells, and what was left out: phases that are one of the queues alone.

    Raises:
        SettingError: a value that nothing can be measured with; the text names it.
    """
    routes, left_out = _routes(plan)
    for name in ("durability", "payload", "kinds"):
        values: tuple[Any, ...] = getattr(plan, name)
        if not values:
            raise SettingError(f"matrix: no {name}: name at least one")
        _refuse_twice(name, [str(item) for item in values])
    cells = [
        Cell(route=route, durability=durability, payload=str(payload))
        for durability in plan.durability
        for payload in plan.payload
        for route in routes
    ]
    return cells, left_out


def _routes(plan: MatrixPlan) -> tuple[list[str], list[str]]:
    for queue in plan.queues:
        if queue not in QUEUES:
            why = "; its rate is told by hookbench ceiling" if queue == NULL else ""
            raise SettingError(f"queue {queue!r}: use {', '.join(QUEUES)}{why}")
    phases = [parse_phase(text) for text in plan.phases]
    _refuse_twice("queues", list(plan.queues))
    _refuse_twice("phases", [phase.label for phase in phases])
    alone = {route_of(queue)[0]: queue for queue in reversed(QUEUES)}
    routes, left_out = list(plan.queues), []
    for phase in phases:
        only = alone.get(phase)
        if only is None:
            routes.append(phase.label)
        elif only in routes:
            left_out.append(f"phase {phase.label}: it is the queue {only} alone, which is there")
        else:
            routes.append(only)
            left_out.append(f"phase {phase.label}: it is the queue {only} alone, and called so")
    if not routes:
        raise SettingError("matrix: neither queues nor phases: name at least one of them")
    return routes, left_out


def _refuse_twice(name: str, values: list[str]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise SettingError(f"matrix: {name} has {value} twice: name it once")


def cell_settings(plan: MatrixPlan, trial: PlannedTrial, *, out: Path) -> RehearsalSettings:
    """The rehearsal of a trial; its seed is that of its repeat, so all cells get the same load.

    Args:
        plan: that the trial is of.
        trial: to be made.
        out: folder of the run.
    """
    cell = trial.cell
    saturated, killed = trial.kind == "throughput", trial.kind == "redelivery"
    kind = route_of(cell.route)[1] if cell.route in QUEUES else RedisKind.LIST
    return RehearsalSettings(
        scenario="matrix",
        design=plan.design,
        phases=(cell.phase,),
        redis_kind=kind,
        phase_seconds=plan.seconds,
        rate_per_s=plan.rate_per_s,
        loop="windowed" if saturated else "open",
        callers=plan.callers,
        arrivals="constant" if saturated else plan.arrivals,
        payload=cell.payload,
        producers=plan.producers,
        workers=plan.workers,
        concurrency=plan.concurrency,
        service_ms=plan.killed_service_ms if killed else plan.service_ms,
        faults=_kills(plan) if killed else (),
        synthetic_repositories=_OF_THEIR_OWN if killed else _REPOSITORIES,
        mix="plain=1",
        repositories=1,
        push_interval_s=_NO_PUSHES_S,
        drain_timeout_s=_DRAIN_TIMEOUT_S,
        durability=cell.durability,
        topology=_REPLICATED if cell.durability is Durability.REPLICATED else SINGLE,
        seed=plan.seed + trial.repeat - 1,
        out=out,
    )


def _kills(plan: MatrixPlan) -> tuple[Kill, ...]:
    between_s = (plan.seconds - plan.warm_up_s) / plan.kills
    return tuple(
        Kill(target="worker-0", at_s=plan.warm_up_s + (number + 0.5) * between_s)
        for number in range(plan.kills)
    )


def new_stored_plan(plan: MatrixPlan) -> StoredPlan:
    """The plan with its trials in the random order that follows from the seed.

    Raises:
        SettingError: a value that nothing can be measured with.
    """
    if not 1 <= plan.repeats <= MAX_REPEATS:
        raise SettingError(f"repeats {plan.repeats}: use between 1 and {MAX_REPEATS}")
    check_warm_up(plan.warm_up_s, plan.seconds)
    if not plan.most_others_cores >= 0:
        raise SettingError(f"most_others_cores {plan.most_others_cores:g}: use 0 or more")
    if not 1 <= plan.kills <= MAX_KILLS:
        raise SettingError(f"kills {plan.kills}: use between 1 and {MAX_KILLS}")
    cells, _left_out = cells_of(plan)
    trials = _trials(plan, cells, range(1, plan.repeats + 1))
    if len(trials) > MAX_TRIALS:
        raise SettingError(f"matrix of {len(trials):,} trials: at most {MAX_TRIALS:,}; use less")
    for trial in trials[:: plan.repeats]:
        cell_settings(plan, trial, out=Path()).check()
    random.Random(plan.seed).shuffle(trials)
    return StoredPlan(schema=PLAN_SCHEMA, plan=plan, trials=tuple(trials))


def _trials(plan: MatrixPlan, cells: list[Cell], repeats: range) -> list[PlannedTrial]:
    return [
        PlannedTrial(cell=cell, kind=kind, repeat=repeat)
        for cell in cells
        for kind in plan.kinds
        for repeat in repeats
    ]


def with_more_repeats(stored: StoredPlan, repeats: int) -> StoredPlan:
    """The same plan with further repeats of each cell, in random order behind what it has.

    Args:
        stored: the plan; its trials keep their places.
        repeats: more than it has.

    Raises:
        SettingError: more than a matrix may have.
    """
    plan = msgspec.structs.replace(stored.plan, repeats=repeats)
    new_stored_plan(plan)  # refuses what is too much
    more = _trials(plan, cells_of(plan)[0], range(stored.plan.repeats + 1, repeats + 1))
    random.Random(plan.seed + repeats).shuffle(more)
    return msgspec.structs.replace(stored, plan=plan, trials=(*stored.trials, *more))


def save_stored_plan(folder: Path, stored: StoredPlan) -> None:
    """Write the plan into the folder of its matrix, as a whole or not at all."""
    data = msgspec.json.format(msgspec.json.encode(stored), indent=2)
    write_aside(folder / PLAN_NAME, data + b"\n")


def load_stored_plan(folder: Path) -> StoredPlan | None:
    """The plan of the matrix in a folder, ``None`` where there is none.

    Raises:
        ResultsError: it is damaged, or of a newer version.
    """
    path = folder / PLAN_NAME
    try:
        data = read_document(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ResultsError(f"matrix {path}: {error.strerror}") from error
    try:
        schema = decode_json(data, _SchemaOnly).schema
        if schema > PLAN_SCHEMA:
            raise ResultsError(
                f"matrix {path}: schema {schema}, this version reads up to {PLAN_SCHEMA}; use the"
                " hookbench that wrote it, or a newer one"
            )
        return decode_json(data, StoredPlan)
    except msgspec.MsgspecError as error:
        raise ResultsError(
            f"matrix {path}: damaged ({error}); use another folder with --out"
        ) from error


class _SchemaOnly(msgspec.Struct):
    schema: int


def plan_differences(stored: MatrixPlan, wanted: MatrixPlan) -> list[str]:
    """What is not the same in two plans, one text for each key."""
    found = []
    for name in stored.__struct_fields__:
        old, new = getattr(stored, name), getattr(wanted, name)
        if old != new:
            found.append(f"{name} {_text(old)}, not {_text(new)}")
    return found


def _text(value: Any) -> str:
    return "[" + ", ".join(map(str, value)) + "]" if isinstance(value, tuple) else f"{value}"
