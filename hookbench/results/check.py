"""The checkers again, on a stored run."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hookbench.clock import NS_PER_S
from hookbench.effects.read import Effects, read_effects
from hookbench.errors import EffectStoreError
from hookbench.faults.base import FaultRecord
from hookbench.ledger.account import make_account
from hookbench.ledger.events import SEGMENT_SUFFIX, Event
from hookbench.ledger.invariants import RULE_OF_THE_WHOLE
from hookbench.ledger.model import Account, Bounds, FaultWindow, Verdict
from hookbench.ledger.read import Ledger, read_ledger
from hookbench.ledger.segment import MAX_STEPS
from hookbench.metrics.check import MetricsCheck
from hookbench.metrics.kept import METRICS_FOLDER, read_scrapes
from hookbench.migration.phases import Phase
from hookbench.results.steps import plan_steps
from hookbench.results.store import EFFECTS_NAME, GitCheck, Manifest, StepRecord, load_manifest

__all__ = [
    "check_run",
    "damage_lines",
    "fault_windows",
    "git_differences",
    "planned_starts",
    "unchecked",
    "verdict_of",
]

_MAX_DAMAGE = 10
_EVERY = 2**31
"""Of a rule without a bound."""


def verdict_of(manifest: Manifest) -> Verdict:
    """Unknown if anything is; else invalid if a row, a mirror or a pushed task says so."""
    account, git = manifest.account, manifest.git
    if manifest.unknown_because or account is None or git is None:
        return Verdict.UNKNOWN
    bad = any(row.verdict is Verdict.INVALID for row in account.rows)
    return Verdict.INVALID if bad or git_differences(git) else Verdict.VALID


def git_differences(git: GitCheck) -> list[str]:
    """What is wrong with pushes, their tasks and mirrors, one text each."""
    found = list(git.differences)
    if git.equal < git.repositories and not found:
        found.append(f"{git.repositories - git.equal} mirrors differ from their origin")
    if git.tasks < git.pushes:
        found.append(f"{git.pushes - git.tasks:,} pushes without a task")
    if git.tasks > git.pushes:
        found.append(f"{git.tasks - git.pushes:,} tasks more than pushes: some have two ids")
    return found


def unchecked(account: Account | None) -> list[str]:
    """Invariants that could not be checked, each with its reason."""
    if account is None:
        return []
    return [
        f"invariant {item.number} ({item.rule}): {item.reason}"
        for item in account.invariants
        if item.verdict is Verdict.UNKNOWN and item.number != RULE_OF_THE_WHOLE
    ]


def damage_lines(damage: list[str]) -> list[str]:
    """What is damaged in a ledger, one line each and no more than ten of them."""
    lines = damage[:_MAX_DAMAGE]
    if len(damage) > _MAX_DAMAGE:
        lines.append(f"{len(damage) - _MAX_DAMAGE:,} more damages of the ledger")
    return lines


def check_run(run: Path) -> Manifest:
    """The manifest of ``run`` with an account and a verdict made anew from its ledger.

    A run that was cut off has no record of what was left on the brokers: its account says what
    the ledger says of the phases that had begun, not what became of a task without an end, and
    its verdict is unknown; there is no account of one that was cut off before its first phase.
    What is damaged in a ledger is named, and the rest is accounted for. Metrics that were kept with
    a whole run are held against its ledger again.

    Raises:
        ResultsError: the manifest cannot be read.
        LedgerError: nothing of the ledger can be read.
    """
    manifest = load_manifest(run)
    whole = manifest.status == "complete"
    if not whole and not any((run / "ledger").glob(f"*{SEGMENT_SUFFIX}")):
        return _without_account(manifest, "no process had written to its ledger", [])
    phases = manifest.settings.get("phases", [])
    ledger = read_ledger(run / "ledger", lenient=True, steps=len(phases) or MAX_STEPS)
    steps = manifest.steps if whole else _planned_steps(ledger, manifest)
    if not steps:
        return _without_account(manifest, "no phase had begun", ledger.damage)
    unknown = [
        reason
        for reason in manifest.unknown_because
        if not reason.startswith(("check: ", "invariant "))
    ]
    unknown += [f"check: {line}" for line in damage_lines(ledger.damage)]
    if ledger.torn:
        unknown.append(f"check: {ledger.torn} records were cut off in the middle of their write")
    metrics = _metrics(run, manifest, ledger, unknown) if whole else manifest.metrics
    account = make_account(
        ledger,
        [step.plan for step in steps],
        manifest.residue,
        step_starts_ns=[step.start_ns for step in steps],
        end_ns=steps[-1].end_ns,
        planned_starts_ns=planned_starts(steps),
        effects=_effects(run, unknown),
        bounds=_bounds(manifest),
        faults=fault_windows(manifest),
    )
    unknown += unchecked(account)
    account = msgspec.structs.replace(account, histograms=[])
    checked = msgspec.structs.replace(
        manifest, account=account, steps=steps, metrics=metrics, unknown_because=unknown
    )
    return msgspec.structs.replace(checked, verdict=verdict_of(checked))


def _metrics(
    run: Path, manifest: Manifest, ledger: Ledger, unknown: list[str]
) -> MetricsCheck | None:
    """The comparison made anew where metrics were kept; its reasons take the place of the old."""
    folder = run / METRICS_FOLDER
    if not folder.is_dir():
        return manifest.metrics
    # Who has no metrics does not load what reads them.
    from hookbench.metrics.agreement import compare_metrics  # noqa: PLC0415

    old = [] if manifest.metrics is None else manifest.metrics.differences
    for line in old:
        if (reason := f"metrics: {line}") in unknown:
            unknown.remove(reason)
    found = compare_metrics(read_scrapes(folder), ledger)
    unknown += [f"metrics: {line}" for line in found.differences]
    return found


def planned_starts(steps: list[StepRecord]) -> list[int] | None:
    """When each step was to begin, ``None`` where that is not known."""
    planned_ns = [step.planned_ns for step in steps]
    return planned_ns if all(planned_ns) else None


def _effects(run: Path, unknown: list[str]) -> Effects | None:
    """The effect store of a run; ``None`` for one that has none, or a damaged one."""
    path = run / EFFECTS_NAME
    if not path.exists():
        return None
    try:
        return read_effects(path)
    except EffectStoreError as error:
        unknown.append(f"check: {error}")
        return None


def fault_windows(manifest: Manifest) -> list[FaultWindow]:
    """The faults of a run that fired."""
    return [
        FaultWindow(
            index=record.index,
            name=record.name,
            target=record.node or record.target,
            begin_ns=record.begin_ns,
            end_ns=record.end_ns,
            kind=record.kind,
            doubles=_doubles(manifest, record),
            rollback_ns=int(_planned(manifest, record).get("rollback_s", 0) * NS_PER_S),
        )
        for record in manifest.faults
        if record.begin_ns is not None
    ]


def _planned(manifest: Manifest, record: FaultRecord) -> dict[str, Any]:
    """The settings of a fault, as the schedule has them."""
    planned = manifest.settings.get("faults") or []
    return planned[record.index] if record.index < len(planned) else {}


def _doubles(manifest: Manifest, record: FaultRecord) -> int:
    """How many requests of producers a fault of the wire has sent twice at the most."""
    fault = _planned(manifest, record)
    if fault.get("action") != "duplicate" or fault.get("direction") == "reply":
        return 0
    if not record.target.startswith("producers"):
        return 0
    return int(fault.get("count", 1)) or _EVERY


def _bounds(manifest: Manifest) -> Bounds:
    known = {name: manifest.settings.get(name) for name in ("max_attempts", "max_inversions")}
    return Bounds(**{name: value for name, value in known.items() if value is not None})


def _without_account(manifest: Manifest, why: str, damage: list[str]) -> Manifest:
    """The manifest of a run that was cut off before there was anything to account for."""
    return msgspec.structs.replace(
        manifest,
        account=None,
        unknown_because=[
            *manifest.unknown_because,
            f"check: nothing to account for: {why} when the run was cut off",
            *(f"check: {line}" for line in damage_lines(damage)),
        ],
        verdict=Verdict.UNKNOWN,
    )


def _planned_steps(ledger: Ledger, manifest: Manifest) -> list[StepRecord]:
    """The steps that a run cut off had begun; empty for one cut off before its first phase."""
    plans = plan_steps([Phase(number) for number in manifest.settings.get("phases", [])])
    harness = np.array([name.startswith("harness") for name in ledger.writers])
    mine = (ledger.records["event"] == Event.PHASE) & harness[ledger.writer]
    begun = dict(
        zip(
            ledger.records["value"][mine].tolist(),
            ledger.records["time_ns"][mine].tolist(),
            strict=True,
        )
    )
    if not begun:
        return []
    last_ns = int(ledger.records["time_ns"][-1])
    # A process may be ahead of the record of the harness, which died or was damaged.
    plans = plans[: 1 + max(*begun, int(ledger.records["phase"].max()))]
    starts_ns: list[int] = []
    for plan in reversed(plans):  # the beginning of a step that is damaged: that of the next one
        starts_ns.insert(0, begun.get(plan.index, starts_ns[0] if starts_ns else last_ns))
    return [
        StepRecord(plan=plan, start_ns=start_ns, end_ns=end_ns)
        for plan, start_ns, end_ns in zip(plans, starts_ns, [*starts_ns[1:], last_ns], strict=True)
    ]
