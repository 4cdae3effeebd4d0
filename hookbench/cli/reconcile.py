"""``hookbench reconcile``: what only one broker has is put on the other."""

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from hookbench.cli.options import (
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
    run_until_signal,
)
from hookbench.cli.worker import storage_of

__all__ = ["reconcile"]


def reconcile(
    once: Annotated[bool, typer.Option("--once", help="One round; else until SIGTERM.")] = False,
    redis_url: RedisUrl = None,
    nats_url: NatsUrl = None,
    task_type: Annotated[str, typer.Option(help="Type of the tasks to compare.")] = "sync",
    window: Annotated[
        int, typer.Option(min=1, help="Tasks of either side that are held at a time.")
    ] = 2_000,
    grace: Annotated[
        float, typer.Option(min=0.0, help="Seconds that a missing task has to turn up.")
    ] = 2.0,
    period: Annotated[float, typer.Option(min=0.1, help="Seconds between two rounds.")] = 5.0,
    prefix: Prefix = "{hook}",
    subject_root: SubjectRoot = "queue.hook",
    stream: Stream = "HOOK_QUEUE",
    storage: Storage = "file",
    replicas: Replicas = 1,
    max_age: MaxAge = 604_800.0,
    duplicate_window: DuplicateWindow = 120.0,
    ledger: Annotated[Path | None, typer.Option(help="Record every put in this folder.")] = None,
    writer: Annotated[int, typer.Option(min=0, max=65535, help="Number of the writer.")] = 0,
    json: JsonOutput = False,
) -> None:
    """Compare both brokers by id while both are written (phases 1 and 2), and put what is missing.

    What lies in the lists of Redis and not in the stream is published with its id. From the stream
    to Redis nothing goes without a done-store, which tells what of it is done.

    Exit codes: 0 every missing task was put, 3 some could not be; with --once of that round.

    Example: hookbench reconcile --once --json --redis-url redis://127.0.0.1:6379
    --nats-url nats://127.0.0.1:4222
    """
    from hookbench.clock import SystemClock
    from hookbench.migration.reconciliation import ReconcileSettings
    from hookbench.queues.connections import Connections
    from hookbench.queues.jetstream import StreamSettings
    from hookbench.secrets import log_to_stderr
    from hookbench.task import Names, check_task_type

    log_to_stderr(logging.WARNING)
    names = Names(prefix=prefix, subject_root=subject_root, stream=stream)
    connections = Connections(
        redis_url=redis_url,
        nats_url=nats_url,
        names=names,
        clock=SystemClock(),
        stream=StreamSettings(
            storage=storage_of(storage),
            replicas=replicas,
            max_age_s=max_age,
            duplicate_window_s=duplicate_window,
        ),
    )
    bounds = ReconcileSettings(window=window, grace_s=grace, period_s=period)
    with open_ledger(ledger, "reconciler", writer) as recorder:
        left = _carry_out(
            connections, names, check_task_type(task_type), bounds, recorder, once=once, json=json
        )
    if left:
        raise typer.Exit(3)


def _carry_out(
    connections: Any,
    names: Any,
    task_type: str,
    bounds: Any,
    recorder: Any,
    *,
    once: bool,
    json: bool,
) -> int:
    """Tasks that the last round could not put."""
    import asyncio

    import msgspec

    from hookbench.migration.reconcile_loop import open_reconciler, repeat_rounds

    stop = asyncio.Event()
    rounds: list[Any] = []

    def tell(totals: Any) -> None:
        rounds[:] = [totals]
        fields = msgspec.structs.asdict(totals)
        if json:
            announce_json({"event": "round", **fields})
        else:
            print("  ".join(f"{name} {value}" for name, value in fields.items()), flush=True)

    async def main() -> None:
        try:
            reconciler = await open_reconciler(
                connections, names, task_type=task_type, settings=bounds, recorder=recorder
            )
            if once:
                tell(await reconciler.round())
            else:
                await repeat_rounds(
                    reconciler,
                    clock=connections.clock,
                    period_s=bounds.period_s,
                    stop=stop,
                    told=tell,
                )
        finally:
            await connections.close()

    run_until_signal(main, stop.set)
    return sum(totals.refused + totals.unknown for totals in rounds)
