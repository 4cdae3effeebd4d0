"""Puts plots and tables into a notebook, the same with any backend of matplotlib."""

import io
from collections.abc import Sequence

import pandas as pd
from IPython.display import HTML, Image, display
from matplotlib.axes import Axes

from hookbench.report.style import figure_of

__all__ = ["show_plot", "show_table"]


def show_plot(axes: Axes | Sequence[Axes]) -> None:
    """Display the figure of ``axes`` as a PNG; its title is the text for those who do not see.

    Of several axes of one figure the first has the title.
    """
    first = axes if isinstance(axes, Axes) else axes[0]
    data = io.BytesIO()
    figure_of(first).savefig(data, format="png")
    title = " ".join(first.get_title(loc="left").split())
    display(Image(data=data.getvalue(), format="png", alt=title))  # type: ignore[no-untyped-call]


def show_table(table: pd.DataFrame, otherwise: str = "Nothing to show.") -> None:
    """Display a table with its texts in full, or a sentence where it has no rows."""
    if table.empty:
        print(otherwise)  # noqa: T201 - it is a cell's output
        return
    named = table.index.name is not None
    shown = table.rename_axis(index=None, columns=table.index.name)  # one row of headings
    with pd.option_context("display.max_colwidth", None):
        html = shown.to_html(border=0, index=named, classes="figures" if named else "texts")
    display(HTML(html))  # type: ignore[no-untyped-call]
