"""How runs were made: texts and tables of what a figure depends on."""

from collections.abc import Sequence

import pandas as pd

from hookbench.migration.phases import Phase, read_route, write_route
from hookbench.report.summary import describe_run
from hookbench.results.run import Run

__all__ = [
    "broker_settings_table",
    "describe_runs",
    "identify_runs",
    "rules_table",
    "timeline_table",
]


def describe_runs(runs: Sequence[Run]) -> str:
    """Where each run comes from, one paragraph each."""
    return "\n\n".join(describe_run(run) for run in runs)


def identify_runs(runs: Sequence[Run]) -> str:
    """One line for each run: id, design, seed, durability, commit and versions."""
    lines = []
    for run in runs:
        manifest, environment = run.manifest, run.manifest.environment
        versions = [f"hookbench {environment.hookbench}", f"python {environment.python}"]
        versions += [f"{report.name} {report.version}" for report in manifest.broker_reports]
        lines.append(
            f"run {manifest.run}  design {manifest.design}  seed {manifest.seed}  durability"
            f" {manifest.durability}  commit {environment.commit}  {', '.join(versions)}"
        )
    return "\n".join(lines)


def timeline_table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per phase that began: routes, length, and whether it came to its end."""
    phases = {phase.label: phase for phase in Phase}
    rows = [
        {
            "phase": step.phase,
            "run": run.manifest.run,
            "design": run.manifest.design,
            "writes": str(write_route(phases[step.phase])),
            "reads": str(read_route(phases[step.phase])),
            "length (s)": f"{step.end_s - step.start_s:.1f}",
            "whole": "yes" if step.whole else "cut off",
        }
        for run in runs
        for step in run.phases.itertuples()
    ]
    columns = ["phase", "run", "design", "writes", "reads", "length (s)", "whole"]
    return pd.DataFrame(rows, columns=columns).set_index("phase")


def broker_settings_table(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per broker as it described itself after its run; runs of equal settings share it."""
    told: dict[tuple[str, str, str, str], list[str]] = {}
    for run in runs:
        for report in run.manifest.broker_reports:
            settings = ", ".join(
                f"{name} {value or 'off'}" for name, value in report.configuration.items()
            )
            broker = f"{report.name} {report.version}"
            key = (broker, str(report.durability), settings, report.problem or "")
            told.setdefault(key, []).append(run.manifest.run)
    rows = [
        {
            "broker": broker,
            "durability": durability,
            "settings that were read back": settings,
            "not read": problem,
            "runs": ", ".join(names),
        }
        for (broker, durability, settings, problem), names in sorted(told.items())
    ]
    return pd.DataFrame(rows)


def rules_table(runs: Sequence[Run]) -> pd.DataFrame:
    """What must hold for every task, of the first run that was checked."""
    accounts = (run.manifest.account for run in runs)
    found = next((account for account in accounts if account is not None), None)
    return pd.DataFrame(
        {
            "invariant": [str(item.number) for item in (found.invariants if found else [])],
            "rule": [item.rule for item in (found.invariants if found else [])],
        }
    )
