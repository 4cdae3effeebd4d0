"""The charts of the live page in Locust's HTML report, as one picture."""

import html
import io
from collections.abc import Callable
from typing import Any

import locust.main
import locust.web
from _live_page import LivePage, Point
from locust.env import Environment
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

__all__ = ["add_to_reports", "charts_svg"]

_SIZE_IN = (11.0, 8.0)
_BANDS = ("#4c78a8", "#59a14f", "#edc948", "#b07aa1", "#76b7b2")
_FAULT = "#e15759"
_LINES: tuple[tuple[str, str, tuple[tuple[str, str, str], ...]], ...] = (
    ("tasks/s", "linear", (("published", "published", "#4c78a8"), ("done", "done", "#f28e2b"))),
    (
        "ms",
        "log",
        (
            ("p50", "p50 to the end", "#59a14f"),
            ("p99", "p99 to the end", "#b07aa1"),
            ("lag", "p99 schedule lag", "#9c9c9c"),
        ),
    ),
    (
        "tasks",
        "linear",
        (
            ("redis", "Redis depth", "#d37295"),
            ("nats", "NATS depth", "#2f9e8f"),
            ("in_flight", "in flight", "#9c755f"),
        ),
    ),
)


def add_to_reports(environment: Environment, page: LivePage) -> None:
    """Have the charts in what Locust writes for ``--html``, and in what its page downloads."""
    for module in (locust.main, locust.web):
        module.get_html_report = _with_charts(module.get_html_report, environment, page)


def _with_charts(
    report: Callable[..., str], environment: Environment, page: LivePage
) -> Callable[..., str]:
    def with_charts(asked: Environment, *arguments: Any, **named: Any) -> str:
        text = report(asked, *arguments, **named)
        if asked is not environment or not page.points:
            return text
        head, end, tail = text.rpartition("</body>")
        lines = html.escape("\n".join(page.account_lines))
        section = (
            '<section style="max-width:1200px;margin:24px auto;padding:0 16px;background:#fff;'
            'color:#1b1b1b;font-family:sans-serif"><h2>hookbench</h2>'
            f'{charts_svg(page)}<pre style="overflow-x:auto">{lines}</pre></section>'
        )
        return f"{head}{section}{end}{tail}"

    return with_charts


def charts_svg(page: LivePage) -> str:
    """Rates, latencies and depths of a run; phases as bands, faults as shades."""
    figure = Figure(figsize=_SIZE_IN, layout="constrained")
    FigureCanvasSVG(figure)
    points = page.points
    end = points[-1].t
    axes = figure.subplots(len(_LINES), 1, sharex=True)
    for axis, (unit, scale, lines) in zip(axes, _LINES, strict=True):
        axis.set_yscale(scale)
        axis.set_ylabel(unit)
        axis.grid(alpha=0.3)
        _mark(axis, page, end)
        for name, label, color in lines:
            axis.plot(*_line(points, name), label=label, color=color, linewidth=1.3)
        axis.legend(loc="upper left", fontsize=8)
    for band in page.bands():
        middle = (band["begin"] + _or(band["end"], end)) / 2
        axes[0].text(
            middle, 1.02, band["phase"], transform=axes[0].get_xaxis_transform(), ha="center"
        )
    axes[-1].set_xlabel("seconds from the start")
    axes[-1].set_xlim(0, max(1.0, end))
    text = io.StringIO()
    figure.savefig(text, format="svg")
    return text.getvalue()[text.getvalue().index("<svg") :]


def _line(points: list[Point], name: str) -> tuple[list[float], list[float]]:
    found = [(item.t, value) for item in points if (value := getattr(item, name)) is not None]
    return [t for t, _value in found], [value for _t, value in found]


def _mark(axis: Axes, page: LivePage, end: float) -> None:
    known: dict[str, str] = {}
    for band in page.bands():
        color = known.setdefault(band["phase"], _BANDS[len(known) % len(_BANDS)])
        axis.axvspan(band["begin"], _or(band["end"], end), color=color, alpha=0.12, linewidth=0)
    for fault in page.shades():
        if fault["begin"] is None:
            continue
        begin = fault["begin"]
        axis.axvspan(begin, max(_or(fault["end"], end), begin), color=_FAULT, alpha=0.3)


def _or(value: float | None, instead: float) -> float:
    return instead if value is None else float(value)
