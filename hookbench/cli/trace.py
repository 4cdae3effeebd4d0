"""``hookbench trace``: real arrivals, to be replayed as a load."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hookbench.cli.options import JsonOutput

if TYPE_CHECKING:
    from hookbench.load.traces import Trace

__all__ = ["app"]

app = typer.Typer(
    help="Traces of arrivals: replay them with --arrivals trace:FILE.", no_args_is_help=True
)

Speed = Annotated[float, typer.Option(help="How many times as fast as it was.")]
Out = Annotated[Path, typer.Option(help="CSV to write; it must not be there yet.")]


@app.command("from-git")
def from_git(
    repositories: Annotated[list[Path], typer.Argument(help="Local git repositories.")],
    speed: Speed = 1000.0,
    out: Out = Path("trace.csv"),
    json: JsonOutput = False,
) -> None:
    """Make a trace of the commit times of git repositories, all refs.

    Example: hookbench trace from-git ~/src/project --speed 1000
    """
    from hookbench.load.traces import trace_of_git

    _write(trace_of_git(repositories, speed=speed), out, json=json)


@app.command("from-csv")
def from_csv(
    source: Annotated[
        Path, typer.Argument(help="CSV with a column time_s, or times in the first one.")
    ],
    speed: Speed = 1.0,
    out: Out = Path("trace.csv"),
    json: JsonOutput = False,
) -> None:
    """Make a trace of any CSV of timestamps: seconds, or ISO 8601.

    Example: hookbench trace from-csv pushes.csv --speed 60
    """
    from hookbench.load.traces import read_trace

    _write(read_trace(source, speed=speed), out, json=json)


@app.command("show")
def show(
    source: Annotated[Path, typer.Argument(help="CSV of a trace.")], json: JsonOutput = False
) -> None:
    """Say how many arrivals a trace has, and how bursty they are.

    Example: hookbench trace show trace.csv
    """
    from hookbench.load.traces import read_trace

    _say(read_trace(source), source, json=json)


def _write(trace: "Trace", out: Path, *, json: bool) -> None:
    from hookbench.load.traces import write_trace

    write_trace(out, trace)
    _say(trace, out, json=json)


def _say(trace: "Trace", path: Path, *, json: bool) -> None:
    import msgspec

    from hookbench.load.traces import profile_of

    profile = profile_of(trace)
    if json:
        found = {"file": str(path), **msgspec.to_builtins(profile)}
        print(msgspec.json.encode(found).decode())
        return
    count = profile.repositories
    named = "" if not count else f" of {count:,} repositor{'y' if count == 1 else 'ies'}"
    print(
        f"{path}: {profile.arrivals:,} arrivals{named} in {profile.seconds:,.1f} s:"
        f" {profile.mean_per_s:,.2f} per second, {profile.peak_per_s:,} in the busiest one"
    )
    print(f"replay it: hookbench produce --arrivals trace:{path} --count {profile.arrivals}")
