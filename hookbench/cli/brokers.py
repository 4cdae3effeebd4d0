"""``hookbench brokers``: embedded brokers in the foreground, and a Redis Cluster out of nodes."""

import shutil
import signal
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from hookbench.cli.options import JsonOutput, announce_json

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

_POLL_S = 0.2


@app.callback()
def brokers() -> None:
    """Embedded brokers: a real Redis and a real NATS server."""


@app.command()
def up(
    durability: Annotated[str, typer.Option(help="memory, lazy or fsync.")] = "lazy",
    redis_port: Annotated[int | None, typer.Option(help="Port for Redis [a free one].")] = None,
    nats_port: Annotated[int | None, typer.Option(help="Port for NATS [a free one].")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Keep the data here, else in a temporary folder.")
    ] = None,
    json: JsonOutput = False,
) -> None:
    """Start both brokers, print their URLs, and stop them on Ctrl-C or SIGTERM.

    Example: hookbench brokers up --redis-port 6379 --nats-port 4222 --data data/
    """
    from hookbench.brokers.durability import Durability
    from hookbench.brokers.embedded import start_nats, start_redis
    from hookbench.brokers.resolve import resolve_nats, resolve_redis
    from hookbench.cli.worker import choice
    from hookbench.clock import SystemClock
    from hookbench.errors import BrokerUnreachableError

    chosen = choice(Durability, durability, "--durability")
    # An environment without URLs: this verb starts servers, whatever else it could find.
    redis_binary = resolve_redis(env=_without_urls())
    nats_binary = resolve_nats(env=_without_urls())
    stop = False

    def ask_to_stop(_number: int, _frame: object) -> None:
        nonlocal stop
        stop = True

    folder = data or Path(tempfile.mkdtemp(prefix="hookbench-brokers-"))
    started = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, ask_to_stop)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        started.append(start_redis(redis_binary, folder, chosen, port=redis_port))
        started.append(start_nats(nats_binary, folder, chosen, port=nats_port))
        if json:
            announce_json(
                {broker.kind: {"url": broker.url, "pid": broker.pid} for broker in started}
            )
        else:
            for broker in started:
                print(f"export HOOKBENCH_{broker.kind.upper()}_URL={broker.url}", flush=True)
            print(
                f"# {', '.join(broker.resolved.label for broker in started)}, durability {chosen},"
                f" data in {folder}; Ctrl-C stops them",
                flush=True,
            )
        clock = SystemClock()
        while not stop:
            for broker in started:
                if (code := broker.child.exit_code) is not None:
                    raise BrokerUnreachableError(
                        f"{broker.kind}-server ended by itself with {code}: see {broker.log}"
                    )
            clock.block(_POLL_S)
    finally:
        for broker in started:
            broker.stop()
        if data is None:
            shutil.rmtree(folder, ignore_errors=True)


@app.command()
def join(
    nodes: Annotated[list[str], typer.Argument(help="redis://host:port of each, three or more.")],
    json: JsonOutput = False,
) -> None:
    """Make one Redis Cluster of servers in cluster mode, each the master of its share of the slots.

    Nodes that are one already meet again, which changes nothing but addresses that are new.

    Example: hookbench brokers join redis://redis-1:6379 redis://redis-2:6379 redis://redis-3:6379
    """
    import asyncio

    from hookbench.brokers.redis_join import SLOTS, join_nodes

    fresh = asyncio.run(join_nodes(nodes))
    if json:
        announce_json({"nodes": len(nodes), "slots": SLOTS, "assigned": fresh})
        return
    what = "now assigned" if fresh else "as before"
    print(f"{len(nodes)} nodes are one cluster, its slots {what}")


def _without_urls() -> dict[str, str]:
    import os

    return {name: value for name, value in os.environ.items() if not name.startswith("HOOKBENCH_")}
