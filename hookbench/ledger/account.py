"""The account of every task: from ledger and brokers to figures, findings and verdicts.

Works on columns; a task is a row number of ``Ledger.ids``.
"""

import numpy as np

from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.contradictions import find_over_budget, find_unexpected
from hookbench.ledger.duplicates import find_duplicates
from hookbench.ledger.events import Event
from hookbench.ledger.model import (
    Account,
    Crash,
    Finding,
    Place,
    Residue,
    StepAccount,
    StepPlan,
    Verdict,
)
from hookbench.ledger.read import Ledger

__all__ = ["make_account"]


def _percentiles(values: Ints, *, with_max: bool) -> dict[str, int] | None:
    if len(values) == 0:
        return None
    names = {"p50": 50, "p90": 90, "p99": 99, "p999": 99.9}
    out = {name: int(np.percentile(values, q)) for name, q in names.items()}
    if with_max:
        out["max"] = int(values.max())
    return out


def make_account(
    ledger: Ledger,
    steps: list[StepPlan],
    residue: Residue,
    *,
    step_starts_ns: list[int],
    gap_window_ns: int = 2_000_000_000,
    max_attempts: int = 3,
) -> Account:
    """Account for every task of a run.

    Args:
        ledger: all records.
        steps: the timeline.
        residue: what was left after the drain.
        step_starts_ns: when each step began.
        max_attempts: the budget of deliveries of a task.
        gap_window_ns: how far around a transition the gaps are looked for.
    """
    columns = TaskColumns(ledger)
    rows = {
        ("phase", step.index): StepAccount(name=step.phase, step=step.index, transition=False)
        for step in steps
    }
    for step in steps[1:]:
        rows["transition", step.index] = StepAccount(
            name=f"→ {step.phase}", step=step.index, transition=True
        )
    findings: list[Finding] = []
    lying = _lying(columns, residue)
    _fill_figures(columns, steps, rows)
    _fill_gaps(columns, rows, step_starts_ns, gap_window_ns)
    _find_unfinished(columns, steps, residue, lying, rows, findings)
    find_duplicates(columns, steps, rows, findings)
    _find_left(columns, lying, rows, findings)
    find_unexpected(columns, steps, rows, findings)
    find_over_budget(columns, steps, rows, findings, max_attempts)
    ordered = []
    for step in steps:
        if ("transition", step.index) in rows:
            ordered.append(rows["transition", step.index])
        ordered.append(rows["phase", step.index])
    for row in ordered:
        row.verdict = _verdict_of(row)
    pushed_done = columns.pushed & (columns.done_count > 0)
    return Account(
        rows=ordered,
        findings=findings,
        tasks=int(columns.offered.sum()),
        accepted=int(columns.accepted.sum()),
        refused=int(columns.refused.sum()),
        doubtful=int(columns.doubtful.sum()),
        done=int((columns.done_count > 0).sum()),
        dead=int(columns.dead.sum()),
        lost=sum(row.lost for row in ordered),
        stuck=sum(sum(row.stuck.values()) for row in ordered),
        duplicated=sum(row.duplicated for row in ordered),
        explained=sum(row.explained for row in ordered),
        left=sum(row.left for row in ordered),
        unexpected=sum(row.unexpected for row in ordered),
        over_budget=sum(row.over_budget for row in ordered),
        junk=int((columns.where(Event.DEAD) & ~columns.real[columns.task]).sum()),
        pushed_tasks=int(columns.pushed.sum()),
        push_to_done_ns=_percentiles(
            (columns.done_ns - columns.intended_ns)[pushed_done], with_max=True
        ),
        torn=ledger.torn,
        crashes=_account_for_crashes(columns, lying),
    )


def _verdict_of(row: StepAccount) -> Verdict:
    bad = (
        row.lost
        or row.stuck
        or row.left
        or row.unexpected
        or row.over_budget
        or row.duplicated > row.explained
    )
    return Verdict.INVALID if bad else Verdict.VALID


