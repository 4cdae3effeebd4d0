"""A random schedule of faults that follows from the seed alone.

Every fault of it can fire: it is aimed at what exists in the topology, at a broker that the phase
uses and at a link with traffic, and it is healed while the load still runs. What it does to the
tasks is left to the design.
"""

import random
from collections.abc import Callable, Collection

import msgspec

from hookbench.brokers.topology import has_nats_cluster, has_redis_replica
from hookbench.errors import SettingError
from hookbench.faults.consumer_gone import RecreateConsumer
from hookbench.faults.consumer_limits import ConsumerLimits
from hookbench.faults.failing_handler import FailingHandler
from hookbench.faults.hot_repository import HotRepository
from hookbench.faults.maxmemory import MaxMemory
from hookbench.faults.oversize import Oversize
from hookbench.faults.poison import Poison
from hookbench.faults.power_cut import PowerCut
from hookbench.faults.process import Kill, Pause, Restart
from hookbench.faults.promote import Promote
from hookbench.faults.registry import AnyFault
from hookbench.faults.rolling import RollingRestart
from hookbench.faults.slow_handler import SlowHandler
from hookbench.faults.step import KillAtStep
from hookbench.faults.step_down import StepDown
from hookbench.faults.wire_fault import Wire
from hookbench.migration.measures import Measures
from hookbench.migration.phases import Phase, ReadRoute, WriteRoute, read_route, write_route
from hookbench.rehearsal.settings import RehearsalSettings

__all__ = ["MIN_SECONDS", "chaos_schedule"]

MIN_SECONDS = 10.0
_FIRST_S = 2.0
_LAST_S = 4.0
"""So long before the end of the load nothing begins: what waits for a frame has time to meet it."""
_CALM_S = 1.5
"""Between two faults of one lane: a broker that was killed is back, and its clients too."""
_MEAN_GAP_S = 2.5
_MAX_FOR_S = 2.0
_ENTERED_S = 2.0
"""So long after its beginning every worker is in a phase."""
_STEPS = ("receive", "start", "effect", "done", "ack")
_MAX_FAULTS = 200


class _Moment(msgspec.Struct, frozen=True):
    """When a fault begins, and what is there then.

    Attributes:
        left_s: until the phase ends.
        consumed: whether workers have read NATS before, so that there is a consumer.
    """

    at_s: float
    for_s: float
    phase: Phase
    left_s: float
    consumed: bool
    settings: RehearsalSettings

    @property
    def writes_redis(self) -> bool:
        """Whether every put goes to Redis."""
        return write_route(self.phase) in (WriteRoute.REDIS, WriteRoute.BOTH)

    @property
    def writes_nats(self) -> bool:
        """Whether every put goes to NATS."""
        return write_route(self.phase) is not WriteRoute.REDIS

    @property
    def reads_redis(self) -> bool:
        """Whether workers read Redis all along."""
        return read_route(self.phase) is ReadRoute.REDIS

    @property
    def reads_nats(self) -> bool:
        """Whether workers read NATS."""
        return read_route(self.phase) is not ReadRoute.REDIS

    @property
    def redis_used(self) -> bool:
        """Whether anybody uses Redis."""
        return self.writes_redis or self.reads_redis

    @property
    def nats_used(self) -> bool:
        """Whether anybody uses NATS."""
        return self.writes_nats or self.reads_nats


_Maker = Callable[[random.Random, _Moment], AnyFault | None]
"""A fault for a moment, ``None`` where it could not fire."""


def chaos_schedule(
    settings: RehearsalSettings, *, without: Collection[str] = ()
) -> tuple[AnyFault, ...]:
    """The faults of a seed, in the order of their times.

    Several lanes run side by side (Redis, NATS, the fleet, the wire, the load), so faults of
    different lanes overlap, and those of one do not.

    Args:
        settings: of the rehearsal.
        without: kinds that are left out; the rest of the schedule stays as it is.

    Raises:
        SettingError: the timeline is too short for a fault and its healing, or a broker is
            somebody else's: nothing is done to it.
    """
    if settings.redis_url is not None or settings.nats_url is not None:
        raise SettingError(
            "chaos: faults are aimed at embedded brokers only: leave --redis-url and --nats-url out"
        )
    if settings.seconds < MIN_SECONDS:
        raise SettingError(
            f"chaos: a timeline of {settings.seconds:g} s: use {MIN_SECONDS:g} s or more"
        )
    faults: list[AnyFault] = []
    for name, makers in _LANES.items():
        rng = random.Random(f"chaos:{settings.seed}:{name}")
        faults += _lane(rng, makers, settings)
    faults.sort(key=lambda fault: fault.at_s)
    for fault in faults:
        fault.check()
    return tuple(fault for fault in faults if fault.__struct_config__.tag not in without)


