"""The rows of a plot of a matrix: one for each cell, and a bold one above each durability class."""

from collections.abc import Iterator

from matplotlib.axes import Axes

from hookbench.rehearsal.capacity import QUEUES
from hookbench.rehearsal.matrix_plan import Cell, payload_label
from hookbench.report.matrix import CellSummary, MatrixSummary

__all__ = ["draw_rows", "rows_of"]


def rows_of(summary: MatrixSummary) -> int:
    """How many there are, for the height of a figure."""
    return len(summary.cells) + len(summary.plan.durability)


def draw_rows(
    axes: Axes, summary: MatrixSummary, *, by_phase: bool
) -> Iterator[tuple[int, CellSummary]]:
    """Name the rows of the y axis from the top, and give each cell with its row.

    Args:
        axes: of the plot.
        summary: of the matrix.
        by_phase: in the order of the phases, and queues named with theirs.
    """
    cells: dict[int, CellSummary] = {}
    labels: list[str] = []
    heads = []
    for durability in summary.plan.durability:
        found = summary.of_class(durability)
        if by_phase:
            found = sorted(found, key=lambda item: (item.cell.phase, _order(item.cell.route)))
        heads.append(len(labels))
        axes.axhline(len(labels), color="#BBBBBB", linewidth=0.6)
        labels.append(f"{durability}")
        for item in found:
            cells[len(labels)] = item
            several = len(summary.plan.payload) > 1
            labels.append(_row_label(item.cell, by_phase=by_phase, several=several))
    axes.set_yticks(range(len(labels)), labels)
    for number, text in enumerate(axes.get_yticklabels()):
        text.set_fontweight("bold" if number in heads else "normal")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(labels) - 0.5, -0.6)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    yield from cells.items()


def _order(route: str) -> int:
    return list(QUEUES).index(route) if route in QUEUES else 0


def _row_label(cell: Cell, *, by_phase: bool, several: bool) -> str:
    name = cell.route
    if by_phase and cell.route in QUEUES:
        name = f"{cell.phase.label}, {cell.route}"
    return f"{name}, {payload_label(cell.payload)}" if several else name
