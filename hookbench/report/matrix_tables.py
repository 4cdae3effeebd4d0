"""The tables of a matrix, one for each durability class: for a terminal, and as Markdown."""

from collections.abc import Callable
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from hookbench.brokers.durability import Durability
from hookbench.rehearsal.matrix_book import hours_and_minutes
from hookbench.rehearsal.matrix_plan import Kind, MatrixPlan, payload_label
from hookbench.report.matrix import CONFIDENCE, CellSummary, Interval, KindSummary, MatrixSummary

__all__ = [
    "about_lines",
    "as_markdown",
    "class_rows",
    "headings",
    "kind_groups",
    "note_lines",
    "print_matrix",
]

UNKNOWN = "unknown"
_OF_CLASS = {
    Durability.MEMORY: "nothing on a disk",
    Durability.LAZY: "on the disk within a second",
    Durability.FSYNC: "on the disk when it is acknowledged",
    Durability.REPLICATED: "on more than one node; the classes of the brokers are nearest, not"
    " equal, for Redis has no quorum",
}


class _Column(NamedTuple):
    """A figure, or a total where ``show`` is ``None``; how it is headed in one line and in two."""

    heading: str
    kind: Kind
    figure: str
    show: Callable[[float], str] | None
    stacked: str


def kind_groups(plan: MatrixPlan) -> list[tuple[Kind, ...]]:
    """Kinds that stand in one table of a class: those without a fault, and those with one."""
    calm = tuple(item for item in plan.kinds if item != "redelivery")
    killed = tuple(item for item in plan.kinds if item == "redelivery")
    return [group for group in (calm, killed) if group]


def _columns(kinds: tuple[Kind, ...]) -> list[_Column]:
    costs = kinds[0]
    cpu = "CPU µs a task"
    every = [
        _Column("done per s", "throughput", "done_per_s", rate_text, "done\nper s"),
        _Column("accepted per s", "throughput", "accepted_per_s", rate_text, "accepted\nper s"),
        _Column("p50 ms", "latency", "p50_ms", ms_text, "\np50 ms"),
        _Column("p99 ms", "latency", "p99_ms", ms_text, "\np99 ms"),
        _Column("in hand at a kill", "redelivery", "in_hand", None, "in hand\nat kills"),
        _Column("ended by others", "redelivery", "ended", None, "ended\nby others"),
        _Column("stuck", "redelivery", "stuck", None, "\nstuck"),
        _Column("lost", "redelivery", "lost", None, "\nlost"),
        _Column("done again", "redelivery", "duplicated", None, "done\nagain"),
        _Column("again after ms", "redelivery", "restart_p50_ms", ms_text, "again\nafter ms"),
    ]
    if costs != "redelivery":
        every += [
            _Column(f"{cpu}, brokers", costs, "broker_cpu_us", rate_text, "CPU µs\nbrokers"),
            _Column("workers", costs, "worker_cpu_us", rate_text, "a task\nworkers"),
        ]
    return [column for column in every if column.kind in kinds]


def rate_text(value: float) -> str:
    """Without decimals."""
    return f"{value:,.0f}"


def ms_text(value: float) -> str:
    """Two digits at the least."""
    if value >= 100:  # noqa: PLR2004 - from here on no decimals
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"  # noqa: PLR2004 - one decimal


def headings(kinds: tuple[Kind, ...]) -> list[str]:
    """Of the columns of a table, in order; ``kinds`` is one of ``kind_groups``."""
    return ["queue or phase", "payload", *(c.heading for c in _columns(kinds)), "redelivered"]


def class_rows(
    summary: MatrixSummary, durability: Durability, kinds: tuple[Kind, ...]
) -> list[list[str]]:
    """One row per cell of a class, for ``headings``."""
    return [
        [
            cell.cell.route,
            payload_label(cell.cell.payload),
            *(_figure_text(cell, column, " ({} to {})") for column in _columns(kinds)),
            _redelivered([cell.kinds[kind] for kind in kinds], " "),
        ]
        for cell in summary.of_class(durability)
    ]


def _figure_text(cell: CellSummary, column: _Column, bounds: str) -> str:
    kind = cell.kinds[column.kind]
    if column.show is None:
        return f"{getattr(kind, column.figure):,}" if kind.known else f"{UNKNOWN}*"
    found = kind.figures.get(column.figure)
    if found is None:
        return "-" if kind.known else f"{UNKNOWN}*"
    return interval_text(found, column.show, bounds) + ("*" if kind.notes else "")


def interval_text(
    found: Interval, show: Callable[[float], str], bounds: str = " ({} to {})"
) -> str:
    """``12,345 (11,900 to 12,800)``; a value of one repeat alone has no interval."""
    if found.low is None or found.high is None:
        return show(found.median)
    return show(found.median) + bounds.format(show(found.low), show(found.high))


def _redelivered(kinds: list[KindSummary], between: str) -> str:
    done = sum(kind.done for kind in kinds)
    again = sum(kind.redelivered for kind in kinds)
    return f"{again:,}{between}of {done:,}" if done else UNKNOWN


