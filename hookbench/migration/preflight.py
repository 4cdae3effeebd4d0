"""Ask the brokers of a phase who they are, before a process begins to use them."""

import logging
from typing import Protocol

from hookbench.brokers.probe import probe_nats, probe_redis
from hookbench.brokers.redis_memory import check_redis_memory
from hookbench.brokers.sync_check import check_synced
from hookbench.errors import SettingError
from hookbench.migration.measures import NO_MEASURES, Measures
from hookbench.migration.phases import Phase
from hookbench.queues.connections import Connections
from hookbench.queues.dialing import NETWORK, Dialer

__all__ = ["BrokerCheck", "check_brokers", "check_sync_interval"]

_log = logging.getLogger(__name__)


class BrokerCheck(Protocol):
    """``check_brokers``, or what stands in for it."""

    async def __call__(
        self,
        phase: Phase,
        *,
        redis_url: str | None,
        nats_url: str | None,
        measures: Measures = NO_MEASURES,
    ) -> None:
        """Refuse to start on a broker that cannot be used."""
        ...


async def check_brokers(
    phase: Phase,
    *,
    redis_url: str | None,
    nats_url: str | None,
    measures: Measures = NO_MEASURES,
    dialer: Dialer = NETWORK,
) -> None:
    """Refuse to start on a broker that does not answer, or that cannot be used.

    Args:
        phase: whose brokers are asked.
        redis_url: of Redis.
        nats_url: of NATS.
        measures: of the process.
        dialer: opens the connections.

    Raises:
        SettingError: no URL for a broker of the phase.
        BrokerUnreachableError, BrokerUnsuitableError: see ``probe_redis`` and ``probe_nats``, and
            with ``oom_claims`` ``check_redis_memory``.
    """
    if phase is not Phase.NATS_ONLY and phase is not Phase.NATS_PRIMARY:
        if not redis_url:
            raise SettingError(
                f"phase {phase.label} uses Redis: give --redis-url or HOOKBENCH_REDIS_URL"
            )
        await probe_redis(redis_url, dialer=dialer)
        if measures.oom_claims:
            await check_redis_memory(redis_url, dialer=dialer)
    if phase is not Phase.REDIS_ONLY and nats_url:
        await probe_nats(nats_url, dialer=dialer)


async def check_sync_interval(connections: Connections) -> None:
    """Refuse a stream on a disk that is synced too seldom; what cannot be read is said.

    It is not refused for that: the operator may know. A stream in memory is his own choice, and
    said likewise.

    Raises:
        BrokerUnsuitableError: see ``check_synced``.
    """
    if connections.stream.storage != "file":
        _log.warning("stream in memory: whatever it acknowledges is gone with its server")
        return
    report = await check_synced(
        connections.nats_monitor_url, connections.nats_sync_interval_s, dialer=connections.dialer
    )
    if report.interval_s is None:
        _log.warning("synced_only: %s", report.text)
