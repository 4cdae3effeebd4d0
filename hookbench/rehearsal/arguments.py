"""What the processes and hooks of a rehearsal are told on their command lines."""

import os
import random
from pathlib import Path

from hookbench.githook.config import HookConfig
from hookbench.metrics.server import LOOPBACK
from hookbench.rehearsal.links import Links
from hookbench.rehearsal.scrapes import LINGER_S
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.rehearsal.stage import Stage
from hookbench.results.store import RunFolder

__all__ = ["hook_settings", "outbox_path", "producer_arguments", "worker_arguments"]


_METRICS = (f"--metrics={LOOPBACK}:0", f"--metrics-linger={LINGER_S}")


def outbox_path(work: Path, number: int) -> Path:
    """The outbox of a producer, and of whoever takes its place."""
    return work / f"outbox-{number}.sqlite"


def _common(settings: RehearsalSettings, stage: Stage, links: Links, role: str) -> list[str]:
    names = stage.names
    return [
        f"--measures={settings.effective_measures.text}",
        "--redis-url", links.url(role, "redis"),
        "--nats-url", links.url(role, "nats"),
        f"--nats-monitor-url={stage.monitor_urls}",
        f"--prefix={names.prefix}",
        f"--subject-root={names.subject_root}",
        f"--stream={names.stream}",
        f"--storage={stage.stream.storage}",
        f"--replicas={stage.stream.replicas}",
        f"--redis-queue={settings.redis_kind}",
        *(_METRICS if settings.metrics else ()),
    ]  # fmt: skip


def worker_arguments(
    settings: RehearsalSettings, stage: Stage, links: Links, folder: RunFolder
) -> list[str]:
    """Options of ``hookbench worker``."""
    work = folder.work
    return [
        *_common(settings, stage, links, "workers"),
        "--concurrency", str(settings.concurrency),
        "--max-attempts", str(settings.max_attempts),
        "--block-timeout", str(settings.block_timeout_secs),
        "--handler", "git",
        "--service-ms", str(settings.service_ms),
        "--origins", str((work / "origins").resolve()),
        "--mirrors", str((work / "mirrors").resolve()),
        "--effects", str(folder.effects.resolve()),
    ]  # fmt: skip


def share_of(total: int, number: int, parts: int) -> int:
    """How many of ``total`` one of so many parts has."""
    return total // parts + (number < total % parts)


def producer_arguments(
    settings: RehearsalSettings, stage: Stage, links: Links, work: Path, number: int, start_ns: int
) -> list[str]:
    """Options of ``hookbench produce``: its share of the rate, over the whole timeline."""
    outbox = settings.effective_measures.outbox
    rate = settings.rate_per_s / settings.producers
    seed = random.Random(f"{settings.seed}:{number}").getrandbits(32)
    return [
        *_common(settings, stage, links, "producers"),
        "--rate", str(rate),
        "--count", str(settings.tasks_of(number)),
        "--loop", settings.loop,
        "--callers", str(share_of(settings.callers, number, settings.producers)),
        "--arrivals", settings.arrivals,
        "--part", f"{number}/{settings.producers}",
        "--payload", settings.payload,
        "--repositories", str(settings.synthetic_repositories),
        "--skew", str(settings.skew),
        "--mix", settings.mix,
        "--seed", str(seed),
        "--start-ns", str(start_ns),
        *(["--spool", str(outbox_path(work, number).resolve())] if outbox else []),
    ]  # fmt: skip


def hook_settings(
    settings: RehearsalSettings, stage: Stage, folder: RunFolder, phase_file: Path
) -> HookConfig:
    """Settings of the hooks but for the repository's id; their flushes end with this process."""
    names = stage.names
    return HookConfig(
        repo_id="-",
        spool=str((folder.work / "spool.sqlite").resolve()),
        redis_url=stage.redis_url,
        nats_url=stage.nats_url,
        phase_file=str(phase_file.resolve()),
        prefix=names.prefix,
        subject_root=names.subject_root,
        stream=names.stream,
        storage=stage.stream.storage,
        replicas=stage.stream.replicas,
        measures=settings.effective_measures.text,
        redis_kind=settings.redis_kind.value,
        ledger=str(folder.ledger.resolve()),
        owner_pid=os.getpid(),
    )
