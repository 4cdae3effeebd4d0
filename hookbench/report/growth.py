"""How rate, memory and latency grow with what there is more of: slopes on double logs.

A slope of 1 is linear growth. What is measured per task or per second is held against what a
linear whole would have: a rate that does not fall as the backlog grows, a memory that grows no
faster than the number of tasks.
"""

from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from hookbench.decoding import decode_json, read_document
from hookbench.errors import ResultsError
from hookbench.report.axis import log_ticks
from hookbench.report.style import (
    COLOUR_OF_QUEUE,
    DASHES,
    GREY,
    decorate,
    legend_below,
    legend_inches,
    new_panels,
    say_instead,
    wrapped,
)
from hookbench.results.environment import Environment

__all__ = [
    "GROWTH_SCHEMA",
    "Figure",
    "GrowthRow",
    "GrowthTable",
    "growth_finding",
    "growth_slopes",
    "growth_table",
    "identify_growth",
    "plot_growth",
    "read_growth",
]

GROWTH_SCHEMA = 1
_LABEL_CHARACTERS = 24
TOLERANCE = 0.1
"""Of a slope: less is what repeats differ by."""


class GrowthRow(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one point.

    Attributes:
        axis: what there is more of: a name of ``AXES``.
        queue: empty where no broker takes part.
        design: guide or hardened.
        value: on the axis, in its unit.
        figure: a name of ``FIGURES`` of the axis.
        measured: in the unit of the figure.
    """

    axis: str
    queue: str
    design: str
    value: int
    figure: str
    measured: float


class GrowthTable(msgspec.Struct, frozen=True, kw_only=True):
    """A stored measurement.

    Attributes:
        schema: of this file; a reader refuses a newer one.
        environment: of the machine.
        rows: one per figure and point.
        missing: points that could not be measured, and why.
    """

    schema: int
    environment: Environment
    rows: tuple[GrowthRow, ...]
    missing: tuple[str, ...] = ()


class Figure(msgspec.Struct, frozen=True):
    """What is measured along an axis.

    Attributes:
        label: with its unit.
        linear: the slope of a whole that grows linearly: 0 for a rate or a time of one task.
        falls: whether less is worse, as of a rate.
    """

    label: str
    linear: float
    falls: bool = False


AXES = {
    "backlog": "tasks that wait",
    "payload": "bytes of payload",
    "workers": "worker processes",
    "repositories": "repositories",
    "ledger": "events of the ledger",
}
FIGURES = {
    "backlog": {
        "bytes_per_waiting": Figure("memory of the broker per waiting task (bytes)", 0),
        "put_p50_us": Figure("p50 of a put, one by one (us)", 0),
        "work_per_s": Figure("done by one worker (tasks/s)", 0, falls=True),
        "first_task_s": Figure("worker's start to its first task (s)", 0),
    },
    "payload": {
        "done_per_s": Figure("done at saturation (tasks/s)", -1, falls=True),
        "p50_ms": Figure("p50 end to end at a low rate (ms)", 1),
        "broker_bytes": Figure("memory of the broker (bytes)", 1),
        "worker_bytes": Figure("memory of the worker (bytes)", 1),
    },
    "workers": {
        "done_per_s": Figure("done at saturation (tasks/s)", 0, falls=True),
        "p50_ms": Figure("p50 end to end at a low rate (ms)", 0),
        "broker_bytes": Figure("memory of the broker (bytes)", 1),
        "worker_bytes": Figure("memory of all workers (bytes)", 1),
    },
    "repositories": {
        "done_per_s": Figure("done at saturation (tasks/s)", 0, falls=True),
        "p50_ms": Figure("p50 end to end at a low rate (ms)", 0),
        "broker_bytes": Figure("memory of the broker (bytes)", 1),
        "worker_bytes": Figure("memory of the worker (bytes)", 1),
    },
    "ledger": {
        "check_s": Figure("CPU to read and check it (s)", 1),
        "memory_bytes": Figure("most memory of that (bytes)", 1),
    },
}
"""Of each axis, what is measured along it."""


def read_growth(path: str | Path) -> GrowthTable:
    """A stored measurement, a ``growth.json``.

    Raises:
        ResultsError: there is none, it is damaged, or of a newer schema.
    """
    try:
        table = decode_json(read_document(Path(path)), GrowthTable)
    except OSError as error:
        raise ResultsError(f"growth {path}: {error.strerror}: give a growth.json") from error
    except msgspec.MsgspecError as error:
        raise ResultsError(f"growth {path}: {error}: it is damaged, or something else") from error
    if table.schema > GROWTH_SCHEMA:
        raise ResultsError(
            f"growth {path}: schema {table.schema} is newer than {GROWTH_SCHEMA}: update hookbench"
        )
    return table


def identify_growth(table: GrowthTable) -> str:
    """Where it was measured, and what could not be."""
    made = table.environment
    machine = (
        f"commit {made.commit}  hookbench {made.hookbench}, python {made.python},"
        f" {made.cpus} x {made.cpu}"
    )
    return "\n".join([machine, *(f"not measured: {text}" for text in table.missing)])


def growth_slopes(table: GrowthTable) -> pd.DataFrame:
    """One row per axis, queue, design and figure that has two points or more.

    Columns: ``axis``, ``queue``, ``design``, ``figure``; ``low`` and ``high``, the ends of the
    axis; ``first`` and ``last``, what was measured there; ``slope`` by least squares of the
    logarithms; ``linear``, that of linear growth; ``worse``, whether it is worse than that by more
    than ``TOLERANCE``.
    """
    rows = []
    rows_of = [msgspec.structs.asdict(row) for row in table.rows]
    frame = pd.DataFrame(rows_of, columns=list(GrowthRow.__struct_fields__))
    keys = ["axis", "queue", "design", "figure"]
    for (axis, queue, design, name), group in frame.groupby(keys, sort=False):
        figure = FIGURES[axis].get(name)
        points = group.sort_values("value")
        values, measured = points["value"].to_numpy(), points["measured"].to_numpy()
        if figure is None or len(points) < 2 or (measured <= 0).any():  # noqa: PLR2004 - a line
            continue
        slope = float(np.polyfit(np.log(values), np.log(measured), 1)[0])
        beyond = figure.linear - slope if figure.falls else slope - figure.linear
        rows.append(
            {
                **dict(zip(keys, (axis, queue, design, name), strict=True)),
                "low": int(values[0]),
                "high": int(values[-1]),
                "first": float(measured[0]),
                "last": float(measured[-1]),
                "slope": slope,
                "linear": figure.linear,
                "worse": beyond > TOLERANCE,
            }
        )
    names = [*keys, "low", "high", "first", "last", "slope", "linear", "worse"]
    return pd.DataFrame(rows, columns=names)


def growth_table(table: GrowthTable) -> pd.DataFrame:
    """The slopes as texts, worse than linear first named as such."""
    slopes = growth_slopes(table)
    return pd.DataFrame(
        {
            "axis": slopes["axis"],
            "queue": slopes["queue"].replace("", "-"),
            "design": slopes["design"],
            "figure": [FIGURES[row.axis][row.figure].label for row in slopes.itertuples()],
            "from": [f"{row.low:,}: {row.first:,.3g}" for row in slopes.itertuples()],
            "to": [f"{row.high:,}: {row.last:,.3g}" for row in slopes.itertuples()],
            "slope": [f"{row.slope:+.2f}" for row in slopes.itertuples()],
            "linear": [f"{row.linear:+.0f}" for row in slopes.itertuples()],
            "": ["WORSE than linear" if row.worse else "" for row in slopes.itertuples()],
        }
    )


def growth_finding(table: GrowthTable, axis: str) -> str:
    """What grows worse than linear along an axis, or that nothing does."""
    slopes = growth_slopes(table)
    mine = slopes[slopes["axis"] == axis]
    worse = mine[mine["worse"]]
    if not len(mine):
        return f"Nothing was measured along {AXES[axis]}"
    span = f"from {mine['low'].min():,} to {mine['high'].max():,} {AXES[axis]}"
    if not len(worse):
        return f"Nothing grows worse than linear {span}"
    named = []
    for name, rows in worse.groupby("figure", sort=False):
        label = FIGURES[axis][str(name)].label.rpartition(" (")[0]
        slopes_of = [f"{_line_of(row) or 'slope'} {row.slope:+.2f}" for row in rows.itertuples()]
        named.append(f"{label} ({'; '.join(slopes_of)})")
    return f"Worse than linear {span}: {', '.join(named)}"


def plot_growth(table: GrowthTable, axis: str) -> Axes:
    """A panel for each figure of an axis, on double logs, with the slope of each line.

    Args:
        table: as ``read_growth`` reads it.
        axis: a name of ``AXES``.

    Returns:
        The first panel; the others are in its figure.
    """
    slopes = growth_slopes(table)
    mine = slopes[slopes["axis"] == axis]
    title = growth_finding(table, axis)
    shown = [name for name in FIGURES[axis] if (mine["figure"] == name).any()]
    if not shown:
        return say_instead(new_panels([2.4])[0], title, "No figure has two points.")
    most = max(int((mine["figure"] == name).sum()) for name in shown)
    panels = new_panels([2.5 + legend_inches(most, 1)] * len(shown))
    for number, (name, axes) in enumerate(zip(shown, panels, strict=True)):
        axes.set_xscale("log")
        axes.set_yscale("log")
        for row in mine[mine["figure"] == name].itertuples():
            _draw(axes, table, row)
        for each in (axes.xaxis, axes.yaxis):
            log_ticks(each)
        label = FIGURES[axis][name].label
        decorate(axes, title=title if number == 0 else label, x=AXES[axis], y=_unit_of(label))
        if number == 0:
            axes.set_ylabel(wrapped(label, _LABEL_CHARACTERS))
        legend_below(axes, 1)
    return panels[0]


def _line_of(row: "object") -> str:
    """Queue and design of a line; nothing where no broker takes part."""
    queue, design = row.queue, row.design  # type: ignore[attr-defined]
    return f"{queue}, {design}" if queue else ""


def _unit_of(label: str) -> str:
    return label.rpartition("(")[2].rstrip(")")


def _draw(axes: Axes, table: GrowthTable, row: "object") -> None:
    points = sorted(
        (item.value, item.measured)
        for item in table.rows
        if (item.axis, item.queue, item.design, item.figure)
        == (row.axis, row.queue, row.design, row.figure)  # type: ignore[attr-defined]
    )
    queue, design = row.queue, row.design  # type: ignore[attr-defined]
    name = _line_of(row)
    axes.plot(
        [value for value, _measured in points],
        [measured for _value, measured in points],
        marker="o" if design == "guide" else "s",
        markersize=4,
        linewidth=1.4,
        color=COLOUR_OF_QUEUE.get(queue, GREY),
        linestyle=DASHES[0] if design == "guide" else DASHES[1],
        label=f"{name or 'ledger'}: slope {row.slope:+.2f}",  # type: ignore[attr-defined]
    )
