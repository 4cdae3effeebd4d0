"""``hookbench phase``: the phase in a place that a fleet follows."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from hookbench.cli.options import (
    JsonOutput,
    NatsUrl,
    Prefix,
    RedisUrl,
    Replicas,
    Storage,
    Stream,
    announce_json,
)

__all__ = ["app"]

app = typer.Typer(help="The phase in a place that a fleet follows.", no_args_is_help=True)

_EXIT_HELD = 1

_Place = Annotated[str, typer.Argument(help="redis:KEY, nats:KEY or file:PATH.")]


@app.command("set")
def set_phase(
    place: _Place,
    phase: Annotated[str, typer.Argument(help="Phase, by name or number: dual_write or 1.")],
    redis_url: RedisUrl = None,
    nats_url: NatsUrl = None,
    prefix: Prefix = "{hook}",
    stream: Stream = "HOOK_QUEUE",
    storage: Storage = "file",
    replicas: Replicas = 1,
    force: Annotated[
        bool, typer.Option("--force", help="Also where another phase is set already.")
    ] = False,
    break_hold: Annotated[
        bool,
        typer.Option(
            "--break-hold",
            help="Also while hookbench migrate holds the place: for emergencies, it then ends.",
        ),
    ] = False,
    json: JsonOutput = False,
) -> None:
    """Give a place its first phase, before its processes start; later hookbench migrate changes it.

    A place that hookbench migrate holds is let alone, and the operator is named; with --break-hold
    it is taken from that one, which ends before it tells another phase.

    Exit codes: 0 it is set; 1 another operator holds the place; 2 usage, or another phase is there.

    Examples: hookbench phase set redis:workers redis_only --redis redis://127.0.0.1:6379

    hookbench phase set nats:worker-1 dual_write --force --break-hold
    """
    import sys

    from hookbench.errors import PlaceHeldError
    from hookbench.live.places import parse_place
    from hookbench.migration.phases import parse_phase

    wanted, entered = parse_place(place), parse_phase(phase)

    async def write(boards: Any) -> None:
        await _set(boards, wanted, entered, force=force, break_hold=break_hold)

    try:
        _at((redis_url, nats_url), (prefix, stream, storage, replicas), write)
    except PlaceHeldError as error:
        print(f"hookbench: {error}; in an emergency give --break-hold", file=sys.stderr)
        raise typer.Exit(_EXIT_HELD) from error
    if json:
        announce_json({"place": wanted.text, "phase": entered.label})
        return
    print(f"{wanted.text}: {entered.label}")


async def _set(boards: Any, place: Any, phase: Any, *, force: bool, break_hold: bool) -> None:
    """As an operator who holds the place meanwhile."""
    from hookbench.clock import SystemClock
    from hookbench.live.hold import Hold, this_operator
    from hookbench.live.places import encode_step

    board = await boards.of(place)
    if await _next_index(board, place, phase, force=force) is None:
        return
    operator = this_operator(f"phase set {phase.label}")
    hold = Hold(boards, [place], operator, clock=SystemClock(), by_force=break_hold)
    await hold.take()
    try:
        index = await _next_index(board, place, phase, force=force)
        if index is not None:
            await hold.write(place, encode_step(index, phase))
    finally:
        await hold.let_go()


async def _next_index(board: Any, place: Any, phase: Any, *, force: bool) -> int | None:
    """Of the step that begins; ``None`` where the place is in that phase already."""
    from hookbench.errors import SettingError
    from hookbench.live.places import decode_step

    found = await board.read(place.key)
    if found is None:
        return 0
    last, now = decode_step(place, found)
    if now is phase:
        return None
    if not force:
        raise SettingError(
            f"{place.text} is in {now.label}: change it with hookbench migrate, which asks the"
            " gates; or give --force"
        )
    return int(last) + 1


@app.command()
def show(
    place: _Place,
    redis_url: RedisUrl = None,
    nats_url: NatsUrl = None,
    prefix: Prefix = "{hook}",
    stream: Stream = "HOOK_QUEUE",
    json: JsonOutput = False,
) -> None:
    """Show the phase in a place, and what its followers say; nothing is changed.

    Example: hookbench phase show nats:workers --nats nats://127.0.0.1:4222 --json
    """
    import sys

    import msgspec

    from hookbench.live.places import decode_step, parse_place

    wanted = parse_place(place)

    async def read(boards: Any) -> tuple[int, Any, dict[str, Any]]:
        board = await boards.of(wanted)
        index, phase = decode_step(wanted, await board.read(wanted.key))
        said = await board.announced(wanted.key)
        return index, phase, {name: msgspec.json.decode(data) for name, data in said.items()}

    index, phase, said = _at(
        (redis_url, nats_url), (prefix, stream, "file", 1), read, reads_only=True
    )
    if json:
        found = {"place": wanted.text, "index": index, "phase": phase.label, "followers": said}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
        return
    print(f"{wanted.text}: {phase.label} (step {index})")
    for name, event in said.items():
        print(f"  {name} {event.get('role', '')} in {event.get('phase', '')}")


def _at(
    urls: tuple[str | None, str | None],
    shape: tuple[str, str, str, int],
    act: Callable[[Any], Awaitable[Any]],
    *,
    reads_only: bool = False,
) -> Any:
    import asyncio

    from hookbench.cli.worker import storage_of
    from hookbench.clock import SystemClock
    from hookbench.live.boards import Boards
    from hookbench.queues.jetstream import StreamSettings
    from hookbench.task import Names

    prefix, stream, storage, replicas = shape

    async def run() -> Any:
        boards = Boards(
            *urls,
            Names(prefix=prefix, stream=stream),
            stream=StreamSettings(storage=storage_of(storage), replicas=replicas),
            clock=SystemClock(),
            reads_only=reads_only,
        )
        try:
            return await act(boards)
        finally:
            await boards.close()

    return asyncio.run(run())
