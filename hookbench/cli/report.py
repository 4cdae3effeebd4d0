"""``hookbench report``: stored runs as one page."""

from pathlib import Path
from typing import Annotated

import typer

from hookbench.cli.options import JsonOutput, ResultsFolder, announce_json

__all__ = ["make_reports", "report"]


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="latest, a run's id or its beginning, or a path; several are compared."
        ),
    ] = None,
    out: ResultsFolder = Path("results"),
    notebook: Annotated[
        list[str] | None,
        typer.Option("--notebook", help="One notebook: 05_verdict, or 05. May be given again."),
    ] = None,
    capacity: Annotated[
        Path | None, typer.Option(help="Folder of answers of hookbench capacity, for 04_capacity.")
    ] = None,
    sim: Annotated[
        Path | None, typer.Option("--sim", help="Folder of hookbench sim, for 06_simulation.")
    ] = None,
    matrix: Annotated[
        Path | None, typer.Option(help="Folder of hookbench matrix, for 07_scale.")
    ] = None,
    growth: Annotated[
        Path | None, typer.Option(help="A growth.json of make growth, for 08_growth.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="The HTML file [report.html in the last run's folder].")
    ] = None,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Print it as PDF too, by a Chromium on this machine.")
    ] = False,
    json: JsonOutput = False,
) -> None:
    """Execute the notebooks on runs and write them as one HTML file that needs no network.

    The notebooks that make sense for the runs are chosen: with a guide and a hardened run of one
    scenario the verdict has the price, with runs of several queues these are compared.

    Example: hookbench report 0001 0002 --pdf
    """
    import sys

    from rich.console import Console

    from hookbench.clock import SystemClock
    from hookbench.report.notebook import render_report
    from hookbench.report.pdf import CHROMIUM_VARIABLE, find_chromium, print_pdf
    from hookbench.report.telling import open_telling
    from hookbench.results.store import resolve_run

    browser = find_chromium() if pdf else None
    page = render_report(
        [resolve_run(run, out) for run in runs or ["latest"]],
        capacity=capacity,
        simulation=sim,
        matrix=matrix,
        growth=growth,
        notebooks=notebook or [],
        target=to,
        telling=open_telling(Console(stderr=True), SystemClock()),
    )
    if not json:
        print(page)
    printed = None if browser is None else print_pdf(page, browser)
    if json:
        announce_json({"page": str(page), "pdf": None if printed is None else str(printed)})
    elif printed is not None:
        print(printed)
    if pdf and browser is None:
        print(
            f"no PDF: no Chromium or Chrome on PATH; install one, or set {CHROMIUM_VARIABLE}",
            file=sys.stderr,
        )


def make_reports(names: list[str], out: Path, *, json: bool) -> None:
    """One report of runs, after they were made: whatever becomes of it, their verdict stands.

    It is made in a process of its own, so its memory and its defects are none of this one. Its path
    goes to stdout, with ``json`` to stderr, for stdout has data only.
    """
    import subprocess
    import sys

    command = [sys.executable, "-m", "hookbench", "report", *names, f"--out={out}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    target = sys.stderr if json else sys.stdout
    if done.returncode == 0:
        print(f"report    {_near(Path(done.stdout.strip()))}", file=target, flush=True)
        return
    again = f"hookbench report {' '.join(names)} --out {out}"
    print(
        f"report    none, it ended with {done.returncode}; once mended: {again}",
        file=sys.stderr,
    )


def _near(path: Path) -> Path:
    """Relative to the working folder where it lies in it."""
    here = Path.cwd().resolve()
    return path.relative_to(here) if path.is_relative_to(here) else path
