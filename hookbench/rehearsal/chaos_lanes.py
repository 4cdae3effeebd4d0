"""What makes the faults of each lane of a chaotic timeline, ``None`` where one could not fire."""

import random

from hookbench.brokers.topology import has_nats_cluster, has_redis_replica
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
from hookbench.rehearsal.chaos_moment import WITHIN_S, Maker, Moment
from hookbench.rehearsal.chaos_wire import WIRE_MAKERS

__all__ = ["LANES"]

_STEPS = ("receive", "start", "effect", "done", "ack")
_CLAIMED_STEPS = (*_STEPS, "claim")
_RESTART_S = 6.0
"""A worker on a busy machine ends in order, and another is in its phase, within it."""


def _kill_redis(_rng: random.Random, now: Moment) -> AnyFault | None:
    if not now.redis_used:
        return None
    return Kill(target="redis_master", at_s=now.at_s, for_s=now.for_s)


def _pause_redis(_rng: random.Random, now: Moment) -> AnyFault | None:
    if not now.redis_used:
        return None
    return Pause(target="redis_master", at_s=now.at_s, for_s=now.for_s)


def _restart_redis(_rng: random.Random, now: Moment) -> AnyFault | None:
    return Restart(target="redis_master", at_s=now.at_s, for_s=now.for_s)


def _full_redis(_rng: random.Random, now: Moment) -> AnyFault | None:
    if not now.writes_redis:
        return None
    return MaxMemory(target="redis", at_s=now.at_s, for_s=now.for_s, headroom_bytes=0)


def _promote(rng: random.Random, now: Moment) -> AnyFault | None:
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


def _cut_redis(rng: random.Random, now: Moment) -> AnyFault | None:
    if now.settings.topology != "single" or not now.redis_used:
        return None
    return _power_cut("redis", rng, now)


def _cut_nats(rng: random.Random, now: Moment) -> AnyFault | None:
    if now.settings.topology != "single" or not now.nats_used:
        return None
    return _power_cut("nats", rng, now)


def _power_cut(broker: str, rng: random.Random, now: Moment) -> AnyFault | None:
    if now.at_s < 1.0:  # what is rolled back has to be of this phase
        return None
    rollback_s = round(rng.uniform(0.2, 1.0), 2)
    return PowerCut(
        target=broker, at_s=now.at_s, for_s=now.for_s, rollback_s=rollback_s, count_syncs=False
    )


def _cut_off_replica(_rng: random.Random, now: Moment) -> AnyFault | None:
    if not (has_redis_replica(now.settings.topology) and now.redis_used):
        return None
    return Partition(target="redis_replica", at_s=now.at_s, for_s=now.for_s)


def _cut_off_nats(rng: random.Random, now: Moment) -> AnyFault | None:
    if not (has_nats_cluster(now.settings.topology) and now.nats_used):
        return None
    node = rng.choice(("nats-1", "nats-2", "nats-3"))
    return Partition(target=node, at_s=now.at_s, for_s=now.for_s)


def _kill_nats(rng: random.Random, now: Moment) -> AnyFault | None:
    target = _nats_node(rng, now)
    return None if target is None else Kill(target=target, at_s=now.at_s, for_s=now.for_s)


def _pause_nats(rng: random.Random, now: Moment) -> AnyFault | None:
    target = _nats_node(rng, now)
    return None if target is None else Pause(target=target, at_s=now.at_s, for_s=now.for_s)


def _restart_nats(rng: random.Random, now: Moment) -> AnyFault | None:
    target = _nats_node(rng, now)
    return None if target is None else Restart(target=target, at_s=now.at_s, for_s=now.for_s)


def _nats_node(rng: random.Random, now: Moment) -> str | None:
    if not now.nats_used:
        return None
    if not has_nats_cluster(now.settings.topology):
        return "nats"
    return rng.choice(("nats-1", "nats-2", "nats-3", "meta_leader"))


def _step_down(_rng: random.Random, now: Moment) -> AnyFault | None:
    if not (has_nats_cluster(now.settings.topology) and now.nats_used):
        return None
    return StepDown(target="nats", at_s=now.at_s)


