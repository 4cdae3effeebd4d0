"""Texts and tables of one run for a notebook."""

import pandas as pd

from hookbench.ledger.model import Account, StepAccount, Verdict
from hookbench.report.account_lines import count_lines, fault_lines, unavailable_lines
from hookbench.report.findings import format_ms
from hookbench.report.table import lag_text
from hookbench.results.run import Run

__all__ = [
    "describe_run",
    "findings_table",
    "if_checked",
    "invariants_table",
    "no_findings_text",
    "verdict_table",
    "verdict_text",
]

_ENQUEUE = "enqueue p50 / p99 (ms)"
_END_TO_END = "end-to-end p50 / p99 / max (ms)"
_HEADINGS = (
    "verdict",
    "tasks",
    _ENQUEUE,
    _END_TO_END,
    "redelivered",
    "duplicated",
    "of deliveries",
    "of effects",
    "explained",
    "lost",
    "stuck",
    "left in redis",
)
_DUPLICATES = ("duplicated", "of deliveries", "of effects", "explained")
_OF_A_TRANSITION = {"tasks", "verdict", *_DUPLICATES}


def describe_run(run: Run) -> str:
    """Where the run comes from: ids, seed, commit, versions, durability, and what went wrong."""
    manifest, environment = run.manifest, run.manifest.environment
    settings = manifest.settings
    packages = ", ".join(f"{name} {version}" for name, version in environment.packages.items())
    lines = [
        ("run", f"{manifest.run}, {manifest.status}, started {manifest.started}"),
        ("design", manifest.design),
        ("seed", str(manifest.seed)),
        ("durability", manifest.durability),
        ("commit", environment.commit),
        ("versions", f"hookbench {environment.hookbench}, python {environment.python}, {packages}"),
        *(("broker", line) for line in manifest.brokers),
        *(("read back", report.line) for report in manifest.broker_reports),
        ("machine", f"{environment.cpus} x {environment.cpu}, kernel {environment.kernel}"),
    ]
    if "rate_per_s" in settings:
        rate, producers = settings["rate_per_s"], settings.get("producers")
        load = f"{rate:,g} tasks/s, {settings.get('loop', 'open')} loop; {producers} producers"
        lines.append(("load", f"{load}, {settings.get('workers')} workers"))
    if (lag := lag_text(manifest)) is not None:
        lines.append(("lag", lag))
    lines += [("incident", incident.what) for incident in manifest.incidents]
    lines += [("damaged", text) for text in run.damage]
    return "\n".join(f"{name:<10} {text}" for name, text in lines)


def verdict_text(run: Run) -> str:
    """The verdict of the run when it was made, and why it is unknown where it is."""
    manifest = run.manifest
    text = f"design {manifest.design}: {manifest.verdict.upper()}"
    if run.damage and not manifest.unknown_because:
        text += f" (its ledger was damaged since: hookbench check {manifest.run})"
    account = manifest.account
    if account is not None:
        text += (
            f"\n{account.tasks:,} tasks offered, {account.accepted:,} accepted, {account.done:,}"
            f" done; {account.duplicated:,} duplicated, {account.lost:,} lost, {account.stuck:,}"
            f" stuck, {account.left:,} left in redis"
        )
        lines = (*count_lines(account), *fault_lines(account), *unavailable_lines(account))
        text = "\n".join([text, *lines])
    return "\n".join([text, *(f"unknown: {reason}" for reason in manifest.unknown_because)])


def verdict_table(run: Run) -> pd.DataFrame:
    """One row per phase and transition; texts as they are shown, empty where nothing applies.

    A run that was cut off has no account: its rows are counted from the ledger as far as it goes,
    what only an account can tell is ``?``, and the verdict is unknown.
    """
    account = run.manifest.account
    rows = _rows_without_account(run) if account is None else account.rows
    table = pd.DataFrame([_cells(row, account) for row in rows], columns=list(_HEADINGS))
    table.index = pd.Index([row.name for row in rows], name="phase")
    return table


