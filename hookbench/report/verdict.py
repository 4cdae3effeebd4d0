"""May we go on? The answer of stored runs, each change of phase with its evidence."""

from collections.abc import Sequence

import pandas as pd

from hookbench.ledger.model import Account, StepAccount, Verdict
from hookbench.report.findings import format_ms
from hookbench.results.run import Run
from hookbench.results.store import Manifest

__all__ = [
    "answer_of_run",
    "answer_text",
    "gates_table",
    "harms_table",
    "no_gates_text",
    "no_harms_text",
    "phases_table",
    "transitions_table",
]

_MOST_REASONS = 2


def answer_text(runs: Sequence[Run]) -> str:
    """May we go on: one sentence for each run, on a line of its own."""
    answers = (answer_of_run(run.manifest) for run in runs)
    return "\n".join(f"{text[0].upper()}{text[1:]}." for text in answers)


def answer_of_run(manifest: Manifest) -> str:
    """May we go on with the design of a run: the part of a sentence."""
    who = f"{manifest.design} (run {manifest.run})"
    account = manifest.account
    if account is None or manifest.verdict is Verdict.UNKNOWN:
        reasons = manifest.unknown_because or [f"it has no account ({manifest.status})"]
        more = len(reasons) - _MOST_REASONS
        told = "; ".join(reasons[:_MOST_REASONS]) + (f"; {more} more" if more > 0 else "")
        return f"whether {who} may go on is not known: {told}"
    refused = [gate for gate in manifest.gates if gate.answer != "go"]
    wrong = [row for row in account.rows if row.verdict is not Verdict.VALID]
    superseded = f" {account.superseded:,} superseded," if account.superseded else ""
    counts = (
        f"{account.done:,} of {account.accepted:,} accepted tasks done,{superseded}"
        f" {account.lost:,} lost,"
        f" {account.stuck:,} stuck, {account.duplicated - account.explained:,} done again without"
        " an explanation"
    )
    if wrong:
        row = wrong[0]
        where = f"into {row.name.removeprefix('→ ')}" if row.transition else f"beyond {row.name}"
        return f"{who} may not go {where}: {_reasons(account, row)} ({counts})"
    if manifest.verdict is Verdict.INVALID:
        return f"{who} may not go on: a rule is broken ({counts})"
    gates = f", {_gates_said(manifest)}" if manifest.gates else ", no gate was asked"
    if refused:
        gate = refused[-1]
        return (
            f"{who} may go on, after the gate {gate.source} to {gate.target} had said"
            f" {gate.answer} {gate.asked} times ({counts}{gates})"
        )
    changes = sum(row.transition for row in account.rows)
    if not changes:
        return f"{who} keeps all rules in its only phase ({counts})"
    return f"{who} may go on, through all {changes} changes of phase ({counts}{gates})"


def _reasons(account: Account, row: StepAccount) -> str:
    """What went wrong in a row, in the words of its findings."""
    found = [
        f"{item.text} [{item.hazard}]"
        for item in account.findings
        if item.row == row.name
        and (item.step, item.transition)
        in {
            (row.step, row.transition),
            (-1, False),  # findings of schema 1 know their row by its name alone
        }
    ]
    if not found:
        return f"{row.name} is {row.verdict}"
    more = len(found) - _MOST_REASONS
    return "; ".join(found[:_MOST_REASONS]) + (f"; {more} more findings" if more > 0 else "")


def _gates_said(manifest: Manifest) -> str:
    go = sum(gate.answer == "go" for gate in manifest.gates)
    return f"{go} gates said go"


