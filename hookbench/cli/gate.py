"""``hookbench gate``: may this transition or rollback begin, or go on?"""

from pathlib import Path
from typing import Annotated, Any

import typer

from hookbench.cli.options import (
    ConfigFile,
    ConsumerGroup,
    DuplicateWindow,
    JsonOutput,
    MaxAge,
    NatsMonitorUrl,
    NatsSyncInterval,
    NatsUrl,
    Prefix,
    RedisUrl,
    Replicas,
    Storage,
    Stream,
    SubjectRoot,
)

__all__ = ["gate", "print_answer"]

_EXIT_NO_GO = 1
_EXIT_UNKNOWN = 3


def gate(
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="Phase that is left, as in dual_write.")
    ],
    target: Annotated[str, typer.Argument(metavar="TO", help="Phase that is entered.")],
    moment: Annotated[
        str,
        typer.Option(help="before anything is changed, between (where there is that), or after."),
    ] = "before",
    announced: Annotated[
        list[Path] | None,
        typer.Option(
            "--announced",
            help="What producers and workers printed with --json: files, or folders of *.jsonl.",
        ),
    ] = None,
    producers: Annotated[
        list[str] | None,
        typer.Option(
            "--producers",
            help="A place that producers follow, redis:KEY or nats:KEY: what they say there.",
        ),
    ] = None,
    workers: Annotated[
        list[str] | None, typer.Option("--workers", help="A place that workers follow; likewise.")
    ] = None,
    redis_url: RedisUrl = None,
    nats_url: NatsUrl = None,
    nats_monitor_url: NatsMonitorUrl = None,
    nats_sync_interval: NatsSyncInterval = None,
    sample: Annotated[
        int | None,
        typer.Option(
            min=10, help="Read about so many tasks of each list, and look for them in the stream."
        ),
    ] = None,
    settle: Annotated[
        float,
        typer.Option(min=0.0, help="Seconds for which a task may be on its way to a broker."),
    ] = 5.0,
    task_type: Annotated[
        list[str] | None,
        typer.Option("--type", help="Task types whose Redis lists are read [sync, fsck, gc]."),
    ] = None,
    prefix: Prefix = "{hook}",
    subject_root: SubjectRoot = "queue.hook",
    stream: Stream = "HOOK_QUEUE",
    consumer: ConsumerGroup = "hook-sync-worker",
    storage: Storage = "file",
    replicas: Replicas = 1,
    max_age: MaxAge = 604_800.0,
    duplicate_window: DuplicateWindow = 120.0,
    done_store: Annotated[
        bool | None,
        typer.Option(
            "--done-store/--no-done-store",
            help="Ask the done-stores which tasks have ended; by default where the workers say"
            " that they keep it.",
            show_default=False,
        ),
    ] = None,
    config: ConfigFile = None,  # noqa: ARG001 - its callback has used it
    json: JsonOutput = False,
) -> None:
    """Ask the gate of a transition or rollback, on live brokers; nothing is changed.

    Each condition answers go, no-go or unknown, with what it saw, and where it is not go with the
    hazard behind it and what to do. A broker that does not answer, or a process that nobody
    listened to, is unknown. From dual_write to dual_read it also says at which sequence of the
    stream the consumer is to start.

    The connections refuse to write. Everything is read; with --sample some of it, which may find
    what is wrong and cannot prove that nothing is.

    Exit codes: 0 go, 1 no-go, 3 unknown, 2 usage.

    Examples: hookbench gate dual_write dual_read --announced logs/
    --redis redis://127.0.0.1:6379 --nats nats://127.0.0.1:4222

    hookbench gate nats_primary nats_only --moment between --done-store --json

    hookbench gate dual_write dual_read --producers nats:producers --workers nats:worker-1

    hookbench gate dual_write dual_read --sample 500
    """
    import asyncio

    from hookbench.cli.worker import choice, storage_of
    from hookbench.clock import SystemClock
    from hookbench.ids import system_entropy
    from hookbench.live.boards import Boards
    from hookbench.live.fleet import LiveFleet
    from hookbench.live.gate import SyncSettings, ask_gate, check_sample
    from hookbench.live.places import parse_place
    from hookbench.migration.checks import GateBounds, Moment, Move
    from hookbench.migration.gates import conditions_of
    from hookbench.migration.phases import parse_phase
    from hookbench.queues.jetstream import StreamSettings
    from hookbench.rehearsal.done_stores import OpenedStores
    from hookbench.rehearsal.survey import BrokerSurvey, Sample
    from hookbench.task import KNOWN_TASK_TYPES, Names

    move = Move(
        source=parse_phase(source),
        target=parse_phase(target),
        moment=choice(Moment, moment, "--moment"),
    )
    conditions_of(move)
    if sample is not None:
        check_sample(move)
    places = {
        "producer": [parse_place(text) for text in producers or ()],
        "worker": [parse_place(text) for text in workers or ()],
    }
    listened = announced is not None or producers is not None or workers is not None
    clock = SystemClock()
    names = Names(prefix=prefix, subject_root=subject_root, stream=stream, consumer=consumer)
    settings = StreamSettings(
        storage=storage_of(storage),
        replicas=replicas,
        max_age_s=max_age,
        duplicate_window_s=duplicate_window,
    )

    async def ask() -> Any:
        boards = Boards(redis_url, nats_url, names, stream=settings, clock=clock, reads_only=True)
        fleet = LiveFleet(places, boards, printed=announced or [], clock=clock, patience_s=0.0)
        try:
            if listened:
                await fleet.refresh()
            kept = done_store
            if kept is None:
                kept = any(item.has("done_store") for item in fleet.announcements())
            return await ask_survey(lambda: fleet.announcements() if listened else None, kept=kept)
        finally:
            await boards.close()

    async def ask_survey(heard: Any, *, kept: bool) -> Any:
        stores = OpenedStores(
            redis_url, nats_url, names, stream=settings, clock=clock, reads_only=True
        )
        survey = BrokerSurvey(
            redis_url,
            nats_url,
            names,
            clock=clock,
            stream=settings,
            are_done=stores.are_done if kept else None,
            unmoved=stores.unmoved if kept and redis_url and nats_url else None,
            task_types=task_type or KNOWN_TASK_TYPES,
            reads_only=True,
            sample=None if sample is None else Sample(count=sample, entropy=system_entropy()),
        )
        try:
            return await ask_gate(
                survey,
                move,
                heard,
                clock=clock,
                bounds=GateBounds(settle_s=settle),
                sync=SyncSettings(monitor_url=nats_monitor_url, interval_s=nats_sync_interval),
            )
        finally:
            await survey.close()
            await stores.close()

    answer = asyncio.run(ask())
    print_answer(answer, json=json)
    if answer.answer != "go":
        raise typer.Exit(_EXIT_NO_GO if answer.answer == "no-go" else _EXIT_UNKNOWN)


