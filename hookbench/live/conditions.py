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
    return (payloads_fit, consumers_have_room)


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
