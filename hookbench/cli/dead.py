"""``hookbench dead``: the dead letters of both brokers."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any

import typer

from hookbench.cli.options import (
    ConsumerGroup,
    DuplicateWindow,
    JsonOutput,
    MaxAge,
    MeasuresOption,
    NatsUrl,
    PhaseOption,
    Prefix,
    RedisQueueOption,
    RedisUrl,
    Replicas,
    Storage,
    Stream,
    SubjectRoot,
)

__all__ = ["app"]

app = typer.Typer(
    help="Dead letters: tasks that were given up, and bytes that are none.", no_args_is_help=True
)

BrokerOption = Annotated[
    str | None, typer.Option("--broker", help="redis or nats; by default both that have a URL.")
]
TypeOption = Annotated[
    str | None,
    typer.Option("--type", help="Task type; on Redis by default sync, fsck and gc, on NATS all."),
]
ReasonOption = Annotated[
    str, typer.Option("--reason", help="Only letters whose reason contains this text.")
]

_WIDTH_OF_A_FILE = 240
"""Characters of a line where no terminal bounds it."""


@app.command("list")
def list_letters(
    redis_url: RedisUrl = None,
    nats_url: NatsUrl = None,
    broker: BrokerOption = None,
    task_type: TypeOption = None,
    reason: ReasonOption = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Letters at most.")] = 100,
    prefix: Prefix = "{hook}",
    subject_root: SubjectRoot = "queue.hook",
    stream: Stream = "HOOK_QUEUE",
    consumer: ConsumerGroup = "hook-sync-worker",
    json: JsonOutput = False,
) -> None:
    """List dead letters, the oldest of each broker first.

    Example: hookbench dead list --redis-url redis://127.0.0.1:6379 --reason "no such repository"
    """
    from hookbench.clock import SystemClock
    from hookbench.task import Names
    from hookbench.worker.letters import LetterFilter, read_letters

    names = Names(prefix=prefix, subject_root=subject_root, stream=stream, consumer=consumer)
    wanted = LetterFilter(task_type=task_type or "", reason=reason)

    async def read() -> tuple[list[Any], bool]:
        async with _boxes(redis_url, nats_url, names, broker, task_type) as boxes:
            return await read_letters(boxes, wanted, limit=limit)

    letters, more = _run(read)
    now_ns = SystemClock().wall_ns()
    rows = [_row(stored, now_ns) for stored in letters]
    if json:
        _print_json({"letters": rows, "more": more})
    else:
        _print_table(rows, limit=limit, more=more)


@app.command()
def show(
    letter: Annotated[str, typer.Argument(help="Id of a letter or of a task, see dead list.")],
    redis_url: RedisUrl = None,
    nats_url: NatsUrl = None,
    broker: BrokerOption = None,
    task_type: TypeOption = None,
    prefix: Prefix = "{hook}",
    subject_root: SubjectRoot = "queue.hook",
    stream: Stream = "HOOK_QUEUE",
    consumer: ConsumerGroup = "hook-sync-worker",
    json: JsonOutput = False,
) -> None:
    """Show a dead letter as a whole: its reason, its history, and its payload.

    Example: hookbench dead show nats-17 --nats-url nats://127.0.0.1:4222
    """
    from hookbench.clock import SystemClock
    from hookbench.task import Names
    from hookbench.worker.letters import LetterFilter, choose, read_letters

    names = Names(prefix=prefix, subject_root=subject_root, stream=stream, consumer=consumer)

    async def read() -> list[Any]:
        async with _boxes(redis_url, nats_url, names, broker, task_type) as boxes:
            letters, _more = await read_letters(boxes, LetterFilter(task_type=task_type or ""))
            return choose(letters, [letter])

    found = _run(read)
    now_ns = SystemClock().wall_ns()
    whole = [_row(stored, now_ns) | _payload(stored) for stored in found]
    if json:
        _print_json({"letters": whole})
        return
    for row in whole:
        for name, value in row.items():
            print(f"{name.replace('_', ' '):<12} {'-' if value in (None, '') else value}")
        print()


@app.command()
def requeue(
    letters: Annotated[
        list[str] | None, typer.Argument(help="Ids of letters or of tasks, see dead list.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All that --broker-of, --type and --reason leave.")
    ] = False,
    redis_url: RedisUrl = None,
    nats_url: NatsUrl = None,
    phase: PhaseOption = None,
    broker: Annotated[
        str | None, typer.Option("--broker", help="In place of a phase: put on redis or nats.")
    ] = None,
    broker_of: Annotated[
        str | None, typer.Option("--broker-of", help="Only letters that lie on redis or nats.")
    ] = None,
    task_type: TypeOption = None,
    reason: ReasonOption = "",
    measures: MeasuresOption = "none",
    redis_queue: RedisQueueOption = "list",
    prefix: Prefix = "{hook}",
    subject_root: SubjectRoot = "queue.hook",
    stream: Stream = "HOOK_QUEUE",
    consumer: ConsumerGroup = "hook-sync-worker",
    storage: Storage = "file",
    replicas: Replicas = 1,
    max_age: MaxAge = 604_800.0,
    duplicate_window: DuplicateWindow = 120.0,
    json: JsonOutput = False,
) -> None:
    """Put tasks of dead letters back into the queue, on the brokers that a phase writes to.

    The id stays, and no retry is counted. With the measure done_store the stores forget that the
    task has ended; without, its copies would be skipped. A letter is removed once its put is
    acknowledged. Exit 1 if some stay.

    Example: hookbench dead requeue --all --reason timeout --phase dual_write
    --redis-url redis://127.0.0.1:6379 --nats-url nats://127.0.0.1:4222
    """
    import msgspec

    from hookbench.cli.worker import storage_of
    from hookbench.clock import SystemClock
    from hookbench.errors import SettingError
    from hookbench.migration.measures import parse_measures
    from hookbench.queues.connections import Connections
    from hookbench.queues.jetstream import StreamSettings
    from hookbench.queues.redis_kind import parse_redis_kind
    from hookbench.rehearsal.done_stores import OpenedStores
    from hookbench.task import Names
    from hookbench.worker.letters import LetterFilter, choose, read_letters

    if bool(letters) == everything:
        raise SettingError("give ids of dead letters, or --all, not both and not neither")
    route = _route(phase, broker)
    names = Names(prefix=prefix, subject_root=subject_root, stream=stream, consumer=consumer)
    settings = StreamSettings(
        storage=storage_of(storage),
        replicas=replicas,
        max_age_s=max_age,
        duplicate_window_s=duplicate_window,
    )
    clock = SystemClock()
    # A letter is removed when a broker has its task, not when a file has it.
    chosen_measures = msgspec.structs.replace(parse_measures(measures), outbox=False)
    connections = Connections(
        redis_url=redis_url,
        nats_url=nats_url,
        names=names,
        clock=clock,
        stream=settings,
        redis_kind=parse_redis_kind(redis_queue),
    )
    stores = OpenedStores(redis_url, nats_url, names, stream=settings, clock=clock)

    async def put_back() -> list[Any]:
        try:
            _check_broker("--broker-of", broker_of)
            async with _boxes(redis_url, nats_url, names, broker_of, task_type) as boxes:
                wanted = LetterFilter(task_type=task_type or "", reason=reason)
                found, _more = await read_letters(boxes, wanted)
                chosen = found if everything else choose(found, letters or [])
                requeuer = await _requeuer(boxes, route, connections, chosen_measures, stores)
                answers: list[Any] = await requeuer.requeue(chosen)
                return answers
        finally:
            await stores.close()
            await connections.close()

    answers = _run(put_back)
    _print_answers(answers, json=json)
    if any(answer.problem for answer in answers):
        raise typer.Exit(1)


def _route(phase: str | None, broker: str | None) -> Any:
    """The phase whose brokers are written to."""
    from hookbench.errors import SettingError
    from hookbench.migration.phases import Phase, parse_phase

    if (phase is None) == (broker is None):
        raise SettingError("give either --phase or --broker: where the tasks are put")
    if phase is not None:
        return parse_phase(phase)
    _check_broker("--broker", broker)
    return Phase.REDIS_ONLY if broker == "redis" else Phase.NATS_ONLY


async def _requeuer(boxes: Any, phase: Any, connections: Any, measures: Any, stores: Any) -> Any:
    from hookbench.migration.phases import ReadRoute, read_route
    from hookbench.migration.service import open_service
    from hookbench.queues.stored import last_sequence
    from hookbench.worker.requeue import Requeuer

    names = connections.names
    service = await open_service(phase, connections, names, measures=measures)
    newest = None
    if read_route(phase) is not ReadRoute.REDIS:
        transport = await connections.nats()

        async def newest() -> int:
            return await last_sequence(transport, names.stream)

    forget = stores.forget if measures.done_store else None
    return Requeuer(boxes, service.send, forget=forget, newest_sequence=newest)


@asynccontextmanager
async def _boxes(
    redis_url: str | None, nats_url: str | None, names: Any, broker: str | None, task_type: Any
) -> AsyncIterator[list[Any]]:
    """The letters of the brokers that are asked for; nothing is created on them."""
    from hookbench.brokers.probe import probe_redis
    from hookbench.errors import SettingError
    from hookbench.queues.redis_client import connect_redis
    from hookbench.queues.transport import AppTransport
    from hookbench.task import KNOWN_TASK_TYPES
    from hookbench.worker.letters import NatsLetterBox, RedisLetterBox

    _check_broker("--broker", broker)
    urls = {"redis": redis_url, "nats": nats_url}
    chosen = [name for name, url in urls.items() if url and broker in (None, name)]
    if not chosen:
        raise SettingError(
            f"no URL of {broker or 'a broker'}: give --redis-url, --nats-url or both"
        )
    boxes: list[Any] = []
    client = transport = None
    try:
        if redis_url and "redis" in chosen:
            await probe_redis(redis_url)
            client = connect_redis(redis_url)
            types = (task_type,) if task_type else KNOWN_TASK_TYPES
            boxes.append(RedisLetterBox(client, names, types))
        if nats_url and "nats" in chosen:
            transport = await AppTransport.connect(nats_url, names=names)
            boxes.append(NatsLetterBox(transport))
        yield boxes
    finally:
        if transport is not None:
            await transport.close()
        if client is not None:
            await client.aclose()


def _check_broker(option: str, broker: str | None) -> None:
    from hookbench.errors import SettingError

    if broker not in (None, "redis", "nats"):
        raise SettingError(f"{option} {broker!r}: use redis or nats")


def _run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    import asyncio

    return asyncio.run(main())


def _row(stored: Any, now_ns: int) -> dict[str, Any]:
    """What is told of a letter without its payload."""
    letter, task = stored.letter, stored.task
    return {
        "id": stored.id,
        "task": None if task is None else str(task.id),
        "repository": None if task is None else task.repo_id,
        "type": stored.task_type,
        "broker": stored.broker,
        "attempts": None if letter is None else letter.attempts,
        "age_s": None if letter is None else round((now_ns - letter.died_at_ns) / 1e9, 1),
        "reason": stored.problem if letter is None else letter.reason,
    }


def _payload(stored: Any) -> dict[str, Any]:
    """History and payload: the task as JSON, bytes that are none in hexadecimal digits."""
    import msgspec

    from hookbench.rehearsal.stage import utc_now_label

    letter, task = stored.letter, stored.task
    payload = stored.raw if letter is None else letter.payload
    return {
        "created": None if task is None else task.created_at.isoformat(),
        "died": None if letter is None else utc_now_label(letter.died_at_ns),
        "retries": None if task is None else task.retry_count,
        "worker": None if letter is None else letter.worker,
        "history": list(getattr(letter, "history", ())) or None,
        "problem": stored.problem,
        "bytes": len(payload),
        "payload": payload.hex() if task is None else msgspec.to_builtins(task),
    }


def _print_json(data: dict[str, Any]) -> None:
    import sys

    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(data), indent=2).decode() + "\n")


def _print_table(rows: list[dict[str, Any]], *, limit: int, more: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    if not rows:
        print("no dead letters")
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    columns = ("id", "repository", "type", "broker", "attempts", "age_s", "reason")
    for name in columns:
        table.add_column(
            "age s" if name == "age_s" else name,
            no_wrap=name != "reason",
            overflow="fold",
            justify="right" if name in ("attempts", "age_s") else "left",
        )
    for row in rows:
        table.add_row(*("-" if row[name] is None else str(row[name]) for name in columns))
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_OF_A_FILE)
    console.print(table)
    if more:
        print(f"the first {limit}; more with --limit")


def _print_answers(answers: list[Any], *, json: bool) -> None:
    import msgspec

    if json:
        _print_json({"letters": [msgspec.to_builtins(answer) for answer in answers]})
        return
    for answer in answers:
        done = "requeued" if answer.put else "stays"
        print(f"{done:<9} {answer.id:<24} task {answer.task_id}  {answer.problem}".rstrip())
    stayed = sum(not answer.put for answer in answers)
    print(f"{len(answers) - stayed} requeued, {stayed} stay")
