"""A site of many brokers: shards, nodes, producers and workers for each phase, with figures.

A shard is a hash tag with its keys on one Redis master, and a stream with its consumer on a NATS
cluster. Shards share nothing, so a site sustains as many times the rate of one as it has.
"""

import math

import msgspec
import numpy as np

from hookbench.brokers.durability import Durability
from hookbench.errors import ResultsError, SettingError
from hookbench.migration.phases import Design, Phase, ReadRoute, WriteRoute, read_route, write_route
from hookbench.model.fitted import Model, Pair
from hookbench.model.observations import Setup
from hookbench.model.predict import TURNS, WAITS
from hookbench.model.saturation import saturated_us
from hookbench.model.stored import Storage, encoded_bytes
from hookbench.queues.jetstream import SEVEN_DAYS_S, ConsumerSettings

__all__ = ["HASH_SLOTS", "PhasePlan", "Site", "SitePlan", "plan_site"]

HASH_SLOTS = 16_384
"""Of a Redis Cluster (https://redis.io/docs/latest/reference/cluster-spec): no more masters."""
_ROUTES = {
    Phase.REDIS_ONLY: "redis_list",
    Phase.DUAL_WRITE: "dual_write",
    Phase.DUAL_READ: "dual_read",
    Phase.NATS_PRIMARY: "nats_primary",
    Phase.NATS_ONLY: "jetstream",
}
_ALONE = {"redis": "redis_list", "nats": "jetstream"}
_US_PER_S = 1e6
_MS_PER_S = 1e3


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be planned.

    Attributes:
        rate_per_s: at the peak of a day.
        workers: processes that there are.
        concurrency: tasks at once in a worker.
        service_ms: time that a task takes.
        rtt_ms: to the brokers.
        payload_bytes: the mean.
        durability: class.
        design: ``hardened`` has an outbox, and trims Redis.
        busy: share of what a shard, a producer or a worker sustains that the peak may take; the
            rest is margin, and what an outage is caught up with.
        node_cores: of each NATS node; each stream takes one of its leader and of its followers.
        redis_replicas: of each master.
        stream_replicas: of each stream, its leader counted.
        outage_s: that one broker is away as a whole.
        phase_s: how long a phase lasts.
        max_age_s: of the streams.
        storage: bytes per task.
    """

    rate_per_s: float = 1e6
    workers: int = 10_000
    concurrency: int = 32
    service_ms: float = 0.0
    rtt_ms: float = 0.5
    payload_bytes: float = 256.0
    durability: Durability = Durability.LAZY
    design: Design = Design.HARDENED
    busy: float = 0.6
    node_cores: int = 8
    redis_replicas: int = 1
    stream_replicas: int = 3
    outage_s: float = 600.0
    phase_s: float = 86_400.0
    max_age_s: float = SEVEN_DAYS_S
    storage: Storage = Storage()

    def check(self) -> None:
        """Refuse what cannot be planned.

        Raises:
            SettingError: a value is out of bounds; the text names it.
        """
        names = ("rate_per_s", "workers", "concurrency", "node_cores", "stream_replicas",
                 "outage_s", "phase_s", "max_age_s")  # fmt: skip
        for name in names:
            if not 0 < getattr(self, name) < math.inf:
                raise SettingError(f"site: {name} {getattr(self, name):g}: use more than 0")
        for name in ("service_ms", "rtt_ms", "payload_bytes", "redis_replicas"):
            if getattr(self, name) < 0:
                raise SettingError(f"site: {name} {getattr(self, name):g}: use 0 or more")
        if not 0 < self.busy < 1:
            raise SettingError(f"site: busy {self.busy:g}: use between 0 and 1, without margin none"
                               " of an outage is caught up")  # fmt: skip


class PhasePlan(msgspec.Struct, frozen=True, kw_only=True):
    """One phase of a site.

    Attributes:
        phase: by name.
        masters: of Redis, each with a hash tag of its own; 0 where it is not used.
        redis_nodes: masters and replicas.
        streams: of JetStream; 0 where it is not used.
        nats_nodes: that hold their replicas.
        per_master_per_s, per_stream_per_s: tasks of the peak.
        producers: processes that the peak takes, with the margin.
        workers_needed: processes that the peak takes, with the margin.
        workers_busy: share of the site's workers that the peak takes, of their CPU or slots.
        workers_per_shard: that there are, of the broker that is read.
        ack_pending: tasks under way per stream with the margin; the consumer has to allow them.
        redis_memory_bytes: of each master, if workers are away for as long as the outage, or at
            the end of the phase where copies stay.
        stream_disk_bytes: of each stream and replica at the end of the phase, whatever was done.
        outbox_bytes: in all producers at the end of the outage, of a hardened design.
        sustained_per_s: tasks that all shards and workers sustain; ``put_per_s`` the shards alone.
        catch_up_s: after the outage.
        notes: what a reader has to know, one text each.
    """

    phase: str
    masters: int
    redis_nodes: int
    streams: int
    nats_nodes: int
    per_master_per_s: float
    per_stream_per_s: float
    producers: int
    workers_needed: int
    workers_busy: float
    workers_per_shard: float
    ack_pending: int
    redis_memory_bytes: float
    stream_disk_bytes: float
    outbox_bytes: float
    sustained_per_s: float
    put_per_s: float
    catch_up_s: float
    notes: tuple[str, ...]


class SitePlan(msgspec.Struct, frozen=True, kw_only=True):
    """The migration of a site, phase by phase.

    Attributes:
        site: that it is of.
        phases: those that were measured, in order.
        left_out: those that were not.
        one_master_per_s, one_stream_per_s: what a shard sustains, without the margin.
    """

    site: Site
    phases: tuple[PhasePlan, ...]
    left_out: tuple[str, ...]
    one_master_per_s: float
    one_stream_per_s: float


def plan_site(model: Model, site: Site) -> SitePlan:
    """Shards, nodes, producers and workers for every phase that was measured.

    What a broker sustains in a phase with both is taken from the queue that has it alone, for a
    matrix tells the CPU time of both brokers together.

    Raises:
        SettingError: a value of the site is out of bounds, or it needs more masters than a
            cluster can have.
        ResultsError: neither queue was measured alone in the durability class.
    """
    site.check()
    durability = str(site.durability)
    shard = {name: _shard_per_s(model, (route, durability), site) for name, route in _ALONE.items()}
    if site.rate_per_s / (shard["redis"] * site.busy) > HASH_SLOTS:
        raise SettingError(
            f"site: {site.rate_per_s:,.0f} tasks/s are more than {HASH_SLOTS:,} masters take;"
            " use several clusters"
        )
    known = [phase for phase in Phase if (_ROUTES[phase], durability) in model.pairs]
    return SitePlan(
        site=site,
        phases=tuple(_plan_phase(model, site, phase, shard) for phase in known),
        left_out=tuple(phase.label for phase in Phase if phase not in known),
        one_master_per_s=shard["redis"],
        one_stream_per_s=shard["nats"],
    )


def _shard_per_s(model: Model, pair: Pair, site: Site) -> float:
    """What the broker of a shard sustains with one core of its own."""
    if pair not in model.pairs:
        raise ResultsError(
            f"model: {' '.join(pair)} was not measured, and a shard is one; measure it:"
            f" hookbench matrix --queues redis_list,jetstream --durability {pair[1]}"
        )
    share = model.sustained_share(pair)
    if share < WAITS:
        return model.measured_limit_per_s(pair, site.payload_bytes, "p50_ms")
    broker_us = saturated_us(model.costs(pair), site.payload_bytes, model.setup)["broker"]
    return share * _US_PER_S / broker_us


def _plan_phase(model: Model, site: Site, phase: Phase, shard: dict[str, float]) -> PhasePlan:
    written = {
        "redis": write_route(phase) in (WriteRoute.REDIS, WriteRoute.BOTH),
        "nats": write_route(phase) is not WriteRoute.REDIS,
    }
    shards = {
        name: math.ceil(site.rate_per_s / (shard[name] * site.busy)) if used else 0
        for name, used in written.items()
    }
    read = "redis" if read_route(phase) is ReadRoute.REDIS else "nats"
    route = _ROUTES[phase]
    pair = route, str(site.durability)
    setup = Setup(concurrency=site.concurrency, callers=model.setup.callers)
    costs_us = saturated_us(model.costs(pair), site.payload_bytes, setup)
    worker_per_s = _worker_per_s(costs_us["worker"], site, route)
    streams = shards["nats"]
    replicas = streams * site.stream_replicas
    busy_s = (site.service_ms + site.rtt_ms) / _MS_PER_S
    per_stream_per_s = site.rate_per_s / streams if streams else 0.0
    in_flight = per_stream_per_s * max(busy_s, site.concurrency / worker_per_s)
    put_per_s = min(count * shard[name] for name, count in shards.items() if count)
    sustained_per_s = min(put_per_s, worker_per_s * site.workers)
    plan = PhasePlan(
        phase=phase.label,
        masters=shards["redis"],
        redis_nodes=shards["redis"] * (1 + site.redis_replicas),
        streams=streams,
        nats_nodes=max(site.stream_replicas, math.ceil(replicas / site.node_cores))
        if streams
        else 0,
        per_master_per_s=site.rate_per_s / shards["redis"] if shards["redis"] else 0.0,
        per_stream_per_s=per_stream_per_s,
        producers=math.ceil(site.rate_per_s * costs_us["producer"] / _US_PER_S / site.busy),
        workers_needed=math.ceil(site.rate_per_s / worker_per_s / site.busy),
        workers_busy=_workers_busy(model, site, pair),
        workers_per_shard=site.workers / shards[read],
        ack_pending=math.ceil(in_flight / site.busy) if read == "nats" else 0,
        redis_memory_bytes=_redis_memory(site, phase, shards["redis"]),
        stream_disk_bytes=_stream_disk(site, per_stream_per_s),
        outbox_bytes=_outbox(site),
        sustained_per_s=sustained_per_s,
        put_per_s=put_per_s,
        catch_up_s=_catch_up_s(site, sustained_per_s),
        notes=(),
    )
    return msgspec.structs.replace(plan, notes=_notes(site, phase, plan))


def _worker_per_s(worker_us: float, site: Site, route: str) -> float:
    """What one worker process does: by its CPU, and by its slots."""
    by_cpu = _US_PER_S / worker_us
    busy_s = (site.service_ms + site.rtt_ms * TURNS[route][1]) / _MS_PER_S
    return min(by_cpu, site.concurrency / busy_s) if busy_s else by_cpu


def _workers_busy(model: Model, site: Site, pair: Pair) -> float:
    """Share of the site's workers that the peak takes: of their CPU or of their slots.

    Many workers have a low rate each, and find one task at a wake-up.
    """
    rate_per_s = site.rate_per_s / site.workers
    cost = model.costs(pair)["worker"]
    batch = cost.batch_at(rate_per_s, site.payload_bytes, site.concurrency)
    by_cpu = rate_per_s * cost.of_batch(site.payload_bytes, batch) / _US_PER_S
    busy_s = (site.service_ms + site.rtt_ms * TURNS[pair[0]][1]) / _MS_PER_S
    return max(by_cpu, rate_per_s * busy_s / site.concurrency)


def _redis_memory(site: Site, phase: Phase, masters: int) -> float:
    """Of one master: what waits after the outage; of a guide in ``dual_read`` every copy (P8)."""
    if not masters:
        return 0.0
    kept = phase is Phase.DUAL_READ and site.design is Design.GUIDE
    seconds = site.phase_s if kept else site.outage_s
    tasks = site.rate_per_s / masters * seconds
    return float(site.storage.redis_memory(np.array([tasks]), site.payload_bytes)[0])


def _stream_disk(site: Site, per_stream_per_s: float) -> float:
    tasks = per_stream_per_s * min(site.phase_s, site.max_age_s)
    disk = site.storage.nats_disk(np.array([tasks]), site.payload_bytes, site.durability)
    return float(disk[0])


def _outbox(site: Site) -> float:
    if site.design is Design.GUIDE:
        return 0.0
    return site.rate_per_s * site.outage_s * encoded_bytes(site.payload_bytes)


def _catch_up_s(site: Site, sustained_per_s: float) -> float:
    spare_per_s = sustained_per_s - site.rate_per_s
    return site.outage_s * site.rate_per_s / spare_per_s if spare_per_s > 0 else math.inf


def _notes(site: Site, phase: Phase, plan: PhasePlan) -> tuple[str, ...]:
    notes = []
    allowed = ConsumerSettings().max_ack_pending
    if plan.ack_pending > allowed:
        notes.append(
            f"max-ack-pending {allowed} is too little: a stream has {plan.ack_pending:,} under way"
        )
    if plan.workers_busy > 1:
        notes.append(f"{site.workers:,} workers are too few: {plan.workers_needed:,} are needed")
    elif plan.workers_needed > site.workers:
        notes.append(f"{site.workers:,} workers leave no margin: {plan.workers_needed:,} do")
    if plan.workers_per_shard < 1:
        notes.append("fewer workers than shards: each has to take from several")
    if phase is Phase.DUAL_WRITE and site.max_age_s < site.phase_s:
        notes.append("max-age is shorter than the phase: NATS has lost copies when it is read")
    if phase is Phase.DUAL_READ and site.design is Design.GUIDE:
        notes.append("copies stay in Redis for good (P8): its memory is that of the whole phase")
    return tuple(notes)
