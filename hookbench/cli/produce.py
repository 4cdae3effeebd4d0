"""``hookbench produce``: synthetic tasks through the reference producer."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from hookbench.cli.following import followed, following
from hookbench.cli.metered import metered
from hookbench.cli.options import (
    ConfigFile,
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
from hookbench.cli.worker import say, storage_of

__all__ = ["produce"]


def produce(
    redis_url: RedisUrl = None,
    redis_queue: RedisQueueOption = "list",
    nats_url: NatsUrl = None,
    nats_monitor_url: NatsMonitorUrl = None,
    nats_sync_interval: NatsSyncInterval = None,
    phase: PhaseOption = None,
    phase_file: PhaseFileOption = None,
    phase_at: PhaseAtOption = None,
    measures: MeasuresOption = "none",
    spool: Annotated[
        Path | None, typer.Option(help="File of the outbox, for the measure of that name.")
    ] = None,
    retry_horizon: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="message_ids: seconds for which a publish is tried; less than the duplicate"
            " window.",
        ),
    ] = 60.0,
    rate: Annotated[float, typer.Option(help="Tasks per second.")] = 100.0,
    count: Annotated[int, typer.Option(min=1, help="Tasks in all.")] = 1000,
    loop: Annotated[
        str, typer.Option(help="open; closed: callers wait; windowed: and send at once.")
    ] = "open",
    callers: Annotated[int, typer.Option(min=1, help="Of a closed or windowed loop.")] = 100,
    arrivals: Annotated[
        str,
        typer.Option(
            help="constant, poisson, bursts:size=20 or trace:FILE; +ramp:from=0,to=2,over=60,"
            " +steps:0.5/1/2,each=10 or +diurnal:period=60,low=0.2 changes the rate."
        ),
    ] = "constant",
    part: Annotated[
        str, typer.Option(help="Which of several producers a trace is dealt out to, as in 0/2.")
    ] = "0/1",
    payload: Annotated[
        str,
        typer.Option(
            help="Bytes of filling: 256, uniform:min=64,max=4096, lognormal:median=512,sigma=1 or"
            " choice:64=9,65536=1."
        ),
    ] = "64",
    repositories: Annotated[int, typer.Option(min=1, help="Synthetic repositories.")] = 100,
    skew: Annotated[
        float, typer.Option(help="Exponent of Zipf's law over the repositories; 0: in turn.")
    ] = 0.0,
    mix: Annotated[
        str, typer.Option(help="Handler classes: plain=2,idempotent=1,transactional=1.")
    ] = "plain=1",
    seed: Annotated[int, typer.Option(help="Same seed, same tasks at the same offsets.")] = 0,
    start_ns: Annotated[int, typer.Option(help="Monotonic time of the first task, 0 for now.")] = 0,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Leave out what was due before now, from --start-ns on."),
    ] = False,
    prefix: Prefix = "{hook}",
    subject_root: SubjectRoot = "queue.hook",
    stream: Stream = "HOOK_QUEUE",
    storage: Storage = "file",
    replicas: Replicas = 1,
    max_age: MaxAge = 604_800.0,
    duplicate_window: DuplicateWindow = 120.0,
    metrics: MetricsOption = None,
    metrics_linger: MetricsLinger = 0.0,
    traces: TracesOption = None,
    ledger: Annotated[Path | None, typer.Option(help="Record every event in this folder.")] = None,
    writer: Annotated[int, typer.Option(min=0, max=65535, help="Number of the writer.")] = 0,
    fault_file: FaultFile = None,
    config: ConfigFile = None,  # noqa: ARG001 - its callback has used it
    json: JsonOutput = False,
) -> None:
    """Offer tasks, until all are sent or SIGTERM or Ctrl-C.

    In an open loop a task is sent when it is due, and its latency counts from there.

    Example: hookbench produce --phase dual_write --rate 500 --count 5000
    --redis-url redis://127.0.0.1:6379 --nats-url nats://127.0.0.1:4222
    """
    import asyncio

    import msgspec

    from hookbench.cancellation import cancel
    from hookbench.faults.hot_repository import HotSource
    from hookbench.faults.orders import OrderBook
    from hookbench.faults.oversize import OversizeSource
    from hookbench.load.arrivals import check_rate
    from hookbench.load.fine_clock import FineClock
    from hookbench.load.generator import GeneratorSettings, LoadGenerator
    from hookbench.migration.measures import parse_measures
    from hookbench.migration.phases import parse_phase
    from hookbench.migration.publishing import PublishPatience
    from hookbench.queues.jetstream import StreamSettings
    from hookbench.queues.redis_kind import parse_redis_kind
    from hookbench.secrets import log_to_stderr
    from hookbench.task import Names

    number, parts = _parse_part(part)
    log_to_stderr(logging.WARNING)
    settings = GeneratorSettings(
        redis_url=redis_url,
        nats_url=nats_url,
        nats_monitor_url=nats_monitor_url,
        nats_sync_interval_s=nats_sync_interval,
        redis_kind=parse_redis_kind(redis_queue),
        phase=parse_phase(phase) if phase is not None else None,
        names=Names(prefix=prefix, subject_root=subject_root, stream=stream),
        stream=StreamSettings(
            storage=storage_of(storage),
            replicas=replicas,
            max_age_s=max_age,
            duplicate_window_s=duplicate_window,
        ),
        measures=parse_measures(measures),
        spool=spool,
        patience=PublishPatience(horizon_s=retry_horizon),
        rate_per_s=check_rate(rate),
        count=count,
        loop=loop,
        callers=callers,
        arrivals=arrivals,
        part=number,
        parts=parts,
        payload=payload,
        repositories=repositories,
        skew=skew,
        mix=mix,
        seed=seed,
        start_ns=start_ns,
        resume=resume,
    )
    clock, book = FineClock(), OrderBook()
    with (
        open_ledger(ledger, "producer", writer) as recorder,
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
            role="producer",
            writer=writer,
            urls=(redis_url, nats_url),
            names=settings.names,
            task_types=(settings.task_type,),
            redis_kind=settings.redis_kind,
            clock=clock,
        ) as meter,
        traced(traces, role="producer", names=settings.names) as tracing,
    ):
        settings = msgspec.structs.replace(settings, phase_file=watched)
        announce = meter.announce
        generator = LoadGenerator(
            settings,
            clock=clock,
            ledger=recorder,
            recorder=meter.recorder,
            metrics=meter.guide,
            tracing=tracing,
            announce=announce if follower is None else follower.listening(announce),
            wrap=None
            if fault_file is None
            else lambda tasks: OversizeSource(HotSource(tasks, book), book),
        )

        async def main() -> None:
            watching = [] if fault_file is None else [book.watch(fault_file, clock)]
            watchers = [asyncio.ensure_future(item) for item in watching]
            try:
                async with following(follower):
                    await generator.run()
                await meter.linger()
            finally:
                await cancel(*watchers)
                clock.close()

        run_until_signal(main, generator.request_stop)


def _parse_part(text: str) -> tuple[int, int]:
    from hookbench.errors import SettingError

    part, slash, parts = text.partition("/")
    if not (slash and part.isdigit() and parts.isdigit() and int(part) < int(parts)):
        raise SettingError(f"--part {text}: use a number and how many there are, as in 0/2")
    return int(part), int(parts)
