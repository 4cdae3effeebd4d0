"""``hookbench soak``: chaos rehearsals, seed after seed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hookbench.cli.options import JsonOutput

if TYPE_CHECKING:
    from hookbench.rehearsal.settings import RehearsalSettings
    from hookbench.rehearsal.soak import SoakBook, SoakEntry
    from hookbench.results.store import Manifest

__all__ = ["soak"]

MAX_RUNS = 100_000


def soak(
    minutes: Annotated[
        float, typer.Option(min=0.0, max=100_000.0, help="No run begins after so many minutes.")
    ] = 10.0,
    seed: Annotated[int, typer.Option(help="The first seed; a soak goes on after its last.")] = 1,
    design: Annotated[str, typer.Option(help="guide or hardened.")] = "guide",
    topology: Annotated[str, typer.Option(help="Embedded nodes, as of rehearse.")] = "single",
    durability: Annotated[str, typer.Option(help="memory, lazy, fsync or replicated.")] = "lazy",
    phase_seconds: Annotated[float, typer.Option(help="Length of each phase.")] = 5.0,
    rate: Annotated[float, typer.Option(help="Synthetic tasks per second.")] = 300.0,
    rollbacks: Annotated[
        bool, typer.Option("--rollbacks", help="Every other seed has a timeline with rollbacks.")
    ] = False,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", help="Kinds of faults that are left out, such as power_cut."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Kinds that are drawn, in place of all, such as promote."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder of soak.jsonl, soak.json and the failing runs.")
    ] = Path("results/soak"),
    json: JsonOutput = False,
) -> None:
    """Rehearse the whole timeline under random faults, with a new seed each time.

    Power cuts lose what was not synced whatever the design: look at them apart, with and
    --without power_cut.

    Resumable: a soak in the same folder goes on with the next seed. Failing runs are kept: an
    unknown verdict, a loss or repeat without a cause, under hardened whatever is not valid; of
    the others the totals are, by seed and commit.

    Exit codes: 0 none failing, 1 some failing.

    Example: hookbench soak --minutes 60 --topology replicated --durability replicated
    """
    import msgspec

    from hookbench.brokers.durability import Durability
    from hookbench.cli.worker import choice
    from hookbench.clock import NS_PER_S, SystemClock
    from hookbench.faults.registry import check_kinds
    from hookbench.migration.phases import Design
    from hookbench.rehearsal.chaos import chaos_schedule
    from hookbench.rehearsal.settings import FULL_TIMELINE, RehearsalSettings
    from hookbench.rehearsal.soak import TIMELINES, SoakBook, entry_of

    clock = SystemClock()
    left_out, drawn = tuple(without or ()), tuple(only or ())
    check_kinds(left_out)
    check_kinds(drawn, "--only")
    book = SoakBook(out)
    chosen = choice(Design, design, "--design")
    deadline_ns = clock.monotonic_ns() + int(minutes * 60 * NS_PER_S)
    failing = 0
    for _ in range(MAX_RUNS):
        next_seed = book.next_seed(seed, design=chosen, topology=topology)
        settings = RehearsalSettings(
            scenario="soak",
            design=chosen,
            phases=TIMELINES[next_seed % len(TIMELINES)] if rollbacks else FULL_TIMELINE,
            seed=next_seed,
            topology=topology,
            durability=choice(Durability, durability, "--durability"),
            phase_seconds=phase_seconds,
            rate_per_s=rate,
            out=out,
        )
        faults = chaos_schedule(settings, without=left_out, only=drawn)
        settings = msgspec.structs.replace(settings, faults=faults)
        folder, manifest, seconds = _run(settings)
        entry = entry_of(
            manifest,
            folder,
            settings=settings,
            seconds=seconds,
            without=left_out,
            only=drawn,
            rollbacks=rollbacks,
        )
        book.add(entry)
        failing += bool(entry.failing)
        _say(entry, json=json)
        if clock.monotonic_ns() >= deadline_ns:
            break
    if not json:
        _totals(book)
    raise typer.Exit(1 if failing else 0)


def _run(settings: "RehearsalSettings") -> tuple[Path, "Manifest", float]:
    """Where a run is kept, what it came to, and how long it took (s)."""
    from rich.console import Console

    from hookbench.cli.rehearse import run_or_interrupt
    from hookbench.clock import NS_PER_S, SystemClock
    from hookbench.rehearsal.progress import open_progress
    from hookbench.rehearsal.run import Rehearsal
    from hookbench.scenarios.resolved import scenario_toml

    clock = SystemClock()
    begin_ns = clock.monotonic_ns()
    rehearsal = Rehearsal(
        settings,
        clock=clock,
        teller=open_progress(Console(stderr=True, quiet=True), clock),
        scenario_toml=scenario_toml(settings),
    )
    folder, manifest = run_or_interrupt(rehearsal)
    return folder, manifest, (clock.monotonic_ns() - begin_ns) / NS_PER_S


def _say(entry: "SoakEntry", *, json: bool) -> None:
    import sys

    import msgspec

    from hookbench.rehearsal.soak import in_short

    if json:
        sys.stdout.write(msgspec.json.encode(entry).decode() + "\n")
    else:
        print(
            f"seed {entry.seed:<6} {entry.verdict:<8} {entry.faults:>3} faults  {entry.tasks:>7,}"
            f" tasks  lost {entry.lost:,}  stuck {entry.stuck:,}  duplicated {entry.duplicated:,}"
            f"  {entry.seconds:.0f} s"
        )
        if entry.failing:
            print(f"  FAILING  {in_short(entry.failing)}\n  kept in  {entry.run}")
    sys.stdout.flush()


def _totals(book: "SoakBook") -> None:
    for item in book.totals():
        verdicts = ", ".join(f"{count} {name}" for name, count in item.verdicts.items())
        print(
            f"commit {item.commit}  {item.design}  {item.topology}: {item.runs} runs (seeds"
            f" {item.first_seed} to {item.last_seed}), {verdicts}, {item.faults:,} faults,"
            f" {item.tasks:,} tasks, {len(item.failing)} failing"
            + (f": seeds {', '.join(map(str, item.failing))}" if item.failing else "")
        )
        print(
            f"  accepted {item.accepted:,}  lost {item.lost:,}  stuck {item.stuck:,}"
            f"  unexplained effects {item.unexplained:,}"
            + (f"  without {', '.join(item.without)}" if item.without else "")
            + (f"  only {', '.join(item.only)}" if item.only else "")
        )
        for counts in (item.fired, item.moves):
            print(f"  {', '.join(f'{name} {count:,}' for name, count in counts.items())}")
    print(f"totals in {book.path.with_name('soak.json')}")
