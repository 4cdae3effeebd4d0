"""Whether a JetStream on disk syncs what it acknowledges within seconds (hazard N10).

As shipped it syncs every two minutes: a power cut takes what was acknowledged since then, on one
node or on all of a cluster at once. The interval is told by the monitoring endpoint alone.
"""

import msgspec

from hookbench.brokers.readback import read_monitor, sync_settings
from hookbench.clock import NS_PER_S
from hookbench.errors import BrokerUnreachableError, BrokerUnsuitableError
from hookbench.queues.dialing import NETWORK, Dialer

__all__ = ["MAX_SYNC_INTERVAL_S", "SyncReport", "check_synced"]

MAX_SYNC_INTERVAL_S = 10.0
"""What may be lost by a power cut: the acknowledged tasks of so many seconds."""


class SyncReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the sync settings.

    Attributes:
        interval_s: the longest of all nodes; 0 for ``always``, ``None`` where it is not known.
        text: for a person: what was read, or why not.
    """

    interval_s: float | None
    text: str


async def check_synced(
    monitor_urls: str | None, told_s: float | None = None, *, dialer: Dialer = NETWORK
) -> SyncReport:
    """Refuse a server that syncs less often than every ``MAX_SYNC_INTERVAL_S``.

    Args:
        monitor_urls: monitoring of each node, separated by commas.
        told_s: the interval as the operator says, where it cannot be read; 0 for ``always``.
        dialer: opens the connections.

    Raises:
        BrokerUnsuitableError: it syncs too seldom; the text says what to do.
        SettingError: a URL is none.
    """
    report = await _read(monitor_urls, told_s, dialer)
    if report.interval_s is not None and report.interval_s > MAX_SYNC_INTERVAL_S:
        raise BrokerUnsuitableError(
            f"JetStream syncs its disk every {report.interval_s:g} s ({report.text}): a power cut"
            " takes what it acknowledged since then; set sync_interval of its jetstream block to"
            f" always, or to {MAX_SYNC_INTERVAL_S:g}s or less, or leave out the measure synced_only"
        )
    return report


async def _read(monitor_urls: str | None, told_s: float | None, dialer: Dialer) -> SyncReport:
    if not monitor_urls:
        if told_s is not None:
            return SyncReport(interval_s=told_s, text="as the operator says")
        return SyncReport(
            interval_s=None,
            text="sync interval unknown: give --nats-monitor-url, or say it with"
            " --nats-sync-interval",
        )
    intervals: list[float] = []
    for url in (part.strip() for part in monitor_urls.split(",")):
        try:
            settings = sync_settings(await read_monitor(url, "/varz", dialer=dialer))
        except BrokerUnreachableError as error:
            return SyncReport(interval_s=told_s, text=f"sync interval not readable: {error}")
        always = settings["sync_always"] == "yes"
        intervals.append(0.0 if always else int(settings["sync_interval_ns"]) / NS_PER_S)
    return SyncReport(interval_s=max(intervals), text=f"read from {len(intervals)} nodes")
