"""Plots of a search in the simulator: where faults struck, and what they did."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from hookbench.report.axis import grid_along, number_beside
from hookbench.report.searches import Search, coverage_of
from hookbench.report.style import (
    DONE,
    GREY,
    decorate,
    legend_below,
    new_axes,
    say_instead,
)
from hookbench.sim.book import FoundCause

__all__ = ["plot_causes", "plot_coverage"]

_ROW_INCHES = 0.17
_CAUSE_INCHES = 0.3
_FIXED_INCHES = 2.1
_DARK = 0.55
"""Of the range of colours: from there on numbers are white."""
_CELL_SIZE = 5.0
_TICK_SIZE = 7.0
_MAX_CAUSES = 16
_SHORT = 24
_TITLE_CHARACTERS = 38


def plot_coverage(found: Search) -> Axes:
    """Faults by kind and target over the steps at which tasks were when they struck.

    The darker, the oftener; a cell without a number is one that nothing has struck.
    """
    table = coverage_of(found)
    if table.empty:
        return say_instead(new_axes(), "No fault has fired", "No fault has fired in this search.")
    axes = new_axes(_FIXED_INCHES + _ROW_INCHES * len(table))
    counts = table.to_numpy()
    shown = np.ma.masked_equal(counts, 0)
    most = int(counts.max())
    norm = LogNorm(1, max(2, most))
    axes.imshow(shown, aspect="auto", cmap="cividis_r", norm=norm)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            dark = float(norm(count)) > _DARK
            axes.text(
                column,
                row,
                _short(int(count)),
                ha="center",
                va="center",
                fontsize=_CELL_SIZE,
                color="#FFFFFF" if dark else "#000000",
            )
    axes.grid(visible=False, axis="both")
    axes.set_xticks(range(len(table.columns)), list(table.columns), rotation=90)
    axes.set_yticks(range(len(table)), [str(name) for name in table.index])
    axes.tick_params(labelsize=_TICK_SIZE)
    covered = int((counts > 0).sum())
    decorate(
        axes,
        title=(
            f"{counts.sum():,} strikes of faults in {covered:,} of {counts.size:,} cells of fault"
            " and step"
        ),
        x="what was last recorded of a task",
        y="",
        characters=_TITLE_CHARACTERS,
    )
    return axes


def _short(count: int) -> str:
    """At most three characters, for a cell."""
    return f"{count}" if count < 1_000 else f"{count // 1_000}k"  # noqa: PLR2004


def plot_causes(found: Search) -> Axes:
    """In which share of the seeds each cause was found, of the scope with most causes.

    Those that real brokers have shown count, and stand out.
    """
    totals = max(found.totals, key=lambda item: len(item.causes))
    causes = list(totals.causes.items())[:_MAX_CAUSES]
    if not causes:
        title = f"{totals.scope}: none of {totals.seeds:,} seeds fails"
        return say_instead(new_axes(), title, "Every seed was valid.")
    shown = set()
    if found.replays is not None:
        shown = {item.key for item in found.replays.causes if item.found}
    axes = new_axes(_FIXED_INCHES + _CAUSE_INCHES * len(causes))
    rows = np.arange(len(causes), dtype=np.float64)
    widths = np.array([100 * cause.seeds / totals.seeds for _key, cause in causes])
    counts = np.array([key in shown for key, _cause in causes])
    for mask, colour, label in (
        (counts, DONE, "shown on real brokers"),
        (~counts, GREY, "not shown there"),
    ):
        if mask.any():
            axes.barh(rows[mask], widths[mask], 0.7, color=colour, label=label)
    for row, width, (_key, cause) in zip(rows, widths, causes, strict=True):
        number_beside(
            axes, float(width), float(row), f"first in seed {cause.first_seed:,}", size=_TICK_SIZE
        )
    axes.set_yticks(rows, [_named(key) for key, _cause in causes])
    axes.tick_params(axis="y", labelsize=_TICK_SIZE)
    axes.invert_yaxis()
    axes.set_xlim(0, widths.max() * 1.35)
    grid_along(axes, "x")
    decorate(
        axes,
        title=_title(totals.scope, totals.seeds, causes, shown),
        x="seeds that show it (%, of all seeds)",
        y="",
        characters=_TITLE_CHARACTERS,
    )
    axes.xaxis.set_major_formatter("{x:g} %")
    legend_below(axes, 2)
    return axes


def _named(key: str) -> str:
    """A key without its numbers, cut where it is long."""
    text = key.replace("# ", "")
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"


def _title(
    scope: str, seeds: int, causes: Sequence[tuple[str, FoundCause]], shown: set[str]
) -> str:
    counted = sum(key in shown for key, _cause in causes)
    return (
        f"{scope}: {len(causes)} causes in {seeds:,} seeds, {counted} of them shown on real brokers"
    )
