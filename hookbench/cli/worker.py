"""``hookbench worker``: the reference worker."""

import contextlib
import logging
from collections.abc import Coroutine, Iterator
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from hookbench.cli.following import followed, following
from hookbench.cli.metered import metered
from hookbench.cli.options import (
    ConfigFile,
    ConsumerGroup,
    DuplicateWindow,
    FaultFile,
    JsonOutput,
    MaxAge,
    MeasuresOption,
    MetricsLinger,
    MetricsOption,
    NatsMonitorUrl,
    NatsSyncInterval,
    NatsUrl,
    PhaseAtOption,
    PhaseFileOption,
    PhaseOption,
    Prefix,
    RedisQueueOption,
    RedisUrl,
    Replicas,
    Storage,
    Stream,
    SubjectRoot,
    TracesOption,
    announce_json,
    open_ledger,
    run_until_signal,
)
from hookbench.cli.traced import traced

if TYPE_CHECKING:
    from hookbench.cli.metered import Metered
    from hookbench.live.follow import Follower
    from hookbench.worker.service import WorkerService

Kind = TypeVar("Kind", bound=StrEnum)

__all__ = ["choice", "say", "storage_of", "worker"]


def worker(
    redis_url: RedisUrl = None,
    redis_queue: RedisQueueOption = "list",
    nats_url: NatsUrl = None,
    nats_monitor_url: NatsMonitorUrl = None,
    nats_sync_interval: NatsSyncInterval = None,
    phase: PhaseOption = None,
    phase_file: PhaseFileOption = None,
    phase_at: PhaseAtOption = None,
    handler: Annotated[str, typer.Option(help="What to do: noop, sleep, fail, git.")] = "noop",
    sleep_ms: Annotated[float, typer.Option(help="Service time of the sleep handler.")] = 5.0,
    origins: Annotated[Path | None, typer.Option(help="git: root of what is pushed.")] = None,
    mirrors: Annotated[Path | None, typer.Option(help="git: root of the mirrors.")] = None,
    service_ms: Annotated[
        float, typer.Option(help="git: service time of synthetic tasks in between.")
    ] = 0.0,
    effects: Annotated[
        Path | None,
        typer.Option(help="Effect store of synthetic tasks: one SQLite file for all workers."),
    ] = None,
    measures: MeasuresOption = "none",
    ack: Annotated[
        str | None,
        typer.Option(
            help="NATS: immediate (the guide's known limit) or after_processing; by default as the"
            " measures say."
        ),
    ] = None,
    authority: Annotated[
        str | None,
        typer.Option(
            help="done_store: where claims and done-records are kept, redis, nats or both, the same"
            " for all workers; by default redis, from nats_primary on both, in nats_only nats."
        ),
    ] = None,
    lease: Annotated[
        float, typer.Option(min=0.1, help="done_store: seconds that a claim lasts unrenewed.")
    ] = 10.0,
    nak_base: Annotated[
        float, typer.Option(min=0.001, help="growing_nak: seconds after the first failure.")
    ] = 1.0,
    nak_factor: Annotated[
        float, typer.Option(min=1.0, help="growing_nak: of one delay and the next.")
    ] = 4.0,
    nak_cap: Annotated[
        float, typer.Option(min=0.001, help="growing_nak: the longest delay, in seconds.")
    ] = 60.0,
    task_type: Annotated[
        str,
        typer.Option(
            help="Types of the tasks to work on, as in sync,fsck,gc; git: sync mirrors, fsck and gc"
            " care for the mirror (on NATS the guide has a consumer for sync only, see the measure"
            " consumer_per_type)."
        ),
    ] = "sync",
    concurrency: Annotated[
        int, typer.Option(min=1, max=10_000, help="Tasks in work at once.")
    ] = 16,
    max_attempts: Annotated[
        int,
        typer.Option(min=1, max=1000, help="Deliveries before a failing task is dead."),
    ] = 3,
    block_timeout: Annotated[
        float, typer.Option(min=0.1, max=60.0, help="Longest wait of one read, in seconds.")
    ] = 5.0,
    redis_lease: Annotated[
        float,
        typer.Option(
            min=0.1,
            help="Measure leases: seconds until the tasks of a silent worker are put back; longer"
            " than a task takes a worker without the measure, if such run too.",
        ),
    ] = 10.0,
    redis_age: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="With read_both: seconds that a task has lain in Redis before it is taken there.",
        ),
    ] = 5.0,
    prefix: Prefix = "{hook}",
    subject_root: SubjectRoot = "queue.hook",
    stream: Stream = "HOOK_QUEUE",
    consumer: ConsumerGroup = "hook-sync-worker",
    ack_wait: Annotated[
        float,
        typer.Option(min=0.1, help="Seconds until an unacknowledged task is delivered again."),
    ] = 30.0,
    max_deliver: Annotated[
        int, typer.Option(min=-1, help="Deliveries by NATS, -1 for no bound.")
    ] = 3,
    max_ack_pending: Annotated[
        int, typer.Option(min=1, help="Tasks that all workers together may have unacknowledged.")
    ] = 100,
    storage: Storage = "file",
    replicas: Replicas = 1,
    max_age: MaxAge = 604_800.0,
    duplicate_window: DuplicateWindow = 120.0,
    metrics: MetricsOption = None,
    metrics_linger: MetricsLinger = 0.0,
    traces: TracesOption = None,
    ledger: Annotated[Path | None, typer.Option(help="Record every event in this folder.")] = None,
    writer: Annotated[int, typer.Option(min=0, max=65535, help="Number of the writer.")] = 0,
    die_file: Annotated[
        Path | None, typer.Option(hidden=True, help="Faults: a file that names a step to die at.")
    ] = None,
    fault_file: FaultFile = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every task.")] = False,
    config: ConfigFile = None,  # noqa: ARG001 - its callback has used it
    json: JsonOutput = False,
) -> None:
    """Take tasks from the queue of a phase and work on them, until SIGTERM or Ctrl-C.

    A stop is graceful: nothing more is taken, the tasks in work are finished, the rest is given
    back.

    Example: hookbench worker --phase dual_read --redis-url redis://127.0.0.1:6379
    --nats-url nats://127.0.0.1:4222 --handler git --origins /srv/git --mirrors /srv/mirrors
    """
    import msgspec

    from hookbench.clock import SystemClock
    from hookbench.faults.failing_handler import FailedHandler
    from hookbench.faults.orders import OrderBook
    from hookbench.faults.slow_handler import SlowedHandler
    from hookbench.faults.step import DyingRecorder
    from hookbench.ledger.events import NullRecorder
    from hookbench.migration.done_store import parse_authority
    from hookbench.migration.measures import parse_measures
    from hookbench.migration.phases import AckMode, parse_phase
    from hookbench.queues.jetstream import ConsumerSettings, StreamSettings
    from hookbench.queues.redis_kind import parse_redis_kind
    from hookbench.secrets import log_to_stderr
    from hookbench.task import Names, check_task_type
    from hookbench.worker.claims import ClaimSettings
    from hookbench.worker.handlers.effect import EffectHandler
    from hookbench.worker.loop import WorkerLimits
    from hookbench.worker.measures import MeasureSettings
    from hookbench.worker.retries import NakDelays
    from hookbench.worker.service import WorkerService, WorkerSettings

    log_to_stderr(logging.INFO if verbose else logging.WARNING)
    clock = SystemClock()
    chosen = parse_measures(measures)
    if ack is not None:
        after = choice(AckMode, ack, "--ack") is AckMode.AFTER_PROCESSING
        chosen = msgspec.structs.replace(chosen, ack_after=after)
    settings = WorkerSettings(
        redis_url=redis_url,
        nats_url=nats_url,
        nats_monitor_url=nats_monitor_url,
        nats_sync_interval_s=nats_sync_interval,
        redis_kind=parse_redis_kind(redis_queue),
        phase=parse_phase(phase) if phase is not None else None,
        names=Names(prefix=prefix, subject_root=subject_root, stream=stream, consumer=consumer),
        task_type=",".join(check_task_type(item.strip()) for item in task_type.split(",")),
        block_timeout_secs=block_timeout,
        measures=chosen,
        redis_lease_s=redis_lease,
        bounds=MeasureSettings(
            authority=None if authority is None else parse_authority(authority),
            claims=ClaimSettings(lease_s=lease),
            nak_delays=NakDelays(base_s=nak_base, factor=nak_factor, cap_s=nak_cap),
        ),
        redis_age_s=redis_age,
        stream=StreamSettings(
            storage=storage_of(storage),
            replicas=replicas,
            max_age_s=max_age,
            duplicate_window_s=duplicate_window,
        ),
        consumer=ConsumerSettings(
            ack_wait_s=ack_wait, max_deliver=max_deliver, max_ack_pending=max_ack_pending
        ),
        limits=WorkerLimits(concurrency=concurrency, max_attempts=max_attempts),
    )
    git_roots = _git_roots(origins, mirrors) if handler == "git" else None
    synthetic = _synthetic(handler, sleep_ms, service_ms, clock)
    with (
        open_ledger(ledger, "worker", writer) as recorder,
        _open_effects(effects, writer, clock) as store,
        followed(
            phase_at,
            phase_file,
            urls=(redis_url, nats_url),
            names=settings.names,
            stream=settings.stream,
            clock=clock,
        ) as (watched, follower),
        metered(
            metrics,
            metrics_linger,
            recorder,
            announce_json if json else say,
            role="worker",
            writer=writer,
            urls=(redis_url, nats_url),
            names=settings.names,
            task_types=settings.task_types,
            redis_kind=settings.redis_kind,
            clock=clock,
        ) as meter,
        traced(traces, role="worker", names=settings.names) as tracing,
    ):
        settings = msgspec.structs.replace(settings, phase_file=watched)
        announce = meter.announce
        dying = DyingRecorder(meter.recorder or NullRecorder())
        if store is not None:
            synthetic = EffectHandler(store, synthetic, recorder=dying)
        work = synthetic if git_roots is None else _with_git(synthetic, *git_roots, clock)
        watching = [] if die_file is None else [dying.watch(die_file, clock)]
        if fault_file is not None:
            book = OrderBook()
            work = SlowedHandler(FailedHandler(work, book), book, clock)
            watching.append(book.watch(fault_file, clock))
        service = WorkerService(
            settings,
            meter.timed(work),
            clock=clock,
            ledger=recorder,
            recorder=dying if die_file is not None else meter.recorder,
            metrics=meter.guide,
            around=None if tracing is None else tracing.processing,
            announce=announce if follower is None else follower.listening(announce),
        )

        run_until_signal(partial(_serve, service, watching, follower, meter), service.request_stop)


