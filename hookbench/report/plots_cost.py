"""What runs cost: CPU, memory and disk by role, and money by a price table of the user's."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hookbench.report.axis import grid_along, number_beside, plain
from hookbench.report.findings_cost import (
    amount_text,
    cost_finding,
    cost_table,
    resource_finding,
    resource_table,
)
from hookbench.report.prices import Prices, load_prices
from hookbench.report.style import (
    COLOUR_OF_ROLE,
    GREY,
    HATCHES,
    NOTE_INCHES,
    decorate,
    legend_below,
    legend_inches,
    new_axes,
    new_panels,
    say_instead,
)
from hookbench.results.run import Run

__all__ = ["cost_table", "load_prices", "plot_cost", "plot_resources"]

_PANELS = {
    "cpu_s_per_thousand": "CPU seconds per thousand tasks",
    "memory_mib": "memory, largest resident sets (MiB)",
    "written_mb_per_thousand": "MB written to disk per thousand tasks",
}
_GROUP = 0.8
_ROOM = 1.22
"""Of the longest bar, so that its number fits beside it."""


def plot_resources(runs: Sequence[Run]) -> list[Axes]:
    """CPU, memory and bytes written by role: one panel each of one figure, the first has the title.

    A role has its colour, a run its hatch.

    Raises:
        SettingError: there is no run.
    """
    table = resource_table(runs)
    title = resource_finding(table)
    if not len(table) or table["cpu_s_per_thousand"].isna().all():
        text = "No process was metered, or no task was done."
        return [say_instead(new_axes(NOTE_INCHES), title, text)]
    roles, names = list(dict.fromkeys(table["role"])), list(dict.fromkeys(table["run"]))
    inner = max(0.24 * len(roles), 0.17 * len(roles) * len(names))
    several = len(names) > 1
    heights = [inner + extra for extra in (1.05, 0.62, 0.62 + 0.3 * several)]
    heights[-1] += legend_inches(len(names), 2)
    panels = new_panels(heights)
    for place, (axes, (column, label)) in enumerate(zip(panels, _PANELS.items(), strict=True)):
        _bars_by_role(axes, table, column, roles, names)
        decorate(axes, title="" if place else title, x=label, y="", characters=_TITLE_CHARACTERS)
    if several:
        legend_below(panels[-1], 2)
    return panels


_TITLE_CHARACTERS = 44


def _bars_by_role(
    axes: Axes, table: pd.DataFrame, column: str, roles: list[str], names: list[str]
) -> None:
    """A group of bars for each role, one for each run, with its number."""
    height = _GROUP / len(names)
    for number, name in enumerate(names):
        of_run = table[table["run"] == name].set_index("role")[column].reindex(roles)
        at = np.arange(len(roles)) + (number - (len(names) - 1) / 2) * height
        hatch = HATCHES[number % len(HATCHES)]
        axes.barh(
            at,
            of_run.fillna(0.0),
            height=height * 0.92,
            color=[COLOUR_OF_ROLE.get(role, GREY) for role in roles],
            hatch=hatch,
            edgecolor="white",
            linewidth=0,
        )
        axes.barh([0], [0], color="#777777", hatch=hatch, edgecolor="white", label=name)
        for y, value in zip(at, of_run, strict=True):
            number_beside(axes, 0.0 if np.isnan(value) else value, y, _short(value), size=8)
    axes.set_yticks(np.arange(len(roles)), roles)
    axes.set_ylim(len(roles) - 0.5, -0.5)
    _amounts_along_x(axes, float(table[column].max()))


def _short(value: float) -> str:
    return "-" if np.isnan(value) else amount_text(value)


def _amounts_along_x(axes: Axes, most: float) -> None:
    axes.set_xlim(0, most * _ROOM if most > 0 else 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(plain))
    grid_along(axes, "x")


def plot_cost(runs: Sequence[Run], prices: Prices | None = None, axes: Axes | None = None) -> Axes:
    """Cost per million tasks of each run, by role; see ``cost_table`` for what is in it.

    Args:
        runs: stored runs.
        prices: of ``load_prices``; the examples that ship without, which the plot says.
        axes: to draw on; a figure of their own without.

    Raises:
        SettingError: there is no run.
    """
    prices = prices or load_prices()
    table = cost_table(runs, prices)
    title = cost_finding(table)
    known = table.dropna(subset="total")
    if known.empty:
        text = "No process was metered, or no task was done."
        return say_instead(axes or new_axes(NOTE_INCHES), title, text)
    names, roles = list(dict.fromkeys(table["run"])), list(dict.fromkeys(known["role"]))
    axes = axes or new_axes(1.75 + 0.4 * max(2, len(names)) + legend_inches(len(roles), 4))
    rows, left = np.arange(len(names)), np.zeros(len(names))
    for role in roles:
        values = known[known["role"] == role].set_index("run")["total"].reindex(names).fillna(0.0)
        colour = COLOUR_OF_ROLE.get(role, GREY)
        axes.barh(rows, values, left=left, color=colour, height=0.6, label=role)
        left += values.to_numpy(dtype="float64")
    for row, total in zip(rows, left, strict=True):
        number_beside(axes, total, float(row), _short(total))
    axes.set_yticks(rows, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    _amounts_along_x(axes, float(left.max()))
    table_of = "example prices: edit them" if prices.example else "your prices"
    label = f"{prices.currency} per million tasks ({table_of})"
    decorate(axes, title=title, x=label, y="", characters=_TITLE_CHARACTERS)
    legend_below(axes, 4)
    return axes