def _recreate_consumer(_rng: random.Random, now: Moment) -> AnyFault | None:
    return RecreateConsumer(target="nats", at_s=now.at_s) if now.consumed else None


def _short_ack_wait(_rng: random.Random, now: Moment) -> AnyFault | None:
    if not now.consumed:
        return None
    return ConsumerLimits(target="nats", at_s=now.at_s, for_s=now.for_s, ack_wait_s=1.0)


def _delete_consumer(_rng: random.Random, now: Moment) -> AnyFault | None:
    return DeleteConsumer(target="nats", at_s=now.at_s, for_s=now.for_s) if now.consumed else None


def _short_window(_rng: random.Random, now: Moment) -> AnyFault | None:
    """The stream forgets soon which ids it has; nothing that it holds goes."""
    if not now.published:
        return None
    return StreamLimits(target="nats", at_s=now.at_s, for_s=now.for_s, duplicate_window_s=0.5)


def _kill_worker(rng: random.Random, now: Moment) -> AnyFault | None:
    return Kill(target=_worker(rng, now), at_s=now.at_s)


def _pause_worker(rng: random.Random, now: Moment) -> AnyFault | None:
    return Pause(target=_worker(rng, now), at_s=now.at_s, for_s=now.for_s)


def _kill_producer(rng: random.Random, now: Moment) -> AnyFault | None:
    return Kill(target=f"producer-{rng.randrange(now.settings.producers)}", at_s=now.at_s)


def _rolling_restart(_rng: random.Random, now: Moment) -> AnyFault | None:
    if now.rest_s < _RESTART_S * now.settings.workers:
        return None
    return RollingRestart(target="workers", at_s=now.at_s)


def _kill_at_step(rng: random.Random, now: Moment) -> AnyFault | None:
    claims = now.settings.effective_measures.done_store
    step, nth = rng.choice(_CLAIMED_STEPS if claims else _STEPS), rng.randint(1, 20)
    return KillAtStep(
        target=_worker(rng, now), at_s=now.at_s, step=step, nth=nth, within_s=WITHIN_S
    )


def _worker(rng: random.Random, now: Moment) -> str:
    return f"worker-{rng.randrange(now.settings.workers)}"


def _slow(rng: random.Random, now: Moment) -> AnyFault | None:
    service_ms = float(rng.randint(20, 200))
    return SlowHandler(
        target="workers",
        at_s=now.at_s,
        for_s=now.for_s,
        service_ms=service_ms,
        within_s=WITHIN_S,
    )


def _failing(rng: random.Random, now: Moment) -> AnyFault | None:
    return FailingHandler(
        target="workers",
        at_s=now.at_s,
        for_s=now.for_s,
        probability=round(rng.uniform(0.05, 0.3), 2),
        within_s=WITHIN_S,
        seed=rng.getrandbits(31),
    )


def _poison(rng: random.Random, now: Moment) -> AnyFault | None:
    target = "nats" if now.reads_nats else "redis"
    count, seed = rng.randint(1, 20), rng.getrandbits(31)
    return Poison(target=target, at_s=now.at_s, count=count, seed=seed)


def _equal(rng: random.Random, now: Moment) -> AnyFault | None:
    target = "nats" if now.reads_nats else "redis"
    return EqualPayloads(target=target, at_s=now.at_s, count=rng.randint(2, 5))


def _oversize(_rng: random.Random, now: Moment) -> AnyFault | None:
    return Oversize(target="producers", at_s=now.at_s, for_s=now.for_s, within_s=WITHIN_S)


def _hot(rng: random.Random, now: Moment) -> AnyFault | None:
    seed = rng.getrandbits(31)
    return HotRepository(
        target="producers", at_s=now.at_s, for_s=now.for_s, seed=seed, within_s=WITHIN_S
    )


LANES: dict[str, tuple[Maker, ...]] = {
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
        # Beside a broker that is away it would be put back late, over the next one.
        _short_window,
        _short_window,
    ),
    "consumers": (_recreate_consumer, _delete_consumer, _short_ack_wait),
    "fleet": (_kill_worker, _pause_worker, _kill_producer, _rolling_restart, _kill_at_step),
    "wire": WIRE_MAKERS,
    "handlers": (_slow, _failing),
    "load": (_poison, _equal, _oversize, _hot),
}
