"""``hookbench matrix``: queues, durability classes, payloads and phases as cells."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hookbench.cli.options import JsonOutput

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

    from hookbench.ledger.model import Verdict
    from hookbench.rehearsal.matrix import Progress
    from hookbench.rehearsal.matrix_book import DueTrial, TrialRecord
    from hookbench.rehearsal.matrix_plan import StoredPlan

__all__ = ["app"]

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
_WANTED = ("matplotlib", "pandas", "pyarrow", "scipy")
_OUT = Path("results/matrix")


@app.callback()
def matrix(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", help="Folder of the matrix.")] = _OUT,
    plan: Annotated[
        Path | None, typer.Option("--plan", help="A TOML file; options change what it says.")
    ] = None,
    queues: Annotated[
        str | None, typer.Option(help="redis_list,redis_stream,jetstream; empty for none.")
    ] = None,
    durability: Annotated[
        str | None, typer.Option(help="memory,lazy,fsync; also replicated.")
    ] = None,
    payload: Annotated[
        list[str] | None, typer.Option(help="Sizes, 64,4096; or a distribution, as of produce.")
    ] = None,
    phases: Annotated[
        str | None, typer.Option(help="dual_write,dual_read,nats_primary; empty for none.")
    ] = None,
    kinds: Annotated[
        str | None, typer.Option(help="Of trials: throughput,latency,redelivery.")
    ] = None,
    design: Annotated[str | None, typer.Option(help="guide or hardened.")] = None,
    repeats: Annotated[
        int | None, typer.Option(help="Of each cell and kind; more can be added later.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of a trial.")] = None,
    warm_up: Annotated[float | None, typer.Option(help="Of it, what does not count.")] = None,
    rate: Annotated[
        float | None, typer.Option(help="Tasks per second of latency and redelivery.")
    ] = None,
    callers: Annotated[int | None, typer.Option(help="Window of throughput.")] = None,
    most_others: Annotated[
        float | None, typer.Option(help="Cores that others may keep busy beside a trial.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the order and of the load.")] = None,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Make no trial, only the report.")
    ] = False,
    json: JsonOutput = False,
) -> None:
    """Measure throughput, latency and redelivery of every queue and phase, in random order.

    Each trial is a short rehearsal on brokers of its own. Resumable: the same command, or one
    with --out alone, goes on where it was ended, however it was. The report has every cell with
    its interval; only equal durability classes stand in one table.

    Exit codes: 0 all valid, 1 some invalid, 3 some unknown, 130 interrupted.

    Example: hookbench matrix --out results/matrix --durability lazy,fsync --payload 256
    """
    if context.invoked_subcommand is not None:
        return
    changes = {
        "queues": _names(queues),
        "durability": _names(durability),
        "payload": _sizes(payload),
        "phases": _names(phases),
        "kinds": _names(kinds),
        "design": design,
        "repeats": repeats,
        "seconds": seconds,
        "warm_up_s": warm_up,
        "rate_per_s": rate,
        "callers": callers,
        "most_others_cores": most_others,
        "seed": seed,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    _check_extra()
    if report_only:
        if given or plan is not None:
            from hookbench.errors import SettingError

            raise SettingError("--report-only: the plan is that of the folder; leave --plan out")
    else:
        _make_trials(out, plan, given)
    raise typer.Exit(_exit_code(_report(out, json=json)))


@app.command("report")
def report(
    folder: Annotated[Path, typer.Argument(help="Of a matrix, also one that is not whole.")] = _OUT,
    json: JsonOutput = False,
) -> None:
    """Write the report of a matrix anew, from its book, and print it.

    Example: hookbench matrix report results/matrix --json
    """
    _check_extra()
    raise typer.Exit(_exit_code(_report(folder, json=json)))


def _names(text: str | None) -> list[str] | None:
    """Of a list with commas; none for an empty text."""
    if text is None:
        return None
    return [name.strip() for name in text.split(",") if name.strip()]


def _sizes(texts: list[str] | None) -> list[str] | None:
    """Sizes with commas between them, or distributions, which have commas of their own."""
    if not texts:
        return None
    whole = re.compile(r"\d+(,\d+)*")
    return [
        size for text in texts for size in (text.split(",") if whole.fullmatch(text) else [text])
    ]


def _check_extra() -> None:
    """Before anything is measured, whether the report can be made.

    Raises:
        ReportError: a package is not installed.
    """
    import importlib.util
    import sys

    from hookbench.report.notebook import ReportError

    missing = [name for name in _WANTED if importlib.util.find_spec(name) is None]
    if missing:
        raise ReportError(
            f"a matrix needs {', '.join(missing)} for its report; run:"
            f" {sys.executable} -m pip install 'hookbench[notebooks]'"
        )


def _make_trials(out: Path, plan: Path | None, given: dict[str, Any]) -> None:
    """Make what is left of the plan; the options have to agree with a plan that is there."""
    import asyncio
    import sys

    from rich.console import Console

    from hookbench.cli.rehearse import run_or_cancel
    from hookbench.clock import SystemClock
    from hookbench.rehearsal.matrix import MatrixRun
    from hookbench.rehearsal.matrix_book import hold_folder
    from hookbench.rehearsal.matrix_plan import cells_of
    from hookbench.scenarios.resolved import scenario_toml

    stored = _stored_plan(out, plan, given)
    cells, left_out = cells_of(stored.plan)
    console = Console(stderr=True)
    with hold_folder(out):
        stored = _agreed(out, stored)
        teller = _Teller(console)
        run = MatrixRun(out, stored, clock=SystemClock(), teller=teller, as_scenario=scenario_toml)
        made = len(run.book.trials)
        teller.say(
            f"matrix    cells: {len(cells)}, trials in random order: {len(stored.trials)}"
            + (f"; goes on after {made}" if made else "")
        )
        for text in left_out:
            teller.say(f"left out  {text}")
        try:
            run_or_cancel(run.run())
        except asyncio.CancelledError:
            left = len(run.book.due())
            print(
                f"hookbench: interrupted; {len(run.book.trials)} trials are in {run.book.path},"
                f" {left} are left: hookbench matrix --out {out} goes on",
                file=sys.stderr,
            )
            raise typer.Exit(130) from None
        finally:
            teller.close()


def _stored_plan(out: Path, plan: Path | None, given: dict[str, Any]) -> "StoredPlan":
    """What is asked for: the file or the plan that is there or the defaults, with the options.

    Raises:
        SettingError: a value that nothing can be measured with.
    """
    from hookbench.rehearsal.matrix_plan import MatrixPlan, load_stored_plan, new_stored_plan
    from hookbench.scenarios.matrix_file import change_plan, load_plan

    stored = load_stored_plan(out)
    if plan is not None:
        wanted = load_plan(plan)
    else:
        wanted = stored.plan if stored is not None else MatrixPlan()
    return new_stored_plan(change_plan(wanted, given, "matrix"))


def _agreed(out: Path, wanted: "StoredPlan") -> "StoredPlan":
    """The plan in the folder, which is the one that is asked for; written where there is none.

    More repeats are added to it; other differences are refused.

    Raises:
        SettingError: it is another one; the text has the differences.
    """
    from hookbench.errors import SettingError
    from hookbench.rehearsal.matrix_plan import (
        load_stored_plan,
        plan_differences,
        save_stored_plan,
        with_more_repeats,
    )

    stored = load_stored_plan(out)
    if stored is None:
        save_stored_plan(out, wanted)
        return wanted
    longer = wanted.plan.repeats > stored.plan.repeats
    if longer:
        stored = with_more_repeats(stored, wanted.plan.repeats)
    differences = plan_differences(stored.plan, wanted.plan)
    if differences:
        raise SettingError(
            f"matrix {out}: its plan has {'; '.join(differences)}: leave the options out to go on"
            " with it, or use another folder with --out"
        )
    if longer:
        save_stored_plan(out, stored)
    return stored


def _report(folder: Path, *, json: bool) -> "Verdict":
    """Write the files, print the tables, and say the worst verdict."""
    import sys

    from rich.console import Console

    from hookbench.report.matrix_files import write_matrix_files
    from hookbench.report.matrix_tables import print_matrix

    summary, paths = write_matrix_files(folder)
    if json:
        sys.stdout.write(paths[0].read_text())
    else:
        print_matrix(Console(), summary)
        print(f"\nfiles in {folder}: {', '.join(path.name for path in paths)}")
    return summary.verdict


def _exit_code(verdict: "Verdict") -> int:
    return {"valid": 0, "invalid": 1}.get(verdict, 3)


def _left(progress: "Progress") -> str:
    """The remaining time, as soon as there is a trial to tell it by."""
    from hookbench.rehearsal.matrix_book import hours_and_minutes

    left = progress.remaining_s
    return "" if left is None else f"  {hours_and_minutes(left)} left"


class _Teller:
    """A line for each trial on stderr; on a terminal also one for the trial under way."""

    def __init__(self, console: "Console") -> None:
        self._console = console
        self._status: Status | None = None

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def begins(self, due: "DueTrial", progress: "Progress") -> None:
        """Show which it is, where that can be taken away again."""
        if not self._console.is_terminal:
            return
        text = f"{progress.made + 1} of {progress.total}  {due.trial.label}{_left(progress)}"
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        self._status.update(text)

    def ended(self, record: "TrialRecord", progress: "Progress") -> None:
        """What it came to, and how long the rest will take."""
        figures = record.figures
        if "done_per_s" in figures:
            came_to = f"{figures['done_per_s']:,.0f}/s"
        elif "in_hand" in figures:
            came_to = (
                f"{figures['in_hand']:.0f} in hand: {figures['ended']:.0f} ended,"
                f" {figures['stuck']:.0f} stuck, {figures['lost']:.0f} lost"
            )
        elif figures:
            came_to = f"p50 {figures['p50_ms']:.2f} ms  p99 {figures['p99_ms']:.2f} ms"
        else:
            came_to = "-"
        self.say(
            f"{progress.made:>4} of {progress.total}  {record.trial.label:<50}"
            f"{'  second time' if record.attempt > 1 else ''}"
            f"  {record.verdict}  {came_to}  {record.seconds:.0f} s{_left(progress)}"
        )
        if record.why:
            self.say(f"          {record.why}" + ("; to be made again" if record.again else ""))

    def close(self) -> None:
        """Nothing is under way any more."""
        if self._status is not None:
            self._status.stop()
