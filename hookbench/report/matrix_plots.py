"""Plots of a matrix: a point with its interval for each cell, grouped by durability class."""

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from hookbench.brokers.durability import Durability
from hookbench.rehearsal.matrix_plan import Kind, payload_label
from hookbench.report.matrix import CellSummary, Interval, MatrixSummary, are_apart
from hookbench.report.matrix_rows import draw_rows, rows_of
from hookbench.report.matrix_tables import UNKNOWN, ms_text, rate_text
from hookbench.report.style import (
    COLOUR_OF_QUEUE,
    GREY,
    STYLE_OF_PHASE,
    decorate,
    new_axes,
    say_instead,
)

__all__ = ["latency_finding", "plot_matrix_latency", "plot_matrix_throughput", "throughput_finding"]

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_SHORT_TITLE = 36
_ROW_INCHES = 0.24
_FIXED_INCHES = 1.6
_WIDE_RANGE = 100
_ROOM = 1.12
"""Of the x axis, so that the figure behind the last interval stands within."""


def plot_matrix_throughput(summary: MatrixSummary, axes: Axes | None = None) -> Axes:
    """Tasks done per second at saturation, per queue and phase, with intervals."""
    title = throughput_finding(summary)
    axes = _plot(summary, ("throughput", "done_per_s"), title, axes)
    if axes.axison:
        axes.set_xlim(0, axes.get_xlim()[1] * _ROOM)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _at: rate_text(value)))
        unit = f"tasks done per second, {summary.plan.callers} callers (windowed loop)"
        axes.set_xlabel(unit + _star_text(summary, "throughput"))
    return axes


def plot_matrix_latency(summary: MatrixSummary, axes: Axes | None = None) -> Axes:
    """End-to-end p99 at the fixed rate, in the order of the phases, with intervals."""
    title = latency_finding(summary)
    axes = _plot(summary, ("latency", "p99_ms"), title, axes)
    if axes.axison:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        high *= (high / low) ** (_ROOM - 1)
        axes.set_xlim(low, high)
        subs = (1, 2, 5) if high / low < _WIDE_RANGE else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _at: f"{value:,g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        unit = f"end-to-end p99 at {summary.plan.rate_per_s:g} tasks/s (ms)"
        axes.set_xlabel(unit + _star_text(summary, "latency"))
    return axes


def _star_text(summary: MatrixSummary, kind: Kind) -> str:
    starred = any(item.kinds[kind].notes for item in summary.cells)
    return "\n* with a note in the tables" if starred else ""


def _plot(summary: MatrixSummary, what: tuple[Kind, str], title: str, axes: Axes | None) -> Axes:
    """One row per cell, a bold one with its name above each class."""
    kind = what[0]
    if kind not in summary.plan.kinds:
        return say_instead(axes or new_axes(), title, f"The matrix has no trials of {kind}.")
    payloads = [str(item) for item in summary.plan.payload]
    axes = axes or new_axes(_FIXED_INCHES + _ROW_INCHES * rows_of(summary))
    for row, item in draw_rows(axes, summary, by_phase=kind == "latency"):
        marker = _MARKERS[payloads.index(item.cell.payload) % len(_MARKERS)]
        _draw(axes, row, item, marker, what)
    decorate(axes, title=title, x="", y="", characters=_SHORT_TITLE)
    if len(payloads) > 1:
        marks = [
            Line2D([], [], marker=mark, color=GREY, linestyle="", label=payload_label(payload))
            for payload, mark in zip(payloads, _MARKERS, strict=False)
        ]
        axes.legend(handles=marks, loc="best", fontsize=9, frameon=False)
    return axes


def _draw(axes: Axes, row: int, item: CellSummary, marker: str, what: tuple[Kind, str]) -> None:
    """A cell's point, interval and median; with a star where the tables have a note on it."""
    kind, figure = what
    interval = item.kinds[kind].figures.get(figure)
    star = "*" if item.kinds[kind].notes else ""
    if interval is None:
        axes.annotate(
            UNKNOWN + star, (0.01, row), xycoords=("axes fraction", "data"), va="center", color=GREY
        )
        return
    route = item.cell.route
    colour = COLOUR_OF_QUEUE.get(route) or STYLE_OF_PHASE[route]["color"]
    if interval.low is not None and interval.high is not None:
        axes.plot([interval.low, interval.high], [row, row], color=colour, linewidth=2.2)
    axes.plot(interval.median, row, marker=marker, color=colour, markersize=5)
    text = rate_text(interval.median) if kind == "throughput" else ms_text(interval.median)
    axes.annotate(
        text + star,
        (interval.high if interval.high is not None else interval.median, row),
        (5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=GREY,
    )


def throughput_finding(summary: MatrixSummary) -> str:
    """How jetstream does beside redis_list in each class, where their intervals do not touch."""
    payload = str(summary.plan.payload[0])
    parts = []
    for durability in summary.plan.durability:
        found = dict(_known(summary, durability, ("throughput", "done_per_s")))
        if {"jetstream", "redis_list"} <= found.keys():
            one, other = found["jetstream"], found["redis_list"]
            ratio = f"{one.median / max(1.0, other.median):.2g} times"
            parts.append(f"{ratio if are_apart(one, other) else 'not told apart'} ({durability})")
    if not parts:
        return "Tasks done per second at saturation"
    return f"Tasks done, jetstream over redis_list, {payload_label(payload)}: {', '.join(parts)}"


def latency_finding(summary: MatrixSummary) -> str:
    """In which phase or queue the p99 is highest in each class, if its interval says so."""
    payload = str(summary.plan.payload[0])
    parts = []
    for durability in summary.plan.durability:
        found = _known(summary, durability, ("latency", "p99_ms"))
        found.sort(key=lambda item: item[1].median, reverse=True)
        if len(found) > 1:
            top = found[0][0] if are_apart(found[0][1], found[1][1]) else "not told apart"
            parts.append(f"{top} ({durability})")
    if not parts:
        return "End-to-end p99 at a fixed rate"
    return f"Highest end-to-end p99, {payload_label(payload)}: {', '.join(parts)}"


def _known(
    summary: MatrixSummary, durability: Durability, what: tuple[Kind, str]
) -> list[tuple[str, Interval]]:
    """Routes of a class that have this figure, with the first payload."""
    kind, figure = what
    return [
        (item.cell.route, item.kinds[kind].figures[figure])
        for item in summary.of_class(durability)
        if item.cell.payload == str(summary.plan.payload[0])
        and kind in item.kinds
        and figure in item.kinds[kind].figures
    ]