async def _serve(
    service: "WorkerService",
    watching: list[Coroutine[Any, Any, None]],
    follower: "Follower | None",
    meter: "Metered",
) -> None:
    """Run a worker, and beside it what follows its phase and what looks for faults."""
    import asyncio

    from hookbench.cancellation import cancel
    from hookbench.worker.collector import collect_seldom

    collect_seldom()
    watchers = [asyncio.ensure_future(item) for item in watching]
    try:
        async with following(follower):
            await service.run()
        await meter.linger()
    finally:
        await cancel(*watchers)


def say(event: dict[str, Any]) -> None:
    """One event as a line for a person; progress is left to those who ask for JSON."""
    kind = event.pop("event")
    if kind == "progress":
        return
    print(f"{kind:<9} {'  '.join(f'{name} {value}' for name, value in event.items())}", flush=True)


def choice(kind: type[Kind], value: str, option: str) -> Kind:
    """A member of an enumeration by its value, or an error that lists them."""
    from hookbench.errors import SettingError

    try:
        return kind(value)
    except ValueError as error:
        known = ", ".join(str(item) for item in kind)
        raise SettingError(f"{option} {value!r}: use one of {known}") from error


def storage_of(value: str) -> str:
    """``file`` or ``memory``, or an error."""
    from hookbench.errors import SettingError

    if value not in ("file", "memory"):
        raise SettingError(f"--storage {value!r}: use file or memory")
    return value


