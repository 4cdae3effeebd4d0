"""What ``hookbench compare`` prints."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hookbench.results.compare import BETTER, SAME, UNKNOWN, WORSE, Change, Comparison

__all__ = ["comparison_table", "print_comparison"]

_STYLES = {WORSE: "bold red", BETTER: "green", UNKNOWN: "yellow", SAME: ""}
_JUDGED = {"exceeded": "bold red", "held": "green", "unknown": "yellow"}
_SMALL = 10
_WIDE = 100
_WORTH_SAYING = 0.01
_MUCH_FROM = 10.0
_MUCH = ">1000%"


def comparison_table(comparison: Comparison, *, narrow: bool = False) -> Table:
    """One row per phase and metric; ``narrow``: the phase has a row of its own."""
    table = Table(
        box=None, pad_edge=False, header_style="bold", padding=(0, 1 if narrow else 2, 0, 0)
    )
    for heading in ("metric",) if narrow else ("phase", "metric"):
        table.add_column(heading, no_wrap=True)
    for heading in ("BASE", "NEW", "change", "95 % interval", "seen from"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("answer", no_wrap=True)
    phase = ""
    for item in comparison.changes:
        new_phase, phase = item.phase != phase, item.phase
        if narrow and new_phase:
            table.add_row(Text(phase, style="bold"))
        first = [] if narrow else [phase if new_phase else ""]
        table.add_row(
            *first,
            f"{item.metric} {item.unit}",
            _value(item.base),
            _value(item.new),
            _share(item.change),
            _interval(item, digits=0 if narrow else 1),
            _share(item.detectable, sign=""),
            Text(
                item.answer.upper() if item.answer == WORSE else item.answer, _STYLES[item.answer]
            ),
        )
    return table


def print_comparison(console: Console, comparison: Comparison) -> None:
    """The table, what has to be known to read it, and the answer."""
    for label, runs in (("BASE", comparison.base), ("NEW", comparison.new)):
        _say(console, f"{label:<9} {', '.join(runs)}", style="bold")
    for number, line in enumerate(comparison.forced):
        if number == 0:
            _say(console, "forced    these runs are not comparable, and compared all the same:")
        _say(console, f"          {line}", style="yellow")
    console.print(comparison_table(comparison, narrow=console.width < _WIDE))
    for label, lines in (
        ("lag", _lag_lines(comparison)),
        ("why", _reasons(comparison)),
        ("note", comparison.notes),
    ):
        for number, line in enumerate(lines):
            _say(console, f"{label if number == 0 else '':<9} {line}")
    for item in comparison.judgements:
        because = f" ({'; '.join(item.because)})" if item.because else ""
        _say(
            console,
            f"fail-if   {item.threshold}: {item.answer}{because}",
            style=_JUDGED[item.answer],
        )
    _say(console, f"answer    {answer_text(comparison)}", style="bold")


def _say(console: Console, text: str, *, style: str | None = None) -> None:
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def answer_text(comparison: Comparison) -> str:
    """All of it in one line."""
    least = f"{100 * comparison.min_effect:g} % and {comparison.min_ms:g} ms"
    parts = []
    for answer in (WORSE, BETTER):
        names = [
            f"{item.metric} in {item.phase} ({_share(item.change)})"
            for item in comparison.changes
            if item.answer == answer
        ]
        if names:
            parts.append(f"{answer}: {', '.join(names)}")
    known = [item for item in comparison.changes if item.answer != UNKNOWN]
    unknown = len(comparison.changes) - len(known)
    if known and not parts:
        parts.append(f"no significant change of more than {least}")
    if unknown:
        parts.append(f"unknown: {unknown} of {len(comparison.changes)} (see why)")
    return "; ".join(parts) or "unknown: there is nothing to compare"


def _lag_lines(comparison: Comparison) -> list[str]:
    """What was measured, where the lag of the machine accounts for some of it; a line a phase."""
    lines: dict[str, list[str]] = {}
    for item in comparison.changes:
        if item.change is None or item.measured is None or not item.lags_ms:
            continue
        if abs(item.measured - item.change) >= _WORTH_SAYING:
            before, after = item.lags_ms
            text = f"{item.metric} {_share(item.measured)} ({before:.1f}, {after:.1f} ms)"
            lines.setdefault(item.phase, []).append(text)
    return [
        f"{phase} as measured, each side at its own schedule lag: {', '.join(texts)}"
        for phase, texts in lines.items()
    ]


def _reasons(comparison: Comparison) -> list[str]:
    """Reasons with the metrics that they are of, each said once."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for item in comparison.changes:
        if item.reason:
            grouped.setdefault((item.phase, item.reason), []).append(item.metric)
    return [
        f"{phase} {', '.join(metrics)}: {reason}" for (phase, reason), metrics in grouped.items()
    ]


def _value(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.2f}" if value < _SMALL else f"{value:,.1f}"


def _share(value: float | None, *, sign: str = "+", digits: int = 1) -> str:
    if value is None:
        return "-"
    return _MUCH if value >= _MUCH_FROM else f"{100 * value:{sign}.{digits}f}%"


def _interval(item: Change, *, digits: int) -> str:
    if item.low is None:
        return "-"
    high = _MUCH if item.high is None else _share(item.high, digits=digits)
    return f"{_share(item.low, digits=digits).removesuffix('%')} to {high}"