def _lane(
    rng: random.Random, makers: tuple[_Maker, ...], settings: RehearsalSettings
) -> list[AnyFault]:
    faults: list[AnyFault] = []
    at_s = _FIRST_S
    for _ in range(_MAX_FAULTS):
        at_s = round(at_s + rng.expovariate(1 / _MEAN_GAP_S), 2)
        for_s = round(rng.uniform(0.3, _MAX_FOR_S), 2)
        if at_s + for_s > settings.seconds - _LAST_S:
            break
        fault = rng.choice(makers)(rng, _moment(at_s, for_s, settings))
        if fault is None:
            continue
        faults.append(fault)
        at_s += fault.for_s + _CALM_S
    return faults


def _moment(at_s: float, for_s: float, settings: RehearsalSettings) -> _Moment:
    index = min(int(at_s // settings.phase_seconds), len(settings.phases) - 1)
    since_s = at_s - index * settings.phase_seconds
    before = settings.phases[: index + (since_s > _ENTERED_S)]
    return _Moment(
        at_s=at_s,
        for_s=for_s,
        phase=settings.phases[index],
        left_s=(index + 1) * settings.phase_seconds - at_s,
        consumed=any(read_route(phase) is not ReadRoute.REDIS for phase in before),
        settings=settings,
    )


def _kill_redis(_rng: random.Random, now: _Moment) -> AnyFault | None:
    if not now.redis_used:
        return None
    return Kill(target="redis_master", at_s=now.at_s, for_s=now.for_s)


def _pause_redis(_rng: random.Random, now: _Moment) -> AnyFault | None:
    if not now.redis_used:
        return None
    return Pause(target="redis_master", at_s=now.at_s, for_s=now.for_s)


def _restart_redis(_rng: random.Random, now: _Moment) -> AnyFault | None:
    return Restart(target="redis_master", at_s=now.at_s, for_s=now.for_s)


def _full_redis(_rng: random.Random, now: _Moment) -> AnyFault | None:
    if not now.writes_redis:
        return None
    return MaxMemory(target="redis", at_s=now.at_s, for_s=now.for_s, headroom_bytes=0)


def _promote(rng: random.Random, now: _Moment) -> AnyFault | None:
    if not has_redis_replica(now.settings.topology):
        return None
    pause_s = round(rng.uniform(0.0, 1.0), 2)
    return Promote(
        target="redis",
        at_s=now.at_s,
        for_s=now.for_s,
        pause_s=pause_s,
        kill_master=bool(rng.getrandbits(1)),
    )


def _cut_redis(rng: random.Random, now: _Moment) -> AnyFault | None:
    if now.settings.topology != "single" or not now.redis_used:
        return None
    return _power_cut("redis", rng, now)


def _cut_nats(rng: random.Random, now: _Moment) -> AnyFault | None:
    if now.settings.topology != "single" or not now.nats_used:
        return None
    return _power_cut("nats", rng, now)


def _power_cut(broker: str, rng: random.Random, now: _Moment) -> AnyFault:
    rollback_s = round(rng.uniform(0.2, 1.0), 2)
    return PowerCut(
        target=broker, at_s=now.at_s, for_s=now.for_s, rollback_s=rollback_s, count_syncs=False
    )


def _kill_nats(rng: random.Random, now: _Moment) -> AnyFault | None:
    target = _nats_node(rng, now)
    return None if target is None else Kill(target=target, at_s=now.at_s, for_s=now.for_s)


def _pause_nats(rng: random.Random, now: _Moment) -> AnyFault | None:
    target = _nats_node(rng, now)
    return None if target is None else Pause(target=target, at_s=now.at_s, for_s=now.for_s)


def _restart_nats(rng: random.Random, now: _Moment) -> AnyFault | None:
    target = _nats_node(rng, now)
    return None if target is None else Restart(target=target, at_s=now.at_s, for_s=now.for_s)


def _nats_node(rng: random.Random, now: _Moment) -> str | None:
    if not now.nats_used:
        return None
    if not has_nats_cluster(now.settings.topology):
        return "nats"
    return rng.choice(("nats-1", "nats-2", "nats-3", "meta_leader"))


def _step_down(_rng: random.Random, now: _Moment) -> AnyFault | None:
    if not (has_nats_cluster(now.settings.topology) and now.nats_used):
        return None
    return StepDown(target="nats", at_s=now.at_s)


def _recreate_consumer(_rng: random.Random, now: _Moment) -> AnyFault | None:
    return RecreateConsumer(target="nats", at_s=now.at_s) if now.consumed else None


def _short_ack_wait(_rng: random.Random, now: _Moment) -> AnyFault | None:
    if not now.consumed:
        return None
    return ConsumerLimits(target="nats", at_s=now.at_s, for_s=now.for_s, ack_wait_s=1.0)


def _kill_worker(rng: random.Random, now: _Moment) -> AnyFault | None:
    return Kill(target=_worker(rng, now), at_s=now.at_s)


def _pause_worker(rng: random.Random, now: _Moment) -> AnyFault | None:
    return Pause(target=_worker(rng, now), at_s=now.at_s, for_s=now.for_s)


def _kill_producer(rng: random.Random, now: _Moment) -> AnyFault | None:
    return Kill(target=f"producer-{rng.randrange(now.settings.producers)}", at_s=now.at_s)


def _rolling_restart(_rng: random.Random, now: _Moment) -> AnyFault | None:
    return RollingRestart(target="workers", at_s=now.at_s)


def _kill_at_step(rng: random.Random, now: _Moment) -> AnyFault | None:
    step, nth = rng.choice(_STEPS), rng.randint(1, 20)
    return KillAtStep(target=_worker(rng, now), at_s=now.at_s, step=step, nth=nth)


def _worker(rng: random.Random, now: _Moment) -> str:
    return f"worker-{rng.randrange(now.settings.workers)}"


def _wire(rng: random.Random, now: _Moment) -> AnyFault | None:
    if now.settings.topology != "single" or now.left_s < now.for_s + 1.0:
        return None
    links = [
        name
        for name, used in (
            ("producers-redis", now.writes_redis),
            ("producers-nats", now.writes_nats),
            ("workers-redis", now.reads_redis),
            ("workers-nats", now.reads_nats),
        )
        if used
    ]
    link = rng.choice(links)
    direction, command = rng.choice(_frames(link, now.settings.effective_measures))
    action = rng.choice(("latency", "drop", "delay", "reset", "half_open", "partition"))
    wire = Wire(target=link, at_s=now.at_s, for_s=now.for_s, action=action)
    if action == "latency":
        seed = rng.getrandbits(31)
        return msgspec.structs.replace(wire, delay_ms=20.0, jitter_ms=20.0, seed=seed)
    if action == "partition":
        return msgspec.structs.replace(wire, refuse=bool(rng.getrandbits(1)))
    return msgspec.structs.replace(
        wire,
        direction=direction,
        command=command,
        nth=rng.randint(1, 10),
        delay_ms=200.0 if action == "delay" else 0.0,
    )


def _frames(link: str, measures: Measures) -> tuple[tuple[str, str], ...]:
    """With leases, or claims at maxmemory, tasks are read by a script, and BLMOVE waits at most."""
    frames = _FRAMES[link]
    if not (measures.leases or measures.oom_claims):
        return frames
    return tuple((way, "EVALSHA" if name == "BLMOVE" else name) for way, name in frames)


_FRAMES = {
    "producers-redis": (("request", "LPUSH"), ("reply", "LPUSH")),
    "producers-nats": (("reply", "PubAck"),),
    "workers-redis": (("reply", "BLMOVE"), ("request", "LREM"), ("reply", "LREM")),
    "workers-nats": (("request", "Ack"), ("request", "Fetch")),
}
"""What each link carries all the time while its phase lasts."""


def _slow(rng: random.Random, now: _Moment) -> AnyFault | None:
    service_ms = float(rng.randint(20, 200))
    return SlowHandler(target="workers", at_s=now.at_s, for_s=now.for_s, service_ms=service_ms)


def _failing(rng: random.Random, now: _Moment) -> AnyFault | None:
    return FailingHandler(
        target="workers",
        at_s=now.at_s,
        for_s=now.for_s,
        probability=round(rng.uniform(0.05, 0.3), 2),
        seed=rng.getrandbits(31),
    )


def _poison(rng: random.Random, now: _Moment) -> AnyFault | None:
    target = "nats" if now.reads_nats else "redis"
    count, seed = rng.randint(1, 20), rng.getrandbits(31)
    return Poison(target=target, at_s=now.at_s, count=count, seed=seed)


def _oversize(_rng: random.Random, now: _Moment) -> AnyFault | None:
    return Oversize(target="producers", at_s=now.at_s, for_s=now.for_s)


def _hot(rng: random.Random, now: _Moment) -> AnyFault | None:
    seed = rng.getrandbits(31)
    return HotRepository(target="producers", at_s=now.at_s, for_s=now.for_s, seed=seed)


_LANES: dict[str, tuple[_Maker, ...]] = {
    "redis": (_kill_redis, _pause_redis, _restart_redis, _full_redis, _promote, _cut_redis),
    "nats": (
        _kill_nats,
        _pause_nats,
        _restart_nats,
        _step_down,
        _recreate_consumer,
        _short_ack_wait,
        _cut_nats,
    ),
    "fleet": (_kill_worker, _pause_worker, _kill_producer, _rolling_restart, _kill_at_step),
    "wire": (_wire,),
    "load": (_slow, _failing, _poison, _oversize, _hot),
}
