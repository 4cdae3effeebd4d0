"""Plots of a model: predicted against measured, and a day with its outages."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MultipleLocator

from hookbench.model.terms import Floats
from hookbench.model.texts import bytes_text, seconds_text
from hookbench.model.timeline import Timeline
from hookbench.model.validate import HeldOut, Validation
from hookbench.report.axis import from_zero, log_ticks
from hookbench.report.style import (
    COLOUR_OF_QUEUE,
    COLOUR_OF_ROLE,
    FAULT,
    GREY,
    STYLE_OF_PHASE,
    decorate,
    legend_below,
    legend_inches,
    new_axes,
    new_panels,
    say_instead,
)

__all__ = ["plot_day", "plot_predicted"]


class _What(NamedTuple):
    """A kind of figures: those whose names end so, their unit, and what they are divided by."""

    name: str
    endings: tuple[str, ...]
    unit: str
    divisor: float


_WHATS = {
    "rate": _What("Rates", ("_per_s",), "tasks per second", 1.0),
    "latency": _What("Latencies", ("_ms",), "ms", 1.0),
    "cpu": _What("CPU per task", ("_cpu_us, saturated", "_cpu_us, at a rate"), "ms", 1e3),
}
_MARKERS = ("o", "s", "^", "D", "v", "P")
_BINS = 720
"""Of a day in a plot: each has the most that its steps have."""
_HOUR_S = 3600
_MIB = 2**20
_TICKS_H = (1, 2, 3, 4, 6, 12, 24)
_MOST_TICKS = 8


def plot_predicted(found: Validation, what: str = "rate", axes: Axes | None = None) -> Axes:
    """Predicted over measured, of cells that the fit had not seen; on the line both are equal.

    A route has its colour, a figure its marker. Both axes are logarithmic and have one range.

    Args:
        found: of ``validate``.
        what: ``rate``, ``latency`` or ``cpu``.
        axes: to draw on; a figure of their own without.
    """
    chosen = _WHATS[what]
    rows = [row for row in found.rows if row.figure.endswith(chosen.endings)]
    routes = list(dict.fromkeys(row.route for row in rows))
    figures = list(dict.fromkeys(row.figure for row in rows))
    entries = len(routes) + len(figures) + 1
    axes = axes or new_axes(4.6 + legend_inches(entries, 2))
    title = _error_title(chosen.name, rows)
    if not rows:
        return say_instead(axes, title, "No cell was held out.")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for row in rows:
        axes.plot(
            row.measured / chosen.divisor,
            row.predicted / chosen.divisor,
            _MARKERS[figures.index(row.figure) % len(_MARKERS)],
            color=_colour(row.route),
            fillstyle="none",
            markersize=5,
        )
    values = [value / chosen.divisor for row in rows for value in (row.measured, row.predicted)]
    ends = (min(values) / 1.3, max(values) * 1.3)
    axes.plot(ends, ends, color=GREY, linewidth=1, zorder=-5)
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    for axis in (axes.xaxis, axes.yaxis):
        log_ticks(axis)
    axes.grid(axis="both", color="#DDDDDD", linewidth=0.6)
    decorate(axes, title=title, x=f"measured ({chosen.unit})", y=f"predicted ({chosen.unit})")
    for key in _keys(routes, figures):
        axes.add_line(key)
    legend_below(axes, 2)
    return axes


def _keys(routes: Sequence[str], figures: Sequence[str]) -> list[Line2D]:
    """What colours, markers and the line stand for."""
    keys = [
        Line2D([], [], marker="o", linestyle="", color=_colour(route), label=route)
        for route in routes
    ]
    keys += [
        Line2D([], [], marker=mark, linestyle="", color=GREY, fillstyle="none", label=figure)
        for figure, mark in zip(figures, _MARKERS * len(figures), strict=False)
    ]
    return [*keys, Line2D([], [], color=GREY, linewidth=1, label="predicted as measured")]


def _colour(route: str) -> str:
    return COLOUR_OF_QUEUE.get(route) or str(STYLE_OF_PHASE[route]["color"])


def _error_title(name: str, rows: Sequence[HeldOut]) -> str:
    if not rows:
        return f"{name} of cells that were not fitted"
    errors = np.abs([row.error for row in rows])
    worst = rows[int(np.argmax(errors))]
    return (
        f"{name} of cells that were not fitted: median error {np.median(errors):.1%}, worst"
        f" {errors.max():.0%} ({worst.route}, {worst.durability}, {worst.payload_bytes:,.0f} B)"
    )


def plot_day(found: Timeline) -> list[Axes]:
    """A simulated day: tasks that wait, memory, and disk, above each other; outages are shaded."""
    panels = new_panels([2.9, 2.5, 2.8])
    hours = _most(found.time_s) / _HOUR_S
    waiting, memory, disk = panels
    waiting.plot(hours, _most(found.waiting), color=GREY, label="waiting for a worker")
    for broker, tasks in found.outbox.items():
        if tasks.any():
            waiting.plot(
                hours, _most(tasks), "--", color=COLOUR_OF_ROLE[broker], label=f"outbox, {broker}"
            )
    for axes, sizes in ((memory, found.memory_bytes), (disk, found.disk_bytes)):
        for broker, values in sizes.items():
            if found.stored[broker].any():
                axes.plot(hours, _most(values) / _MIB, color=COLOUR_OF_ROLE[broker], label=broker)
    if limit := found.day.maxmemory_bytes:
        memory.axhline(limit / _MIB, color=COLOUR_OF_ROLE["redis"], linestyle=":", linewidth=1)
    titles = (_day_title(found), _peak_title("Memory", found.memory_bytes, found),
              _peak_title("Disk", found.disk_bytes, found))  # fmt: skip
    units = ("tasks", "memory (MiB)", "disk (MiB)")
    for axes, title, unit in zip(panels, titles, units, strict=True):
        _shade(axes, found)
        from_zero(axes)
        axes.set_xlim(0, found.day.seconds / _HOUR_S)
        _hours_axis(axes, found.day.seconds / _HOUR_S)
        decorate(axes, title=title, x="time of the simulated day" if axes is disk else "", y=unit)
        if axes is not disk and axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=9, frameon=False, loc="upper left")
    return panels


def _most(values: Floats) -> Floats:
    """The most of each of equal bins, so that no peak is lost."""
    edges = np.linspace(0, len(values), min(_BINS, len(values)) + 1).astype(np.int64)
    return np.maximum.reduceat(values, edges[:-1])


def _shade(axes: Axes, found: Timeline) -> None:
    for effect in found.effects:
        begin_s, length_s = effect.outage.begin_s, effect.outage.length_s
        # An outage of a minute is less than a point wide: it has a line as well.
        axes.axvspan(
            begin_s / _HOUR_S, (begin_s + length_s) / _HOUR_S, color=FAULT, alpha=0.55, zorder=-8
        )
        axes.axvline(begin_s / _HOUR_S, color="#C9B800", linewidth=0.8, zorder=-7)


def _hours_axis(axes: Axes, hours: float) -> None:
    step = next((item for item in _TICKS_H if hours / item <= _MOST_TICKS), max(1.0, hours // 4))
    axes.xaxis.set_major_locator(MultipleLocator(step if hours >= 1 else hours / 4))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _at: f"{int(value):02d}:{round(value % 1 * 60):02d}")
    )


def _unbroken(text: str) -> str:
    """A number that stays on the line of its unit."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _day_title(found: Timeline) -> str:
    most = f"{found.day.phase.label}: at most {found.waiting.max():,.0f} tasks wait"
    if not found.effects:
        return most
    longest = max(
        found.effects,
        key=lambda item: float("inf") if item.catch_up_s is None else item.catch_up_s,
    )
    outage, after_s = longest.outage, longest.catch_up_s
    return (
        f"{most}; {_unbroken(seconds_text(outage.length_s))} without {outage.target} are caught up"
        f" after {_unbroken(seconds_text(after_s))}"
    )


def _peak_title(name: str, sizes: dict[str, Floats], found: Timeline) -> str:
    peaks = [
        f"{broker} {_unbroken(bytes_text(float(values.max())))}"
        for broker, values in sizes.items()
        if found.stored[broker].any()
    ]
    title = f"{name} at the most: {', '.join(peaks)}"
    if name == "Memory" and found.maxmemory_at_s is not None:
        title += f"; full after {_unbroken(seconds_text(found.maxmemory_at_s))}"
    return title
