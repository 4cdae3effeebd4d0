"""A comparison as a text: a Markdown table that a terminal can show as well."""

from tests.bench.judge import ALPHA, Verdict, worse

__all__ = ["conclusion", "markdown"]

_HEADER = ("benchmark", "what", "base", "head", "change", "p", "verdict")
_LEFT = {0, 1, 6}
_UNTOLD = (Verdict.ONLY_HEAD, Verdict.ONLY_BASE, Verdict.NOT_JUDGED)


def conclusion(rows):
    """One sentence."""
    found = worse(rows)
    if not found:
        compared = sum(row.verdict not in _UNTOLD for row in rows)
        return f"No regression. Ratios and counts compared: {compared}."
    names = ", ".join(f"{_short(row)} ({row.what})" for row in found)
    return f"{len(found)} regression{'s' * (len(found) > 1)}: {names}."


def markdown(comparison):
    """The whole comparison, as text and as Markdown alike."""
    told, equal = _fold(comparison.rows)
    cells = [_HEADER, *map(_cells, told)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADER))]
    rule = ["-" * (width - 1) + ("-" if i in _LEFT else ":") for i, width in enumerate(widths)]
    lines = [
        f"## Benchmarks: {comparison.head} beside {comparison.base}",
        "",
        conclusion(comparison.rows),
        "",
        _line(cells[0], widths),
        _line(rule, widths),
        *(_line(row, widths) for row in cells[1:]),
        "",
    ]
    if equal:
        lines += [f"{equal} counts per task are the same as before.", ""]
    lines += [_how(comparison.rounds), ""]
    return "\n".join(lines)


def _how(rounds):
    return (
        f"{rounds} runs of each side in turn, with the benchmarks of the head on both. A ratio is"
        " the time of the reference over that of its yardstick in the same run. What grew by its"
        " least effect (10 % of what calculates, 25 % of what talks to a broker or a process) or"
        " more is measured again, twice as often, and SLOWER if it grew as much there, with p of"
        f" {ALPHA:g} or less. A count per task is MORE if it grew at all."
    )


def _fold(rows):
    """The rows to show, and how many counts there are that say nothing."""
    told = [row for row in rows if row.what in ("", "ratio") or row.verdict is not Verdict.SAME]
    return told, len(rows) - len(told)


def _short(row):
    return row.name.removeprefix("tests/bench/")


def _cells(row):
    is_ratio = row.what == "ratio"
    change = ""
    if row.change is not None:
        change = f"{100 * row.change:+.1f} %" if is_ratio else f"{row.change:+g}"
    verdict = f"{row.verdict}: {row.note}" if row.note else str(row.verdict)
    what = row.what.replace("_", " ") + " per task" if row.what and not is_ratio else row.what
    return (
        _short(row).replace("|", "/"),
        what,
        _number(row.base, is_ratio),
        _number(row.head, is_ratio),
        change,
        "" if row.p is None else f"{row.p:.3f}",
        verdict,
    )


def _number(value, is_ratio):
    if value is None:
        return ""
    return f"{value:.3f}" if is_ratio else f"{value:g}"


def _line(cells, widths):
    padded = [
        cell.ljust(width) if index in _LEFT else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"
