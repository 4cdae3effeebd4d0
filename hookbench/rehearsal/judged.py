"""Whether a stored run of one phase met an objective, window by window of its time."""

import math
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from hookbench.clock import NS_PER_MS
from hookbench.ledger.latency import HIGHEST_NS, histogram_of
from hookbench.ledger.model import Verdict
from hookbench.load.objectives import COUNTS, Objective
from hookbench.load.search import Trial
from hookbench.rehearsal.counted import CountedTasks, Window, read_counted
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.results.store import Manifest

__all__ = ["judge_run"]

_WINDOW_S = 1.0
_BEYOND = 10
"""Tasks of a window that lie beyond a percentile, so that it says something."""
_LEAST_COUNTED = 0.5
"""Of the windows of a trial, so that it says something."""
_ENDED_LATE = 0.5
"""Of the length of a trial: a backlog that takes longer to drain has grown, whatever its slope."""


def judge_run(
    folder: Path,
    manifest: Manifest,
    settings: RehearsalSettings,
    objective: Objective,
    *,
    warm_up_s: float,
    fast: Callable[[Window], bool] | None = None,
) -> Trial:
    """Whether a stored run of one phase met an objective.

    Args:
        folder: of the run.
        manifest: of the run.
        settings: that it was made with.
        objective: that it is held against.
        warm_up_s: at its beginning, which does not count.
        fast: whether the machine was at its speed in a window of time, which says nothing else;
            all count without it.
    """
    rate_per_s = settings.rate_per_s
    account = manifest.account
    if manifest.verdict is Verdict.UNKNOWN or account is None:
        why = "; ".join(manifest.unknown_because) or "the run was cut off"
        return Trial(rate_per_s=rate_per_s, sustained=None, why=f"unknown: {why}")
    tasks = read_counted(folder, warm_up_s=warm_up_s)
    if not tasks.finished.any():
        return Trial(rate_per_s=rate_per_s, sustained=False, why="no task was done")
    windows = _windows(tasks, objective)
    counted = [item for item in windows if fast is None or fast(item)]
    if len(counted) < _LEAST_COUNTED * len(windows):
        why = f"the machine was slow in {len(windows) - len(counted)} of {len(windows)} windows"
        return Trial(rate_per_s=rate_per_s, sustained=None, why=why)
    windows_ms = [_percentiles_ms(item, objective) for item in counted]
    growth = median(item.growth for item in counted)
    missed = objective.missed(
        windows_ms, growth=growth, counts={name: getattr(account, name) for name in COUNTS}
    )
    late_s, lag_ms = tasks.late_s, tasks.lag_p99_ms
    if objective.backlog_flat and late_s > _ENDED_LATE * settings.phase_seconds:
        missed.append(f"the last task was done {late_s:.1f} s after the load")
    figures = {
        "tasks": float(tasks.finished.sum()),
        "growth_per_s": tasks.growth_per_s,
        "late_s": late_s,
        "lag_p99_ms": lag_ms,
        "windows": float(len(windows)),
        "counted": float(len(counted)),
        "growth_median": growth,
        **_latencies(tasks, windows_ms, objective),
    }
    sustained: bool | None = not missed
    if lag_ms > settings.max_lag_ms:
        # What such a load meets tells nothing. What it does not meet may be the producers' fault.
        sustained = None if sustained else False
        missed.append(
            f"the producers were late (p99 {lag_ms:,.1f} ms, bound {settings.max_lag_ms:g} ms)"
        )
    return Trial(
        rate_per_s=rate_per_s,
        sustained=sustained,
        why="; ".join(missed),
        figures={name: float(np.round(value, 3)) for name, value in figures.items()},
    )


def _latencies(
    tasks: CountedTasks, windows_ms: list[dict[float, float]], objective: Objective
) -> dict[str, float]:
    """Of each percentile the median of the windows that count, and that of all tasks."""
    histogram = histogram_of(tasks.end_to_end_ns)
    found = {}
    for item in objective.percentiles:
        found[f"p{item:g}_median_ms"] = median(window[item] for window in windows_ms)
        found[f"p{item:g}_ms"] = histogram.get_value_at_percentile(item) / NS_PER_MS
    return found


def _windows(tasks: CountedTasks, objective: Objective) -> list[Window]:
    """Of a second, or as long as the objective's finest percentile needs."""
    finest = max(objective.percentiles, default=0.0)
    return tasks.windows(seconds=_WINDOW_S, tasks=math.ceil(_BEYOND / (1 - finest / 100)))


def _percentiles_ms(window: Window, objective: Objective) -> dict[float, float]:
    """The objective's percentiles; a day where nothing was done."""
    values_ns = window.end_to_end_ns
    return {
        item: float(np.percentile(values_ns if len(values_ns) else HIGHEST_NS, item)) / NS_PER_MS
        for item in objective.percentiles
    }
