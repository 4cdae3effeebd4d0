"""A random schedule of faults that follows from the seed alone.

Every fault of it can fire: it is aimed at what exists in the topology, at a broker that the phase
uses and at a link with traffic, and it is healed while the load still runs. What it does to the
tasks is left to the design. Times count from the beginning of the change into a phase, so faults
meet the procedures between the phases as well.
"""

import functools
import random
from collections.abc import Callable, Collection, Sequence

import msgspec

from hookbench.brokers.topology import has_nats_cluster, has_redis_replica
from hookbench.errors import SettingError
from hookbench.faults.consumer_gone import DeleteConsumer, RecreateConsumer
from hookbench.faults.consumer_limits import ConsumerLimits
from hookbench.faults.equal_payloads import EqualPayloads
from hookbench.faults.failing_handler import FailingHandler
from hookbench.faults.hot_repository import HotRepository
from hookbench.faults.maxmemory import MaxMemory
from hookbench.faults.oversize import Oversize
from hookbench.faults.partition import Partition
from hookbench.faults.poison import Poison
from hookbench.faults.power_cut import PowerCut
from hookbench.faults.process import Kill, Pause, Restart
from hookbench.faults.promote import Promote
from hookbench.faults.registry import AnyFault
from hookbench.faults.rolling import RollingRestart
from hookbench.faults.slow_handler import SlowHandler
from hookbench.faults.step import KillAtStep
from hookbench.faults.step_down import StepDown
from hookbench.faults.stream_limits import StreamLimits
from hookbench.faults.wire_fault import Wire
from hookbench.migration.phases import Phase, ReadRoute, WriteRoute, read_route, write_route
from hookbench.rehearsal.settings import RehearsalSettings

__all__ = ["MIN_PHASE_SECONDS", "chaos_schedule", "chaos_settings"]

MIN_PHASE_SECONDS = 2.0
_MIN_SECONDS = 10.0
_FIRST_S = 2.0
_LAST_S = 4.0
"""So long before the end of the load nothing begins: what waits for a frame has time to meet it."""
_CALM_S = 1.2
"""Between two faults of one lane: a broker that was killed is back, and its clients too."""
_MEAN_GAP_S = 1.0
_MAX_FOR_S = 2.0
_ENTERED_S = 2.0
"""So long after its beginning every worker is in a phase; with a procedure nobody knows."""
_STEPS = ("receive", "start", "effect", "done", "ack")
_CLAIMED_STEPS = (*_STEPS, "claim")
_WITHIN_S = 60.0
"""What waits for a frame or a step may wait for the end of a procedure as well."""
_LINK_BYTES_PER_S = 100_000.0
_FRAME_BYTES_PER_S = 2_000.0
_MAX_FAULTS = 1_000


class _Moment(msgspec.Struct, frozen=True):
    """When a fault begins, and what is there then.

    Attributes:
        at_s: from the beginning of the change into the phase.
        for_s: how long it lasts, if it does.
        phase_index: the place of the phase in the timeline.
        left_s: until the phase ends, at the earliest.
        before: the phases that everybody has entered before.
    """

    at_s: float
    for_s: float
    phase_index: int
    left_s: float
    before: tuple[Phase, ...]
    settings: RehearsalSettings

    @property
    def consumed(self) -> bool:
        """Whether workers have read NATS, so that there is a consumer."""
        return any(read_route(phase) is not ReadRoute.REDIS for phase in self.before)

    @property
    def published(self) -> bool:
        """Whether producers have written to NATS, so that there is a stream."""
        return any(write_route(phase) is not WriteRoute.REDIS for phase in self.before)

    @property
    def phase(self) -> Phase:
        """Into which the change is."""
        return self.settings.phases[self.phase_index]

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
    def claims_on_redis(self) -> bool:
        """Whether workers ask Redis for each task, whichever broker it came from."""
        return self.settings.effective_measures.done_store and self.phase is not Phase.NATS_ONLY

    @property
    def redis_used(self) -> bool:
        """Whether anybody uses Redis."""
        return self.writes_redis or self.reads_redis or self.claims_on_redis

    @property
    def nats_used(self) -> bool:
        """Whether anybody uses NATS."""
        return self.writes_nats or self.reads_nats


