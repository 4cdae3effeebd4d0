"""``hookbench rehearse``: the migration, from start to verdict."""

from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from hookbench.cli.options import JsonOutput, NatsMonitorUrl, NatsUrl, RedisUrl, ResultsFolder

if TYPE_CHECKING:
    from hookbench.migration.phases import Design
    from hookbench.rehearsal.run import Rehearsal
    from hookbench.rehearsal.settings import RehearsalSettings
    from hookbench.results.store import Manifest

__all__ = ["carry_out", "exit_code", "rehearse", "run_or_cancel", "run_or_interrupt"]

Result = TypeVar("Result")

QUICK_PHASE_SECONDS = 5.0


def rehearse(
    quick: Annotated[bool, typer.Option("--quick", help="Five seconds a phase.")] = False,
    design: Annotated[str, typer.Option(help="guide, hardened or both.")] = "guide",
    seed: Annotated[int, typer.Option(help="Same seed, same tasks, pushes and times.")] = 7,
    out: ResultsFolder = Path("results"),
    phases: Annotated[str, typer.Option(help="The timeline.")] = "0,1,2,3,4",
    phase_seconds: Annotated[float | None, typer.Option(help="Length of a phase [12].")] = None,
    rate: Annotated[float, typer.Option(help="Synthetic tasks per second.")] = 1000.0,
    producers: Annotated[int, typer.Option(help="Producer processes.")] = 2,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 2,
    service_ms: Annotated[float, typer.Option(help="Work per synthetic task.")] = 5.0,
    repositories: Annotated[int, typer.Option(help="Bare repositories that are pushed to.")] = 3,
    push_interval: Annotated[float, typer.Option(help="Seconds between two pushes.")] = 1.0,
    durability: Annotated[str, typer.Option(help="memory, lazy, fsync or replicated.")] = "lazy",
    topology: Annotated[
        str,
        typer.Option(
            help="Embedded nodes: single, redis_replica, redis_cluster, nats_cluster or replicated."
        ),
    ] = "single",
    redis_url: RedisUrl = None,
    nats_url: NatsUrl = None,
    nats_monitor_url: NatsMonitorUrl = None,
    real_names: Annotated[
        bool, typer.Option("--real-names", help="On your brokers, use the real names.")
    ] = False,
    allow_existing: Annotated[
        bool, typer.Option("--allow-existing", help="Accept a broker that holds a hook queue.")
    ] = False,
    expect: Annotated[
        str | None, typer.Option(help="Expected verdicts: guide=invalid,hardened=valid.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep data and repositories.")] = False,
    chaos: Annotated[
        bool, typer.Option("--chaos", help="Random faults all along, which follow from the seed.")
    ] = False,
    without: Annotated[
        list[str] | None, typer.Option("--without", help="Kinds of faults that chaos leaves out.")
    ] = None,
    measures: Annotated[
        str,
        typer.Option(
            "--measures",
            help="Changes to the measures of the design: a name switches one on, -name off.",
        ),
    ] = "",
    report: Annotated[
        bool, typer.Option("--report", help="Write the report of the runs at the end.")
    ] = False,
    json: JsonOutput = False,
) -> None:
    """Take a hook queue through the phases of the migration and account for every task.

    Real brokers (embedded, unless URLs are given), producers and workers as processes of their
    own, synthetic tasks all along, and real pushes into real repositories.

    Exit codes: 0 valid, 1 invalid, 3 unknown; with several designs the worst of them, or with
    --expect 0 where every verdict is as expected and 1 where not.

    Example: hookbench rehearse --quick --design both --expect guide=invalid,hardened=valid
    """
    from hookbench.brokers.durability import Durability
    from hookbench.cli.report import make_reports
    from hookbench.cli.worker import choice
    from hookbench.migration.phases import Design, parse_phase
    from hookbench.rehearsal.settings import RehearsalSettings

    designs = list(Design) if design == "both" else [choice(Design, design, "--design")]
    expected = _expected(expect, designs)
    settings = [
        RehearsalSettings(
            design=item,
            measures=measures,
            phases=tuple(parse_phase(text) for text in phases.split(",")),
            phase_seconds=phase_seconds or (QUICK_PHASE_SECONDS if quick else 12.0),
            rate_per_s=rate,
            producers=producers,
            workers=workers,
            service_ms=service_ms,
            repositories=repositories,
            push_interval_s=push_interval,
            durability=choice(Durability, durability, "--durability"),
            topology=topology,
            seed=seed,
            out=out,
            redis_url=redis_url,
            nats_url=nats_url,
            nats_monitor_url=nats_monitor_url,
            own_names=not real_names,
            allow_existing=allow_existing,
            keep=keep,
        )
        for item in designs
    ]
    if chaos:
        settings = [_with_chaos(item, without or []) for item in settings]
    for item in settings:
        item.check()
    manifests = [carry_out(item, json=json) for item in settings]
    if report:
        make_reports([manifest.run for manifest in manifests], out, json=json)
    raise typer.Exit(exit_code(manifests, expected))


