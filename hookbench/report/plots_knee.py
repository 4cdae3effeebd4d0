"""The knee: up to which rate a queue keeps its latency, from answers of ``hookbench capacity``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from hookbench.rehearsal.capacity import CapacityAnswer
from hookbench.report.axis import log_ticks
from hookbench.report.findings_knee import (
    DURABILITIES,
    interval_text,
    knee_finding,
    knee_table,
    load_answers,
    parts_of,
)
from hookbench.report.style import (
    COLOUR_OF_QUEUE,
    DASHES,
    GREY,
    decorate,
    legend_below,
    legend_inches,
    new_axes,
    say_instead,
)

__all__ = ["load_answers", "plot_knee"]

_LEAST_MS = 0.001
_INTERVAL_ALPHA = 0.25
_DESIGNS = {"guide": "o", "hardened": "s"}


def plot_knee(answers: Sequence[CapacityAnswer], axes: Axes | None = None) -> Axes:
    """Latency over the offered rate, one line per answer; the interval of each is shaded.

    A queue has its colour, a durability class its dashes, a design its marker: filled where the
    rate was sustained, empty where it was not or the trials do not agree. Bars span the trials.

    Args:
        answers: as ``load_answers`` reads them.
        axes: to draw on; a figure of their own without.
    """
    table = knee_table(answers)
    title = knee_finding(answers)
    shown = [item for item in answers if (table["label"] == item.label).any()]
    axes = axes or new_axes(3.9 + legend_inches(len(shown) + 1, 1))
    if not shown:
        return say_instead(axes, title, "No trial measured a latency.")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for answer in shown:
        _draw(axes, answer, table[table["label"] == answer.label])
    axes.plot(
        [], [], "o", color=GREY, fillstyle="none", label="empty: not sustained; shade: interval"
    )
    for axis in (axes.xaxis, axes.yaxis):
        log_ticks(axis)
    axes.grid(axis="both", color="#DDDDDD", linewidth=0.6)
    what = " / ".join(dict.fromkeys(table["percentile"]))
    decorate(axes, title=title, x="offered rate (tasks per second)", y=f"{what} latency (ms)")
    legend_below(axes, 1)
    return axes


def _draw(axes: Axes, answer: CapacityAnswer, rows: pd.DataFrame) -> None:
    queue, durability, design = parts_of(answer.label)
    colour = COLOUR_OF_QUEUE.get(queue, GREY)
    marker = _DESIGNS.get(design, "D")
    rates = rows["rate_per_s"].to_numpy(dtype="float64")
    ms = {
        name: np.maximum(rows[f"{name}_ms"].to_numpy(dtype="float64"), _LEAST_MS)
        for name in ("latency", "low", "high")
    }
    name = ", ".join(part for part in (queue, durability, design) if part)
    axes.plot(
        rates, ms["latency"], color=colour, linestyle=_dash(durability), linewidth=1.4,
        label=f"{name}: {interval_text(answer)}",
    )  # fmt: skip
    axes.vlines(rates, ms["low"], ms["high"], color=colour, linewidth=1, alpha=0.6)
    sustained = rows["sustained"].to_numpy(dtype=object) == True  # noqa: E712 - None is neither
    for mask, style in ((sustained, "full"), (~sustained, "none")):
        dots: dict[str, Any] = {"color": colour, "fillstyle": style, "markersize": 5}
        axes.plot(rates[mask], ms["latency"][mask], marker, linestyle="", **dots)
    low, high = answer.capacity.low_per_s, answer.capacity.high_per_s
    if low and high is not None:
        axes.axvspan(low, high, color=colour, alpha=_INTERVAL_ALPHA, linewidth=0, zorder=-5)
    elif low:
        axes.axvline(low, color=colour, linestyle=":", linewidth=1)


def _dash(durability: str) -> Any:
    """``lazy``, the class of most runs, has the whole line."""
    order = ("lazy", *(name for name in DURABILITIES if name != "lazy"))
    return DASHES[order.index(durability) % len(DASHES)] if durability in order else DASHES[0]