def _git_roots(origins: Path | None, mirrors: Path | None) -> tuple[Path, Path]:
    from hookbench.errors import SettingError

    if origins is None or mirrors is None:
        raise SettingError("--handler git needs --origins and --mirrors: the roots it works in")
    for option, folder in (("--origins", origins), ("--mirrors", mirrors)):
        if not folder.is_dir():
            raise SettingError(f"{option} {folder}: no such folder")
    return origins, mirrors


def _synthetic(name: str, sleep_ms: float, service_ms: float, clock: Any) -> Any:
    """What is done with a task that no repository stands behind."""
    from hookbench.errors import SettingError
    from hookbench.worker.handlers.fail import FailHandler
    from hookbench.worker.handlers.noop import NoopHandler
    from hookbench.worker.handlers.sleep import SleepHandler

    if name not in ("noop", "sleep", "fail", "git"):
        raise SettingError(f"--handler {name!r}: use one of noop, sleep, fail, git")
    if name == "fail":
        return FailHandler()
    seconds = {"noop": 0.0, "sleep": sleep_ms / 1000, "git": service_ms / 1000}[name]
    return SleepHandler(seconds, clock) if seconds else NoopHandler()


def _with_git(synthetic: Any, origins: Path, mirrors: Path, clock: Any) -> Any:
    from hookbench.load.workload import SYNTHETIC
    from hookbench.worker.handlers.git import GitMirrorHandler
    from hookbench.worker.handlers.git_maintenance import GitFsckHandler, GitGcHandler
    from hookbench.worker.handlers.routed import RoutedHandler, TypeHandler

    git = TypeHandler(
        {
            "sync": GitMirrorHandler(origins, mirrors, clock),
            "fsck": GitFsckHandler(mirrors, clock),
            "gc": GitGcHandler(mirrors, clock),
        }
    )
    return RoutedHandler(git, {SYNTHETIC: synthetic})


@contextlib.contextmanager
def _open_effects(path: Path | None, writer: int, clock: Any) -> Iterator[Any]:
    """The effect store at ``path``, or ``None`` without one."""
    if path is None:
        yield None
        return
    from hookbench.effects.store import SqliteEffectStore

    store = SqliteEffectStore(path, writer=writer, clock=clock)
    try:
        yield store
    finally:
        store.close()