def print_answer(answer: Any, *, json: bool) -> None:
    """What a gate said, as data or for a person."""
    import sys

    import msgspec

    from hookbench.secrets import redact

    if json:
        text = msgspec.json.format(msgspec.json.encode(answer), indent=2).decode()
        sys.stdout.write(redact(text) + "\n")
        return
    for check in answer.checks:
        print(f"{check.answer:<8} {check.name:<26} {redact(check.evidence)}")
        for task in check.ids if check.answer != "go" else ():
            print(f"{'':<35} {task}")
        for reason in check.reasons:
            print(f"{'':<8} {reason.hazard:<5} {reason.harm}")
            print(f"{'':<8} {'':<5} do: {reason.remedy}")
    if answer.start is not None:
        print(_start_line(answer.start))
    print(f"{answer.looked.text}{', a sample' if answer.sampled else ''}")
    print(f"{answer.answer:<8} {answer.source} to {answer.target}, {answer.moment}")


def _start_line(start: Any) -> str:
    types = ", ".join(f"{kind} {number}" for kind, number in sorted(start.by_type.items()))
    skipped = (
        f"{start.skipped} tasks before it, {start.proved} of them ended by the done-store"
        if start.proved
        else f"{start.skipped} tasks before it, which are in no list of Redis any more"
    )
    return f"start    sequence {start.sequence} ({types or 'an empty stream'}); {skipped}"
