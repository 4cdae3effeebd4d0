"""``hookbench show`` and ``check``: stored runs."""

from pathlib import Path
from typing import Annotated

import typer

from hookbench.cli.options import JsonOutput, ResultsFolder, announce_json

__all__ = ["check", "show"]

RunArgument = Annotated[str, typer.Argument(help="latest, a run's id or its beginning, or a path.")]


def show(
    run: RunArgument = "latest",
    out: ResultsFolder = Path("results"),
    task: Annotated[
        str | None, typer.Option(help="Tell the life of one task, by the beginning of its id.")
    ] = None,
    figures: Annotated[
        bool,
        typer.Option(
            "--figures", help="All latencies, throughput, gaps, and what is stuck, by row."
        ),
    ] = False,
    json: JsonOutput = False,
) -> None:
    """Print a stored run: its table, why, and its verdict; or the whole life of one task.

    Examples: hookbench show latest --figures

    hookbench show 0001 --task 01a20f9a --json
    """
    import sys

    from rich.console import Console

    from hookbench.report.figures import print_figures
    from hookbench.report.table import print_run
    from hookbench.results.store import encode_manifest, load_manifest, resolve_run

    folder = resolve_run(run, out)
    if task is not None:
        _tell(folder, task, json=json)
        return
    manifest = load_manifest(folder)
    if json:
        sys.stdout.write(encode_manifest(manifest).decode())
    elif figures:
        print_figures(Console(), manifest)
    else:
        print_run(Console(), manifest)


def _tell(folder: Path, task: str, *, json: bool) -> None:
    import msgspec

    from hookbench.results.story import tell_task

    task_id, chapters, end = tell_task(folder, task)
    if json:
        events = msgspec.to_builtins(chapters)
        announce_json({"task": str(task_id), "events": events, "end": end})
        return
    print(f"task {task_id}")
    for number, chapter in enumerate(chapters, 1):
        print(
            f"{number:>4}  {chapter.at_ms:>12,.3f} ms  {chapter.phase:<12}  {chapter.who:<16}"
            f"  {chapter.text}"
        )
    for line in end:
        print(f"      {line}")


def check(
    run: RunArgument = "latest", out: ResultsFolder = Path("results"), json: JsonOutput = False
) -> None:
    """Run the checkers again on a stored run, whole or cut off.

    Exit codes: 0 valid, 1 invalid, 3 unknown.

    Example: hookbench check 0001 --json
    """
    import sys

    from rich.console import Console

    from hookbench.report.table import print_run
    from hookbench.results.check import check_run
    from hookbench.results.store import encode_manifest, resolve_run

    manifest = check_run(resolve_run(run, out))
    if json:
        sys.stdout.write(encode_manifest(manifest).decode())
    else:
        print_run(Console(), manifest)
    raise typer.Exit({"valid": 0, "invalid": 1}.get(manifest.verdict, 3))
