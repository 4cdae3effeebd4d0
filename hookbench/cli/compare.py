"""``hookbench compare``: is a new run slower than an old one?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hookbench.cli.options import JsonOutput, ResultsFolder

if TYPE_CHECKING:
    from hookbench.results.compare import Comparison
    from hookbench.results.run import Run

__all__ = ["compare"]


def compare(
    base: Annotated[
        str,
        typer.Argument(
            help="A run as show takes it: latest, an id or its beginning, or a path;"
            " several repeats with commas between."
        ),
    ],
    new: Annotated[str, typer.Argument(help="The same of what is held against it.")],
    out: ResultsFolder = Path("results"),
    min_effect: Annotated[
        str, typer.Option(help="Smallest change that matters: 5% or 0.05.")
    ] = "5%",
    min_ms: Annotated[
        float, typer.Option(help="Smallest difference of a latency that matters, in ms.")
    ] = 0.25,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(help="Exit with 1 if NEW is significantly worse by more: 'p99 +15%'."),
    ] = None,
    warm_up: Annotated[
        float, typer.Option(help="Seconds of the first phase that are left out.")
    ] = 3.0,
    level: Annotated[
        bool,
        typer.Option(
            "--level/--as-measured",
            help="Compare latencies at equal schedule lag, or each as it was measured.",
        ),
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Compare runs that are not comparable, and say so.")
    ] = False,
    json: JsonOutput = False,
) -> None:
    """Compare stored runs, metric by metric and phase by phase; "not significant" is an answer.

    Exit codes: 0, 1 if a --fail-if is exceeded, 2 for runs that are not comparable, 3 if what a
    --fail-if asks for is unknown (and none is exceeded).

    Example: hookbench compare 0001,0003,0005 0002,0004,0006 --fail-if 'p99 +15%'
    """
    import sys

    import msgspec
    from rich.console import Console

    from hookbench.errors import SettingError

    try:
        from hookbench.report.comparison import print_comparison
        from hookbench.results.compare import compare as compare_runs
        from hookbench.results.regressions import parse_regression, parse_share
    except ImportError as error:
        raise SettingError(
            f"hookbench compare needs the extra notebooks ({error}): pip install"
            " 'hookbench[notebooks]'"
        ) from error

    thresholds = [parse_regression(text) for text in fail_if or []]
    share = parse_share(min_effect)
    comparison = compare_runs(
        _load(base, out),
        _load(new, out),
        min_effect=share,
        min_ms=min_ms,
        warm_up_s=warm_up,
        regressions=thresholds,
        level=level,
        force=force,
    )
    if json:
        data = msgspec.json.format(msgspec.json.encode(comparison), indent=2)
        sys.stdout.write(data.decode() + "\n")
    else:
        print_comparison(Console(), comparison)
    raise typer.Exit(_exit_code(comparison))


def _load(texts: str, out: Path) -> "list[Run]":
    from hookbench.errors import SettingError
    from hookbench.results.run import load

    names = [text.strip() for text in texts.split(",")]
    if not all(names):
        raise SettingError(f"runs {texts!r}: a name is missing; use A or A,B,C")
    return [load(name, out) for name in names]


def _exit_code(comparison: "Comparison") -> int:
    """A threshold that is exceeded is so whatever else is unknown."""
    answers = {item.answer for item in comparison.judgements}
    if "exceeded" in answers:
        return 1
    return 3 if "unknown" in answers else 0
