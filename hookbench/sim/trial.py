"""One seed or schedule tried: its verdict, and for which reasons it is not valid."""

import os
import re
import shutil
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hookbench.brokers.durability import Durability
from hookbench.errors import HookbenchError
from hookbench.ledger.model import Account, Finding, Verdict
from hookbench.migration.phases import Design, Phase
from hookbench.results.check import unchecked
from hookbench.sim.coverage import Firing
from hookbench.sim.digest import ledger_digest
from hookbench.sim.migration import MigrationPlan
from hookbench.sim.redis.scripts import ScriptEngine
from hookbench.sim.schedule import SCHEDULE_VERSION, SimFault, Span
from hookbench.sim.scheduled import LEDGER_NAME, SimulatedRun, run_schedule

__all__ = ["Cause", "Scope", "Trial", "causes_of", "try_schedule"]

_UNKNOWN = "?"
_TASKS_PER_PHASE = 40
_PHASE_S = 4.0
_SERVICE_S = 0.05
_NUMBER = re.compile(r"[0-9][0-9,.]*")
_ASIDE = re.compile(r"[,;(].*")
_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - the name below it is drawn by tempfile
"""Linux' folder in memory."""
_ROOM_BYTES = 32 * 2**20
"""More than a run writes, several times."""


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What is searched.

    Attributes:
        phases: of the timeline.
        transition: the index of the phase whose beginning is searched, ``None`` for all of it.
        tasks, phase_s, workers, concurrency, service_s: as of ``MigrationPlan``.
        schedule: the version of what is drawn, see ``SCHEDULE_VERSION``.
        measures: changes to those of the design.
        durability: of both brokers, as of ``MigrationPlan``.
        max_inversions: likewise; without a bound the order of a repository is counted only.
    """

    design: Design
    phases: tuple[Phase, ...]
    transition: int | None = None
    tasks: int = 0
    phase_s: float = _PHASE_S
    workers: int = 2
    concurrency: int = 4
    service_s: float = _SERVICE_S
    schedule: int = SCHEDULE_VERSION
    measures: str = ""
    durability: Durability = Durability.FSYNC
    max_inversions: int | None = None

    @property
    def plan(self) -> MigrationPlan:
        """What is simulated."""
        return MigrationPlan(
            design=self.design,
            measures=self.measures,
            tasks=self.tasks or _TASKS_PER_PHASE * len(self.phases),
            phases=self.phases,
            phase_s=self.phase_s,
            workers=self.workers,
            concurrency=self.concurrency,
            service_s=self.service_s,
            durability=self.durability,
            max_inversions=self.max_inversions,
        )

    @property
    def span(self) -> Span:
        """Where its faults may lie."""
        return Span(
            phases=self.phases,
            phase_s=self.phase_s,
            workers=self.workers,
            transition=self.transition,
            version=self.schedule,
        )

    @property
    def name(self) -> str:
        """For the book: design and phases, and what is not as usual."""
        between = ":" if self.transition is not None else ","
        name = f"{self.design} {between.join(phase.label for phase in self.phases)}"
        if self.measures:
            name += f" with {self.measures}"
        if self.durability is not Durability.FSYNC:
            name += f" on {self.durability}"
        if self.service_s != _SERVICE_S:
            name += f", handlers of {self.service_s:g} s"
        if self.max_inversions is not None:
            name += f", at most {self.max_inversions} overtaken"
        return name if self.schedule == SCHEDULE_VERSION else f"{name}, schedule {self.schedule}"


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """One reason why a run is not valid.

    Attributes:
        hazard: id in the table of hazards, ``-`` for none, ``?`` for an unknown verdict.
        invariant: that is broken; 0 for an unknown verdict.
        row: the phase or transition that it counts for.
        count: tasks, or extra executions.
        text: for a person.
        tasks: ids of some of them.
    """

    hazard: str
    invariant: int
    row: str
    count: int
    text: str
    tasks: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Two runs fail for the same reason if one of their causes has the same key.

        The hazard and the invariant; of a cause without a hazard its text as well, but for numbers
        and names.
        """
        if self.hazard not in ("-", _UNKNOWN):
            return f"{self.hazard}/{self.invariant}"
        words = _ASIDE.sub("", _NUMBER.sub("#", self.text))
        return f"{self.hazard}/{self.invariant} {words.strip()}"


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What a schedule came to.

    Attributes:
        seed: of everything but the schedule.
        verdict: by the checkers of a rehearsal.
        causes: why it is not valid; empty if it is.
        digest: of the ledger.
        firings: of its faults.
        incidents: what happened to the processes, with times.
        places: where each of the tasks lay that the causes name.
        accepted, lost, stuck, duplicated: as of ``Account``.
    """

    seed: int
    verdict: Verdict
    causes: tuple[Cause, ...] = ()
    digest: str = ""
    firings: tuple[Firing, ...] = ()
    incidents: tuple[str, ...] = ()
    places: dict[str, list[str]] = {}
    accepted: int = 0
    lost: int = 0
    stuck: int = 0
    duplicated: int = 0


def try_schedule(
    plan: MigrationPlan,
    faults: Sequence[SimFault],
    seed: int,
    *,
    engine: ScriptEngine | None = None,
    folder: Path | None = None,
) -> Trial:
    """Run a schedule and judge it; a run that breaks down is unknown.

    Args:
        plan: what is simulated.
        faults: the schedule.
        seed: of everything else.
        engine: of scripts, which may serve many runs.
        folder: an empty one that keeps ledger and effects; by default they are thrown away.
    """
    if folder is not None:
        return _try(plan, faults, seed, folder, engine)
    with tempfile.TemporaryDirectory(prefix="hookbench-sim-", dir=_throw_away()) as name:
        return _try(plan, faults, seed, Path(name), engine)


def _throw_away() -> Path | None:
    """Where to write what is read once: in memory, or where ``TMPDIR`` says or files usually go.

    A disk's file system takes a twentieth of a run's time for names that are gone a moment later.
    """
    if "TMPDIR" in os.environ or not os.access(_IN_MEMORY, os.W_OK | os.X_OK):
        return None
    return _IN_MEMORY if shutil.disk_usage(_IN_MEMORY).free >= _ROOM_BYTES else None


def _try(
    plan: MigrationPlan,
    faults: Sequence[SimFault],
    seed: int,
    folder: Path,
    engine: ScriptEngine | None,
) -> Trial:
    try:
        run = run_schedule(plan, faults, seed, folder, engine=engine)
    except Exception as error:  # noqa: BLE001 - one seed that breaks down does not end a search
        # What broke is named, and the seed counts as failing.
        digest = ledger_digest(folder / LEDGER_NAME)
        return Trial(seed=seed, verdict=Verdict.UNKNOWN, causes=(_broken(error),), digest=digest)
    return _judge(run, seed, ledger_digest(folder / LEDGER_NAME))


def _broken(error: Exception) -> Cause:
    first = error
    while first.__cause__ is not None and isinstance(first.__cause__, Exception):
        first = first.__cause__
    where = ""
    if not isinstance(first, HookbenchError) and first.__traceback__ is not None:
        place = traceback.extract_tb(first.__traceback__)[-1]
        where = f" in {Path(place.filename).name}, {place.name}"
    line = str(error).partition("\n")[0]
    root = "" if first is error else f" <- {type(first).__name__}: {first}"
    text = f"the run broke down: {type(error).__name__}: {line}{root}{where}"
    return Cause(hazard=_UNKNOWN, invariant=0, row="-", count=1, text=text)


def _judge(run: SimulatedRun, seed: int, digest: str) -> Trial:
    account = run.account
    unknown = [*run.unknown_because, *unchecked(account)]
    causes = causes_of(account)
    causes += [Cause(hazard=_UNKNOWN, invariant=0, row="-", count=1, text=text) for text in unknown]
    named = {task for cause in causes for task in cause.tasks}
    places: dict[str, list[str]] = {}
    for place, tasks in run.residue.places.items():
        for task in map(str, tasks):
            if task in named:
                places.setdefault(task, []).append(place.value)
    return Trial(
        seed=seed,
        verdict=_verdict(account, unknown),
        causes=tuple(causes),
        digest=digest,
        firings=run.firings,
        incidents=run.incidents,
        places=places,
        accepted=account.accepted,
        lost=account.lost,
        stuck=account.stuck,
        duplicated=account.duplicated,
    )


def _verdict(account: Account, unknown: Sequence[str]) -> Verdict:
    """As ``verdict_of`` of a rehearsal, which has mirrors as well."""
    if unknown:
        return Verdict.UNKNOWN
    bad = any(row.verdict is Verdict.INVALID for row in account.rows)
    return Verdict.INVALID if bad else Verdict.VALID


def causes_of(account: Account) -> list[Cause]:
    """Why an account is not valid; of a rehearsal's as well as of a simulated run's."""
    return [_cause_of(item) for item in account.findings]


def _cause_of(finding: Finding) -> Cause:
    return Cause(
        hazard=finding.hazard,
        invariant=finding.invariant,
        row=finding.row,
        count=finding.count,
        text=finding.text,
        tasks=tuple(finding.examples),
    )