def _lying(columns: TaskColumns, residue: Residue) -> dict[Place, Bools]:
    """For each place, which tasks lie there."""
    lying = {}
    for place in Place:
        mask = np.zeros(columns.count, dtype=bool)
        found = [item.bytes for item in residue.places.get(place, [])]
        mask[columns.ledger.rows_of(found)] = True
        lying[place] = mask
    if residue.delivered_sequence is not None:
        in_stream = columns.sequence > 0
        lying[Place.STREAM] |= in_stream & (columns.sequence > residue.delivered_sequence)
        if residue.ack_pending and residue.ack_floor_sequence is not None:
            lying[Place.CONSUMER_PENDING] |= (
                in_stream
                & (columns.sequence > residue.ack_floor_sequence)
                & (columns.sequence <= residue.delivered_sequence)
                & ~columns.terminal
            )
    return lying


def _fill_figures(
    columns: TaskColumns, steps: list[StepPlan], rows: dict[tuple[str, int], StepAccount]
) -> None:
    synthetic = columns.offered & ~columns.pushed
    finished = synthetic & (columns.done_count > 0)
    enqueue_ns = columns.accepted_ns - columns.intended_ns
    total_ns = columns.done_ns - columns.intended_ns
    done_step = columns.first(columns.where(Event.DONE), columns.phase, -1)
    again = columns.where(Event.RECEIVED) & (columns.ledger.records["attempt"] > 1)
    again_steps = np.bincount(columns.phase[again], minlength=len(steps))
    for step in steps:
        here = columns.put_step == step.index
        row = rows["phase", step.index]
        row.tasks = int(here.sum())
        row.enqueue_ns = _percentiles(
            enqueue_ns[here & synthetic & columns.accepted], with_max=True
        )
        row.end_to_end_ns = _percentiles(total_ns[here & finished], with_max=True)
        row.redelivered = int(again_steps[step.index])
        if step.index > 0:
            crossing = columns.offered & (columns.put_step < step.index)
            crossing &= done_step == step.index
            change = rows["transition", step.index]
            change.tasks = int(crossing.sum())
            change.end_to_end_ns = _percentiles(total_ns[crossing & synthetic], with_max=True)


def _fill_gaps(
    columns: TaskColumns,
    rows: dict[tuple[str, int], StepAccount],
    step_starts_ns: list[int],
    window_ns: int,
) -> None:
    for event, field in ((Event.ACCEPTED, "gap_accepted_ns"), (Event.DONE, "gap_done_ns")):
        times = columns.time[columns.where(event)]
        for (kind, index), row in rows.items():
            if kind != "transition":
                continue
            moment = step_starts_ns[index]
            near = times[(times >= moment - window_ns) & (times <= moment + window_ns)]
            edges = np.concatenate(([moment - window_ns], near, [moment + window_ns]))
            if times.size:  # the run itself may begin or end within the window
                edges = np.clip(edges, times[0], times[-1])
            setattr(row, field, int(np.diff(edges).max()))


def _find_unfinished(
    columns: TaskColumns,
    steps: list[StepPlan],
    residue: Residue,
    lying: dict[Place, Bools],
    rows: dict[tuple[str, int], StepAccount],
    findings: list[Finding],
) -> None:
    """Acknowledged tasks without an end: stuck somewhere, or lost."""
    open_tasks = columns.accepted & ~columns.terminal & columns.real
    placed = np.zeros(columns.count, dtype=bool)
    crashes = (
        f"; workers that died: {', '.join(columns.ledger.crashed)}"
        if (columns.ledger.crashed)
        else ""
    )
    for place in (
        Place.REDIS_WORK,
        Place.CONSUMER_PENDING,
        Place.STREAM,
        Place.REDIS_PENDING,
        Place.SPOOL,
    ):
        here = open_tasks & lying[place] & ~placed
        placed |= here
        for step in steps:
            mask = here & (columns.put_step == step.index)
            if not (count := int(mask.sum())):
                continue
            row = rows["phase", step.index]
            row.stuck[place.value] = count
            hazard, text = _stuck_reason(place, count, crashes, steps[-1])
            findings.append(
                Finding(
                    hazard=hazard,
                    row=row.name,
                    count=count,
                    text=text,
                    examples=columns.names(mask),
                )
            )
    for step in steps:
        mask = open_tasks & ~placed & (columns.put_step == step.index)
        if mask.any():
            row = rows["phase", step.index]
            row.lost = int(mask.sum())
            findings += _loss_findings(columns, row, mask, residue, crashes)


