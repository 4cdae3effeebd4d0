"""Conditions that a gate on live brokers has beyond those of a rehearsal, which makes its own."""

from hookbench.migration.checks import (
    Answer,
    Check,
    Condition,
    GateBounds,
    Moment,
    Move,
    go_if,
    make_check,
    silent,
)
from hookbench.migration.phases import Phase, ReadRoute, read_route
from hookbench.migration.snapshot import Snapshot

__all__ = ["conditions_beyond"]

_HEADERS_BYTES = 512
"""What the client sends beside a task, at most: it counts for the server's limit."""


def conditions_beyond(move: Move) -> tuple[Condition, ...]:
    """Those that are asked before a transition; none of a rollback, which leads to Redis."""
    if move.moment is not Moment.BEFORE or move.target < move.source:
        return ()
    if read_route(move.target) is ReadRoute.REDIS:
        return (payloads_fit,)
    found = (payloads_fit, consumers_have_room)
    return (*found, all_have_records) if move.target is Phase.DUAL_READ else found


def payloads_fit(snapshot: Snapshot, _move: Move, _bounds: GateBounds) -> Check:
    """What lies in Redis would be taken by NATS (hazard S1)."""
    name = "payload size"
    if snapshot.redis is None or snapshot.nats is None:
        return make_check(name, Answer.UNKNOWN, silent(snapshot, "redis", "nats"))
    most = snapshot.nats.max_payload_bytes - _HEADERS_BYTES
    largest = snapshot.redis.largest_bytes
    told = f"the largest task in Redis has {largest} bytes, NATS takes {most} beside headers"
    ids = [snapshot.redis.largest] if snapshot.redis.largest and largest > most else []
    return make_check(name, go_if(largest <= most), told, ids)


def consumers_have_room(snapshot: Snapshot, _move: Move, _bounds: GateBounds) -> Check:
    """No consumer waits for as many acknowledgements as it allows (hazard N5)."""
    name = "consumer room"
    if snapshot.nats is None:
        return make_check(name, Answer.UNKNOWN, silent(snapshot, "nats"))
    full = [
        f"{item.name} waits for {item.ack_pending} of {item.max_ack_pending}"
        for item in snapshot.nats.consumers
        if 0 < item.max_ack_pending <= item.ack_pending
    ]
    count = len(snapshot.nats.consumers)
    phase = Phase.NATS_PRIMARY.label
    told = "; ".join(full) or f"{count} consumers have room, as {phase} needs"
    return make_check(name, go_if(not full), told)


def all_have_records(snapshot: Snapshot, _move: Move, bounds: GateBounds) -> Check:
    """What NATS would deliver and Redis has not is known to have ended (hazard P5).

    A rehearsal keeps records from the beginning. Where they were switched on later, what was done
    before has none, and looks like what Redis has lost.
    """
    name = "tasks without a record"
    if why := silent(snapshot, "redis", "nats"):
        return make_check(name, Answer.UNKNOWN, why)
    assert snapshot.redis is not None and snapshot.nats is not None  # noqa: PT018
    if snapshot.ended is None:
        return make_check(name, Answer.GO, "no done-store is asked: see the watermark")
    if snapshot.redis.sampled or snapshot.nats.sampled:
        return make_check(name, Answer.GO, "not looked for")
    nats = snapshot.nats
    alone = {
        item
        for item in snapshot.settled(snapshot.open(nats.ids - snapshot.redis.ids), bounds.settle_s)
        if not nats.acknowledged(item) and not nats.handed_out(item)
    }
    told = f"{len(alone)} tasks of the stream are in no list of Redis and not known to have ended"
    return make_check(name, Answer.UNKNOWN if alone else Answer.GO, told, alone)
