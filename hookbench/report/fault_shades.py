"""Faults in plots over time: numbered shades where there are few, thin marks where there are many.

A shade has the fault's place in the schedule as its label, by which ``hookbench show`` names it as
well; the key under the axes says what it was.
"""

import textwrap

import pandas as pd
from matplotlib.axes import Axes

__all__ = [
    "FAULT",
    "MOST_LABELLED",
    "fault_inches",
    "fault_key",
    "log_room_above",
    "room_above",
    "shade_faults",
]

FAULT = "#F0E442"
"""The yellow of Okabe and Ito, as no queue has it."""
MOST_LABELLED = 8
"""With more faults than that each is a thin mark without a label."""
_KEY_CHARACTERS = 74
_KEY_ROW_INCHES = 0.16
_LINE_POINTS = 11
_LABEL_SHARE = 0.026
"""Of the width of the axes that a digit of a label and its surroundings take."""
_MARKS_FROM = 0.965
_EDGE = "#C9B800"
_MARK = "#8C6D00"


def shade_faults(axes: Axes, faults: pd.DataFrame) -> None:
    """Shade the time in which each fault of ``Run.faults`` lasted; one that did not fire has none.

    Call it before ``shade_phases``. A fault that was not healed lasts to the end of the data.
    """
    fired = faults[faults["fired"].astype(bool)]
    if fired.empty:
        return
    last_s = max(axes.dataLim.x1, fired["begin_s"].max())
    ends = fired["end_s"].fillna(last_s)
    if len(fired) > MOST_LABELLED:
        _mark(axes, fired["begin_s"])
        return
    low, high = min(axes.dataLim.x0, 0.0), max(last_s, ends.max())
    taken: list[float] = []
    for index, begin_s, end_s in zip(fired["index"], fired["begin_s"], ends, strict=True):
        axes.axvspan(begin_s, end_s, facecolor=FAULT, alpha=0.55, zorder=-8, linewidth=0)
        axes.axvline(begin_s, color=_EDGE, linewidth=0.8, zorder=-7)
        middle = (begin_s + end_s) / 2
        half = _LABEL_SHARE * len(str(index)) * (high - low) / 2 + _LABEL_SHARE * (high - low) / 4
        row = next((r for r, until in enumerate(taken) if until <= middle - half), len(taken))
        taken[row : row + 1] = [middle + half]
        axes.annotate(
            str(index),
            (middle, 1.0),
            xytext=(0, -2 - _LINE_POINTS * row),
            textcoords="offset points",
            xycoords=axes.get_xaxis_transform(),
            ha="center",
            va="top",
            fontsize=9,
            weight="bold",
            color="#5C4800",
            annotation_clip=False,
        )


def _mark(axes: Axes, begins_s: pd.Series) -> None:
    """Marks at the top, each so faint that many in one place are darker than one."""
    axes.vlines(
        begins_s.to_numpy(),
        _MARKS_FROM,
        1.0,
        transform=axes.get_xaxis_transform(),
        color=_MARK,
        linewidth=0.7,
        alpha=min(0.9, 0.35 + 20 / len(begins_s)),
    )


def fault_key(faults: pd.DataFrame) -> str:
    """What the labels or marks of ``shade_faults`` stand for; empty without a fault."""
    if faults.empty:
        return ""
    fired = faults[faults["fired"].astype(bool)]
    missing = len(faults) - len(fired)
    if len(fired) > MOST_LABELLED:
        text = f"{len(fired):,} faults: each a mark at the top"
    elif len(fired):
        named = zip(fired["index"], fired["name"], strict=True)
        text = "faults: " + "; ".join(f"{index}\N{NO-BREAK SPACE}{name}" for index, name in named)
    else:
        return f"none of {len(faults):,} faults fired"
    text += f"; {missing:,} did not fire" if missing else ""
    return textwrap.fill(text, _KEY_CHARACTERS, break_on_hyphens=False)


def fault_inches(faults: pd.DataFrame) -> float:
    """What the key and the labels need of a figure's height."""
    key = fault_key(faults)
    return (key.count("\n") + 1) * _KEY_ROW_INCHES if key else 0.0


def room_above(faults: pd.DataFrame) -> float:
    """The share of the data's height to leave above it for labels and marks."""
    return 0.16 if len(faults) else 0.05


def log_room_above(axes: Axes, faults: pd.DataFrame) -> None:
    """The same on a log axis."""
    if len(faults):
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * (high / low) ** room_above(faults))
