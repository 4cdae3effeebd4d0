"""What runs cost: resources per thousand tasks, and money per million, as frames and sentences."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hookbench.report.labels import run_labels
from hookbench.report.prices import Prices
from hookbench.results.run import Run

__all__ = [
    "METERS",
    "amount_text",
    "cost_finding",
    "cost_table",
    "resource_finding",
    "resource_table",
    "roles_in_order",
]

ROLES = ("redis", "nats", "producer", "worker", "proxy", "harness")
METERS = frozenset({"proxy", "harness"})
"""They measure and disturb: no part of what a migration costs."""
_SECONDS_PER_HOUR = 3600
_GIB = 2**30
_GB = 10**9
_MILLION = 1e6
_CLOSE = 1.05


def resource_table(runs: Sequence[Run]) -> pd.DataFrame:
    """What each role of each run used, per thousand tasks that were done.

    Columns: ``run`` (its label), ``role``; ``cpu_s_per_thousand``; ``memory_mib``, the largest
    resident sets of its processes, added up; ``written_mb_per_thousand`` (disk, 10**6 bytes). NaN
    per thousand where no task was done.

    Raises:
        SettingError: there is no run.
    """
    rows = []
    for run, label in zip(runs, run_labels(runs), strict=True):
        done = run.totals["done"]
        thousands = done / 1e3 if done else np.nan
        used = run.resources
        for role in roles_in_order(used["role"]):
            found = used[used["role"] == role]
            rows.append(
                {
                    "run": label,
                    "role": role,
                    "cpu_s_per_thousand": found["cpu_s"].sum() / thousands,
                    "memory_mib": found["rss_max_bytes"].sum() / 2**20,
                    "written_mb_per_thousand": found["written_bytes"].sum() / 1e6 / thousands,
                }
            )
    return pd.DataFrame(rows, columns=_RESOURCES)


_RESOURCES = ["run", "role", "cpu_s_per_thousand", "memory_mib", "written_mb_per_thousand"]


def roles_in_order(roles: pd.Series) -> list[str]:
    """The roles that ``Run.resources`` has: known ones in their order, then others."""
    found = list(dict.fromkeys(str(role) for role in roles))
    return [role for role in ROLES if role in found] + [r for r in found if r not in ROLES]


def resource_finding(table: pd.DataFrame) -> str:
    """The CPU per thousand tasks of the system without what measures it, and who needs most."""
    system = table[~table["role"].isin(METERS)].dropna(subset="cpu_s_per_thousand")
    if system.empty:
        return "No resources: nothing was metered, or no task was done"
    by_run = system.groupby("run", sort=False)["cpu_s_per_thousand"].sum()
    role = str(system.groupby("role")["cpu_s_per_thousand"].sum().idxmax())
    if len(by_run) == 1:
        share = system.loc[system["role"] == role, "cpu_s_per_thousand"].sum() / by_run.iloc[0]
        return (
            f"{by_run.iloc[0]:.2g} s CPU per thousand tasks without the harness, {share:.0%} of it"
            f" the {role}'s"
        )
    low, high = by_run.idxmin(), by_run.idxmax()
    if by_run[high] < _CLOSE * by_run[low]:
        return f"{by_run[high]:.2g} s CPU per thousand tasks in all runs"
    return (
        f"{high} needs {by_run[high] / by_run[low]:.1f} times the CPU of {low}:"
        f" {by_run[high]:.2g} s per thousand tasks, without the harness"
    )


def cost_table(runs: Sequence[Run], prices: Prices) -> pd.DataFrame:
    """Cost per million tasks done, of each role that serves them (no harness, no proxy).

    CPU counts as far as it was used, memory as the largest resident set for as long as the phases
    lasted: at a lower rate than that of production, memory is paid for more time per task.

    Columns: ``run``, ``role``; ``cpu``, ``memory``, ``disk`` and ``total``, in ``currency``; NaN
    where no task was done or no phase began.

    Raises:
        SettingError: there is no run.
    """
    rows = []
    for run, label in zip(runs, run_labels(runs), strict=True):
        done, phases = run.totals["done"], run.phases
        per_million = _MILLION / done if done and len(phases) else np.nan
        hours = (phases["end_s"].max() - phases["start_s"].min()) / _SECONDS_PER_HOUR
        used = run.resources
        for role in roles_in_order(used["role"]):
            if role in METERS:
                continue
            found = used[used["role"] == role]
            cpu = found["cpu_s"].sum() / _SECONDS_PER_HOUR * prices.vcpu_hour
            memory = found["rss_max_bytes"].sum() / _GIB * hours * prices.gib_hour
            disk = found["written_bytes"].sum() / _GB * prices.gb_written
            rows.append(
                {
                    "run": label,
                    "role": role,
                    "cpu": cpu * per_million,
                    "memory": memory * per_million,
                    "disk": disk * per_million,
                    "total": (cpu + memory + disk) * per_million,
                    "currency": prices.currency,
                }
            )
    return pd.DataFrame(rows, columns=_COSTS)


_COSTS = ["run", "role", "cpu", "memory", "disk", "total", "currency"]


def cost_finding(table: pd.DataFrame) -> str:
    """What a million tasks cost in the cheapest and in the dearest run, and what most of it is."""
    known = table.dropna(subset="total")
    if known.empty:
        return "No cost: nothing was metered, or no task was done"
    by_run = known.groupby("run", sort=False)["total"].sum()
    parts = known[["cpu", "memory", "disk"]].sum()
    whole = float(parts.sum())
    what = str(parts.idxmax()).replace("cpu", "CPU")
    most = f"; {parts.max() / whole:.0%} of it {what}" if whole > 0 else ""
    currency = str(known["currency"].iloc[0])
    low, high = by_run.idxmin(), by_run.idxmax()
    if len(by_run) == 1:
        return f"{amount_text(by_run.iloc[0])} {currency} per million tasks{most}"
    text = (
        f"{amount_text(by_run[low])} ({low}) to {amount_text(by_run[high])} {currency} ({high})"
        " per million tasks"
    )
    return text + most


def amount_text(value: float) -> str:
    """Three significant digits at the most, and no powers of ten."""
    if value == 0:
        return "0"
    digits = max(0, 2 - int(np.floor(np.log10(abs(value)))))
    return f"{value:,.{min(digits, 6)}f}"
