"""``guide`` against ``hardened``: what the measures buy, and what they cost."""

from typing import NamedTuple

import numpy as np

from hookbench.clock import NS_PER_MS
from hookbench.report.findings_cost import METERS, roles_in_order
from hookbench.results.run import Run

__all__ = ["WRONGS", "DesignFigures", "design_figures", "designs_finding"]

WRONGS = ("lost", "done again", "stuck", "left in Redis")


class DesignFigures(NamedTuple):
    """What one run came to; NaN for what is not known.

    Attributes:
        done_per_s: tasks done over the time of the phases.
        p50_ms, p99_ms: end-to-end latency of the synthetic tasks of all phases.
        wrongs: tasks lost, executions beyond the first, tasks stuck, copies left in Redis.
        cpu_s_per_thousand: by role, without harness and proxy.
    """

    done_per_s: float
    p50_ms: float
    p99_ms: float
    wrongs: dict[str, float]
    cpu_s_per_thousand: dict[str, float]

    @property
    def cpu_s(self) -> float:
        """CPU seconds per thousand tasks, of all roles."""
        return sum(self.cpu_s_per_thousand.values()) if self.cpu_s_per_thousand else np.nan


def design_figures(run: Run) -> DesignFigures:
    """The figures of one run."""
    account, phases, done = run.manifest.account, run.phases, run.totals["done"]
    seconds = float(phases["end_s"].max() - phases["start_s"].min()) if len(phases) else 0.0
    found = run.latency([])
    some = len(found) > 0 and int(found["count"].iloc[0]) > 0
    wrongs = dict.fromkeys(WRONGS, np.nan)
    if account is not None:
        values = (account.lost, account.duplicated, account.stuck, account.left)
        wrongs = dict(zip(WRONGS, map(float, values), strict=True))
    used = run.resources[~run.resources["role"].isin(METERS)]
    cpu = used.groupby("role")["cpu_s"].sum().reindex(roles_in_order(used["role"]))
    return DesignFigures(
        done_per_s=done / seconds if seconds else np.nan,
        p50_ms=float(found["p50_ns"].iloc[0]) / NS_PER_MS if some else np.nan,
        p99_ms=float(found["p99_ns"].iloc[0]) / NS_PER_MS if some else np.nan,
        wrongs=wrongs,
        cpu_s_per_thousand={str(role): float(s) / done * 1e3 for role, s in cpu.items()}
        if done
        else {},
    )


def designs_finding(guide: DesignFigures, hardened: DesignFigures) -> str:
    """The price of ``hardened`` as ratios to ``guide``, and what went wrong in each."""
    prices = [
        text
        for what, before, after in (
            ("rate", guide.done_per_s, hardened.done_per_s),
            ("p50", guide.p50_ms, hardened.p50_ms),
            ("p99", guide.p99_ms, hardened.p99_ms),
            ("CPU", guide.cpu_s, hardened.cpu_s),
        )
        if (text := _ratio(what, before, after))
    ]
    price = f"hardened to guide: {', '.join(prices)}" if prices else "No figure of both designs"
    wrongs = [sum(item.wrongs.values()) for item in (guide, hardened)]
    if np.isnan(wrongs).any():
        return price
    return f"{price}; {wrongs[1]:,.0f} in place of {wrongs[0]:,.0f} lost, done again, stuck or left"


def _ratio(what: str, before: float, after: float) -> str:
    """``p99 x 2.10``, on one line; empty where one is not known."""
    if np.isnan(before) or np.isnan(after) or before <= 0:
        return ""
    ratio = after / before
    number = f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.0f}"  # noqa: PLR2004
    return f"{what} x {number}".replace(" ", "\N{NO-BREAK SPACE}")
