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
    NatsUrl,
    Prefix,
    RedisUrl,
    Replicas,
    Storage,
    Stream,
    SubjectRoot,
)

__all__ = ["gate"]

_EXIT_NO_GO = 1
_EXIT_UNKNOWN = 3
_BETWEEN_LOOKS_S = 1.0


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
    redis_url: RedisUrl = None,
    nats_url: NatsUrl = None,
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
        bool, typer.Option("--done-store", help="Ask the done-stores which tasks have ended.")
    ] = False,
    config: ConfigFile = None,  # noqa: ARG001 - its callback has used it
    json: JsonOutput = False,
) -> None:
    """Ask the gate of a transition or rollback, on live brokers; nothing is changed.

    Each condition answers go, no-go or unknown, with what it saw; a broker that does not answer,
    or a process that nobody listened to, is unknown.

    Exit codes: 0 go, 1 no-go, 3 unknown.

    Example: hookbench gate dual_write dual_read --announced logs/
    --redis-url redis://127.0.0.1:6379 --nats-url nats://127.0.0.1:4222
    """
    import asyncio
    from functools import partial

    from hookbench.cli.worker import choice, storage_of
    from hookbench.clock import SystemClock
    from hookbench.migration.announcements import read_announced
    from hookbench.migration.checks import Moment, Move
    from hookbench.migration.gates import conditions_of, decide, records_to
    from hookbench.migration.phases import parse_phase
    from hookbench.queues.jetstream import StreamSettings
    from hookbench.rehearsal.done_stores import OpenedStores
    from hookbench.rehearsal.survey import BrokerSurvey
    from hookbench.task import KNOWN_TASK_TYPES, Names

    move = Move(
        source=parse_phase(source),
        target=parse_phase(target),
        moment=choice(Moment, moment, "--moment"),
    )
    conditions = conditions_of(move)
    announcements = None if announced is None else read_announced(announced)
    clock = SystemClock()

    names = Names(prefix=prefix, subject_root=subject_root, stream=stream, consumer=consumer)
    settings = StreamSettings(
        storage=storage_of(storage),
        replicas=replicas,
        max_age_s=max_age,
        duplicate_window_s=duplicate_window,
    )

    async def ask() -> Any:
        stores = OpenedStores(redis_url, nats_url, names, stream=settings, clock=clock)
        survey = BrokerSurvey(
            redis_url,
            nats_url,
            names,
            clock=clock,
            stream=settings,
            are_done=stores.are_done if done_store else None,
            unmoved=stores.unmoved if done_store and redis_url and nats_url else None,
            task_types=task_type or KNOWN_TASK_TYPES,
        )
        try:
            look = partial(
                survey.look,
                announcements,
                records_to=records_to(move),
                whole=move.moment is Moment.AFTER or move.target < move.source,
            )
            snapshot = await look()
            if snapshot.nats is not None and _looks_twice(conditions):
                await clock.sleep(_BETWEEN_LOOKS_S)
                earlier = snapshot.nats.last_sequence
                snapshot = await look(earlier_sequence=earlier)
            return decide(snapshot, move)
        finally:
            await survey.close()
            await stores.close()

    answer = asyncio.run(ask())
    _print(answer, json=json)
    if answer.answer != "go":
        raise typer.Exit(_EXIT_NO_GO if answer.answer == "no-go" else _EXIT_UNKNOWN)


def _looks_twice(conditions: Any) -> bool:
    from hookbench.migration.task_conditions import nobody_publishes

    return nobody_publishes in conditions


def _print(answer: Any, *, json: bool) -> None:
    import sys

    import msgspec

    if json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode() + "\n")
        return
    for check in answer.checks:
        print(f"{check.answer:<8} {check.name:<26} {check.evidence}")
        for task in check.ids if check.answer != "go" else ():
            print(f"{'':<35} {task}")
    print(f"{answer.answer:<8} {answer.source} to {answer.target}, {answer.moment}")