_Maker = Callable[[random.Random, _Moment], AnyFault | None]
"""A fault for a moment, ``None`` where it could not fire."""


def chaos_settings(
    settings: RehearsalSettings, *, without: Collection[str] = ()
) -> RehearsalSettings:
    """The same rehearsal with the faults of its seed, under load until all of them are over.

    Raises:
        SettingError: see ``chaos_schedule``.
    """
    gates = settings.effective_measures.gates
    settings = msgspec.structs.replace(settings, load_until_end=gates)
    return msgspec.structs.replace(settings, faults=chaos_schedule(settings, without=without))


def chaos_schedule(
    settings: RehearsalSettings, *, without: Collection[str] = ()
) -> tuple[AnyFault, ...]:
    """The faults of a seed, in the order of their times.

    Several lanes run side by side (Redis, NATS, its consumers, the fleet, the wire, the load), so
    faults of different lanes overlap, and those of one do not.

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
    seconds = settings.phase_seconds * len(settings.phases)
    if seconds < _MIN_SECONDS or settings.phase_seconds < MIN_PHASE_SECONDS:
        raise SettingError(
            f"chaos: a timeline of {seconds:g} s in phases of {settings.phase_seconds:g} s: use"
            f" {_MIN_SECONDS:g} s or more, in phases of {MIN_PHASE_SECONDS:g} s or more"
        )
    faults: list[AnyFault] = []
    for name, makers in _LANES.items():
        rng = random.Random(f"chaos:{settings.seed}:{name}")
        faults += _lane(rng, makers, settings)
    faults.sort(key=lambda fault: (fault.phase_index or 0, fault.at_s))
    for fault in faults:
        fault.check()
    return tuple(fault for fault in faults if fault.__struct_config__.tag not in without)


class _Deck:
    """The makers of a lane in random order, each once before any comes again if it can."""

    def __init__(self, rng: random.Random, makers: Sequence[_Maker]) -> None:
        self._rng = rng
        self._makers = makers
        self._left: list[_Maker] = []

    def draw(self, now: _Moment) -> AnyFault | None:
        """A fault of the first maker that has one for this moment."""
        for _ in range(2):
            for maker in self._left:
                fault = maker(self._rng, now)
                if fault is not None:
                    self._left.remove(maker)
                    return fault
            again = list(self._makers)
            for maker in self._left:
                again.remove(maker)
            self._rng.shuffle(again)
            self._left += again
        return None


def _lane(
    rng: random.Random, makers: tuple[_Maker, ...], settings: RehearsalSettings
) -> list[AnyFault]:
    faults: list[AnyFault] = []
    deck = _Deck(rng, makers)
    phase_index, at_s = 0, _FIRST_S
    for _ in range(_MAX_FAULTS):
        at_s = round(at_s + rng.expovariate(1 / _MEAN_GAP_S), 2)
        for_s = round(rng.uniform(0.3, _MAX_FOR_S), 2)
        while at_s >= settings.phase_seconds:  # a phase lasts as long, or longer
            phase_index, at_s = phase_index + 1, round(at_s - settings.phase_seconds, 2)
        left_s = settings.phase_seconds * (len(settings.phases) - phase_index) - at_s
        if left_s < for_s + _LAST_S:
            break
        fault = deck.draw(_moment(phase_index, at_s, for_s, settings))
        if fault is None:
            continue
        faults.append(msgspec.structs.replace(fault, phase_index=phase_index))
        at_s += fault.for_s + _CALM_S
    return faults


def _moment(phase_index: int, at_s: float, for_s: float, settings: RehearsalSettings) -> _Moment:
    entered = at_s > _ENTERED_S and not settings.effective_measures.gates
    return _Moment(
        at_s=at_s,
        for_s=for_s,
        phase_index=phase_index,
        left_s=settings.phase_seconds - at_s,
        before=settings.phases[: phase_index + entered],
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
    pause_s = min(now.at_s, round(rng.uniform(0.0, 1.0), 2))
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


def _power_cut(broker: str, rng: random.Random, now: _Moment) -> AnyFault | None:
    if now.at_s < 1.0:  # what is rolled back has to be of this phase
        return None
    rollback_s = round(rng.uniform(0.2, 1.0), 2)
    return PowerCut(
        target=broker, at_s=now.at_s, for_s=now.for_s, rollback_s=rollback_s, count_syncs=False
    )


def _cut_off_replica(_rng: random.Random, now: _Moment) -> AnyFault | None:
    if not (has_redis_replica(now.settings.topology) and now.redis_used):
        return None
    return Partition(target="redis_replica", at_s=now.at_s, for_s=now.for_s)


def _cut_off_nats(rng: random.Random, now: _Moment) -> AnyFault | None:
    if not (has_nats_cluster(now.settings.topology) and now.nats_used):
        return None
    node = rng.choice(("nats-1", "nats-2", "nats-3"))
    return Partition(target=node, at_s=now.at_s, for_s=now.for_s)


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


def _delete_consumer(_rng: random.Random, now: _Moment) -> AnyFault | None:
    return DeleteConsumer(target="nats", at_s=now.at_s, for_s=now.for_s) if now.consumed else None


def _short_window(_rng: random.Random, now: _Moment) -> AnyFault | None:
    """The stream forgets soon which ids it has; nothing that it holds goes."""
    if not now.published:
        return None
    return StreamLimits(target="nats", at_s=now.at_s, for_s=now.for_s, duplicate_window_s=0.5)


def _kill_worker(rng: random.Random, now: _Moment) -> AnyFault | None:
    return Kill(target=_worker(rng, now), at_s=now.at_s)


def _pause_worker(rng: random.Random, now: _Moment) -> AnyFault | None:
    return Pause(target=_worker(rng, now), at_s=now.at_s, for_s=now.for_s)


def _kill_producer(rng: random.Random, now: _Moment) -> AnyFault | None:
    return Kill(target=f"producer-{rng.randrange(now.settings.producers)}", at_s=now.at_s)


def _rolling_restart(_rng: random.Random, now: _Moment) -> AnyFault | None:
    return RollingRestart(target="workers", at_s=now.at_s)


def _kill_at_step(rng: random.Random, now: _Moment) -> AnyFault | None:
    claims = now.settings.effective_measures.done_store
    step, nth = rng.choice(_CLAIMED_STEPS if claims else _STEPS), rng.randint(1, 20)
    return KillAtStep(
        target=_worker(rng, now), at_s=now.at_s, step=step, nth=nth, within_s=_WITHIN_S
    )


def _worker(rng: random.Random, now: _Moment) -> str:
    return f"worker-{rng.randrange(now.settings.workers)}"


def _wire(action: str, rng: random.Random, now: _Moment) -> AnyFault | None:
    if now.settings.topology != "single":
        return None
    links = [name for name, frames in _frames(now).items() if frames]
    link = rng.choice(links)
    wire = Wire(target=link, at_s=now.at_s, for_s=now.for_s, action=action)
    if action == "latency":
        seed = rng.getrandbits(31)
        return msgspec.structs.replace(wire, delay_ms=20.0, jitter_ms=20.0, seed=seed)
    if action == "bandwidth":
        return msgspec.structs.replace(wire, bytes_per_s=_LINK_BYTES_PER_S)
    if action == "partition":
        return msgspec.structs.replace(wire, refuse=bool(rng.getrandbits(1)))
    return _on_a_frame(wire, rng, now)


def _on_a_frame(wire: Wire, rng: random.Random, now: _Moment) -> AnyFault | None:
    action, link = wire.action, wire.target
    if now.left_s < now.for_s + 1.0:  # the frame may not come in the next phase
        return None
    direction, command = rng.choice(_frames(now)[link])
    if direction == "reply" and action == "duplicate":
        return None  # no network does that to a client
    if direction == "request" and action == "drop" and link.endswith("redis"):
        return None  # a client with more requests on the way would be out of step
    return msgspec.structs.replace(
        wire,
        direction=direction,
        command=command,
        nth=rng.randint(1, 10),
        within_s=_WITHIN_S,
        delay_ms=200.0 if action == "delay" else 0.0,
        bytes_per_s=_FRAME_BYTES_PER_S if action == "trickle" else 0.0,
    )


def _both_ways(*commands: str) -> tuple[tuple[str, str], ...]:
    return tuple((way, command) for command in commands for way in ("request", "reply"))


def _frames(now: _Moment) -> dict[str, tuple[tuple[str, str], ...]]:
    """What each link carries all the time while the phase lasts; nothing on one that is not used.

    With leases, or claims at maxmemory, tasks are read by a script, and BLMOVE waits at most. With
    a done-store a script is asked for each task. With ids, publishes have headers.
    """
    measures = now.settings.effective_measures
    scripts = measures.leases or measures.oom_claims
    ids = measures.outbox or measures.message_ids
    redis: tuple[tuple[str, str], ...] = ()
    if now.reads_redis:
        redis += (("reply", "EVALSHA" if scripts else "BLMOVE"), *_both_ways("LREM"))
    if now.claims_on_redis:
        redis += _both_ways("EVALSHA")
    return {
        "producers-redis": _both_ways("LPUSH") if now.writes_redis else (),
        "producers-nats": (
            (("request", "HPUB" if ids else "PUB"), ("reply", "PubAck")) if now.writes_nats else ()
        ),
        "workers-redis": redis,
        "workers-nats": (("request", "Ack"), ("request", "Fetch")) if now.reads_nats else (),
    }


_ACTIONS = (
    "latency",
    "bandwidth",
    "partition",
    "drop",
    "delay",
    "duplicate",
    "reset",
    "half_open",
    "trickle",
    "cut",
)


def _slow(rng: random.Random, now: _Moment) -> AnyFault | None:
    service_ms = float(rng.randint(20, 200))
    return SlowHandler(
        target="workers",
        at_s=now.at_s,
        for_s=now.for_s,
        service_ms=service_ms,
        within_s=_WITHIN_S,
    )


def _failing(rng: random.Random, now: _Moment) -> AnyFault | None:
    return FailingHandler(
        target="workers",
        at_s=now.at_s,
        for_s=now.for_s,
        probability=round(rng.uniform(0.05, 0.3), 2),
        within_s=_WITHIN_S,
        seed=rng.getrandbits(31),
    )


def _poison(rng: random.Random, now: _Moment) -> AnyFault | None:
    target = "nats" if now.reads_nats else "redis"
    count, seed = rng.randint(1, 20), rng.getrandbits(31)
    return Poison(target=target, at_s=now.at_s, count=count, seed=seed)


def _equal(rng: random.Random, now: _Moment) -> AnyFault | None:
    target = "nats" if now.reads_nats else "redis"
    return EqualPayloads(target=target, at_s=now.at_s, count=rng.randint(2, 5))


def _oversize(_rng: random.Random, now: _Moment) -> AnyFault | None:
    return Oversize(target="producers", at_s=now.at_s, for_s=now.for_s, within_s=_WITHIN_S)


def _hot(rng: random.Random, now: _Moment) -> AnyFault | None:
    seed = rng.getrandbits(31)
    return HotRepository(
        target="producers", at_s=now.at_s, for_s=now.for_s, seed=seed, within_s=_WITHIN_S
    )


_LANES: dict[str, tuple[_Maker, ...]] = {
    "redis": (
        _kill_redis,
        _pause_redis,
        _restart_redis,
        _full_redis,
        _full_redis,
        _promote,
        _cut_off_replica,
        _cut_redis,
    ),
    "nats": (
        _kill_nats,
        _pause_nats,
        _restart_nats,
        _step_down,
        _cut_off_nats,
        _cut_nats,
        _short_window,
    ),
    "consumers": (_recreate_consumer, _delete_consumer, _short_ack_wait),
    "fleet": (_kill_worker, _pause_worker, _kill_producer, _rolling_restart, _kill_at_step),
    "wire": tuple(functools.partial(_wire, action) for action in _ACTIONS),
    "load": (_slow, _failing, _poison, _equal, _oversize, _hot),
}
