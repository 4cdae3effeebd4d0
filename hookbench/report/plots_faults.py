"""What faults did: what was delivered again, how long nothing went, and what was left."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hookbench.report.axis import grid_along, log_ticks, number_beside, thousands
from hookbench.report.findings_faults import (
    AFTER_S,
    count_redeliveries,
    count_redeliveries_by_kind,
    count_stuck,
    fault_recovery,
    recovery_finding,
    redelivery_finding,
    stuck_finding,
)
from hookbench.report.style import (
    ACCEPTED,
    DONE,
    EXPLAINED,
    GREY,
    NOTE_INCHES,
    REPEATED,
    STYLE_OF_PHASE,
    decorate,
    legend_below,
    legend_inches,
    new_axes,
    new_panels,
    none_text,
    say_instead,
    wrapped,
)
from hookbench.results.run import Run

__all__ = ["plot_recovery", "plot_redeliveries", "plot_stuck"]

_MANY_FAULTS = 12
_MANY_ROWS = 15
_LEAST_S = 1e-4
_BAR = 0.38
_APART = 0.26
_NAME_CHARACTERS = 22
_UNIT = "deliveries, executions"
_SHORT_TITLE = 40
"""Characters of a title over axes whose row names take a good part of the width."""


def plot_redeliveries(run: Run, *, after_s: float = AFTER_S) -> Axes | list[Axes]:
    """Redeliveries and repeated executions per phase and, where faults fired, per kind of fault.

    Args:
        run: the stored run.
        after_s: how long after its end redeliveries count for a fault.

    Returns:
        The axes of the phases; with faults both axes of one figure, those of the phases first.
    """
    counts = count_redeliveries(run)
    kinds = count_redeliveries_by_kind(run, after_s=after_s)
    title = redelivery_finding(counts, kinds)
    if counts.empty:
        return say_instead(new_axes(NOTE_INCHES), title, "No phase began in this run.")
    if len(counts) > _MANY_ROWS:
        counts = counts[counts.sum(axis=1) > 0]
    if not counts.to_numpy().sum():
        return say_instead(new_axes(NOTE_INCHES), title, none_text(run.phases))
    upper = 1.5 + 0.34 * len(counts)
    if kinds.empty:
        axes = new_axes(upper)
        _pairs(axes, counts, list(counts.index))
        decorate(axes, title=title, x=_UNIT, y="", characters=_SHORT_TITLE)
        legend_below(axes, 2)
        return axes
    axes, below = new_panels([upper, 1.3 + 0.34 * len(kinds)])
    _pairs(axes, counts, list(counts.index))
    upper_x = f"{_UNIT} per phase and transition"
    decorate(axes, title=title, x=upper_x, y="", characters=_SHORT_TITLE)
    names = [f"{kind} ({number:,})" for kind, number in kinds["faults"].items()]
    _pairs(below, kinds, names)
    decorate(below, title="", x=f"{_UNIT} per kind of fault (how many of it)", y="")
    legend_below(below, 2, f"A fault's redeliveries: until {after_s:g} s after its end.")
    return [axes, below]


def _pairs(axes: Axes, counts: pd.DataFrame, names: Sequence[str]) -> None:
    """Two bars for each row, with their numbers."""
    bars = {
        "redelivered": ("redelivered by its queue", EXPLAINED),
        "again": ("done again", REPEATED),
    }
    rows = np.arange(len(counts))
    for place, (column, (label, colour)) in enumerate(bars.items()):
        values = counts[column].to_numpy(dtype="float64")
        at = rows + (place - 0.5) * _BAR
        axes.barh(at, values, color=colour, height=_BAR, label=label)
        for y, value in zip(at, values, strict=True):
            number_beside(axes, value, float(y), f"{value:,.0f}", size=8)
    _name_rows(axes, names)
    axes.set_xlim(0, max(1.0, counts[list(bars)].to_numpy().max() * 1.15))
    _whole_x(axes)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(np.arange(len(names)), list(names))
    axes.set_ylim(len(names) - 0.4, -0.6)
    grid_along(axes, "x")


def _whole_x(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(thousands))


_SERIES = {
    "accepted_s": ("longest time without a task accepted", ACCEPTED, "s"),
    "done_s": ("longest time without a task done", DONE, "o"),
    "recovery_s": ("from its end to the broker's next success", REPEATED, "D"),
}


def plot_recovery(run: Run, axes: Axes | None = None, *, many: int = _MANY_FAULTS) -> Axes:
    """How long nothing was accepted and nothing done around each fault, and when brokers answered.

    A fault has a row of its own; with more than ``many`` of them each kind has one, in which every
    fault is a dot and a line stands at the median.
    """
    recovery = fault_recovery(run)
    title = recovery_finding(recovery)
    if recovery.empty:
        text = "No fault was planned." if run.faults.empty else "None of its faults fired."
        return say_instead(axes or new_axes(NOTE_INCHES), title, text)
    by_kind = len(recovery) > many
    if by_kind:
        kinds = recovery.groupby("kind")["done_s"].median().sort_values(ascending=False).index
        counts = recovery["kind"].value_counts()
        names = [f"{kind} ({counts[kind]:,})" for kind in kinds]
        row = recovery["kind"].map({kind: place for place, kind in enumerate(kinds)})
    else:
        texts = zip(recovery["index"], recovery["name"], strict=True)
        names = [wrapped(f"{index} {name}", _NAME_CHARACTERS) for index, name in texts]
        row = pd.Series(np.arange(len(recovery)), index=recovery.index)
    axes = axes or new_axes(1.8 + 0.36 * max(3, len(names)) + legend_inches(3, 1))
    for place in range(0, len(names), 2):
        axes.axhspan(place - 0.5, place + 0.5, color="#F4F4F4", zorder=-10, linewidth=0)
    axes.set_xscale("log")
    for place, column in enumerate(_SERIES):
        _dots(axes, recovery[column], row + (place - 1) * _APART, column, medians=by_kind)
    _name_rows(axes, names)
    log_ticks(axes.xaxis)
    unit = "seconds; a line is the median of its kind" if by_kind else "seconds"
    decorate(axes, title=title, x=unit, y="", characters=_SHORT_TITLE)
    legend_below(axes, 1)
    return axes


def _dots(axes: Axes, values: pd.Series, at: pd.Series, column: str, *, medians: bool) -> None:
    """One dot for each fault; with ``medians`` faint ones, and a line for each row."""
    label, colour, marker = _SERIES[column]
    shown = values.clip(lower=_LEAST_S)
    size = 3.5 if medians else 6
    axes.plot(
        shown, at, marker, color=colour, alpha=0.25 if medians else 1, markersize=size,
        markeredgewidth=0, linestyle="",
    )  # fmt: skip
    axes.plot([], [], marker, color=colour, markersize=6, linestyle="", label=label)
    if medians:
        middle = shown.groupby(at).median().dropna()
        y = middle.index.to_numpy(dtype="float64")
        axes.vlines(middle.to_numpy(), y - _APART / 2, y + _APART / 2, color=colour, linewidth=2.4)


def plot_stuck(run: Run, axes: Axes | None = None) -> Axes:
    """Where tasks without an end lie, and copies of finished tasks that were left in Redis.

    The colours are the phases that the tasks were put in, the numbers those of each row.
    """
    counts = count_stuck(run)
    title = stuck_finding(run, counts)
    if counts.empty:
        known = run.manifest.account is not None
        text = "Every task came to an end, and nothing was left in Redis."
        return say_instead(
            axes or new_axes(NOTE_INCHES), title, text if known else "Nothing is known."
        )
    phases = [name for name in counts.columns if counts[name].any()]
    axes = axes or new_axes(1.6 + 0.45 * max(2, len(counts)) + legend_inches(len(phases), 3))
    rows, left = np.arange(len(counts)), np.zeros(len(counts))
    for phase in phases:
        values = counts[phase].to_numpy(dtype="float64")
        colour = STYLE_OF_PHASE.get(phase, {}).get("color", GREY)
        axes.barh(rows, values, left=left, color=colour, height=0.6, label=phase)
        left += values
    for row, total in zip(rows, left, strict=True):
        number_beside(axes, total, float(row), f"{total:,.0f}")
    _name_rows(axes, [wrapped(str(name), _NAME_CHARACTERS) for name in counts.index])
    axes.set_xlim(0, left.max() * 1.15)
    _whole_x(axes)
    decorate(axes, title=title, x="tasks, by the phase they were put in", y="", characters=40)
    legend_below(axes, 3)
    return axes
