"""``guide`` beside ``hardened``: rate, latency, what went wrong, and CPU, in one figure."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hookbench.errors import SettingError
from hookbench.report.axis import grid_along, number_beside, plain
from hookbench.report.findings_cost import amount_text
from hookbench.report.findings_designs import (
    WRONGS,
    DesignFigures,
    design_figures,
    designs_finding,
)
from hookbench.report.style import (
    COLOUR_OF_ROLE,
    GREY,
    decorate,
    legend_below,
    new_panels,
)
from hookbench.results.run import Run

__all__ = ["COLOUR_OF_DESIGN", "plot_designs"]

COLOUR_OF_DESIGN = {"guide": "#AAAAAA", "hardened": "#222222"}
"""Light and dark: no colour of a queue, a phase or a role."""
_ROOM = 1.25


def plot_designs(guide: Run, hardened: Run) -> list[Axes]:
    """Four panels of one figure; the first has the title, with the price as ratios.

    Args:
        guide: a run of that design.
        hardened: a run of that design, of the same load.

    Raises:
        SettingError: the two are of other designs than their names say.
    """
    for wanted, run in (("guide", guide), ("hardened", hardened)):
        if run.manifest.design != wanted:
            raise SettingError(
                f"run {run.manifest.run}: design {run.manifest.design!r}, expected {wanted!r};"
                " give the run of guide first, then that of hardened"
            )
    figures = {"guide": design_figures(guide), "hardened": design_figures(hardened)}
    title = designs_finding(figures["guide"], figures["hardened"])
    rate, latency, wrongs, cpu = new_panels([1.7, 1.3, 2.5, 1.55])
    _bars(rate, {"rate": [item.done_per_s for item in figures.values()]})
    decorate(rate, title=title, x="tasks done per second, over all phases", y="")
    _bars(
        latency,
        {
            name: [getattr(item, f"{name}_ms") for item in figures.values()]
            for name in ("p50", "p99")
        },
    )
    decorate(latency, title="", x="end-to-end latency (ms)", y="")
    _bars(wrongs, {name: [item.wrongs[name] for item in figures.values()] for name in WRONGS})
    decorate(wrongs, title="", x="tasks, executions, copies", y="")
    for axes in (rate, latency, wrongs):
        for design, colour in COLOUR_OF_DESIGN.items():
            axes.barh([0], [0], color=colour, label=design)
    legend_below(wrongs, 2)
    _cpu(cpu, figures)
    return [rate, latency, wrongs, cpu]


def _bars(axes: Axes, values: dict[str, list[float]]) -> None:
    """For each name two bars, of guide and of hardened, with their numbers."""
    most = 0.0
    for place, pair in enumerate(values.values()):
        for offset, value, colour in zip((-0.2, 0.2), pair, COLOUR_OF_DESIGN.values(), strict=True):
            length = 0.0 if np.isnan(value) else value
            most = max(most, length)
            axes.barh([place + offset], [length], height=0.38, color=colour)
            number_beside(axes, length, place + offset, _text(value))
    axes.set_yticks(np.arange(len(values)), list(values))
    axes.set_ylim(len(values) - 0.5, -0.5)
    _along_x(axes, most)


def _cpu(axes: Axes, figures: dict[str, DesignFigures]) -> None:
    """CPU seconds per thousand tasks, stacked by role."""
    roles = list(dict.fromkeys(r for item in figures.values() for r in item.cpu_s_per_thousand))
    left = np.zeros(len(figures))
    rows = np.arange(len(figures))
    for role in roles:
        values = [item.cpu_s_per_thousand.get(role, 0.0) for item in figures.values()]
        colour = COLOUR_OF_ROLE.get(role, GREY)
        axes.barh(rows, values, left=left, height=0.7, color=colour, label=role)
        left += np.array(values)
    for row, item in zip(rows, figures.values(), strict=True):
        number_beside(axes, float(left[row]), float(row), _text(item.cpu_s))
    axes.set_yticks(rows, list(figures))
    axes.set_ylim(len(figures) - 0.5, -0.5)
    _along_x(axes, float(left.max()))
    decorate(axes, title="", x="CPU seconds per thousand tasks, without the harness", y="")
    if roles:
        legend_below(axes, 4)


def _along_x(axes: Axes, most: float) -> None:
    axes.set_xlim(0, most * _ROOM if most > 0 else 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(plain))
    grid_along(axes, "x")


def _text(value: float) -> str:
    if np.isnan(value):
        return "?"
    return f"{value:,.0f}" if value == round(value) else amount_text(value)
