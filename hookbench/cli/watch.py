"""``hookbench watch``: both queues, live in the terminal."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hookbench.cli.options import (
    ConfigFile,
    ConsumerGroup,
    JsonOutput,
    NatsUrl,
    Prefix,
    RedisUrl,
    Stream,
    SubjectRoot,
    announce_json,
)

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["watch"]


def watch(
    redis_url: RedisUrl = None,
    nats_url: NatsUrl = None,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    count: Annotated[int | None, typer.Option(min=1, help="Looks in all [until Ctrl-C].")] = None,
    prefix: Prefix = "{hook}",
    subject_root: SubjectRoot = "queue.hook",
    stream: Stream = "HOOK_QUEUE",
    consumer: ConsumerGroup = "hook-sync-worker",
    config: ConfigFile = None,  # noqa: ARG001 - its callback has used it
    json: JsonOutput = False,
) -> None:
    """Show both queues, again and again, until Ctrl-C; nothing is changed.

    In a terminal it is a table; else a line for each look, and with --json an object. A broker that
    does not answer is said, and looked for again.

    Examples: hookbench watch --redis redis://127.0.0.1:6379 --nats nats://127.0.0.1:4222

    hookbench watch --count 1 --json
    """
    import contextlib
    import sys

    from hookbench.cli.options import run_until_signal
    from hookbench.errors import SettingError
    from hookbench.task import Names

    if not (redis_url or nats_url):
        raise SettingError("nothing to watch: give --redis-url, --nats-url or both")
    names = Names(prefix=prefix, subject_root=subject_root, stream=stream, consumer=consumer)
    with contextlib.ExitStack() as stack:
        if json:
            show = _show_json
        elif sys.stdout.isatty():
            show = _live(stack)
        else:
            show = _show_line
        import asyncio

        stop = asyncio.Event()
        run_until_signal(
            lambda: _run((redis_url, nats_url), names, every, count, show, stop), stop.set
        )


async def _run(
    urls: tuple[str | None, str | None],
    names: Any,
    every_s: float,
    count: int | None,
    show: Any,
    stop: Any,
) -> None:
    import asyncio
    import contextlib

    from hookbench.clock import SystemClock
    from hookbench.live.watch import Watch

    watching = Watch(*urls, names, clock=SystemClock())
    looks = 0
    try:
        while not stop.is_set():
            show(await watching.look())
            looks += 1
            if count is not None and looks >= count:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), every_s)
    finally:
        await watching.close()


def _show_json(look: Any) -> None:
    import msgspec

    announce_json(msgspec.to_builtins(look))


def _show_line(look: Any) -> None:
    parts = []
    if look.redis is not None:
        redis = look.redis
        parts.append(f"redis pending {redis.pending} work {redis.work} dead {redis.dead}")
    if look.nats is not None:
        nats = look.nats
        parts.append(
            f"nats pending {nats.pending} unacknowledged {nats.ack_pending}"
            f" redelivered {nats.redelivered} dead {nats.dead} stored {nats.messages}"
            f" put {_rate(nats.put_per_s)} finished {_rate(nats.finished_per_s)}"
        )
    parts += [f"{name}: {why}" for name, why in look.problems.items()]
    print("  ".join(parts), flush=True)


def _live(stack: Any) -> Any:
    from rich.live import Live

    shown = stack.enter_context(Live(auto_refresh=False))
    return lambda look: shown.update(make_table(look), refresh=True)


def make_table(look: Any) -> "Table":
    """Both queues side by side."""
    from rich.table import Table

    table = Table("", "Redis", "NATS")
    redis, nats = look.redis, look.nats
    rows = (
        ("pending", redis and redis.pending, nats and nats.pending),
        ("in work", redis and redis.work, nats and nats.ack_pending),
        ("oldest", redis and _seconds(redis.oldest_s), None),
        ("redelivered", None, nats and nats.redelivered),
        ("dead letters", redis and redis.dead, nats and nats.dead),
        ("stored", None, nats and nats.messages),
        ("put", None, nats and _rate(nats.put_per_s)),
        ("finished", None, nats and _rate(nats.finished_per_s)),
        ("memory, MiB", redis and _mib(redis.used_bytes), nats and _mib(nats.size_bytes)),
    )
    for name, left, right in rows:
        table.add_row(name, *("-" if value is None else str(value) for value in (left, right)))
    for name, why in look.problems.items():
        table.add_row(name, why, "")
    return table


def _rate(per_s: float | None) -> str:
    return "-" if per_s is None else f"{per_s:.1f}/s"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} s"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**2:.1f}"
