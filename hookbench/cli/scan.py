"""``hookbench scan``: the stream against what is done and dead, and types without a consumer."""

from typing import Annotated, Any

import typer

from hookbench.cli.options import (
    ConsumerGroup,
    JsonOutput,
    NatsUrl,
    Prefix,
    RedisUrl,
    Stream,
    SubjectRoot,
)

__all__ = ["scan"]


def scan(
    nats_url: NatsUrl = None,
    redis_url: RedisUrl = None,
    task_type: Annotated[str, typer.Option(help="Type of the tasks that are compared.")] = "sync",
    authority: Annotated[
        str | None,
        typer.Option(
            help="Where done-records are kept, redis, nats or both; without it nothing is done."
        ),
    ] = None,
    prefix: Prefix = "{hook}",
    subject_root: SubjectRoot = "queue.hook",
    stream: Stream = "HOOK_QUEUE",
    consumer: ConsumerGroup = "hook-sync-worker",
    json: JsonOutput = False,
) -> None:
    """List the tasks of the stream that are neither done nor dead; exit 1 if any was given up.

    Advisories that JetStream sent and that a stream has captured say which tasks were given up.
    It also names task types that have tasks and no consumer. Nothing is changed.

    Example: hookbench scan --nats-url nats://127.0.0.1:4222 --json
    """
    import asyncio
    import sys

    import msgspec

    from hookbench.errors import SettingError
    from hookbench.task import Names, check_task_type
    from hookbench.worker.scan import OpenState

    if not nats_url:
        raise SettingError("a scan looks at NATS: give --nats-url or HOOKBENCH_NATS_URL")
    names = Names(prefix=prefix, subject_root=subject_root, stream=stream, consumer=consumer)
    task_type = check_task_type(task_type)
    report, missing = asyncio.run(_look(nats_url, redis_url, names, task_type, authority))
    if json:
        data = {**msgspec.to_builtins(report), "types_without_consumer": missing}
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(data), indent=2) + b"\n")
    else:
        _print(report, missing)
    if report.open.get(OpenState.GIVEN_UP) or report.open.get(OpenState.ACKNOWLEDGED):
        raise typer.Exit(1)


async def _look(
    nats_url: str, redis_url: str | None, names: Any, task_type: str, authority: str | None
) -> tuple[Any, dict[str, int]]:
    from hookbench.brokers.probe import probe_redis
    from hookbench.clock import SystemClock
    from hookbench.errors import SettingError
    from hookbench.migration.done_store import Authority, DoneStore, parse_authority
    from hookbench.migration.joint_store import JointStore
    from hookbench.queues.kv_done_store import KvDoneStore
    from hookbench.queues.redis_client import connect_redis
    from hookbench.queues.redis_done_store import RedisDoneStore
    from hookbench.queues.task_types import types_without_consumer
    from hookbench.queues.transport import AppTransport
    from hookbench.worker.scan import scan_stream

    chosen = None if authority is None else parse_authority(authority)
    if chosen in (Authority.REDIS, Authority.BOTH) and not redis_url:
        raise SettingError(f"--authority {chosen}: give --redis-url or HOOKBENCH_REDIS_URL")
    clock, redis = SystemClock(), None
    done: DoneStore | None = None
    async with await AppTransport.connect(nats_url, names=names, clock=clock) as transport:
        kv = KvDoneStore(transport, clock=clock)
        if chosen in (Authority.REDIS, Authority.BOTH):
            assert redis_url  # asked for above
            await probe_redis(redis_url)
            redis = connect_redis(redis_url)
            store = RedisDoneStore(redis, names=names, retention_s=1.0)  # it is only read
            done = store if chosen is Authority.REDIS else JointStore(store, kv)
        elif chosen is Authority.NATS:
            done = kv
        try:
            report = await scan_stream(transport, done=done, clock=clock, task_type=task_type)
            return report, await types_without_consumer(transport, redis_url)
        finally:
            if redis is not None:
                await redis.aclose()


def _print(report: Any, missing: dict[str, int]) -> None:
    known = "" if report.done_known else " (no done-store: only what is proved is listed)"
    print(
        f"{report.stream} {report.task_type}: {report.tasks} tasks, {report.done} done,"
        f" {report.dead} dead, {report.junk} junk, {report.open_count} open{known}"
    )
    for state, count in sorted(report.open.items()):
        print(f"  {state:<12} {count}")
    for item in report.examples:
        told = "; ".join(f"{said.kind} after {said.deliveries}" for said in item.advisories)
        print(f"  {item.sequence:>10} {item.task_id} {item.state} {item.age_s:.0f} s {told}")
    for task_type, count in missing.items():
        print(f"  no consumer for type {task_type}: {count} tasks")
