"""What became of the hazards, for a terminal."""

from rich.console import Console
from rich.text import Text

from hookbench.hazards.model import HazardResult, Outcome

__all__ = ["print_result", "print_totals"]

_STYLES = {
    Outcome.SHOWN: "bold red",
    Outcome.OTHERWISE: "yellow",
    Outcome.UNKNOWN: "yellow",
    Outcome.PREVENTED: "green",
    Outcome.REFUSED: "green",
    Outcome.ALARMED: "green",
}


def print_result(console: Console, result: HazardResult, *, steps: bool) -> None:
    """One row: what came out, and below it what proves it."""
    head = Text(f"{result.id:<4}{result.design:<9} ")
    head.append(f"{result.outcome:<10}", style=_STYLES[result.outcome])
    head.append(f"{result.harm:<11} {result.count:>5,}  {result.seconds:5.1f} s  {result.where}")
    console.print(head, soft_wrap=True)
    for line in _evidence(result):
        console.print(f"      {line}", highlight=False, soft_wrap=True)
    for step in result.steps if steps else ():
        console.print(f"      {step}", style="dim", highlight=False, soft_wrap=True)


def _evidence(result: HazardResult) -> list[str]:
    lines = [f"unknown: {result.problem}"] if result.problem else []
    lines += [item.text for item in result.observations]
    if not lines:
        lines = ["nothing was found"]
    if result.tasks:
        lines.append(f"for example {result.tasks[0]}")
    if result.switches:
        lines.append(f"with {', '.join(result.switches)}")
    if result.measures:
        lines.append(f"measures {result.measures}")
    if result.otherwise:
        lines.append(f"otherwise than the table: {result.otherwise}")
    if result.masked:
        lines.append(f"without them {result.masked}")
    return lines


def print_totals(console: Console, results: list[HazardResult]) -> None:
    """All rows in one line: how many of each outcome, and which turned out otherwise."""
    counts = {outcome: sum(item.outcome is outcome for item in results) for outcome in Outcome}
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    otherwise = [f"{item.id} ({item.design})" for item in results if not item.as_expected]
    seconds = sum(item.seconds for item in results)
    noun = "hazard" if len(results) == 1 else "hazards"
    console.print(f"{len(results)} {noun} in {seconds:.0f} s: {told}", highlight=False)
    if otherwise:
        console.print(f"not as known: {', '.join(otherwise)}", highlight=False)
