"""Plot of a matrix: what became of the tasks that killed workers had in hand."""

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from hookbench.report.matrix import CellSummary, KindSummary, MatrixSummary
from hookbench.report.matrix_rows import draw_rows, rows_of
from hookbench.report.matrix_tables import UNKNOWN, ms_text
from hookbench.report.style import DONE, GREY, decorate, legend_below, new_axes, say_instead

__all__ = ["fates_finding", "plot_matrix_redelivery"]

_KIND = "redelivery"
_FATES = {
    "ended": ("ended by another worker", DONE, ""),
    "stuck": ("stuck", "#BBBBBB", "////"),
    "lost": ("lost", "#000000", ""),
}
_ROW_INCHES = 0.24
_FIXED_INCHES = 2.0
_BAR = 0.66
_SHORT_TITLE = 40
_SECOND_MS = 1000


def plot_matrix_redelivery(summary: MatrixSummary, axes: Axes | None = None) -> Axes:
    """Shares of the tasks in hand at a kill that were ended by others, are stuck, or were lost.

    Per queue and phase, pooled over the repeats. Behind the bar: how many tasks they were, and how
    long after the death one of them was started again (median).
    """
    title = fates_finding(summary)
    if _KIND not in summary.plan.kinds:
        return say_instead(axes or new_axes(), title, f"The matrix has no trials of {_KIND}.")
    axes = axes or new_axes(_FIXED_INCHES + _ROW_INCHES * rows_of(summary))
    for row, cell in draw_rows(axes, summary, by_phase=True):
        _draw(axes, row, cell)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    for label, colour, hatch in _FATES.values():
        axes.barh(0, 0, color=colour, hatch=hatch, edgecolor="white", linewidth=0, label=label)
    decorate(
        axes,
        title=title,
        x=f"share of the tasks in hand of {summary.plan.kills} killed workers a trial (%)",
        y="",
        characters=_SHORT_TITLE,
    )
    legend_below(axes, len(_FATES))
    return axes


def _draw(axes: Axes, row: int, cell: CellSummary) -> None:
    kind = cell.kinds[_KIND]
    if not kind.in_hand:
        axes.text(0.01, row, UNKNOWN, va="center", color=GREY, fontsize=8)
        return
    begin = 0.0
    for name, (_label, colour, hatch) in _FATES.items():
        share = getattr(kind, name) / kind.in_hand
        axes.barh(
            row, share, _BAR, left=begin, color=colour, hatch=hatch, edgecolor="white", linewidth=0
        )
        begin += share
    axes.annotate(
        _beside(kind),
        (1.0, row),
        (4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=GREY,
        annotation_clip=False,
    )


def _beside(kind: KindSummary) -> str:
    after = kind.figures.get("restart_p50_ms")
    if after is None:
        return f"of {kind.in_hand:,}"
    if after.median >= _SECOND_MS:
        return f"of {kind.in_hand:,}, after {after.median / _SECOND_MS:.1f} s"
    return f"of {kind.in_hand:,}, after {ms_text(after.median)} ms"


def fates_finding(summary: MatrixSummary) -> str:
    """Where tasks of killed workers were lost, and where they stay stuck; else that all ended."""
    kinds = [cell.kinds[_KIND] for cell in summary.cells if _KIND in cell.kinds]
    in_hand = sum(kind.in_hand for kind in kinds)
    if not in_hand:
        return "What became of the tasks of killed workers"
    told = [
        f"{name} in {', '.join(routes)}"
        for name in ("lost", "stuck")
        if (routes := _routes(summary, name))
    ]
    if told:
        return f"Tasks of killed workers: {'; '.join(told)}"
    ended = sum(kind.ended for kind in kinds)
    return f"{ended:,} of {in_hand:,} tasks that killed workers had in hand were ended by others"


def _routes(summary: MatrixSummary, name: str) -> list[str]:
    """Each once, in the order of the cells."""
    return list(
        dict.fromkeys(cell.cell.route for cell in summary.cells if getattr(cell.kinds[_KIND], name))
    )
