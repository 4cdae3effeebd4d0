"""``hookbench show`` and ``hookbench report``: stored runs."""

from pathlib import Path
from typing import Annotated

import typer

from hookbench.cli.options import JsonOutput, ResultsFolder

__all__ = ["report", "show"]

RunArgument = Annotated[str, typer.Argument(help="latest, a run's id or its beginning, or a path.")]


def show(
    run: RunArgument = "latest", out: ResultsFolder = Path("results"), json: JsonOutput = False
) -> None:
    """Print a stored run: its table, why, and its verdict."""
    import sys

    from rich.console import Console

    from hookbench.report.table import print_run
    from hookbench.results.store import encode_manifest, load_manifest, resolve_run

    manifest = load_manifest(resolve_run(run, out))
    if json:
        sys.stdout.write(encode_manifest(manifest).decode())
    else:
        print_run(Console(), manifest)


def report(run: RunArgument = "latest", out: ResultsFolder = Path("results")) -> None:
    """Execute the rehearsal notebook on a run and write report.html into its folder."""
    from hookbench.report.notebook import render_report
    from hookbench.results.store import resolve_run

    print(render_report(resolve_run(run, out)))
