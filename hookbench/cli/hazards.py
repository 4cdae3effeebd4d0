"""``hookbench hazards``: each row of the table of hazards, on real brokers."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hookbench.cli.options import JsonOutput

__all__ = ["hazards"]


def hazards(
    ids: Annotated[
        list[str] | None,
        typer.Argument(help="Ids of the table, as in R3 P5; without: all."),
    ] = None,
    design: Annotated[str, typer.Option(help="guide, hardened or both.")] = "guide",
    measures: Annotated[
        str,
        typer.Option(
            "--measures",
            help="Changes to the measures of the design: a name switches one on, -name off.",
        ),
    ] = "",
    keep: Annotated[
        Path | None,
        typer.Option(help="Keep ledger and logs of each scenario in this folder, a new one."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the task ids.")] = 7,
    steps: Annotated[bool, typer.Option("--steps", help="Print what was done.")] = False,
    json: JsonOutput = False,
) -> None:
    """Reproduce the hazards of the migration, each in a small scenario on brokers of its own.

    The reference producer and real worker processes are driven into each; what comes out is read
    from the ledger, the brokers and the effect store.

    Exit codes: 0 every row as its design should (guide shows the harm, hardened keeps it away),
    1 some otherwise, 3 some unknown.

    Examples: hookbench hazards R3 P5 --steps

    hookbench hazards --design both --json
    """
    import asyncio

    from rich.console import Console

    from hookbench.clock import SystemClock
    from hookbench.errors import SettingError
    from hookbench.hazards.model import HazardResult, Outcome
    from hookbench.hazards.registry import find_hazards
    from hookbench.hazards.suite import run_hazard
    from hookbench.migration.measures import parse_measures
    from hookbench.migration.phases import Design
    from hookbench.report.hazards import print_result, print_totals

    chosen = find_hazards(ids or [])
    parse_measures(measures)
    if design not in (*Design, "both"):
        raise SettingError(f"--design {design!r}: use guide, hardened or both")
    designs = list(Design) if design == "both" else [Design(design)]
    if keep is not None and keep.exists():
        raise SettingError(f"--keep {keep}: it exists already; use a new folder")
    console = Console()
    clock = SystemClock()

    async def all_rows() -> list[HazardResult]:
        results = []
        for row in chosen:
            for item in designs:
                folder = None if keep is None else keep / f"{row.id}-{item}"
                result = await run_hazard(
                    row, item, measures=measures, folder=folder, clock=clock, seed=seed
                )
                results.append(result)
                if not json:
                    print_result(console, result, steps=steps)
        return results

    results = asyncio.run(all_rows())
    if json:
        _print_json(results)
    else:
        print_totals(console, results)
    if any(result.outcome is Outcome.UNKNOWN for result in results):
        raise typer.Exit(3)
    if not all(result.as_expected for result in results):
        raise typer.Exit(1)


def _print_json(results: list[Any]) -> None:
    import sys

    import msgspec

    rows = [
        {**msgspec.to_builtins(result), "as_expected": result.as_expected} for result in results
    ]
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode() + "\n")
