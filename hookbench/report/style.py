"""How every plot looks: colours, bands, texts. The same thing has the same colour everywhere.

Colours are from Okabe and Ito's set (https://jfly.uni-koeln.de/color/), which colour-blind readers
tell apart; the phases, which are an order, from cividis. A figure is small (5.8 inches wide) with
large letters, so that it can be read at the width of a phone.
"""

import math
import re
import textwrap
from collections.abc import Sequence
from typing import Any, cast

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation, blended_transform_factory

from hookbench.migration.phases import Phase
from hookbench.report.fault_shades import FAULT, shade_faults

__all__ = [
    "ACCEPTED",
    "COLOUR_OF_QUEUE",
    "COLOUR_OF_ROLE",
    "COLOUR_OF_RUN",
    "DASHES",
    "DONE",
    "EXPLAINED",
    "FAULT",
    "GREY",
    "HATCHES",
    "NOTE_INCHES",
    "REPEATED",
    "STYLE_OF_PHASE",
    "decorate",
    "figure_of",
    "legend_below",
    "legend_inches",
    "new_axes",
    "new_panels",
    "none_text",
    "say_instead",
    "shade_faults",
    "shade_phases",
    "wrapped",
]

COLOUR_OF_QUEUE = {
    "redis_list": "#D55E00",
    "redis_stream": "#E69F00",
    "jetstream": "#0072B2",
    "memory": "#56B4E9",
}
ACCEPTED = "#000000"
DONE = "#009E73"
REPEATED = "#CC79A7"
EXPLAINED = "#666666"
GREY = "#555555"
COLOUR_OF_ROLE = {
    "redis": COLOUR_OF_QUEUE["redis_list"],
    "nats": COLOUR_OF_QUEUE["jetstream"],
    "producer": ACCEPTED,
    "worker": DONE,
    "proxy": "#BBBBBB",
    "harness": "#777777",
}
"""Brokers in the colours of their queues, producer and worker in those of what they do."""
COLOUR_OF_RUN = ("#000000", "#009E73", "#CC79A7", "#8C6D00", "#777777", "#56B4E9")
"""Where runs are compared and no queues: none is that of a queue of a rehearsal."""
_BAND = ("#F1F1F1", "#FFFFFF")
_CIVIDIS = ("#00224E", "#35456C", "#7C7B78", "#B3A369", "#E0BF14")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
HATCHES = ("", "////", "....", "xxxx", "----")
"""Where bars of runs stand beside each other, and colours say something else."""
STYLE_OF_PHASE: dict[str, dict[str, Any]] = {
    phase.label: {"color": colour, "linestyle": dash}
    for phase, colour, dash in zip(Phase, _CIVIDIS, DASHES, strict=True)
}
WIDTH_INCHES = 5.8
DPI = 160
_PAD_INCHES = 0.1
NOTE_INCHES = 1.4
"""Height of a figure that has a sentence in place of curves."""
_UNIT = re.compile(r"(\d) (ms|s|%|MiB|times|USD)\b")
"""What does not stand at the beginning of a line."""
_TITLE_CHARACTERS = 46
_BAND_LABEL_POINTS = 18
_TITLE_SIZE = 11.5
_TEXT_SIZE = 10
_LABEL_SIZE = 9
_SMALL_SIZE = 7.5
_MARGIN = 0.015
_BELOW_AXES_POINTS = 38
_ROW_INCHES = 0.19
_BAND_CHARACTERS = 72
"""Characters of a band's label that fit side by side across the axes."""


def new_axes(height_inches: float = 3.7) -> Axes:
    """Axes of a figure of their own, outside of pyplot's state and of any screen."""
    return new_panels([height_inches])[0]


def new_panels(heights_inches: Sequence[float], columns: int = 1) -> list[Axes]:
    """Axes of one figure, row by row; ``heights_inches`` of the rows, texts included."""
    figure = Figure(figsize=(WIDTH_INCHES, sum(heights_inches)), dpi=DPI)
    figure.set_layout_engine("constrained", w_pad=_PAD_INCHES, h_pad=_PAD_INCHES)
    grid = figure.add_gridspec(len(heights_inches), columns, height_ratios=list(heights_inches))
    panels = []
    for row in range(len(heights_inches)):
        for column in range(columns):
            axes = figure.add_subplot(grid[row, column])
            axes.tick_params(labelsize=_LABEL_SIZE)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
            axes.set_axisbelow(True)
            axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
            panels.append(axes)
    return panels


