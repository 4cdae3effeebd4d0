"""The account of every task: from ledger, effects and brokers to figures, findings, verdicts.

Works on columns; a task is a row number of ``Ledger.ids``.
"""

from collections.abc import Collection, Sequence

from hookbench.effects.read import Effects
from hookbench.ledger.columns import TaskColumns
from hookbench.ledger.counts import count_tasks
from hookbench.ledger.crashes import account_for_crashes, redelivery_of
from hookbench.ledger.events import Event
from hookbench.ledger.faults import account_for_faults
from hookbench.ledger.figures import fill_deliveries, fill_gaps, fill_latencies, fill_rates
from hookbench.ledger.history import PHASE, TRANSITION, History, RowKey, find_lying
from hookbench.ledger.invariants import check_invariants
from hookbench.ledger.latency import histogram_of, percentiles_of
from hookbench.ledger.model import (
    Account,
    Attribution,
    Bounds,
    FaultWindow,
    InvariantResult,
    Residue,
    StepAccount,
    StepPlan,
    Verdict,
)
from hookbench.ledger.offered import count_offered
from hookbench.ledger.read import Ledger
from hookbench.ledger.unavailable import find_unavailable

__all__ = ["make_account"]


def make_account(
    ledger: Ledger,
    steps: list[StepPlan],
    residue: Residue | None,
    *,
    step_starts_ns: list[int],
    end_ns: int | None = None,
    planned_starts_ns: list[int] | None = None,
    effects: Effects | None = None,
    bounds: Bounds | None = None,
    faults: Sequence[FaultWindow] = (),
    without: Collection[int] = (),
    latencies: bool = True,
) -> Account:
    """Account for every task of a run.

    Args:
        ledger: all records.
        steps: the timeline.
        residue: what was left after the drain, ``None`` where nobody looked.
        step_starts_ns: when each step began.
        end_ns: when the last step ended; the last record if left out.
        planned_starts_ns: when each step was to begin.
        effects: the effect store, ``None`` for a run without one.
        bounds: what the run is held against.
        faults: those that fired.
        without: invariants whose checkers are left out.
        latencies: whether they are counted: most of the time of a short run's account.
    """
    columns = TaskColumns(ledger)
    if residue is not None and residue.ended:
        columns.learn_ended([item.bytes for item in residue.ended])
    last_ns = int(columns.time[-1]) if len(columns.time) else 0
    history = History(
        columns=columns,
        steps=steps,
        step_starts_ns=step_starts_ns,
        end_ns=max(last_ns if end_ns is None else end_ns, *step_starts_ns, 0),
        residue=residue,
        lying=find_lying(columns, residue),
        effects=effects,
        bounds=bounds or Bounds(),
        rows=_rows(steps),
        faults=list(faults),
    )
    histograms = fill_latencies(history) if latencies else []
    if planned_starts_ns is not None:
        for step, count in zip(steps, count_offered(columns, planned_starts_ns), strict=True):
            history.rows[PHASE, step.index].offered = count
    fill_rates(history)
    fill_gaps(history)
    fill_deliveries(history)
    invariants, attributions = check_invariants(history, without)
    bad = {(item.step, item.transition) for item in history.findings}
    good = Verdict.UNKNOWN if invariants[-1].verdict is Verdict.UNKNOWN else Verdict.VALID
    for row in history.rows.values():
        row.verdict = Verdict.INVALID if (row.step, row.transition) in bad else good
    account = _totals(history, invariants, attributions)
    account.histograms = histograms
    return account


def _totals(
    history: History, invariants: list[InvariantResult], attributions: list[Attribution]
) -> Account:
    """What the rows and columns of a checked history come to."""
    columns, effects = history.columns, history.effects
    rows = list(history.rows.values())
    crashes, restarts_ns = account_for_crashes(history)
    pushed_ns = (columns.done_ns - columns.intended_ns)[columns.pushed & (columns.done_count > 0)]
    return Account(
        rows=rows,
        findings=history.findings,
        tasks=int(columns.offered.sum()),
        accepted=int(columns.accepted.sum()),
        refused=int(columns.refused.sum()),
        doubtful=int((columns.offered & ~columns.accepted & ~columns.refused).sum()),
        done=int(((columns.done_count > 0) | columns.unsaid).sum()),
        dead=int(columns.dead.sum()),
        superseded=int(columns.superseded.sum()),
        lost=sum(row.lost for row in rows),
        stuck=sum(sum(row.stuck.values()) for row in rows),
        duplicated=sum(row.duplicated for row in rows),
        explained=sum(row.explained for row in rows),
        duplicated_deliveries=sum(row.duplicated_deliveries for row in rows),
        duplicated_effects=sum(row.duplicated_effects or 0 for row in rows),
        effects=None if effects is None else len(effects.rows),
        effects_explained=history.effects_explained,
        left=sum(row.left for row in rows),
        unexpected=sum(row.unexpected for row in rows),
        over_budget=sum(row.over_budget for row in rows),
        handler_failures=int(columns.where(Event.FAILED).sum()),
        crashed_attempts=sum(crash.in_hand for crash in crashes),
        junk=int((columns.where(Event.DEAD) & ~columns.real[columns.task]).sum()),
        pushed_tasks=int(columns.pushed.sum()),
        push_to_done_ns=percentiles_of(histogram_of(pushed_ns), int(pushed_ns.max()))
        if len(pushed_ns)
        else None,
        torn=columns.ledger.torn,
        crashes=crashes,
        invariants=invariants,
        attributions=attributions,
        faults=account_for_faults(history),
        counts=count_tasks(history),
        redelivery_ns=redelivery_of(restarts_ns),
        unavailable=find_unavailable(history),
        recovered=int((columns.doubtful & (columns.done_count > 0)).sum()),
    )


def _rows(steps: list[StepPlan]) -> dict[RowKey, StepAccount]:
    """One row per phase, and one before it for the change into it."""
    rows: dict[RowKey, StepAccount] = {}
    for step in steps:
        if step.index > 0:
            rows[TRANSITION, step.index] = StepAccount(
                name=f"→ {step.phase}", step=step.index, transition=True
            )
        rows[PHASE, step.index] = StepAccount(name=step.phase, step=step.index, transition=False)
    return rows
