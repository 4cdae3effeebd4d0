"""Puts plots and tables into a notebook, the same with any backend of matplotlib."""

import html
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
    figure_of(first).savefig(data, format="png", metadata={"Software": None})
    title = " ".join(first.get_title(loc="left").split())
    display(Image(data=data.getvalue(), format="png", alt=title))  # type: ignore[no-untyped-call]


def show_table(table: pd.DataFrame, otherwise: str = "Nothing to show.") -> None:
    """Display a table with its texts in full, or a sentence where it has no rows.

    One with a named index is of figures, and scrolls sideways where it has no room; the rows of
    another are of texts, and stand one cell below the other there, each after its heading. An arrow
    stays on the line of what it leads to.
    """
    if table.empty:
        print(otherwise)  # noqa: T201 - it is a cell's output
        return
    if table.index.name is None:
        display(HTML(_texts(table)))  # type: ignore[no-untyped-call]
        return
    shown = table.rename_axis(index=None, columns=table.index.name)  # one row of headings
    with pd.option_context("display.max_colwidth", None):
        figures = shown.to_html(border=0, classes="figures").replace("→ ", "→&nbsp;")
    display(HTML(figures))  # type: ignore[no-untyped-call]


def _texts(table: pd.DataFrame) -> str:
    names = [html.escape(str(name)) for name in table.columns]
    lines = ['<table class="dataframe texts">', "<thead><tr>"]
    lines += [f"<th>{name}</th>" for name in names]
    lines += ["</tr></thead>", "<tbody>"]
    for row in table.itertuples(index=False):
        cells = (
            f'<td data-label="{name}">{html.escape(str(value)).replace("→ ", "→&nbsp;")}</td>'
            for name, value in zip(names, row, strict=True)
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</tbody>", "</table>"])
