"""``hookbench move``: a transition or rollback, by its procedure."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hookbench.cli.options import (
    ConsumerGroup,
    DuplicateWindow,
    MaxAge,
    NatsUrl,
    Prefix,
    RedisUrl,
    Replicas,
    Storage,
    Stream,
    SubjectRoot,
    open_ledger,
)

__all__ = ["move"]

_EXIT_HELD_BACK = 1


def move(
    source: Annotated[str, typer.Option("--from", help="Phase that is left, as in dual_write.")],
    target: Annotated[str, typer.Option("--to", help="Phase that is entered.")],
    progress: Annotated[
        Path,
        typer.Option(help="File of what is done; who finds it there goes on. Removed at the end."),
    ],
    producer_phase_file: Annotated[
        list[Path], typer.Option(help="A phase file that producers or hooks watch.")
    ],
    worker_phase_file: Annotated[list[Path], typer.Option(help="A phase file that workers watch.")],
    announced: Annotated[
        list[Path],
        typer.Option(help="What they print with --json: files, or folders of *.jsonl."),
    ],
    redis_url: RedisUrl = None,
    nats_url: NatsUrl = None,
    patience: Annotated[
        float,
        typer.Option(min=0.1, help="Seconds for a gate to say go, and for a role to follow."),
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
) -> None:
    """Carry a transition or rollback out: ask its gates, tell processes their phase, move tasks.

    One that was killed or held back goes on where it was when it is called again with the same
    --progress. The done-stores are asked, unless all workers announce that they have none.

    Exit codes: 0 it is done, 1 a gate or a process holds it back.

    Example: hookbench move --from dual_write --to dual_read --progress move.json
    --producer-phase-file producers.json --worker-phase-file workers.json --announced logs/
    --redis-url redis://127.0.0.1:6379 --nats-url nats://127.0.0.1:4222
    """
    import asyncio
    import sys

    from hookbench.cli.worker import storage_of
    from hookbench.errors import HeldBackError, SettingError
    from hookbench.migration.phases import parse_phase
    from hookbench.queues.jetstream import StreamSettings
    from hookbench.rehearsal.file_fleet import FileFleet
    from hookbench.task import Names

    phases = parse_phase(source), parse_phase(target)
    if not (redis_url and nats_url):
        raise SettingError("a move is between both brokers: give --redis-url and --nats-url")
    fleet = FileFleet(producers=producer_phase_file, workers=worker_phase_file, announced=announced)
    if not progress.absolute().parent.is_dir():
        raise SettingError(f"--progress {progress}: there is no folder {progress.parent}")
    names = Names(prefix=prefix, subject_root=subject_root, stream=stream, consumer=consumer)
    settings = StreamSettings(
        storage=storage_of(storage),
        replicas=replicas,
        max_age_s=max_age,
        duplicate_window_s=duplicate_window,
    )
    with open_ledger(ledger, "procedure", writer) as recorder:
        try:
            moved = asyncio.run(
                _carry_out(
                    phases,
                    fleet,
                    progress,
                    urls=(redis_url, nats_url),
                    names=names,
                    stream=settings,
                    patience_s=patience,
                    settle_s=settle,
                    recorder=recorder,
                )
            )
        except HeldBackError as error:
            print(f"hookbench: held back at {error.step}: {error}", file=sys.stderr)
            print(f"hookbench: call it again to go on, see {progress}", file=sys.stderr)
            raise typer.Exit(_EXIT_HELD_BACK) from error
    progress.unlink()
    told = ", ".join(f"{count} {step}" for step, count in moved.items()) or "nothing to move"
    print(f"{phases[0].label} to {phases[1].label}: done ({told})")


async def _carry_out(
    phases: tuple[Any, Any],
    fleet: Any,
    progress: Path,
    *,
    urls: tuple[str, str],
    names: Any,
    stream: Any,
    patience_s: float,
    settle_s: float,
    recorder: Any,
) -> dict[str, int]:
    """How many tasks each step moved."""
    from hookbench.clock import SystemClock
    from hookbench.migration.checks import GateBounds
    from hookbench.migration.measures import Measures
    from hookbench.migration.reconcile import Patience
    from hookbench.rehearsal.gated import GatedChanges, open_done_stores

    clock = SystemClock()
    workers = [item for item in fleet.announcements() if item.role == "worker"]
    # Of a fleet that has stopped meanwhile nobody says that it has none.
    claims = not workers or any(item.has("done_store") for item in workers)
    changes = GatedChanges(
        *urls,
        names,
        stream=stream,
        clock=clock,
        folder=progress.parent,
        open_stores=open_done_stores(Measures(done_store=claims), stream, clock),
        bounds=GateBounds(settle_s=settle_s),
        patience=Patience(gate_s=patience_s, announce_s=patience_s),
        recorder=recorder,
        say=lambda text: print(text, flush=True),
    )
    try:
        done = await changes.change(0, *phases, fleet, progress=progress)
        return dict(done.moved)
    finally:
        await changes.close()
