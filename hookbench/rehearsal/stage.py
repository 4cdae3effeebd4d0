"""The brokers of a rehearsal: embedded, or somebody else's under the rules for those."""

import asyncio
import datetime as dt
from pathlib import Path

from hookbench.brokers.classify import BrokerReport
from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import EmbeddedBroker, start_nats, start_redis
from hookbench.brokers.probe import (
    check_nats_unused,
    check_redis_unused,
    probe_nats,
    probe_redis,
)
from hookbench.brokers.readback import check_monitor_url, read_back_nats, read_back_redis
from hookbench.brokers.resolve import Resolved, resolve_nats, resolve_redis
from hookbench.errors import SettingError
from hookbench.task import Names

__all__ = ["Stage", "open_stage"]


class Stage:
    """Two brokers and the names that the run uses on them.

    Args:
        redis: the Redis.
        nats: the NATS server.
        names: what is used on both.
        lines: one per broker, for a person.
        nats_monitor_url: where a NATS server that was not started here tells its settings.
    """

    def __init__(
        self,
        redis: EmbeddedBroker | Resolved,
        nats: EmbeddedBroker | Resolved,
        names: Names,
        lines: list[str],
        *,
        nats_monitor_url: str | None = None,
    ) -> None:
        self._redis = redis
        self._nats = nats
        self.names = names
        self.lines = lines
        self._nats_monitor_url = nats_monitor_url

    @property
    def redis_url(self) -> str:
        """Where the Redis is."""
        return self._redis.url or ""

    @property
    def nats_url(self) -> str:
        """Where the NATS server is."""
        return self._nats.url or ""

    def processes(self) -> list[tuple[str, int]]:
        """Name and process id of each broker that was started here and runs."""
        return [
            (broker.kind, broker.pid)
            for broker in (self._redis, self._nats)
            if isinstance(broker, EmbeddedBroker) and broker.child.exit_code is None
        ]

    async def read_back(self) -> list[BrokerReport]:
        """Both brokers as they describe themselves now, Redis first; see ``brokers/readback.py``.

        A broker that does not answer within a few seconds is a report that says so.
        """
        monitor_url = (
            self._nats.monitor_url
            if isinstance(self._nats, EmbeddedBroker)
            else self._nats_monitor_url
        )
        redis, nats = await asyncio.gather(
            read_back_redis(self.redis_url, origin=_origin(self._redis)),
            read_back_nats(
                self.nats_url,
                origin=_origin(self._nats),
                monitor_url=monitor_url,
                names=self.names,
            ),
        )
        return [redis, nats]

    def asked_durability(self) -> dict[str, Durability]:
        """The class that each broker was started with; somebody else's broker has no entry."""
        return {
            broker.kind: broker.durability
            for broker in (self._redis, self._nats)
            if isinstance(broker, EmbeddedBroker)
        }

    def owned(self, name: str) -> EmbeddedBroker:
        """The broker ``redis`` or ``nats``, if it was started here.

        Raises:
            SettingError: it is somebody else's: no fault is ever aimed at it.
        """
        broker = self._redis if name == "redis" else self._nats
        if not isinstance(broker, EmbeddedBroker):
            raise SettingError(
                f"fault target {name}: this run did not start it ({broker.label}): faults are aimed"
                " at embedded brokers only; leave its URL out"
            )
        return broker

    @property
    def foreign(self) -> bool:
        """Whether one of the brokers was not started here."""
        return isinstance(self._redis, Resolved) or isinstance(self._nats, Resolved)

    def close(self) -> None:
        """Stop what was started here, and nothing else."""
        for broker in (self._redis, self._nats):
            if isinstance(broker, EmbeddedBroker):
                broker.stop()


async def open_stage(
    redis_url: str | None,
    nats_url: str | None,
    *,
    folder: Path,
    durability: Durability,
    own_names: bool,
    allow_existing: bool,
    run: str,
    nats_monitor_url: str | None = None,
) -> Stage:
    """Resolve, check and start the brokers.

    A broker that was not started here gets names of the run's own, unless the real ones are asked
    for, and is refused when it holds a hook queue already.

    Raises:
        HookbenchError: see ``resolve_redis``, ``probe_redis``, ``check_redis_unused`` and
            ``start_redis``, and the same for NATS; ``check_monitor_url``.
    """
    if nats_monitor_url is not None:
        check_monitor_url(nats_monitor_url)
    redis = resolve_redis(redis_url)
    nats = resolve_nats(nats_url)
    foreign = redis.url is not None or nats.url is not None
    names = Names.for_run(run) if foreign and own_names else Names()
    lines = []
    if redis.url is not None:
        info = await probe_redis(redis.url)
        lines.append(f"{redis.label}, version {info.version}, durability as it is configured")
        if not allow_existing:
            await check_redis_unused(redis.url, names)
    if nats.url is not None:
        info = await probe_nats(nats.url)
        lines.append(f"{nats.label}, version {info.version}, durability as it is configured")
        if not allow_existing:
            await check_nats_unused(nats.url, names)
    started: list[EmbeddedBroker] = []
    try:
        chosen: list[EmbeddedBroker | Resolved] = []
        for resolved, start in ((redis, start_redis), (nats, start_nats)):
            if resolved.url is not None:
                chosen.append(resolved)
                continue
            broker = start(resolved, folder, durability)
            started.append(broker)
            chosen.append(broker)
            lines.append(f"{resolved.label}, one node, durability {durability}")
    except BaseException:
        for broker in started:
            broker.stop()
        raise
    return Stage(chosen[0], chosen[1], names, lines, nats_monitor_url=nats_monitor_url)


def _origin(broker: EmbeddedBroker | Resolved) -> str:
    return broker.resolved.label if isinstance(broker, EmbeddedBroker) else broker.label


def utc_now_label(wall_ns: int) -> str:
    """A wall-clock label: ``2026-01-31T12:00:00Z``."""
    moment = dt.datetime.fromtimestamp(wall_ns // 1_000_000_000, tz=dt.UTC)
    return moment.isoformat().replace("+00:00", "Z")
