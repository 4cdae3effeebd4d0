"""Latency over time: what a task that was due at a moment had to wait."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from hookbench.clock import NS_PER_MS
from hookbench.report.axis import log_ticks, width_text
from hookbench.report.fault_shades import fault_inches, fault_key, log_room_above, shade_faults
from hookbench.report.findings_latency import latency_over_time_finding
from hookbench.report.style import (
    ACCEPTED,
    GREY,
    REPEATED,
    decorate,
    legend_below,
    new_axes,
    say_instead,
    shade_phases,
)
from hookbench.results.run import Run

__all__ = ["plot_latency_over_time"]

_LEAST_MS = 0.01
"""Below the clock's worth; a latency of 0 has no place on a log axis."""


def plot_latency_over_time(run: Run, axes: Axes | None = None, *, freq: str | None = None) -> Axes:
    """End-to-end p50, p99 and maximum of the synthetic tasks by the moment at which they were due.

    Args:
        run: the stored run.
        axes: to draw on; a figure of their own without.
        freq: width of a bin, ``250ms``; about a hundredth of the run without.

    Raises:
        SettingError: no duration, or too many bins.
    """
    axes = axes or new_axes(3.7 + fault_inches(run.faults))
    width = freq or run.bin_freq()
    timeline = run.timeline(width)
    title = latency_over_time_finding(run, timeline)
    done = timeline["p99_ns"].notna() if len(timeline) else pd.Series(dtype=bool)
    if not done.any():
        return say_instead(axes, title, "No synthetic task was done in this run.")
    middle_s = timeline["time_s"] + pd.Timedelta(width).total_seconds() / 2
    ms = {
        name: np.maximum(timeline[f"{name}_ns"].to_numpy(dtype="float64") / NS_PER_MS, _LEAST_MS)
        for name in ("p50", "p99", "max")
    }
    axes.set_yscale("log")
    axes.fill_between(middle_s, ms["p50"], ms["p99"], color=GREY, alpha=0.2, linewidth=0)
    axes.plot(middle_s, ms["max"], ".", color=REPEATED, markersize=4, label="maximum")
    dot = "o" if int(done.sum()) == 1 else ""  # a lone value makes no line
    axes.plot(middle_s, ms["p99"], "--", color=ACCEPTED, linewidth=1.1, label="p99", marker=dot)
    axes.plot(middle_s, ms["p50"], color=ACCEPTED, linewidth=1.8, label="p50", marker=dot)
    log_room_above(axes, run.faults)
    log_ticks(axes.yaxis)
    decorate(
        axes,
        title=title,
        x="time at which a task was due, since the start (s)",
        y=f"end-to-end latency (ms)\n(in bins of {width_text(width)})",
        bands=True,
    )
    shade_faults(axes, run.faults)
    legend_below(axes, 3, fault_key(run.faults))
    shade_phases(axes, run.phases)
    return axes
