"""Plots of one run: each a function from its run to axes, with the finding as the title.

Without ``axes`` a figure of its own is made. A run that has no data for a plot (nothing was done,
no sample taken, cut off before) gets axes that say so.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hookbench.report.axis import (
    PERCENTILE_LABEL,
    TIME_LABEL,
    from_zero,
    grid_along,
    log_ticks,
    percentile_axis,
    step_over_tail,
    thousands,
    width_text,
)
from hookbench.report.fault_shades import (
    fault_inches,
    fault_key,
    room_above,
    shade_faults,
)
from hookbench.report.findings import (
    depth_finding,
    latency_finding,
    repeat_finding,
    throughput_finding,
)
from hookbench.report.style import (
    ACCEPTED,
    COLOUR_OF_QUEUE,
    DONE,
    EXPLAINED,
    NOTE_INCHES,
    REPEATED,
    STYLE_OF_PHASE,
    decorate,
    legend_below,
    new_axes,
    none_text,
    say_instead,
    shade_phases,
)
from hookbench.results.run import Run

__all__ = ["plot_depths", "plot_latency", "plot_repeats", "plot_throughput"]

_MANY_ROWS = 15
_SHORT_TITLE = 37
"""Characters of a title over axes whose row names take a good part of the width."""


def plot_throughput(run: Run, axes: Axes | None = None, *, freq: str | None = None) -> Axes:
    """Tasks accepted and done per second over time; what was done again is filled."""
    axes = axes or new_axes(3.7 + fault_inches(run.faults))
    width = freq or run.bin_freq()
    timeline = run.timeline(width)
    title = throughput_finding(run)
    if timeline.empty:
        return say_instead(axes, title, "No task was accepted or done in this run.")
    seconds = timeline["time_s"]
    again = timeline["repeated_per_s"]
    if again.any():
        axes.fill_between(
            seconds, again, step="post", color=REPEATED, alpha=0.6, linewidth=0, label="done again"
        )
    axes.step(seconds, timeline["done_per_s"], where="post", color=DONE, label="done")
    axes.step(
        seconds,
        timeline["accepted_per_s"],
        where="post",
        color=ACCEPTED,
        linewidth=1.2,
        linestyle="--",
        label="accepted",
    )
    from_zero(axes, above=room_above(run.faults))
    decorate(
        axes,
        title=title,
        x=TIME_LABEL,
        y=f"tasks per second\n(in bins of {width_text(width)})",
        bands=True,
    )
    shade_faults(axes, run.faults)
    legend_below(axes, 3, fault_key(run.faults))
    shade_phases(axes, run.phases)
    return axes


def plot_latency(run: Run, axes: Axes | None = None) -> Axes:
    """End-to-end latency of the synthetic tasks of each phase over the percentile, log tail.

    A phase is the one that a task was put in; the latency counts from its intended time. Each
    curve ends at its largest value, drawn at the percentile 1 - 1/n.
    """
    axes = axes or new_axes(4.1)
    title = latency_finding(run)
    curves = {str(key["phase"]): curve for key, curve in run.distributions("phase")}
    if not curves:
        return say_instead(axes, title, "No synthetic task was done in this run.")
    longest = 2.0
    for phase, curve in curves.items():
        tail, values = step_over_tail(curve)
        longest = max(longest, tail[-1])
        axes.step(tail, values, where="pre", label=phase, **STYLE_OF_PHASE.get(phase, {}))
    missing = [name for name in dict.fromkeys(run.phases["phase"]) if name not in curves]
    for phase in missing:
        axes.plot([], [], label=f"{phase} (none done)", **STYLE_OF_PHASE.get(phase, {}))
    axes.set_yscale("log")
    log_ticks(axes.yaxis)
    percentile_axis(axes, longest)
    decorate(axes, title=title, x=PERCENTILE_LABEL, y="end-to-end latency (ms)")
    legend_below(axes, 3)
    return axes


def plot_depths(run: Run, axes: Axes | None = None) -> Axes:
    """What lies in the Redis lists and, not delivered yet, in the stream over time."""
    axes = axes or new_axes(3.7 + fault_inches(run.faults))
    title = depth_finding(run)
    samples = run.samples
    lines = {
        "redis_pending": ("Redis list, pending", "redis_list", "-"),
        "redis_work": ("Redis work list", "redis_list", ":"),
        "stream_unread": ("JetStream, not delivered", "jetstream", "-"),
        "ack_pending": ("JetStream, ack pending", "jetstream", ":"),
    }
    shown = {name: line for name, line in lines.items() if samples[name].notna().any()}
    if not shown:
        return say_instead(axes, title, "No depth was sampled in this run.")
    for name, (label, queue, dash) in shown.items():
        depth = samples[name].to_numpy(dtype="float64", na_value=np.nan)
        axes.plot(
            samples["time_s"],
            depth,
            color=COLOUR_OF_QUEUE[queue],
            linestyle=dash,
            label=label,
            marker="." if len(samples) == 1 else "",
        )
    from_zero(axes, above=room_above(run.faults))
    decorate(axes, title=title, x=TIME_LABEL, y="depth (tasks)", bands=True)
    shade_faults(axes, run.faults)
    legend_below(axes, 2, fault_key(run.faults))
    shade_phases(axes, run.phases)
    return axes


def plot_repeats(run: Run, axes: Axes | None = None) -> Axes:
    """Executions beyond the first of a task, per phase and transition and by their cause."""
    title = repeat_finding(run)
    names = run.row_names
    if not names:
        return say_instead(axes or new_axes(NOTE_INCHES), title, "No phase began in this run.")
    counts = count_repeats(run).reindex(names, fill_value=0)
    if len(names) > _MANY_ROWS:
        counts = counts[counts.sum(axis=1) > 0]
    if counts.empty:
        return say_instead(axes or new_axes(NOTE_INCHES), title, none_text(run.phases))
    axes = axes or new_axes(1.7 + 0.26 * len(counts))
    left = np.zeros(len(counts))
    causes = {
        "replayed": ("by JetStream after Redis", COLOUR_OF_QUEUE["jetstream"], ""),
        "explained": ("explained (crash, lease, fault)", EXPLAINED, "///"),
        "other": ("without an explanation", REPEATED, ""),
    }
    rows = np.arange(len(counts))
    for cause, (label, colour, hatch) in causes.items():
        values = counts[cause].to_numpy(dtype="float64")
        if not values.any():
            continue
        axes.barh(rows, values, left=left, color=colour, hatch=hatch, label=label, height=0.7)
        left += values
    for row, total in zip(rows, left, strict=True):
        axes.annotate(
            f"{total:,.0f}", (total, row), (4, 0), textcoords="offset points", va="center", size=9
        )
    axes.set_yticks(rows, list(counts.index))
    axes.set_ylim(len(counts) - 0.4, -0.6)
    axes.set_xlim(0, max(1.0, left.max() * 1.12))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(thousands))
    grid_along(axes, "x")
    decorate(
        axes, title=title, x="executions beyond the first of a task", y="", characters=_SHORT_TITLE
    )
    if left.any():
        axes.legend(loc="best", fontsize=9, frameon=False)
    return axes


def count_repeats(run: Run) -> pd.DataFrame:
    """Repeats per phase or transition (index) and cause: one column each.

    ``explained`` those after a crash, the end of a lease or a fault, by the account; ``replayed``
    those done by redis before and by jetstream now; ``other`` the rest.
    """
    repeats = run.repeats
    by_row = repeats.groupby(repeats["row"].astype("str"))["replayed"]
    counts = pd.DataFrame({"all": by_row.size(), "replayed": by_row.sum()})
    account = run.manifest.account
    explained: dict[str, int] = {}
    for row in account.rows if account is not None else []:
        explained[row.name] = explained.get(row.name, 0) + row.explained
    counts["explained"] = [explained.get(str(name), 0) for name in counts.index]
    counts["replayed"] = np.minimum(counts["replayed"], counts["all"] - counts["explained"])
    counts["other"] = counts["all"] - counts["explained"] - counts["replayed"]
    return counts[["replayed", "explained", "other"]]