def transitions_table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per change of phase: what its gates said, what went wrong, whether we may go on.

    We may go on where the transition and the phase after it are valid and its last gates said go.
    """
    rows = [
        row
        for run in runs
        if run.manifest.account is not None
        for row in _transitions(run.manifest, run.manifest.account)
    ]
    columns = [
        "change of phase", "design", "go on?", "gates", "lost", "duplicated", "explained", "stuck",
        "left in redis", "longest gap accepted / done (ms)",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).set_index("change of phase")


def _transitions(manifest: Manifest, account: Account) -> list[dict[str, str]]:
    rows = []
    previous: StepAccount | None = None
    for index, row in enumerate(account.rows):
        if not row.transition:
            previous = row
            continue
        after = account.rows[index + 1] if index + 1 < len(account.rows) else None
        both = [row] if after is None else [row, after]
        source = previous.name if previous is not None else ""
        rows.append(
            {
                "change of phase": f"{source} {row.name}".strip(),
                "design": manifest.design,
                "go on?": _may_go_on(manifest, both, row.step),
                "gates": _gates_of(manifest, row.step),
                "lost": f"{sum(item.lost for item in both):,}",
                "duplicated": f"{sum(item.duplicated for item in both):,}",
                "explained": f"{sum(item.explained for item in both):,}",
                "stuck": f"{sum(sum(item.stuck.values()) for item in both):,}",
                "left in redis": f"{sum(item.left for item in both):,}",
                "longest gap accepted / done (ms)": " / ".join(
                    "-" if gap is None else format_ms(gap)
                    for gap in (row.gap_accepted_ns, row.gap_done_ns)
                ),
            }
        )
    return rows


def _may_go_on(manifest: Manifest, rows: Sequence[StepAccount], step: int) -> str:
    verdicts = {row.verdict for row in rows}
    last = {gate.moment: gate.answer for gate in manifest.gates if gate.step == step}
    if Verdict.INVALID in verdicts or "no-go" in last.values():
        return "NO"
    if Verdict.UNKNOWN in verdicts or "unknown" in last.values():
        return "unknown"
    return "yes"


def _gates_of(manifest: Manifest, step: int) -> str:
    said = [
        f"{gate.moment} {gate.answer}" + (f" ({gate.asked} times)" if gate.asked > 1 else "")
        for gate in manifest.gates
        if gate.step == step
    ]
    return ", ".join(said) or "not asked"


def gates_table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per gate that was asked, with the evidence of each of its conditions."""
    rows = [
        {
            "gate": f"{gate.source} → {gate.target}, {gate.moment}",
            "design": run.manifest.design,
            "answer": gate.answer + (f" ({gate.asked} times)" if gate.asked > 1 else ""),
            "conditions and their evidence": ";\n".join(
                f"{check.name}{'' if check.answer == 'go' else f' {check.answer.upper()}'}:"
                f" {check.evidence}" + (f", e.g. {check.ids[0]}" if check.ids else "")
                for check in gate.checks
            ),
        }
        for run in runs
        for gate in run.manifest.gates
    ]
    return pd.DataFrame(rows)


def no_gates_text(runs: Sequence[Run]) -> str:
    """What to say where ``gates_table`` has no rows."""
    designs = ", ".join(dict.fromkeys(run.manifest.design for run in runs))
    return f"No gate was asked: the measures of {designs} leave the gates out."


def harms_table(runs: Sequence[Run]) -> pd.DataFrame:
    """What was lost, duplicated or stuck, each with a task that proves it, as the account found."""
    rows = [
        {
            "design": run.manifest.design,
            "phase": item.row,
            "hazard": item.hazard,
            "tasks": f"{item.count:,}",
            "what": item.text,
            "for example": ", ".join(item.examples[:1]),
        }
        for run in runs
        if run.manifest.account is not None
        for item in run.manifest.account.findings
    ]
    return pd.DataFrame(rows)


def no_harms_text(runs: Sequence[Run]) -> str:
    """What to say where ``harms_table`` has no rows."""
    unchecked = [run.manifest.run for run in runs if run.manifest.account is None]
    if unchecked:
        return f"Nothing is known of {', '.join(unchecked)}: cut off, and without an account."
    return "Nothing was lost, stuck or done again without an explanation."


def phases_table(runs: Sequence[Run]) -> pd.DataFrame:
    """The verdict of each phase and transition, a column for each run."""
    columns = {}
    for run in runs:
        account = run.manifest.account
        verdicts = {
            row.name: row.verdict.upper() if row.verdict is Verdict.INVALID else str(row.verdict)
            for row in (account.rows if account is not None else [])
        }
        columns[f"{run.manifest.design}, {run.manifest.run}"] = verdicts
    names = dict.fromkeys(name for verdicts in columns.values() for name in verdicts)
    table = pd.DataFrame(columns, index=list(names)).fillna("-")
    return table.rename_axis(index="phase")