def findings_table(run: Run) -> pd.DataFrame:
    """One row per finding: hazard, phase or transition, what happened, one task that proves it."""
    account = run.manifest.account
    findings = [] if account is None else account.findings
    return pd.DataFrame(
        {
            "hazard": [item.hazard for item in findings],
            "phase": [item.row for item in findings],
            "what": [item.text for item in findings],
            "for example": [", ".join(item.examples[:1]) for item in findings],
        }
    )


def invariants_table(run: Run) -> pd.DataFrame:
    """One row per invariant: what must hold, whether it did, and how often not."""
    account = run.manifest.account
    results = [] if account is None else account.invariants
    return pd.DataFrame(
        {
            "invariant": [item.number for item in results],
            "rule": [item.rule for item in results],
            "verdict": [
                item.verdict.upper() if item.verdict is Verdict.INVALID else str(item.verdict)
                for item in results
            ],
            "broken": [f"{item.count:,}" for item in results],
            "note": [item.reason for item in results],
        }
    )


def no_findings_text(run: Run) -> str:
    """What to say where ``findings_table`` has no rows."""
    return if_checked(run, "No findings.")


def if_checked(run: Run, text: str) -> str:
    """``text``, that something did not happen, of a run that was checked; else that it was not."""
    if run.manifest.account is None:
        return f"Nothing was checked: the run has no account ({run.manifest.status})."
    return text


def _cells(row: StepAccount, account: Account | None) -> dict[str, str]:
    verdict = row.verdict.upper() if row.verdict is Verdict.INVALID else str(row.verdict)
    cells = {
        "tasks": f"{row.tasks:,}",
        _ENQUEUE: _latency(row.enqueue_ns, ("p50", "p99")),
        _END_TO_END: _latency(row.end_to_end_ns, ("p50", "p99", "max")),
        "redelivered": f"{row.redelivered:,}",
        "duplicated": f"{row.duplicated:,}",
        "of deliveries": f"{row.duplicated_deliveries:,}",
        "of effects": "-" if row.duplicated_effects is None else f"{row.duplicated_effects:,}",
        "explained": f"{row.explained:,}",
        "lost": f"{row.lost:,}",
        "stuck": f"{sum(row.stuck.values()):,}",
        "left in redis": f"{row.left:,}",
        "verdict": verdict,
    }
    if account is None:
        unknown = (
            "redelivered",
            "explained",
            "of deliveries",
            "of effects",
            "lost",
            "stuck",
            "left in redis",
        )
        cells.update(dict.fromkeys(unknown, "?"))
    if row.transition:
        return {name: text if name in _OF_A_TRANSITION else "" for name, text in cells.items()}
    return cells


def _latency(values: dict[str, int] | None, names: tuple[str, ...]) -> str:
    return "-" if values is None else " / ".join(format_ms(values[name]) for name in names)


def _rows_without_account(run: Run) -> list[StepAccount]:
    repeats = run.repeats
    tasks = run.tasks[["phase", "step", "done_step"]]
    latencies = {what: run.latency("phase", what=what) for what in ("enqueue", "end_to_end")}
    rows = []
    for name in run.row_names:
        transition = name.startswith("→")
        row = StepAccount(name=name, step=0, transition=transition, verdict=Verdict.UNKNOWN)
        row.tasks = int((tasks["phase"] == name).sum())
        if transition:
            crossing = tasks[tasks["step"] < tasks["done_step"]]
            steps = run.phases[run.phases["phase"] == name.removeprefix("→ ")]["step"]
            row.tasks = int(crossing["done_step"].isin(steps[steps > 0]).sum())
        row.enqueue_ns = _percentiles(latencies["enqueue"], name)
        row.end_to_end_ns = _percentiles(latencies["end_to_end"], name)
        row.duplicated = int((repeats["row"] == name).sum())
        rows.append(row)
    return rows


def _percentiles(latencies: pd.DataFrame, phase: str) -> dict[str, int] | None:
    here = latencies[latencies["phase"] == phase]
    if here.empty:
        return None
    return {name: int(here[f"{name}_ns"].iloc[0]) for name in ("p50", "p99", "max")}
