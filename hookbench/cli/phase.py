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
    json: JsonOutput = False,
) -> None:
    """Give a place its first phase, before its processes start; later hookbench migrate changes it.

    Example: hookbench phase set redis:workers redis_only --redis redis://127.0.0.1:6379
    """
    from hookbench.errors import SettingError
    from hookbench.live.places import decode_step, encode_step, parse_place
    from hookbench.migration.phases import parse_phase

    wanted, entered = parse_place(place), parse_phase(phase)

    async def write(board: Any) -> None:
        found = await board.read(wanted.key)
        index = 0
        if found is not None:
            last, now = decode_step(wanted, found)
            if now is entered:
                return
            if not force:
                raise SettingError(
                    f"{wanted.text} is in {now.label}: change it with hookbench migrate, which asks"
                    " the gates; or give --force"
                )
            index = last + 1
        await board.write(wanted.key, encode_step(index, entered))

    _at(wanted, (redis_url, nats_url), (prefix, stream, storage, replicas), write)
    if json:
        announce_json({"place": wanted.text, "phase": entered.label})
        return
    print(f"{wanted.text}: {entered.label}")


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

    async def read(board: Any) -> tuple[int, Any, dict[str, Any]]:
        index, phase = decode_step(wanted, await board.read(wanted.key))
        said = await board.announced(wanted.key)
        return index, phase, {name: msgspec.json.decode(data) for name, data in said.items()}

    index, phase, said = _at(
        wanted, (redis_url, nats_url), (prefix, stream, "file", 1), read, reads_only=True
    )
    if json:
        found = {"place": wanted.text, "index": index, "phase": phase.label, "followers": said}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
        return
    print(f"{wanted.text}: {phase.label} (step {index})")
    for name, event in said.items():
        print(f"  {name} {event.get('role', '')} in {event.get('phase', '')}")


def _at(
    place: Any,
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
            return await act(await boards.of(place))
        finally:
            await boards.close()

    return asyncio.run(run())
