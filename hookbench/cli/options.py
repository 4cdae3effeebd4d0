"""Options that several verbs share."""

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from hookbench.brokers.resolve import (
    NATS_MONITOR_URL_VARIABLE,
    NATS_URL_VARIABLE,
    REDIS_URL_VARIABLE,
)

__all__ = [
    "ConfigFile",
    "ConsumerGroup",
    "DuplicateWindow",
    "FaultFile",
    "JsonOutput",
    "MaxAge",
    "MeasuresOption",
    "MetricsLinger",
    "MetricsOption",
    "NatsMonitorUrl",
    "NatsSyncInterval",
    "NatsUrl",
    "PhaseAtOption",
    "PhaseFileOption",
    "PhaseOption",
    "Prefix",
    "RedisQueueOption",
    "RedisUrl",
    "Replicas",
    "ResultsFolder",
    "Storage",
    "Stream",
    "SubjectRoot",
    "TracesOption",
    "announce_json",
    "open_ledger",
    "run_until_signal",
]

Result = TypeVar("Result")


def _use_settings(ctx: typer.Context, file: Path | None) -> Path | None:
    """Let the settings of a verb be the defaults of its options, before those are looked at."""
    from hookbench.settings import DEFAULT_ORIGIN, TABLES, find_settings

    verb = ctx.info_name or ""
    if ctx.resilient_parsing or verb not in TABLES:
        return file
    found = find_settings(file)[verb]
    ctx.obj = found
    ctx.default_map = {
        key: _as_written(item.value) for key, item in found.items() if item.origin != DEFAULT_ORIGIN
    }
    return file


def _as_written(value: Any) -> Any:
    """As an option takes it."""
    if isinstance(value, list):
        return [str(item) for item in value]
    return value if isinstance(value, bool) else str(value)


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        is_eager=True,
        callback=_use_settings,
        help="Settings: a TOML file [HOOKBENCH_CONFIG, or hookbench.toml in this folder].",
    ),
]

RedisUrl = Annotated[
    str | None,
    typer.Option("--redis-url", "--redis", envvar=REDIS_URL_VARIABLE, help="A Redis of yours."),
]
RedisQueueOption = Annotated[
    str,
    typer.Option(
        "--redis-queue",
        help="What holds the tasks on Redis: list, as the guide has it, or stream, in redis_only"
        " alone.",
    ),
]
NatsUrl = Annotated[
    str | None,
    typer.Option("--nats-url", "--nats", envvar=NATS_URL_VARIABLE, help="A NATS server of yours."),
]
NatsMonitorUrl = Annotated[
    str | None,
    typer.Option(
        "--nats-monitor-url",
        envvar=NATS_MONITOR_URL_VARIABLE,
        help="Monitoring of your NATS server, http://host:8222: its sync settings are told there.",
    ),
]
NatsSyncInterval = Annotated[
    float | None,
    typer.Option(
        "--nats-sync-interval",
        min=0.0,
        help="Sync interval of your NATS server in seconds, 0 for always, where it cannot be read.",
    ),
]
PhaseOption = Annotated[
    str | None, typer.Option("--phase", help="Phase, by name or number: dual_write or 1.")
]
PhaseFileOption = Annotated[
    Path | None, typer.Option("--phase-file", help="A file that holds the phase, watched.")
]
PhaseAtOption = Annotated[
    str | None,
    typer.Option(
        "--phase-at",
        help="Where the phase is found, and followed: redis:KEY, nats:KEY or file:PATH; with a key"
        " the process says there how it is.",
    ),
]
Prefix = Annotated[str, typer.Option(help="Prefix of the Redis keys.")]
SubjectRoot = Annotated[str, typer.Option(help="Root of the NATS subjects.")]
Stream = Annotated[str, typer.Option(help="Name of the stream.")]
ConsumerGroup = Annotated[str, typer.Option("--consumer", help="Name of the durable consumer.")]
Storage = Annotated[str, typer.Option(help="Storage of the stream: file or memory.")]
Replicas = Annotated[
    int, typer.Option(min=1, max=5, help="Replicas of the stream: a cluster has 3 or more nodes.")
]
MaxAge = Annotated[
    float,
    typer.Option("--max-age", min=0.1, help="Age in seconds at which the stream drops a task."),
]
DuplicateWindow = Annotated[
    float,
    typer.Option(min=0.1, help="Seconds for which the stream knows a Nats-Msg-Id again."),
]
MeasuresOption = Annotated[
    str,
    typer.Option(
        "--measures",
        help="Measures of the hardened design: none, all, or names; all,-NAME leaves one out.",
    ),
]
MetricsOption = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        help="Serve Prometheus metrics at HOST:PORT, or at a PORT of 127.0.0.1; port 0 is any that"
        " is free, and announced.",
    ),
]
MetricsLinger = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=600.0,
        help="Seconds to wait at the end for one more scrape of --metrics, which has all counts.",
    ),
]
TracesOption = Annotated[
    str | None,
    typer.Option(
        "--traces",
        help="Send OpenTelemetry spans to an OTLP endpoint, http://127.0.0.1:4318/v1/traces; needs"
        " hookbench[otel].",
    ),
]
FaultFile = Annotated[
    Path | None,
    typer.Option("--fault-file", hidden=True, help="Faults: a file of what to do wrong."),
]
ResultsFolder = Annotated[Path, typer.Option("--out", help="Folder of the stored runs.")]
JsonOutput = Annotated[bool, typer.Option("--json", help="Data as JSON on stdout.")]


def announce_json(event: dict[str, Any]) -> None:
    """One JSON object per line on stdout."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def run_until_signal(
    main: Callable[[], Coroutine[Any, Any, Result]], request_stop: Callable[[], None]
) -> Result:
    """Run a coroutine on uvloop; SIGTERM and SIGINT ask it to stop."""
    import asyncio

    import uvloop

    async def wrapped() -> Result:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, request_stop)
        return await main()

    return uvloop.run(wrapped())


@contextlib.contextmanager
def open_ledger(folder: Path | None, role: str, writer: int) -> Iterator[Any]:
    """A ledger writer in ``folder``, or ``None`` without one."""
    if folder is None:
        yield None
        return
    from hookbench.clock import SystemClock
    from hookbench.ledger.events import LedgerWriter

    ledger = LedgerWriter(folder, role=role, writer=writer, clock=SystemClock())
    try:
        yield ledger
    finally:
        ledger.close()
