"""``hookbench sim``: a search for the schedule of faults that loses a task, in virtual time."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hookbench.cli.options import JsonOutput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hookbench.clock import Clock
    from hookbench.migration.phases import Phase
    from hookbench.sim.book import SearchTotals, SeedEntry
    from hookbench.sim.shrink import Minimal
    from hookbench.sim.trial import Scope

__all__ = ["sim"]

MAX_SEEDS = 10_000_000
MAX_CAUSES = 50
"""Causes that are shrunk, the most frequent first."""
_TOLD_SEEDS = 20
_PROGRESS_NS = 2_000_000_000


def sim(
    phase: Annotated[
        str | None, typer.Option(help="One phase alone, by name or number: dual_write or 1.")
    ] = None,
    transition: Annotated[
        str | None,
        typer.Option(help="From one phase to another, FROM:TO; half of the faults lie around it."),
    ] = None,
    design: Annotated[str, typer.Option(help="guide or hardened.")] = "guide",
    measures: Annotated[
        str,
        typer.Option(
            "--measures",
            help="Changes to the measures of the design: a name switches one on, -name off.",
        ),
    ] = "",
    durability: Annotated[
        str,
        typer.Option(
            help="Of both brokers: memory, lazy, fsync, or replicated, which is a Redis with a"
            " replica and three NATS nodes."
        ),
    ] = "fsync",
    schedule: Annotated[
        int | None,
        typer.Option(min=1, help="Version of what is drawn [the newest]."),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, max=MAX_SEEDS, help="How many seeds, from --first on.")
    ] = 100,
    first: Annotated[int, typer.Option(min=0, help="The first seed.")] = 1,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Only this seed, told in full and not booked.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Processes.")] = 1,
    shrink: Annotated[
        bool, typer.Option("--shrink/--no-shrink", help="Make each cause's first schedule minimal.")
    ] = True,
    replay: Annotated[
        bool,
        typer.Option(
            "--replay",
            help="Run each minimal schedule on real brokers, and search hardened beside guide.",
        ),
    ] = False,
    tries: Annotated[
        int, typer.Option(min=1, max=50, help="Rehearsals of each, until it is replayed.")
    ] = 3,
    out: Annotated[
        Path, typer.Option("--out", help="Folder of sim.jsonl, sim.json and what was found.")
    ] = Path("results/sim"),
    json: JsonOutput = False,
) -> None:
    """Search the migration for faults that lose, repeat or strand a task, in virtual time.

    Each seed draws a schedule of faults and is judged by the checkers of a rehearsal; without
    --phase or --transition it is the whole timeline. The first seed of each cause is shrunk to a
    minimal schedule, told as a story, and written as a scenario for hookbench run. With --replay
    that is done at once, on embedded brokers, and a hazard counts as found only if the verdict
    there names it as well; a table says so for each.

    Resumable: seeds that the book in the folder has for this commit are not tried again.

    Exit codes: 0 none failing, 1 some invalid, 3 some unknown and none invalid, 2 usage.

    Example: hookbench sim --transition dual_write:dual_read --seeds 500 --jobs 2
    """
    from hookbench.errors import SettingError

    try:
        import lupa.lua51  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise SettingError(
            "sim: lupa is not installed, which runs the scripts of Redis: pip install"
            " 'hookbench[sim]'"
        ) from error
    from hookbench.clock import SystemClock

    if replay and not shrink:
        raise SettingError("--replay and --no-shrink: what is replayed are minimal schedules")
    scope = _scope(phase, transition, design, measures, durability, schedule)
    numbers = range(first, first + seeds) if seed is None else (seed,)
    entries = _search(scope, numbers, out, jobs, book=seed is None, json=json, clock=SystemClock())
    from hookbench.sim.book import totals_of

    totals = totals_of(entries)
    _tell_totals(totals, entries, json=json)
    minimals = _shrink_all(scope, totals, entries, out, json=json) if shrink else []
    if replay:
        from hookbench.cli.sim_replay import beside_guide, replay_all

        hardened = beside_guide(scope)
        beside = None
        if hardened is not None:
            _say(f"searching {hardened.name} over the same seeds")
            book = seed is None
            beside = _search(
                hardened, numbers, out, jobs, book=book, json=json, clock=SystemClock()
            )
        replay_all(minimals, numbers[0], tries, out, beside, json=json)
    raise typer.Exit(_exit_code(totals))


def _exit_code(totals: "SearchTotals") -> int:
    from hookbench.cli.main import EXIT_INVALID, EXIT_UNKNOWN, EXIT_VALID
    from hookbench.ledger.model import Verdict

    if totals.verdicts.get(Verdict.INVALID):
        return EXIT_INVALID
    return EXIT_UNKNOWN if totals.verdicts.get(Verdict.UNKNOWN) else EXIT_VALID


def _scope(
    phase: str | None,
    transition: str | None,
    design: str,
    measures: str,
    durability: str,
    schedule: int | None,
) -> "Scope":
    import functools

    from hookbench.brokers.durability import Durability
    from hookbench.cli.worker import choice
    from hookbench.errors import SettingError
    from hookbench.migration.measures import parse_measures
    from hookbench.migration.phases import Design, parse_phase
    from hookbench.rehearsal.settings import FULL_TIMELINE
    from hookbench.sim.schedule import SCHEDULE_VERSION
    from hookbench.sim.trial import Scope

    parse_measures(measures)
    if schedule is not None and schedule > SCHEDULE_VERSION:
        raise SettingError(f"--schedule {schedule}: use 1 to {SCHEDULE_VERSION}")
    scope = functools.partial(
        Scope,
        design=choice(Design, design, "--design"),
        measures=measures,
        durability=choice(Durability, durability, "--durability"),
        schedule=schedule or SCHEDULE_VERSION,
    )
    if phase is not None and transition is not None:
        raise SettingError("--phase and --transition: give one of them, or neither for all phases")
    if phase is not None:
        return scope(phases=(parse_phase(phase),))
    if transition is not None:
        return scope(phases=_both_ends(transition), transition=1)
    return scope(phases=FULL_TIMELINE)


def _both_ends(text: str) -> "tuple[Phase, Phase]":
    from hookbench.errors import SettingError
    from hookbench.migration.phases import parse_phase

    before, colon, after = text.partition(":")
    if not colon:
        raise SettingError(
            f"--transition {text!r}: use FROM:TO with two phases, as in dual_write:dual_read"
        )
    ends = (parse_phase(before), parse_phase(after))
    if ends[0] is ends[1]:
        raise SettingError(f"--transition {text!r}: from a phase to itself: use two phases")
    return ends


def _search(
    scope: "Scope",
    numbers: "Sequence[int]",
    out: Path,
    jobs: int,
    *,
    book: bool,
    json: bool,
    clock: "Clock",
) -> "list[SeedEntry]":
    """The entries of all these seeds, those from the book included."""
    from hookbench.results.environment import commit
    from hookbench.sim.book import SimBook
    from hookbench.sim.explore import explore

    now = commit()
    kept = SimBook(out) if book else None
    # What a changed checkout came to says nothing of the next change.
    known = [] if kept is None or now.endswith("+") else kept.of(now, scope.name)
    found = {item.seed: item for item in known if item.seed in numbers}
    left = [number for number in numbers if number not in found]
    if found:
        _say(f"{len(found):,} seeds are in {out} already, {len(left):,} are left")
    begin_ns = told_ns = clock.monotonic_ns()
    try:
        for done, entry in enumerate(explore(scope, left, now, jobs=jobs), 1):
            found[entry.seed] = entry
            if kept is not None:
                kept.add(entry)
            if json:
                _write_json("seed", entry)
            if clock.monotonic_ns() - told_ns >= _PROGRESS_NS:
                told_ns = clock.monotonic_ns()
                failing = sum(bool(item.failing) for item in found.values())
                per_minute = done * 60e9 / (told_ns - begin_ns)
                _say(
                    f"{done:,} of {len(left):,} seeds, {failing:,} failing,"
                    f" {per_minute:,.0f} a minute"
                )
    finally:
        if kept is not None:
            kept.write_totals()
    return [found[number] for number in numbers]


def _shrink_all(
    scope: "Scope",
    totals: "SearchTotals",
    entries: "list[SeedEntry]",
    out: Path,
    *,
    json: bool,
) -> "list[Minimal]":
    """Shrink the first seed of each cause, tell it, and keep what came of it."""
    from hookbench.sim.redis.scripts import ScriptEngine
    from hookbench.sim.shrink import shrink as make_minimal

    engine = ScriptEngine()
    found = []
    faults = {item.seed: item.faults for item in entries}
    for key, cause in list(totals.causes.items())[:MAX_CAUSES]:
        _say(f"shrinking seed {cause.first_seed} for {key}")
        minimal = make_minimal(
            scope, faults[cause.first_seed], cause.first_seed, key, engine=engine
        )
        if minimal is None:
            print(f"\n{key}: seed {cause.first_seed} does not fail for it again")
            continue
        _tell_minimal(minimal, key, out, json=json, engine=engine)
        found.append(minimal)
    left_out = len(totals.causes) - MAX_CAUSES
    if left_out > 0:
        _say(f"{left_out} further causes are not shrunk")
    return found


def _tell_minimal(minimal: "Minimal", key: str, out: Path, *, json: bool, engine: object) -> None:
    import re

    import msgspec

    from hookbench.results.store import write_aside
    from hookbench.sim.as_scenario import rehearsal_toml
    from hookbench.sim.redis.scripts import ScriptEngine
    from hookbench.sim.story import tell_story

    lines = tell_story(minimal, engine=engine if isinstance(engine, ScriptEngine) else None)
    name = re.sub(r"[^A-Za-z0-9]+", "_", f"{minimal.scope.design}_{key}").strip("_")[:60]
    folder = out / f"{name}_{minimal.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    write_aside(folder / "story.txt", ("\n".join(lines) + "\n").encode())
    write_aside(folder / "scenario.toml", rehearsal_toml(minimal).encode())
    data = msgspec.json.format(msgspec.json.encode(minimal), indent=2)
    write_aside(folder / "schedule.json", data + b"\n")
    if json:
        _write_json("minimal", minimal, key=key, story=lines, folder=str(folder))
        return
    count = len(minimal.faults)
    print(
        f"\n{key}: seed {minimal.seed}, {count} fault{'' if count == 1 else 's'},"
        f" {minimal.scope.workers} workers, {minimal.scope.plan.tasks} tasks"
        f" ({minimal.tries} runs to shrink)"
    )
    for fault in minimal.faults:
        print(f"    {fault.at_s:g} s for {fault.for_s:g} s: {fault.name}")
    print("\n".join(f"  {line}" for line in lines))
    print(f"  kept in {folder}; on real brokers: hookbench run {folder / 'scenario.toml'}")


def _tell_totals(totals: "SearchTotals", entries: "list[SeedEntry]", *, json: bool) -> None:
    if json:
        _write_json("totals", totals)
        return
    if len(entries) == 1:
        (entry,) = entries
        print(f"seed {entry.seed}  {entry.verdict}  ledger {entry.digest}")
        for fault in entry.faults:
            print(f"    {fault.at_s:g} s for {fault.for_s:g} s: {fault.name}")
    verdicts = ", ".join(f"{count:,} {name}" for name, count in totals.verdicts.items())
    print(
        f"{totals.scope}, commit {totals.commit}: {totals.seeds:,} seeds, {verdicts};"
        f" {totals.fired:,} of {totals.faults:,} faults fired; {totals.accepted:,} tasks accepted,"
        f" {totals.lost:,} lost, {totals.stuck:,} stuck, {totals.duplicated:,} duplicated;"
        f" {totals.cpu_s:,.1f} s of CPU"
    )
    if totals.failing:
        shown = ", ".join(map(str, totals.failing[:_TOLD_SEEDS]))
        more = len(totals.failing) - _TOLD_SEEDS
        print(f"failing seeds: {shown}" + (f" and {more:,} more" if more > 0 else ""))
    if totals.causes:
        print(f"{'seeds':>7}  {'first':>6}  cause (hazard/invariant)")
        for key, cause in totals.causes.items():
            print(f"{cause.seeds:>7,}  {cause.first_seed:>6}  {key}")
    _tell_coverage(totals)


def _tell_coverage(totals: "SearchTotals") -> None:
    """Faults by the steps at which they struck, and which steps none has."""
    from hookbench.sim.coverage import COVERED_STEPS

    if not totals.coverage:
        return
    steps = [step for step in COVERED_STEPS if any(step in row for row in totals.coverage.values())]
    width = max(len(name) for name in totals.coverage)
    print("faults by the step at which tasks were:")
    print(" " * width + "  " + "  ".join(steps))
    for name, row in totals.coverage.items():
        cells = (f"{row[step]:,}" if step in row else "." for step in steps)
        padded = "  ".join(cell.rjust(len(step)) for step, cell in zip(steps, cells, strict=True))
        print(f"{name:<{width}}  {padded}")


def _write_json(event: str, data: object, **more: object) -> None:
    import sys

    import msgspec

    line = {"event": event, **more, **msgspec.to_builtins(data)}
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


def _say(text: str) -> None:
    import sys

    print(text, file=sys.stderr, flush=True)
