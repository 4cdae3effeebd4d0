"""What faults did: tables of one run."""

import pandas as pd

from hookbench.report.account_lines import ATTRIBUTED
from hookbench.report.findings import format_ms
from hookbench.results.run import Run

__all__ = ["causes_table", "crashes_table", "faults_table", "unavailable_table"]


def faults_table(run: Run) -> pd.DataFrame:
    """One row per fault of the schedule: when, for how long, and what it did to how many tasks."""
    account = run.manifest.account
    accounts = {item.index: item for item in account.faults} if account is not None else {}
    rows = []
    for record, fault in zip(run.manifest.faults, run.faults.itertuples(), strict=True):
        found = accounts.get(record.index)
        ended = fault.fired and pd.notna(fault.end_s)
        without = dict(found.longest_without_ns) if found is not None else {}
        rows.append(
            {
                "begin (s)": f"{fault.begin_s:.1f}" if fault.fired else "did not fire",
                "length (ms)": f"{(fault.end_s - fault.begin_s) * 1e3:,.0f}" if ended else "-",
                "exposed": f"{found.exposed:,}" if found else "-",
                "lost": f"{found.lost:,}" if found else "-",
                "stuck": f"{found.stuck:,}" if found else "-",
                "done again": f"{found.duplicated:,}" if found else "-",
                "longest without (ms)": ", ".join(
                    f"{name} {format_ms(value)}" for name, value in without.items()
                )
                or "-",
                "recovery (ms)": format_ms(found.recovery_ns)
                if found and found.recovery_ns is not None
                else "-",
                "problem": record.problem or "",
            }
        )
    names = [f"{record.index} {record.name}" for record in run.manifest.faults]
    return pd.DataFrame(rows, index=pd.Index(names, name="fault"))


def causes_table(run: Run) -> pd.DataFrame:
    """What losses, duplicates and second ends are attributed to, the most frequent first."""
    found = run.attributions.sort_values("count", ascending=False, kind="stable")
    return pd.DataFrame(
        {
            "what": [ATTRIBUTED[what] for what in found["what"]],
            "tasks": [f"{count:,}" for count in found["count"]],
            "phase": list(found["phase"]),
            "last step before": list(found["step"]),
            "fault": list(found["fault"]),
            "hazard": list(found["hazard"]),
        }
    )


def crashes_table(run: Run) -> pd.DataFrame:
    """Processes that died, and what became of the tasks that they had in hand."""
    account = run.manifest.account
    rows = [
        {
            "in hand": f"{item.in_hand:,}",
            "ended by others": f"{item.done_by_others:,}",
            "stuck": f"{item.stuck:,}",
            "lost": f"{item.lost:,}",
            "started again after p50 / max (ms)": " / ".join(
                format_ms(item.restart_ns[name]) for name in ("p50", "max")
            )
            if item.restart_ns is not None
            else "-",
            "for example": ", ".join(item.examples[:1]),
        }
        for item in (account.crashes if account is not None else [])
    ]
    names = [item.writer for item in (account.crashes if account is not None else [])]
    return pd.DataFrame(rows, index=pd.Index(names, name="process"))


def unavailable_table(run: Run) -> pd.DataFrame:
    """Windows in which an operation was attempted and none succeeded, the longest first."""
    account = run.manifest.account
    found = sorted(account.unavailable if account else [], key=lambda item: -item.length_ns)
    return pd.DataFrame(
        {
            "broker": [item.broker for item in found],
            "operation": [item.operation for item in found],
            "length (ms)": [format_ms(item.length_ns) for item in found],
            "from (s)": [f"{item.since_start_ns / 1e9:.1f}" for item in found],
            "phase": [item.phase for item in found],
            "fault": [item.fault for item in found],
        }
    )