def about_lines(summary: MatrixSummary) -> list[str]:
    """How it was measured, on what, and how far it is."""
    plan, environment = summary.plan, summary.environment
    repeats = "one repeat" if plan.repeats == 1 else f"{plan.repeats} repeats"
    how = (
        f"design {plan.design}, {repeats} in random order (seed {plan.seed}), {plan.seconds:g} s"
        f" each, of which the first {plan.warm_up_s:g} s do not count; medians"
        f" with {CONFIDENCE:.0%} bootstrap intervals; {plan.producers} producer and {plan.workers}"
        f" worker processes, concurrency {plan.concurrency}, tasks of {plan.service_ms:g} ms"
    )
    lines = [how]
    if "throughput" in plan.kinds:
        lines.append(
            f"throughput: at saturation, a windowed loop of {plan.callers} callers (closed: its"
            " latency says nothing)"
        )
    if "latency" in plan.kinds:
        lines.append(
            f"latency: open loop, {plan.rate_per_s:g} tasks/s, {plan.arrivals}, end to end from the"
            " intended time"
        )
    if "redelivery" in plan.kinds:
        times = "once" if plan.kills == 1 else f"{plan.kills} times"
        lines.append(
            f"redelivery: open loop, {plan.rate_per_s:g} tasks/s, {plan.arrivals}, tasks of"
            f" {plan.killed_service_ms:g} ms, and a worker that is killed {times}; totals over all"
            " repeats, of the tasks that it had in hand"
        )
    if environment is not None:
        gib = environment.memory_bytes / 2**30
        lines.append(
            f"commit {environment.commit}, {environment.cpu}, {environment.cpus} CPUs,"
            f" {gib:.1f} GiB, Python {environment.python}, kernel {environment.kernel}"
        )
    lines += summary.brokers
    if summary.load_average is not None:
        low, high = summary.load_average
        lines.append(f"load average of the machine before a trial: {low:g} to {high:g}")
    if summary.others_cores is not None:
        median, most = summary.others_cores
        lines.append(
            f"others kept {median:g} cores busy beside a trial in the median, at most {most:g}"
        )
    lines += [f"changed meanwhile, in {text}" for text in summary.changes]
    again = f" ({summary.again:,} of them a second time)" if summary.again else ""
    lines.append(
        f"{summary.made:,} of {summary.planned:,} trials made{again}, in"
        f" {hours_and_minutes(summary.seconds)} h"
    )
    return lines


def note_lines(summary: MatrixSummary, durability: Durability) -> list[str]:
    """What is to be known of the figures of a class, by cell."""
    return [
        f"{cell.cell.route}, {payload_label(cell.cell.payload)}, {kind}: {text}"
        for cell in summary.of_class(durability)
        for kind, found in cell.kinds.items()
        for text in found.notes
    ]


def print_matrix(console: Console, summary: MatrixSummary) -> None:
    """A table for each class, and below it what is to be known of its figures."""

    def say(text: str = "") -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    for text in about_lines(summary):
        say(text)
    for durability in summary.plan.durability:
        say()
        say(f"{durability}: {_OF_CLASS[durability]}")
        for kind in summary.plan.kinds:
            console.print(_kind_table(summary, durability, kind), highlight=False)
        for text in note_lines(summary, durability):
            say(f"* {text}")


def _kind_table(summary: MatrixSummary, durability: Durability, kind: Kind) -> Table:
    """The figures of one kind; medians above their intervals, which fits 80 columns."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(f"\n{kind}", no_wrap=True)
    columns = _columns((kind,))
    for column in columns:
        table.add_column(column.stacked, justify="right", no_wrap=True)
    table.add_column("redeli-\nvered", justify="right", no_wrap=True)
    for cell in summary.of_class(durability):
        table.add_row(
            f"{cell.cell.route}\n  {payload_label(cell.cell.payload)}",
            *(_figure_text(cell, column, "\n{}-{}") for column in columns),
            _redelivered([cell.kinds[kind]], "\n"),
        )
    return table


def as_markdown(summary: MatrixSummary) -> str:
    """The same as Markdown, its tables padded as prettier has them."""
    parts = ["\n".join(f"- {text}" for text in about_lines(summary))]
    for durability in summary.plan.durability:
        parts.append(f"## {durability}: {_OF_CLASS[durability]}")
        parts += [
            _markdown_table(headings(kinds), class_rows(summary, durability, kinds))
            for kinds in kind_groups(summary.plan)
        ]
        notes = note_lines(summary, durability)
        if notes:
            parts.append("\n".join(f"- \\* {text}" for text in notes))
    return "# Matrix\n\n" + "\n\n".join(parts) + "\n"


def _markdown_table(heads: list[str], rows: list[list[str]]) -> str:
    cells = [[f"`{row[0]}`", *(text.replace("*", "\\*") for text in row[1:])] for row in rows]
    widths = [max(3, *(len(row[i]) for row in [heads, *cells])) for i in range(len(heads))]

    def line(row: list[str]) -> str:
        padded = [
            text.ljust(width) if i < 2 else text.rjust(width)  # noqa: PLR2004 - names, then figures
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if i < 2 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]  # noqa: PLR2004
    return "\n".join([line(heads), f"| {' | '.join(rule)} |", *(line(row) for row in cells)])
