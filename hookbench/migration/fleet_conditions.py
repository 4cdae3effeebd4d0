"""Conditions on the processes and on the brokers as such; what each is for is in its name."""

from collections.abc import Callable

from hookbench.migration.checks import (
    EXAMPLES,
    Answer,
    Check,
    GateBounds,
    Moment,
    Move,
    go_if,
    make_check,
    silent,
)
from hookbench.migration.phases import Phase
from hookbench.migration.snapshot import Announcement, Snapshot

__all__ = [
    "authority_moved",
    "both_answer",
    "few_redeliveries",
    "head_room",
    "homogeneous_fleet",
    "no_drift",
    "no_old_producer",
    "types_have_consumers",
]


def both_answer(snapshot: Snapshot, move: Move, _bounds: GateBounds) -> Check:
    """Every broker that is used before or after is there."""
    needed = ["redis", "nats"]
    if move.target is Phase.NATS_ONLY and move.moment is Moment.AFTER:
        needed = ["nats"]
    missing = [name for name in needed if getattr(snapshot, name) is None]
    if missing:
        why = "; ".join(f"{name}: {snapshot.problems.get(name, 'no answer')}" for name in missing)
        return make_check("brokers answer", Answer.UNKNOWN, why)
    return make_check("brokers answer", Answer.GO, " and ".join(needed))


def no_old_producer(snapshot: Snapshot, move: Move, _bounds: GateBounds) -> Check:
    """No producer writes as in an earlier phase (hazard P1)."""
    return _fleet(snapshot, move, "producer", "no old producer", last=(Moment.AFTER,))


def homogeneous_fleet(snapshot: Snapshot, move: Move, _bounds: GateBounds) -> Check:
    """All workers are of one phase, version and set of measures (hazard P12)."""
    between = move.target is Phase.NATS_PRIMARY and move.source is Phase.DUAL_READ
    last = (Moment.BETWEEN, Moment.AFTER) if between else (Moment.AFTER,)
    return _fleet(snapshot, move, "worker", "homogeneous fleet", last=last)


def _fleet(
    snapshot: Snapshot, move: Move, role: str, name: str, *, last: tuple[Moment, ...]
) -> Check:
    if snapshot.announcements is None:
        return make_check(name, Answer.UNKNOWN, f"no {role} was listened to")
    members = snapshot.of(role)
    if not members:
        return make_check(name, Answer.UNKNOWN, f"no {role} announced itself")
    # Before the move one may have changed already: a procedure that is resumed began it.
    allowed = {move.target} if move.moment in last else {move.source, move.target}
    wrong = [item for item in members if item.phase not in allowed]
    if wrong:
        told = ", ".join(f"{item.name} in {item.phase.label}" for item in wrong[:EXAMPLES])
        wanted = " or ".join(sorted(phase.label for phase in allowed))
        return make_check(
            name, Answer.NO_GO, f"{len(wrong)} of {len(members)} not in {wanted}: {told}"
        )
    for what, value in _UNIFORM.items():
        kinds = sorted({value(item) for item in members})
        if len(kinds) > 1:
            told = "; ".join(
                f"{next(item.name for item in members if value(item) == kind)} {kind}"
                for kind in kinds[:EXAMPLES]
            )
            return make_check(name, Answer.NO_GO, f"{len(kinds)} {what} in {len(members)}: {told}")
    phases = ", ".join(sorted({item.phase.label for item in members}))
    return make_check(name, Answer.GO, f"{len(members)} {role}s, all in {phases}")


_UNIFORM: dict[str, Callable[[Announcement], str]] = {
    "versions": lambda item: item.version,
    "sets of measures": lambda item: item.measures,
}


def few_redeliveries(snapshot: Snapshot, _move: Move, bounds: GateBounds) -> Check:
    """Workers keep up with what they are given (hazards N3 to N6)."""
    name = "redeliveries"
    if snapshot.nats is None:
        return make_check(name, Answer.UNKNOWN, silent(snapshot, "nats"))
    count = sum(consumer.redelivered for consumer in snapshot.nats.consumers)
    told = f"{count} deliveries beyond the first are under way, of at most {bounds.redelivered}"
    return make_check(name, go_if(count <= bounds.redelivered), told)