def _loss_findings(
    columns: TaskColumns, row: StepAccount, mask: Bools, residue: Residue, crashes: str
) -> list[Finding]:
    """Acknowledged before the work (hazard P10), or gone in another way."""
    early = mask & columns.received & columns.acked
    where = f"(consumer at {residue.delivered_sequence})"
    texts = (
        ("P10", early, "acknowledged to NATS before they were processed"),
        ("-", mask & ~early, f"acknowledged to the caller, in no queue, never done {where}"),
    )
    return [
        Finding(
            hazard=hazard,
            row=row.name,
            count=int(tasks.sum()),
            examples=columns.names(tasks),
            text=f"{int(tasks.sum()):,} tasks lost: {what}{crashes}",
        )
        for hazard, tasks, what in texts
        if tasks.any()
    ]


def _stuck_reason(place: Place, count: int, crashes: str, last: StepPlan) -> tuple[str, str]:
    """Hazard and text; what is read in the last phase decides whether a task can still move."""
    only_fallback = last.reads_redis and last.reads_nats
    pending = ("-", "in the Redis list, never delivered")
    if not last.reads_redis:
        pending = ("P6", "only in the Redis list, which is not read any more")
    elif only_fallback:
        pending = ("P9", "only in the Redis list, which is read after a failed NATS read alone")
    stream = ("-", "in the stream, never delivered")
    unacked = ("-", f"delivered and neither acknowledged nor delivered again{crashes}")
    if not last.reads_nats:
        stream = unacked = ("B3", "only in the stream, which is not read any more")
    hazard, text = {
        Place.REDIS_WORK: ("R3", f"orphaned in the Redis work list, which nothing reads{crashes}"),
        Place.REDIS_PENDING: pending,
        Place.SPOOL: ("-", "still in the spool of the git hook"),
        Place.STREAM: stream,
        Place.CONSUMER_PENDING: unacked,
    }[place]
    return hazard, f"{count:,} tasks {text}"


def _account_for_crashes(columns: TaskColumns, lying: dict[Place, Bools]) -> list[Crash]:
    """For each worker that died, what became of the tasks that it had in hand."""
    ledger = columns.ledger
    anywhere = np.zeros(columns.count, dtype=bool)
    for mask in lying.values():
        anywhere |= mask
    crashes = []
    for number, name in enumerate(ledger.writers):
        if name not in ledger.crashed or not name.startswith("worker"):
            continue
        own = ledger.writer == number
        taken = columns.any(own & columns.where(Event.RECEIVED))
        ended = columns.any(own & (columns.where(Event.DONE) | columns.where(Event.DEAD)))
        in_hand = taken & ~ended & columns.real
        left = in_hand & ~columns.terminal
        crashes.append(
            Crash(
                writer=name,
                in_hand=int(in_hand.sum()),
                done_by_others=int((in_hand & columns.terminal).sum()),
                stuck=int((left & anywhere).sum()),
                lost=int((left & ~anywhere & columns.accepted).sum()),
                examples=columns.names(in_hand),
            )
        )
    return crashes


def _find_left(
    columns: TaskColumns,
    lying: dict[Place, Bools],
    rows: dict[tuple[str, int], StepAccount],
    findings: list[Finding],
) -> None:
    """Copies of finished tasks that stay in Redis (hazard P8)."""
    copies = (lying[Place.REDIS_PENDING] | lying[Place.REDIS_WORK]) & columns.terminal
    for (kind, index), row in rows.items():
        mask = copies & (columns.put_step == index)
        if kind != "phase" or not (count := int(mask.sum())):
            continue
        row.left = count
        findings.append(
            Finding(
                hazard="P8",
                row=row.name,
                count=count,
                examples=columns.names(mask),
                text=f"{count:,} Redis copies of finished tasks left behind: nothing trims them,"
                " and a fallback or a rollback runs them again",
            )
        )
