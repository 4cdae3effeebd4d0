"""The rates of all contenders in one figure, in the colours of their queues."""

from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from hookbench.report.style import COLOUR_OF_QUEUE, GREY, decorate, figure_of, new_axes
from tests.bench.peers.judge import best_peer, ratio, spread

__all__ = ["finding", "plot_peers", "save_plot"]

_MARKS = {"noop": ("o", "no-op task"), "sleep": ("D", "task of 5 ms")}
_FIXED_INCHES = 1.9
_ROW_INCHES = 0.27
_QUEUES = {"jetstream": "JetStream", "redis_list": "Redis list", "redis_stream": "Redis stream"}
_ROOM = 1.6
_TITLE_CHARACTERS = 36


def plot_peers(report, axes=None):
    """A row for each contender that ran: medians, with a line from the lowest to the highest."""
    rows = [row for row in report.rows if spread(row, "noop")]
    rows.sort(key=lambda row: (row.contender.broker, -spread(row, "noop").median))
    axes = axes or new_axes(_FIXED_INCHES + _ROW_INCHES * max(len(rows), 3))
    for place, row in enumerate(rows):
        _draw(axes, place, row)
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
    for text, row in zip(axes.get_yticklabels(), rows, strict=True):
        text.set_fontweight("bold" if row.contender.is_reference else "normal")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * _ROOM)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _at: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    for label in axes.get_xticklabels():
        label.set_rotation(30)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    unit = "tasks drained per second by one worker process (log scale)"
    decorate(
        axes,
        title=finding(report),
        x=f"{unit}\n* lost tasks when it was killed",
        y="",
        characters=_TITLE_CHARACTERS,
    )
    _legend(axes, rows)
    return axes


def save_plot(report, path):
    """As a PNG."""
    figure_of(plot_peers(report)).savefig(path)


def finding(report):
    """The title: the reference under the guide beside the best peer of each broker."""
    parts = []
    for broker, queue in (("nats", "jetstream"), ("redis", "redis_list")):
        best = best_peer(report.rows, broker, "noop")
        ours = next(
            (row for row in report.rows if row.contender.name == f"hookbench guide, {queue}"), None
        )
        times = None if best is None or ours is None else ratio(ours, best, "noop")
        if times is not None:
            parts.append(f"{times:.1f} times {best.contender.name} on {_QUEUES[queue]}")
    if not parts:
        return "Tasks drained per second"
    return f"The guide's worker: {' and '.join(parts)}"


def _draw(axes, place, row):
    colour = COLOUR_OF_QUEUE[row.contender.queue]
    for shift, (handler, (mark, _text)) in zip((-0.13, 0.13), _MARKS.items(), strict=True):
        found = spread(row, handler)
        if found is None:
            continue
        at = place + shift
        axes.plot([found.low, found.high], [at, at], color=colour, linewidth=1.4)
        fill = colour if handler == "noop" else "white"
        axes.plot(found.median, at, mark, color=colour, markerfacecolor=fill, markersize=6)


def _label(row):
    loses = row.crashed is not None and row.crashed.lost
    return row.contender.name.replace(f", {row.contender.queue}", "") + (" *" if loses else "")


def _legend(axes, rows):
    marks = [
        Line2D([], [], marker=mark, color=GREY, linestyle="", label=text,
               markerfacecolor=GREY if handler == "noop" else "white")
        for handler, (mark, text) in _MARKS.items()
    ]  # fmt: skip
    there = {row.contender.queue for row in rows}
    marks += [
        Line2D([], [], color=COLOUR_OF_QUEUE[queue], linewidth=3, label=text)
        for queue, text in _QUEUES.items()
        if queue in there
    ]
    axes.legend(handles=marks, loc="lower right", fontsize=8, frameon=True, framealpha=0.9)
