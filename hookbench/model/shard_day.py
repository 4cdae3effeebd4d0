"""One shard of a planned site: what its day comes to, and after how long its limits strike."""

from collections.abc import Sequence

import msgspec
import numpy as np

from hookbench.errors import SettingError
from hookbench.migration.phases import Design, Phase
from hookbench.model.scale import PhasePlan, SitePlan
from hookbench.model.timeline import DAY_S, Day, Timeline, parse_outage, simulate_day

__all__ = ["Strikes", "shard_day", "strikes_of"]


class Strikes(msgspec.Struct, frozen=True, kw_only=True):
    """After how long the limits of a shard are reached, at the peak; ``None`` for never.

    Attributes:
        phase: by name.
        full_s: until Redis has no room, if nobody takes tasks.
        copies_full_s: until it has none for copies that nobody trims (P8).
        aged_s: until the stream drops tasks that nobody has read.
        disk_bytes: of a stream by then, or at the end of the phase if that comes first.
    """

    phase: str
    full_s: float | None
    copies_full_s: float | None
    aged_s: float | None
    disk_bytes: float


def _plan_of(plan: SitePlan, phase: Phase) -> PhasePlan:
    for item in plan.phases:
        if item.phase == phase.label:
            return item
    known = ", ".join(item.phase for item in plan.phases)
    raise SettingError(f"phase {phase.label}: it was not planned; planned are {known}")


def shard_day(
    plan: SitePlan,
    phase: Phase,
    *,
    outages: Sequence[str] = (),
    night: float = 1.0,
    maxmemory_bytes: float = 0.0,
    seconds: float = DAY_S,
) -> Timeline:
    """A day of one shard: a Redis master where there are any, else a stream.

    It has its share of everything else: of streams, producers and workers.

    Args:
        plan: of the site.
        phase: that lasts all day.
        outages: see ``parse_outage``.
        night: the lowest rate of the day as a share of the peak, which is at noon; 1 for a rate
            that does not change.
        maxmemory_bytes: of the master; 0 for no limit.
        seconds: length of the day.

    Raises:
        SettingError: the phase was not planned, or a value is out of bounds.
    """
    if not 0 < night <= 1:
        raise SettingError(f"night {night:g}: use a share of the peak above 0 and up to 1")
    found, site = _plan_of(plan, phase), plan.site
    lowest = 2 * night / (1 + night)  # of the mean, around which a day is as high as it is low
    shards = found.masters or found.streams
    return simulate_day(
        Day(
            phase=phase,
            design=site.design,
            rate_per_s=site.rate_per_s / shards * (1 + night) / 2,
            arrivals=f"constant+diurnal:period={DAY_S:g},low={lowest:.6f}",
            seconds=seconds,
            capacity_per_s=found.sustained_per_s / shards,
            put_per_s=found.put_per_s / shards,
            outages=tuple(parse_outage(text) for text in outages),
            payload_bytes=site.payload_bytes,
            durability=site.durability,
            max_age_s=site.max_age_s,
            maxmemory_bytes=maxmemory_bytes,
            storage=site.storage,
        )
    )


def strikes_of(plan: SitePlan, maxmemory_bytes: float) -> list[Strikes]:
    """When max-age and maxmemory strike, phase by phase.

    Args:
        plan: of the site.
        maxmemory_bytes: of each master.
    """
    return [_strikes(plan, item, maxmemory_bytes) for item in plan.phases]


def _strikes(plan: SitePlan, found: PhasePlan, maxmemory_bytes: float) -> Strikes:
    site = plan.site
    full_s = None
    if found.masters:
        empty, one = site.storage.redis_memory(np.array([0.0, 1.0]), site.payload_bytes).tolist()
        full_s = max(0.0, maxmemory_bytes - empty) / (one - empty) / found.per_master_per_s
    keeps = found.phase == Phase.DUAL_READ.label and site.design is Design.GUIDE
    # Nobody reads the stream while both brokers are written and Redis is read.
    unread = found.phase == Phase.DUAL_WRITE.label
    return Strikes(
        phase=found.phase,
        full_s=full_s,
        copies_full_s=full_s if keeps else None,
        aged_s=site.max_age_s if unread else None,
        disk_bytes=found.stream_disk_bytes,
    )
