"""``hookbench migrate``: a transition or rollback, on a fleet that somebody else started."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hookbench.cli.options import (
    ConfigFile,
    ConsumerGroup,
    DuplicateWindow,
    JsonOutput,
    MaxAge,
    NatsUrl,
    Prefix,
    RedisUrl,
    Replicas,
    Storage,
    Stream,
    SubjectRoot,
    announce_json,
    open_ledger,
)

__all__ = ["migrate"]

_EXIT_HELD_BACK = 1
_EXITS = {"go": 0, "no-go": 1, "unknown": 3}


def migrate(
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="Phase that is left, as in dual_write.")
    ],
    target: Annotated[str, typer.Argument(metavar="TO", help="Phase that is entered.")],
    producers: Annotated[
        list[str] | None,
        typer.Option(
            "--producers",
            help="A place that producers follow: redis:KEY, nats:KEY or file:PATH; several are told"
            " one after the other.",
        ),
    ] = None,
    workers: Annotated[
        list[str] | None, typer.Option("--workers", help="A place that workers follow; likewise.")
    ] = None,
    announced: Annotated[
        list[Path] | None,
        typer.Option(
            help="What those that follow files print with --json: files, or folders of *.jsonl."
        ),
    ] = None,
    progress: Annotated[
        Path, typer.Option(help="File of what is done, by which a killed move is resumed.")
    ] = Path("hookbench-migrate.json"),
    execute: Annotated[
        bool, typer.Option("--execute", help="Do it; without this it is only said.")
    ] = False,
    back: Annotated[
        bool,
        typer.Option("--back", help="Give the unfinished move up, and go back to where it began."),
    ] = False,
    redis_url: RedisUrl = None,
    nats_url: NatsUrl = None,
    patience: Annotated[
        float,
        typer.Option(min=0.1, help="Seconds for a gate to say go, and for a process to follow."),
    ] = 30.0,
    settle: Annotated[
        float,
        typer.Option(min=0.0, help="Seconds for which a task may be on its way to a broker."),
    ] = 5.0,
    prefix: Prefix = "{hook}",
    subject_root: SubjectRoot = "queue.hook",
    stream: Stream = "HOOK_QUEUE",
    consumer: ConsumerGroup = "hook-sync-worker",
    storage: Storage = "file",
    replicas: Replicas = 1,
    max_age: MaxAge = 604_800.0,
    duplicate_window: DuplicateWindow = 120.0,
    ledger: Annotated[Path | None, typer.Option(help="Record every put in this folder.")] = None,
    writer: Annotated[int, typer.Option(min=0, max=65535, help="Number of the writer.")] = 0,
    config: ConfigFile = None,  # noqa: ARG001 - its callback has used it
    json: JsonOutput = False,
) -> None:
    """Carry a transition or rollback out: ask its gates, tell processes their phase, move tasks.

    Without --execute nothing is changed: the steps, the places with who follows them, and what the
    gate says now are printed. With it, places are told one after the other: each time the processes
    there have to say that they are in the new phase, and a look at brokers and fleet has to find
    nothing wrong, before the next one is told. One that was killed or held back goes on where it
    was when it is called again; --back gives it up and goes the other way. The places are held
    meanwhile: a second operator is told who the first one is.

    Exit codes: 0 it is done, or may begin; 1 a gate, a process or another operator holds it back;
    3 the gate does not know; 2 usage.

    Examples: hookbench migrate dual_write dual_read --producers redis:producers
    --workers redis:worker-1 --workers redis:worker-2 --redis redis://127.0.0.1:6379
    --nats nats://127.0.0.1:4222

    hookbench migrate dual_write dual_read --producers file:producers.json
    --workers file:workers.json --announced logs/ --execute

    hookbench migrate dual_write dual_read --execute --back
    """
    import asyncio

    from hookbench.cli.worker import storage_of
    from hookbench.errors import SettingError
    from hookbench.live.fleet import check_places
    from hookbench.live.migrate import Site
    from hookbench.live.places import parse_place
    from hookbench.migration.phases import parse_phase
    from hookbench.queues.jetstream import StreamSettings
    from hookbench.task import Names

    way = parse_phase(source), parse_phase(target)
    if not (redis_url and nats_url):
        raise SettingError("a move is between both brokers: give --redis-url and --nats-url")
    if not progress.absolute().parent.is_dir():
        raise SettingError(f"--progress {progress}: there is no folder {progress.parent}")
    places = {
        "producer": [parse_place(text) for text in dict.fromkeys(producers or ())],
        "worker": [parse_place(text) for text in dict.fromkeys(workers or ())],
    }
    check_places(places, way[0] if back else way[1])
    site = Site(
        redis_url=redis_url,
        nats_url=nats_url,
        names=Names(prefix=prefix, subject_root=subject_root, stream=stream, consumer=consumer),
        stream=StreamSettings(
            storage=storage_of(storage),
            replicas=replicas,
            max_age_s=max_age,
            duplicate_window_s=duplicate_window,
        ),
    )
    options: dict[str, Any] = {
        "progress": progress,
        "printed": announced or [],
        "patience_s": patience,
        "settle_s": settle,
    }
    if not execute:
        plan = asyncio.run(_plan(site, way, places, back=back, **options))
        _print_plan(plan, json=json)
        raise typer.Exit(0 if plan.gate is None else _EXITS[plan.gate.answer])
    with open_ledger(ledger, "procedure", writer) as recorder:
        _execute(site, way, places, back=back, recorder=recorder, json=json, **options)


async def _plan(
    site: Any,
    way: tuple[Any, Any],
    places: dict[str, Any],
    *,
    back: bool,
    progress: Path,
    printed: list[Path],
    patience_s: float,
    settle_s: float,
) -> Any:
    from hookbench.clock import SystemClock
    from hookbench.live.boards import Boards
    from hookbench.live.fleet import LiveFleet
    from hookbench.live.migrate import plan_of

    clock = SystemClock()
    boards = Boards(
        site.redis_url, site.nats_url, site.names, stream=site.stream, clock=clock, reads_only=True
    )
    fleet = LiveFleet(places, boards, printed=printed, clock=clock, patience_s=patience_s)
    try:
        return await plan_of(site, way, fleet, progress, clock=clock, settle_s=settle_s, back=back)
    finally:
        await boards.close()


def _execute(
    site: Any,
    way: tuple[Any, Any],
    places: dict[str, Any],
    *,
    back: bool,
    recorder: Any,
    json: bool,
    **options: Any,
) -> None:
    import asyncio
    import sys

    from hookbench.errors import HeldBackError, PlaceHeldError
    from hookbench.secrets import redact

    def tell(text: str) -> None:
        if json:
            announce_json({"event": "step", "text": redact(text)})
        else:
            print(redact(text), flush=True)

    try:
        way, moved = asyncio.run(
            _hold_and_carry_out(
                site, way, places, back=back, recorder=recorder, tell=tell, **options
            )
        )
    except HeldBackError as error:
        text = redact(str(error))
        if json:
            announce_json({"event": "held_back", "step": error.step, "evidence": text})
        print(f"hookbench: held back at {error.step}: {text}", file=sys.stderr)
        if not isinstance(error, PlaceHeldError):
            print(
                f"hookbench: call it again to go on, or with --back, see {options['progress']}",
                file=sys.stderr,
            )
        raise typer.Exit(_EXIT_HELD_BACK) from error
    if json:
        announce_json({"event": "done", "moved": moved})
        return
    told = ", ".join(f"{count} {step}" for step, count in moved.items()) or "nothing to move"
    print(f"{way[0].label} to {way[1].label}: done ({told})")


async def _hold_and_carry_out(
    site: Any,
    way: tuple[Any, Any],
    places: dict[str, Any],
    *,
    back: bool,
    progress: Path,
    **options: Any,
) -> tuple[tuple[Any, Any], dict[str, int]]:
    """The way that was gone, and how many tasks each step moved; no other operator meanwhile."""
    from hookbench.clock import SystemClock
    from hookbench.live.boards import Boards
    from hookbench.live.hold import Hold, this_operator
    from hookbench.live.migrate import turn_round

    clock = SystemClock()
    boards = Boards(site.redis_url, site.nats_url, site.names, stream=site.stream, clock=clock)
    move = f"{way[0].label} to {way[1].label}{', back' if back else ''}"
    told = [place for found in places.values() for place in found]
    hold = Hold(boards, told, this_operator(move), clock=clock)
    try:
        await hold.take()
        if back:
            way = turn_round(progress, *way)
        moved = await hold.during(
            _carry_out(site, way, places, boards, hold, clock=clock, progress=progress, **options)
        )
    finally:
        await hold.let_go()
        await boards.close()
    return way, moved


async def _carry_out(
    site: Any,
    way: tuple[Any, Any],
    places: dict[str, Any],
    boards: Any,
    hold: Any,
    *,
    clock: Any,
    progress: Path,
    printed: list[Path],
    patience_s: float,
    settle_s: float,
    recorder: Any,
    tell: Any,
) -> dict[str, int]:
    """How many tasks each step moved."""
    from hookbench.live.fleet import LiveFleet
    from hookbench.live.migrate import Migration

    migration = Migration(
        site,
        way,
        progress,
        clock=clock,
        patience_s=patience_s,
        settle_s=settle_s,
        recorder=recorder,
        tell=tell,
        assure=hold.assure,
    )
    fleet = LiveFleet(
        places,
        boards,
        printed=printed,
        clock=clock,
        patience_s=patience_s,
        between=migration.between,
        tell=tell,
        write=hold.write,
    )
    try:
        return dict((await migration.run(fleet)).moved)
    finally:
        await migration.close()


def _print_plan(plan: Any, *, json: bool) -> None:
    import sys

    import msgspec

    from hookbench.cli.gate import print_answer
    from hookbench.secrets import redact

    if json:
        text = msgspec.json.format(msgspec.json.encode(plan), indent=2).decode()
        sys.stdout.write(redact(text) + "\n")
        return
    print(f"{plan.source} to {plan.target}: a plan, nothing is changed without --execute")
    for step in plan.done:
        print(f"  done     {step}")
    for step in plan.left:
        print(f"  to do    {step}")
    for place in plan.places:
        who = ", ".join(place.followers) or "who follows it does not say so"
        print(f"  {place.role:<8} {place.place} in {place.phase}: {who}")
    if plan.gate is not None:
        print_answer(plan.gate, json=False)
