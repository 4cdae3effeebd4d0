"""Distributions of latencies of one or several runs: HDR percentile curves, and the ECDF.

A queue has its colour, whichever run it is from; runs are told apart by their dashes. Where no
queue is asked for, phases have theirs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MultipleLocator

from hookbench.clock import NS_PER_MS
from hookbench.report.axis import PERCENTILE_LABEL, log_ticks, percentile_axis, step_over_tail
from hookbench.report.findings_latency import (
    Curve,
    ecdf_finding,
    latency_curves,
    percentile_finding,
)
from hookbench.report.style import (
    COLOUR_OF_QUEUE,
    COLOUR_OF_RUN,
    DASHES,
    STYLE_OF_PHASE,
    decorate,
    legend_below,
    legend_inches,
    new_axes,
    say_instead,
)
from hookbench.results.run import Run

__all__ = ["plot_ecdf", "plot_percentiles"]

_HEIGHT_INCHES = 3.9
_LONG_LABEL = 22
_LEAST_MS = 0.001
_Y_LABELS = {"end_to_end": "end-to-end latency (ms)", "enqueue": "enqueue latency (ms)"}


def plot_percentiles(
    runs: Sequence[Run],
    axes: Axes | None = None,
    *,
    by: str | Sequence[str] = "queue",
    what: str = "end_to_end",
) -> Axes:
    """Latency over the percentile, in which each further nine takes the same room (HDR style).

    Args:
        runs: stored runs.
        axes: to draw on; a figure of their own without.
        by: ``queue``, ``phase``, ``step``, several of them, or none (``[]``) for a curve per run.
        what: ``end_to_end`` (intended to first done) or ``enqueue`` (intended to accepted).

    Raises:
        SettingError: no run, or no such group or latency.
    """
    curves = latency_curves(runs, by, what)
    axes = axes or new_axes(_HEIGHT_INCHES + legend_inches(len(curves), _columns(curves)))
    title = percentile_finding(curves, what)
    if not curves:
        return say_instead(axes, title, "No synthetic task has a latency here.")
    longest = 2.0
    for curve in curves:
        tail, values = step_over_tail(curve.frame)
        longest = max(longest, tail[-1])
        style = _style(curve, curves)
        axes.step(tail, np.maximum(values, _LEAST_MS), where="pre", label=curve.label, **style)
    axes.set_yscale("log")
    log_ticks(axes.yaxis)
    percentile_axis(axes, longest)
    decorate(axes, title=title, x=PERCENTILE_LABEL, y=_Y_LABELS[what])
    legend_below(axes, _columns(curves))
    return axes


def plot_ecdf(
    runs: Sequence[Run],
    axes: Axes | None = None,
    *,
    by: str | Sequence[str] = "queue",
    what: str = "end_to_end",
) -> Axes:
    """The share of the tasks that took at most so long.

    Arguments and errors are those of ``plot_percentiles``.
    """
    curves = latency_curves(runs, by, what)
    axes = axes or new_axes(_HEIGHT_INCHES + legend_inches(len(curves), _columns(curves)))
    title = ecdf_finding(curves, what)
    if not curves:
        return say_instead(axes, title, "No synthetic task has a latency here.")
    axes.set_xscale("log")
    for curve in curves:
        values = np.maximum(curve.frame["value_ns"].to_numpy() / NS_PER_MS, _LEAST_MS)
        shares = curve.frame["percentile"].to_numpy()
        axes.step(
            np.concatenate((values[:1], values)),
            np.concatenate(([0.0], shares)),
            where="post",
            label=curve.label,
            **_style(curve, curves),
        )
    log_ticks(axes.xaxis)
    axes.set_ylim(-1.5, 103)
    axes.yaxis.set_major_locator(MultipleLocator(25))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g} %"))
    axes.grid(axis="both", color="#DDDDDD", linewidth=0.6)
    decorate(axes, title=title, x=_Y_LABELS[what], y="share of the tasks")
    legend_below(axes, _columns(curves))
    return axes


def _columns(curves: Sequence[Curve]) -> int:
    longest = max((len(curve.label) for curve in curves), default=0)
    return 3 if longest < _LONG_LABEL * 2 / 3 else 2 if longest <= _LONG_LABEL * 1.3 else 1


def _style(curve: Curve, curves: Sequence[Curve]) -> Mapping[str, Any]:
    """Colour by queue, phase or run; dashes by run where there are several, else by phase."""
    several = curves[-1].run != curves[0].run and not curve.alone
    dash = DASHES[curve.run % len(DASHES)]
    phase = STYLE_OF_PHASE.get(curve.keys.get("phase", ""), {})
    queue = COLOUR_OF_QUEUE.get(curve.keys.get("queue", ""))
    if queue is not None:
        style = {"color": queue, "linestyle": dash if several else phase.get("linestyle", "-")}
        if several and phase:
            place = list(STYLE_OF_PHASE).index(curve.keys["phase"])
            style["linewidth"] = 0.8 + 0.6 * place
        return style
    if phase:
        return {**phase, "linestyle": dash} if several else phase
    return {"color": COLOUR_OF_RUN[curve.run % len(COLOUR_OF_RUN)], "linestyle": dash}
