"""The table of the hazards for a terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hookbench.hazards.model import HazardResult, Outcome

__all__ = ["print_hazards", "print_result"]

_STYLES = {
    Outcome.SHOWN: "bold red",
    Outcome.OTHERWISE: "yellow",
    Outcome.UNKNOWN: "yellow",
    Outcome.PREVENTED: "green",
    Outcome.REFUSED: "green",
    Outcome.ALARMED: "green",
}


def print_result(console: Console, result: HazardResult, *, steps: bool) -> None:
    """One row while the others still run: a line, and what was done if that is asked for."""
    console.print(_line(result), soft_wrap=True)
    for step in result.steps if steps else ():
        console.print(f"      {step}", style="dim", highlight=False, soft_wrap=True)


def _line(result: HazardResult) -> Text:
    text = Text(f"{result.id:<4}{result.design:<9} ")
    text.append(f"{result.outcome:<10}", style=_STYLES[result.outcome])
    text.append(f"{result.seconds:6.1f} s  ")
    text.append(_evidence(result))
    return text


def _evidence(result: HazardResult) -> str:
    if result.problem:
        return result.problem
    told = [item.text for item in result.observations if item.harm is result.harm and item.count]
    told = told or [item.text for item in result.observations] or ["nothing was found"]
    return "; ".join(told) + (f" ({result.masked})" if result.masked else "")


def print_hazards(console: Console, results: list[HazardResult]) -> None:
    """All rows, and what they come to in one line."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (
        "id",
        "design",
        "where",
        "harm",
        "outcome",
        "tasks",
        "s",
        "evidence",
        "for example",
    ):
        table.add_column(
            name,
            justify="right" if name in ("tasks", "s") else "left",
            overflow="fold",
            no_wrap=name in ("id", "design", "harm", "outcome", "tasks", "s"),
        )
    for item in results:
        table.add_row(
            item.id,
            item.design,
            item.where,
            item.harm,
            Text(item.outcome, style=_STYLES[item.outcome]),
            f"{item.count:,}",
            f"{item.seconds:.1f}",
            _evidence(item),
            item.tasks[0] if item.tasks else "-",
        )
    console.print(table)
    otherwise = [item.id for item in results if not item.as_expected]
    total = sum(item.seconds for item in results)
    verdict = "all as expected" if not otherwise else f"otherwise: {', '.join(otherwise)}"
    console.print(f"{len(results)} rows in {total:.0f} s, {verdict}")