def decorate(
    axes: Axes, *, title: str, x: str, y: str, bands: bool = False, characters: int = 0
) -> None:
    """The finding as a title, wrapped, and both axes with their units.

    ``bands`` leaves room for the labels of ``shade_phases`` between the title and the axes.
    """
    axes.set_title(
        wrapped(_UNIT.sub("\\1\N{NO-BREAK SPACE}\\2", title), characters or _TITLE_CHARACTERS),
        loc="left",
        fontsize=_TITLE_SIZE,
        weight="bold",
        pad=_BAND_LABEL_POINTS if bands else None,
    )
    axes.set_xlabel(x, fontsize=_TEXT_SIZE)
    axes.set_ylabel(y, fontsize=_TEXT_SIZE)


def wrapped(text: str, characters: int) -> str:
    """Lines of so many characters; names such as ``worker-0`` stay whole."""
    return textwrap.fill(text, characters, break_on_hyphens=False)


def say_instead(axes: Axes, title: str, text: str) -> Axes:
    """A text in place of curves that there is no data for."""
    decorate(axes, title=title, x="", y="")
    axes.set_axis_off()
    axes.text(
        0.5,
        0.5,
        wrapped(text, _TITLE_CHARACTERS),
        ha="center",
        va="center",
        fontsize=_TEXT_SIZE,
        color=GREY,
        transform=axes.transAxes,
    )
    return axes


def none_text(phases: pd.DataFrame) -> str:
    """What to say where nothing of a kind happened in any phase."""
    return "None in one phase." if len(phases) == 1 else f"None in {len(phases):,} phases."


def shade_phases(axes: Axes, phases: pd.DataFrame) -> None:
    """A band per phase with its name above the axes; its number where the name has no room.

    The names are smaller where one of them would have no room otherwise.

    Call it last: it fixes the limits of the x axis, from the first phase to the end of the data.
    A phase that was cut off ends in a line.
    """
    low, high = axes.get_xlim()
    if len(phases):
        margin = _MARGIN * (phases["end_s"].max() - phases["start_s"].min())
        low = phases["start_s"].min() - margin
        high = max(axes.dataLim.x1, phases["end_s"].max()) + margin
    axes.set_xlim(low, high)
    across = blended_transform_factory(axes.transData, axes.transAxes)
    names, size = _band_names(phases, high - low)
    for row, name in zip(phases.itertuples(), names, strict=True):
        axes.axvspan(row.start_s, row.end_s, color=_BAND[row.step % 2], zorder=-10, linewidth=0)
        axes.axvline(row.start_s, color="#BBBBBB", linewidth=0.6, zorder=-9)
        middle = (row.start_s + row.end_s) / 2
        axes.annotate(
            name,
            (middle, 1.0),
            xytext=(0, 2),
            textcoords="offset points",
            xycoords=across,
            ha="center",
            va="bottom",
            fontsize=size,
            color=GREY,
            annotation_clip=False,
        )
        if not row.whole:
            axes.axvline(row.end_s, color=GREY, linewidth=1, linestyle=":")


def _band_names(phases: pd.DataFrame, width_s: float) -> tuple[list[str], float]:
    """What to call each band of axes of a width, and the size of the letters."""
    best: tuple[list[str], float] = ([], _LABEL_SIZE)
    for size in (_LABEL_SIZE, _SMALL_SIZE):
        characters = _BAND_CHARACTERS * _LABEL_SIZE / size
        names = [
            _fitting(
                row.phase if row.whole else f"{row.phase}, cut off",
                row.phase,
                (row.end_s - row.start_s) / width_s * characters,
            )
            for row in phases.itertuples()
        ]
        if size == _LABEL_SIZE or sum(map(len, names)) > sum(map(len, best[0])):
            best = names, size
    return best


def _fitting(text: str, phase: str, room_characters: float) -> str:
    """The longest of text, phase and the phase's number for which there is room."""
    number = next((str(int(item)) for item in Phase if item.label == phase), "")
    texts = (item for item in (text, phase, number) if len(item) + 0.5 <= room_characters)
    return next(texts, "")


def legend_below(axes: Axes, columns: int, title: str = "") -> None:
    """A legend under the x axis and its label, where it covers no data, with a title above it."""
    below = ScaledTranslation(0, -_BELOW_AXES_POINTS / 72, figure_of(axes).dpi_scale_trans)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.02, 0),
        bbox_transform=axes.transAxes + below,
        ncols=columns,
        fontsize=_LABEL_SIZE,
        title=title or None,
        title_fontsize=_LABEL_SIZE,
        alignment="left",
        frameon=False,
        borderaxespad=0,
        borderpad=0,
        handlelength=2.2,
        columnspacing=1.4,
    )


def legend_inches(entries: int, columns: int) -> float:
    """What a legend needs beyond its first row, for the height of a figure."""
    return max(0, math.ceil(entries / columns) - 1) * _ROW_INCHES


def figure_of(axes: Axes) -> Figure:
    """The whole figure that axes stand in."""
    return cast("Figure", axes.get_figure(root=True))