def no_drift(snapshot: Snapshot, _move: Move, _bounds: GateBounds) -> Check:
    """Stream and consumers are as they are wanted (hazard N8)."""
    name = "configuration"
    if snapshot.nats is None:
        return make_check(name, Answer.UNKNOWN, silent(snapshot, "nats"))
    drift = snapshot.nats.drift
    return make_check(name, go_if(not drift), "; ".join(drift) or "as it is wanted")


def head_room(snapshot: Snapshot, move: Move, bounds: GateBounds) -> Check:
    """Both brokers have room for what will be written to them (hazard R6)."""
    name = "head-room"
    needed = ["redis"] if move.target is Phase.REDIS_ONLY else ["redis", "nats"]
    if missing := [broker for broker in needed if getattr(snapshot, broker) is None]:
        return make_check(name, Answer.UNKNOWN, silent(snapshot, *missing))
    shares: dict[str, float] = {}
    redis, nats = snapshot.redis, snapshot.nats
    assert redis is not None
    if redis.max_bytes > 0:
        shares["Redis memory"] = redis.used_bytes / redis.max_bytes
    if nats is not None and "nats" in needed:
        if nats.max_messages > 0:
            shares["stream tasks"] = nats.messages / nats.max_messages
        if nats.max_bytes > 0:
            shares["stream bytes"] = nats.size_bytes / nats.max_bytes
    if redis.policy.startswith("allkeys"):
        return make_check(
            name, Answer.NO_GO, f"Redis evicts tasks when it is full ({redis.policy})"
        )
    full = {what: share for what, share in shares.items() if share > bounds.used_share}
    told = ", ".join(f"{what} {share:.0%}" for what, share in (full or shares).items())
    bound = f" (at most {bounds.used_share:.0%})" if full else ""
    return make_check(name, go_if(not full), f"{told or 'no limit is set'}{bound}")


def authority_moved(snapshot: Snapshot, move: Move, bounds: GateBounds) -> Check:
    """What is done or claimed is known to the done-store that is to be asked alone.

    Forward that is the one of NATS, before Redis goes; back it is the one of Redis. While every
    worker asks both, a task that has just ended, within the last ``settle_s``, may be known to one
    alone. When nobody asks the other one any more nothing may be missing, nor before the way back.
    """
    name = "authority"
    if snapshot.announcements is None:
        return make_check(name, Answer.UNKNOWN, "no worker was listened to")
    workers = snapshot.of("worker")
    if not workers:
        return make_check(name, Answer.UNKNOWN, "no worker announced itself")
    using = [item for item in workers if item.has("done_store")]
    if not using:
        return make_check(name, Answer.GO, "no worker has a done-store")
    forward = move.target > move.source
    old, new = ("Redis", "NATS") if forward else ("NATS", "Redis")
    if move.moment is not Moment.AFTER and all(item.authority == new.lower() for item in using):
        return make_check(name, Answer.GO, f"{len(using)} workers ask the done-store of {new}")
    if snapshot.unmoved is None:
        why = snapshot.problems.get("records", "nobody compared the records of both brokers")
        return make_check(name, Answer.UNKNOWN, why)
    late = list(snapshot.unmoved)
    if forward and move.moment is not Moment.AFTER:
        late = [task for task, age_s in snapshot.unmoved.items() if age_s > bounds.settle_s]
    told = f"{len(snapshot.unmoved)} records are on {old} and not on {new}"
    if len(late) < len(snapshot.unmoved):
        told += f", {len(late)} of them of tasks that ended more than {bounds.settle_s:g} s ago"
    return make_check(name, go_if(not late), told, late)


def types_have_consumers(snapshot: Snapshot, _move: Move, _bounds: GateBounds) -> Check:
    """Each task type in a queue has a consumer, or a worker that makes one (hazard T1)."""
    name = "task types"
    if snapshot.nats is None or snapshot.redis is None:
        return make_check(name, Answer.UNKNOWN, silent(snapshot, "redis", "nats"))
    known = {consumer.task_type for consumer in snapshot.nats.consumers}
    known |= {item.task_type for item in snapshot.of("worker")}
    seen = set(snapshot.nats.types) | snapshot.redis.types
    orphaned = sorted(seen - known) if "" not in known else []
    told = f"{len(seen)} types seen"
    if orphaned:
        told += f", without a consumer: {', '.join(orphaned)}"
    return make_check(name, go_if(not orphaned), told)
