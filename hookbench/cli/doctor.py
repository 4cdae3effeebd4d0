"""``hookbench doctor``: what would be used, and whether this machine can run it."""

from typing import Any

import typer

from hookbench.cli.options import JsonOutput, NatsUrl, RedisUrl, announce_json

__all__ = ["doctor"]

MINIMUM_FREE_BYTES = 1_000_000_000


def doctor(redis_url: RedisUrl = None, nats_url: NatsUrl = None, json: JsonOutput = False) -> None:
    """Say which brokers, tools and limits a rehearsal would find; exit 2 if it could not run.

    Embedded brokers are really started, asked, and stopped again.

    Example: hookbench doctor --redis-url redis://127.0.0.1:6379 --json
    """
    import asyncio

    checks = asyncio.run(_checks(redis_url, nats_url))
    if json:
        announce_json({"checks": checks, "ok": all(check["ok"] for check in checks)})
    else:
        for check in checks:
            print(f"{'ok' if check['ok'] else 'NO':<4} {check['name']:<10} {check['text']}")
    if not all(check["ok"] for check in checks):
        raise typer.Exit(2)


async def _checks(redis_url: str | None, nats_url: str | None) -> list[dict[str, object]]:
    import platform
    import shutil
    import sys
    import tempfile
    from pathlib import Path

    from hookbench.brokers.embedded import start_nats, start_redis
    from hookbench.brokers.probe import probe_nats, probe_redis
    from hookbench.brokers.resolve import resolve_nats, resolve_redis
    from hookbench.results.environment import read_environment

    environment = read_environment()
    checks: list[dict[str, object]] = []

    def add(name: str, text: str, *, ok: bool = True) -> None:
        checks.append({"name": name, "ok": ok, "text": text})

    add("hookbench", f"{environment.hookbench}, commit {environment.commit}")
    add("python", f"{environment.python} at {sys.executable}")
    add(
        "machine",
        f"{platform.system()} {environment.kernel} {environment.machine}, {environment.cpus} cores,"
        f" {environment.memory_bytes / 2**30:.1f} GiB, {environment.cpu}",
    )
    with tempfile.TemporaryDirectory(prefix="hookbench-doctor-") as folder:
        for name, url, resolve, start, probe in (
            ("redis", redis_url, resolve_redis, start_redis, probe_redis),
            ("nats", nats_url, resolve_nats, start_nats, probe_nats),
        ):
            ok, text = await _check_broker(url, resolve, start, probe, Path(folder))
            add(name, text, ok=ok)
        free = shutil.disk_usage(folder).free
    add("disk", f"{free / 1e9:.1f} GB free for temporary files", ok=free > MINIMUM_FREE_BYTES)
    git = shutil.which("git")
    add("git", git or "not on PATH: install git", ok=git is not None)
    return checks


async def _check_broker(
    url: str | None, resolve: Any, start: Any, probe: Any, folder: Any
) -> tuple[bool, str]:
    from hookbench.brokers.durability import Durability
    from hookbench.errors import HookbenchError

    try:
        resolved = resolve(url)
        if resolved.url is not None:
            info = await probe(resolved.url)
            return True, f"{resolved.label}, version {info.version}"
        broker = start(resolved, folder, Durability.LAZY)
        try:
            info = await probe(broker.url)
        finally:
            broker.stop()
    except HookbenchError as error:
        return False, str(error)
    return True, f"{resolved.label}, starts and answers as {info.version}: {resolved.binary}"