def _with_chaos(settings: "RehearsalSettings", without: list[str]) -> "RehearsalSettings":
    import msgspec

    from hookbench.faults.registry import check_kinds
    from hookbench.rehearsal.chaos import chaos_schedule

    check_kinds(without)
    faults = chaos_schedule(settings, without=without)
    return msgspec.structs.replace(settings, scenario="chaos", faults=faults)


def _expected(text: str | None, designs: "list[Design]") -> dict[str, str] | None:
    from hookbench.errors import SettingError
    from hookbench.ledger.model import Verdict

    if text is None:
        return None
    expected: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in designs or value not in list(Verdict):
            raise SettingError(
                f"--expect {part!r}: use DESIGN=VERDICT with a design that is rehearsed"
                f" ({', '.join(designs)}) and one of {', '.join(Verdict)}"
            )
        expected[name] = value
    return expected


def carry_out(settings: "RehearsalSettings", *, json: bool) -> "Manifest":
    """Rehearse, store and print one run."""
    import io
    import sys

    from rich.console import Console

    from hookbench.clock import SystemClock
    from hookbench.errors import ResultsError
    from hookbench.rehearsal.progress import open_progress
    from hookbench.rehearsal.run import Rehearsal
    from hookbench.report.table import print_run
    from hookbench.results.store import encode_manifest, write_aside
    from hookbench.scenarios.resolved import scenario_toml

    clock = SystemClock()
    teller = open_progress(Console(stderr=True), clock)
    rehearsal = Rehearsal(
        settings, clock=clock, teller=teller, scenario_toml=scenario_toml(settings)
    )
    folder, manifest = run_or_interrupt(rehearsal)
    table = io.StringIO()
    print_run(Console(file=table, width=160), manifest)
    if json:
        sys.stdout.write(encode_manifest(manifest).decode())
    else:
        console = Console()
        print_run(console, manifest)
        console.print(
            f"next      hookbench show {manifest.run}    report  hookbench report {manifest.run}",
            highlight=False,
            soft_wrap=True,
        )
        console.print()
    try:
        write_aside(folder / "table.txt", table.getvalue().encode())
    except OSError as error:
        raise ResultsError(
            f"run {folder} is whole, but its table.txt could not be written ({error.strerror});"
            f" hookbench show {manifest.run} prints it"
        ) from error
    return manifest


def run_or_interrupt(rehearsal: "Rehearsal") -> "tuple[Path, Manifest]":
    """Run it; the first Ctrl-C or SIGTERM cuts it off in order, the second at once."""
    import asyncio
    import sys

    try:
        return run_or_cancel(rehearsal.run())
    except asyncio.CancelledError:
        where = f": {rehearsal.folder} is kept, and marked as cut off" if rehearsal.folder else ""
        print(f"hookbench: interrupted{where}", file=sys.stderr)
        raise typer.Exit(130) from None


def run_or_cancel(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine; the first Ctrl-C or SIGTERM cancels it, the second ends the process.

    Raises:
        asyncio.CancelledError: it was cancelled, and has tidied up.
    """
    import asyncio
    import os
    import signal

    import uvloop

    async def main() -> Result:
        loop = asyncio.get_running_loop()
        running = asyncio.ensure_future(work)
        asked = 0

        def interrupt(number: int) -> None:
            nonlocal asked
            asked += 1
            if asked > 1:
                os._exit(128 + number)  # tethered children end with this process
            running.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, interrupt, number)
        return await running

    return uvloop.run(main())


def exit_code(manifests: "list[Manifest]", expected: dict[str, str] | None) -> int:
    """0 valid, 1 invalid, 3 unknown: unknown is worse than invalid."""
    verdicts = {manifest.design: str(manifest.verdict) for manifest in manifests}
    if expected is not None:
        wrong = [name for name, value in expected.items() if verdicts[name] != value]
        if any(verdicts[name] == "unknown" for name in wrong):
            return 3
        return 1 if wrong else 0
    if "unknown" in verdicts.values():
        return 3
    return 1 if "invalid" in verdicts.values() else 0
