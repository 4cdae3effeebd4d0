"""Conditions on the tasks: where they lie, which of them are open, and who will find them."""

import uuid

from hookbench.ids import uuid7_wall_ms
from hookbench.migration.checks import (
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
from hookbench.migration.snapshot import NEVER, Snapshot

__all__ = [
    "ids_reconciled",
    "nats_is_drained",
    "no_backlog",
    "no_stale_copies",
    "nobody_publishes",
    "none_forgotten",
    "oldest_is_young",
    "redis_is_empty",
    "watermark_known",
]

_MS_PER_S = 1000
_NO_STORE = "no done-store says which of them are done"


def no_backlog(snapshot: Snapshot, move: Move, _bounds: GateBounds) -> Check:
    """Nothing is left in Redis for which nobody will come (hazards P6, R3, C1).

    Before ``dual_read`` workers may say that they will: ``read_both`` for the backlog, and
    ``leases`` for what a worker that died has left in its work list.
    """
    name = "backlog and orphans"
    if snapshot.redis is None or not snapshot.redis.whole:
        return make_check(name, Answer.UNKNOWN, silent(snapshot, "redis"))
    pending = snapshot.open(snapshot.redis.pending)
    work = snapshot.open(snapshot.redis.work)
    told = f"{len(pending)} tasks pending and {len(work)} in work lists"
    if snapshot.redis.junk:
        told += f", {snapshot.redis.junk} entries that are no task"
    left: set[uuid.UUID] = set()
    entering = move.target is Phase.DUAL_READ
    if not (entering and snapshot.every_worker_has("read_both")):
        left |= pending
    if not (entering and snapshot.every_worker_has("leases")):
        left |= work
    if entering and not left and (pending or work):
        told += ", which every worker reads on"
    junk = 0 if entering else snapshot.redis.junk
    return make_check(name, go_if(not left and not junk), told, left)


def redis_is_empty(snapshot: Snapshot, _move: Move, _bounds: GateBounds) -> Check:
    """Every Redis structure is empty before Redis goes: lists, work lists, letters (hazard C1)."""
    name = "redis is empty"
    if snapshot.redis is None or not snapshot.redis.whole:
        return make_check(name, Answer.UNKNOWN, silent(snapshot, "redis"))
    view = snapshot.redis
    told = (
        f"{len(view.pending)} tasks pending, {len(view.work)} in work lists, {view.junk} entries"
        f" that are no task, {view.letters} dead letters"
    )
    empty = not (view.ids or view.junk or view.letters)
    return make_check(name, go_if(empty), told, view.ids)


def oldest_is_young(snapshot: Snapshot, _move: Move, bounds: GateBounds) -> Check:
    """Somebody works on the queue, and nothing is about to be aged out (hazard P7)."""
    name = "oldest age"
    if why := silent(snapshot, "redis", "nats"):
        return make_check(name, Answer.UNKNOWN, why)
    assert snapshot.redis is not None and snapshot.nats is not None  # noqa: PT018
    bound_s = bounds.oldest_s
    if snapshot.nats.max_age_s > 0:
        bound_s = min(bound_s, snapshot.nats.max_age_s * bounds.age_share)
    in_redis = snapshot.redis.ids
    waiting = {
        item
        for item in in_redis | snapshot.nats.ids
        if uuid7_wall_ms(item) is not None and _waits(snapshot, item, in_redis)
    }
    if not waiting:
        return make_check(name, Answer.GO, "no task waits")
    oldest = min(waiting, key=lambda item: uuid7_wall_ms(item) or 0)
    age_s = (snapshot.wall_ms - (uuid7_wall_ms(oldest) or 0)) / _MS_PER_S
    told = f"the oldest of {len(waiting)} waiting tasks is {age_s:.0f} s old, of {bound_s:.0f} s"
    return make_check(name, go_if(age_s <= bound_s), told, [oldest] if age_s > bound_s else [])


def _waits(snapshot: Snapshot, task_id: uuid.UUID, in_redis: frozenset[uuid.UUID]) -> bool:
    """Whether a task is still to be done, as far as the brokers and the done-store tell."""
    assert snapshot.nats is not None
    if not snapshot.open([task_id]):
        return False
    if snapshot.nats.acknowledged(task_id):
        return False
    # In the stream alone, without a done-store only a consumer tells what is left.
    return bool(snapshot.nats.consumers) or task_id in in_redis


def ids_reconciled(snapshot: Snapshot, move: Move, bounds: GateBounds) -> Check:
    """What one broker has to do the other one has as well (hazards P1, P2, P3, P9).

    Forward it is Redis that must hold nothing alone, back it is NATS. What is younger than
    ``settle_s`` may be on its way. Once nobody writes to NATS any more nothing may be: what the
    stream has alone then is left, so it is waited for until it is old enough to be moved.
    """
    name = "ids reconciled"
    if why := silent(snapshot, "redis", "nats"):
        return make_check(name, Answer.UNKNOWN, why)
    assert snapshot.redis is not None and snapshot.nats is not None  # noqa: PT018
    redis, nats = snapshot.redis.ids, snapshot.nats.ids
    only_redis = snapshot.settled(snapshot.open(redis - nats), bounds.settle_s)
    only_nats = snapshot.settled(snapshot.open(nats - redis), bounds.settle_s)
    told = (
        f"{len(snapshot.open(redis))} tasks open in Redis, {len(only_redis)} of them not in the"
        f" stream; {len(only_nats)} in the stream alone"
    )
    if move.target > move.source:
        if only_redis and snapshot.every_worker_has("read_both"):
            return make_check(
                name, Answer.GO, f"{told}; every worker reads Redis as well", only_redis
            )
        return make_check(name, go_if(not only_redis), told, only_redis)
    if move.target is Phase.REDIS_ONLY and move.moment is Moment.AFTER:
        young = snapshot.open(nats - redis) - only_nats
        told += f", and {len(young)} that are younger than {bounds.settle_s:g} s"
        only_nats |= young
    if only_nats and snapshot.ended is None:
        return make_check(name, Answer.UNKNOWN, f"{told}: {_NO_STORE}", only_nats)
    return make_check(name, go_if(not only_nats), told, only_nats)


def watermark_known(snapshot: Snapshot, _move: Move, _bounds: GateBounds) -> Check:
    """What Redis has done is not delivered again by NATS (hazards P5, B1)."""
    name = "watermark"
    if why := silent(snapshot, "redis", "nats"):
        return make_check(name, Answer.UNKNOWN, why)
    assert snapshot.redis is not None and snapshot.nats is not None  # noqa: PT018
    nats = snapshot.nats
    begun = max((consumer.delivered for consumer in nats.consumers), default=0)
    ahead = {item for item, sequence in nats.sequences.items() if sequence > begun}
    told = f"{len(nats.sequences)} tasks in the stream, {len(ahead)} beyond its consumers"
    if not ahead:
        return make_check(name, Answer.GO, told)
    if snapshot.ended is None:
        gone = ahead - snapshot.redis.ids
        if not gone:
            return make_check(name, Answer.GO, f"{told}, all of them still in Redis")
        return make_check(
            name, Answer.UNKNOWN, f"{told}, {len(gone)} of them not in Redis: {_NO_STORE}", gone
        )
    done = ahead & snapshot.ended
    open_sequences = [nats.sequences[item] for item in ahead - done]
    watermark = min(open_sequences, default=nats.last_sequence + 1)
    told += f", {len(done)} of them done; the first open one is {watermark}"
    for measure in ("epoch_consumer", "done_store"):
        if snapshot.every_worker_has(measure):
            return make_check(name, Answer.GO, f"{told}; every worker has {measure}")
    return make_check(name, go_if(not done), told, done)


def no_stale_copies(snapshot: Snapshot, _move: Move, _bounds: GateBounds) -> Check:
    """Redis holds no copy of what NATS has done, or every worker filters them (hazard B2)."""
    name = "copies of finished tasks"
    if why := silent(snapshot, "redis", "nats"):
        return make_check(name, Answer.UNKNOWN, why)
    assert snapshot.redis is not None and snapshot.nats is not None  # noqa: PT018
    redis, nats = snapshot.redis, snapshot.nats
    copies = {item for item in redis.ids if not snapshot.open([item]) or nats.acknowledged(item)}
    told = f"{len(copies)} of {len(redis.ids)} tasks in Redis are finished"
    if snapshot.every_worker_has("done_store"):
        return make_check(name, Answer.GO, f"{told}; every worker asks the done-store", copies)
    if copies:
        return make_check(name, Answer.NO_GO, told, copies)
    handed_out = {item for item in snapshot.open(redis.ids) if nats.handed_out(item)}
    if handed_out:
        told += f", of {len(handed_out)} NATS waits for the acknowledgement"
        return make_check(name, Answer.UNKNOWN, told, handed_out)
    return make_check(name, Answer.GO, told)


def nats_is_drained(snapshot: Snapshot, _move: Move, _bounds: GateBounds) -> Check:
    """Nothing is left that only a reader of NATS would find (hazard B3).

    Of a type without a consumer that is all that the stream holds, or, where a done-store tells
    what has ended, nothing: see ``none_forgotten``. Where it does, a consumer may also have
    pending what all of has ended or is in Redis, as one that was made anew has.
    """
    name = "nats drained"
    if snapshot.nats is None:
        return make_check(name, Answer.UNKNOWN, silent(snapshot, "nats"))
    nats = snapshot.nats
    pending = sum(consumer.pending for consumer in nats.consumers)
    unacked = sum(consumer.ack_pending for consumer in nats.consumers)
    covered = {consumer.task_type for consumer in nats.consumers}
    alone: dict[str, int] = {}
    if "" not in covered and snapshot.ended is None:
        alone = {kind: count for kind, count in nats.types.items() if kind not in covered}
    told = f"{pending} pending, {unacked} not acknowledged"
    if alone:
        told += ", without a consumer: " + ", ".join(f"{n} of {kind}" for kind, n in alone.items())
    waiting: set[uuid.UUID] = set()
    known = pending and nats.whole and snapshot.ended is not None and snapshot.redis is not None
    if known and snapshot.redis is not None:
        waiting = snapshot.open(nats.ids - snapshot.redis.ids)
        told += f", {len(waiting)} tasks of the stream neither in Redis nor ended"
        pending = len(waiting)
    return make_check(name, go_if(not (pending or unacked or alone)), told, waiting)


def none_forgotten(snapshot: Snapshot, _move: Move, _bounds: GateBounds) -> Check:
    """The stream alone holds nothing that nobody has ended, whatever its consumers say (hazard B3).

    A consumer that was deleted, or made anew, has forgotten what it had handed out.
    """
    name = "forgotten tasks"
    if why := silent(snapshot, "redis", "nats"):
        return make_check(name, Answer.UNKNOWN, why)
    if snapshot.ended is None:
        return make_check(name, Answer.GO, f"the consumers alone tell: {_NO_STORE}")
    assert snapshot.redis is not None and snapshot.nats is not None  # noqa: PT018
    alone = snapshot.open(snapshot.nats.ids - snapshot.redis.ids)
    told = f"{len(alone)} tasks of the stream are neither in Redis nor ended"
    return make_check(name, go_if(not alone), told, alone)


def nobody_publishes(snapshot: Snapshot, _move: Move, _bounds: GateBounds) -> Check:
    """No producer that was forgotten still writes to NATS (hazard B3)."""
    name = "late publishes"
    if snapshot.nats is None:
        return make_check(name, Answer.UNKNOWN, silent(snapshot, "nats"))
    if snapshot.earlier_sequence == NEVER:
        return make_check(name, Answer.UNKNOWN, "nobody looked before: ask twice")
    new = snapshot.nats.last_sequence - snapshot.earlier_sequence
    told = f"{new} tasks published since the producers were rerouted"
    return make_check(name, go_if(new <= 0), told)
