"""Scales and ticks that several plots share: from zero, milliseconds in logs, percentile tails."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
)

from hookbench.clock import NS_PER_MS

__all__ = [
    "PERCENTILE_LABEL",
    "TIME_LABEL",
    "from_zero",
    "grid_along",
    "log_ticks",
    "number_beside",
    "percentile_axis",
    "plain",
    "step_over_tail",
    "thousands",
    "width_text",
]

TIME_LABEL = "time since the start of the load (s)"
PERCENTILE_LABEL = "percentile of tasks (log tail)"
_PERCENTILES = (0, 50, 90, 99, 99.9, 99.99, 99.999)
_MANY_NINES = 4
_WIDE_RANGE = 300
_NARROW_RANGE = 1.5
_BELOW_ZERO = 0.015
"""Share of the y axis below zero, so that a line along zero is seen."""


def from_zero(axes: Axes, *, above: float = 0.05) -> None:
    """A y axis of numbers of tasks that begins at zero; ``above`` of it lies over the data."""
    top = max(1.0, axes.dataLim.y1) * (1 + above)
    axes.set_ylim(-_BELOW_ZERO * top, top)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(thousands))


def log_ticks(axis: Axis) -> None:
    """Plain numbers on a log axis, at 1, 2 and 5 where its range is narrow."""
    low, high = axis.get_view_interval()
    if high / low < _NARROW_RANGE:  # one value or so: no decade lies within
        middle = (low * high) ** 0.5
        low, high = middle / 2, middle * 2
        axis.set_view_interval(low, high, ignore=True)
    subs = (1, 2, 5) if high / low < _WIDE_RANGE else (1,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(plain))
    axis.set_minor_formatter(NullFormatter())


def percentile_axis(axes: Axes, longest: float) -> None:
    """Percentiles on the x axis as an HDR plot has them: each nine takes the same room."""
    axes.set_xlim(0, longest * 1.02)
    first = 0 if longest < _MANY_NINES else 1  # 0 % and 50 % are close to each other there
    percentiles = [p for p in _PERCENTILES[first:] if _tail(p) <= longest]
    axes.xaxis.set_major_locator(FixedLocator([_tail(p) for p in percentiles]))
    axes.set_xticklabels([f"{p:g} %" for p in percentiles])
    axes.grid(axis="both", color="#DDDDDD", linewidth=0.6)


def step_over_tail(
    curve: pd.DataFrame,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """A distribution as the steps of an HDR plot: its x in nines, and its ms.

    The largest of n values stands at the percentile 1 - 1/n.
    """
    last = np.log10(curve["count"].sum())
    above = (1 - curve["percentile"] / 100).clip(lower=10.0**-last)
    tail = np.concatenate(([0.0], -np.log10(above)))
    values = np.concatenate((curve["value_ns"][:1], curve["value_ns"])) / NS_PER_MS
    return tail, values


def grid_along(axes: Axes, axis: str) -> None:
    """Lines across one axis alone, of bars that lie."""
    axes.grid(visible=False, axis="both")
    axes.grid(axis=axis, color="#DDDDDD", linewidth=0.6)  # type: ignore[arg-type]


def number_beside(axes: Axes, value: float, y: float, text: str, *, size: float = 9) -> None:
    """The text of a bar that lies and ends at ``value``."""
    axes.annotate(text, (value, y), (4, 0), textcoords="offset points", va="center", size=size)


def thousands(value: float, _position: int | None = None) -> str:
    """``12,000``; nothing for what is no whole number."""
    return f"{value:,.0f}" if value == round(value) else ""


def plain(value: float, _position: int | None = None) -> str:
    """``0.5``, ``12,000``: no powers of ten."""
    return f"{value:,g}" if value < 1e6 else f"{value:,.0f}"  # noqa: PLR2004 - g turns to powers


def width_text(freq: str) -> str:
    """A width as ``Run.bin_freq`` gives it, for people: ``10000ms`` is ``10 s``."""
    seconds = pd.Timedelta(freq).total_seconds()
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1e3:g} ms"


def _tail(percentile: float) -> float:
    return float(-np.log10(1 - percentile / 100))
