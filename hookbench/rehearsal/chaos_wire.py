"""Faults of the wire for a moment: on a link that is used, and on a frame that comes."""

import functools
import random

import msgspec

from hookbench.faults.registry import AnyFault
from hookbench.faults.wire_fault import Wire
from hookbench.rehearsal.chaos_moment import WITHIN_S, Maker, Moment

__all__ = ["WIRE_MAKERS"]

_LINK_BYTES_PER_S = 100_000.0
_FRAME_BYTES_PER_S = 2_000.0
_FRAME_S = 6.0
"""A link that another fault has just broken carries its frames again within it."""


def _wire(action: str, rng: random.Random, now: Moment) -> AnyFault | None:
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


def _on_a_frame(wire: Wire, rng: random.Random, now: Moment) -> AnyFault | None:
    action, link = wire.action, wire.target
    direction, command = rng.choice(_frames(now)[link])
    if now.left_s < now.for_s + _FRAME_S and not _comes_later(now, link, (direction, command)):
        return None
    if direction == "reply" and action == "duplicate":
        return None  # no network does that to a client
    if direction == "request" and action == "drop" and link.endswith("redis"):
        return None  # a client with more requests on the way would be out of step
    return msgspec.structs.replace(
        wire,
        direction=direction,
        command=command,
        nth=rng.randint(1, 10),
        within_s=WITHIN_S,
        delay_ms=200.0 if action == "delay" else 0.0,
        bytes_per_s=_FRAME_BYTES_PER_S if action == "trickle" else 0.0,
    )


def _comes_later(now: Moment, link: str, frame: tuple[str, str]) -> bool:
    """Whether the next phase has that frame too; after the last phase none comes."""
    following = now.phase_index + 1
    if following == len(now.settings.phases):
        return False
    return frame in _frames(msgspec.structs.replace(now, phase_index=following))[link]


def _both_ways(*commands: str) -> tuple[tuple[str, str], ...]:
    return tuple((way, command) for command in commands for way in ("request", "reply"))


def _frames(now: Moment) -> dict[str, tuple[tuple[str, str], ...]]:
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
    nats: tuple[tuple[str, str], ...] = ()
    if now.reads_nats:
        nats += (("request", "Ack"), ("request", "Fetch"))
    if now.claims_on_nats:  # a claim and an end are publishes with a header
        nats += (("request", "HPUB"), ("reply", "PubAck"))
    return {
        "producers-redis": _both_ways("LPUSH") if now.writes_redis else (),
        "producers-nats": (
            (("request", "HPUB" if ids else "PUB"), ("reply", "PubAck")) if now.writes_nats else ()
        ),
        "workers-redis": redis,
        "workers-nats": nats,
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

WIRE_MAKERS: tuple[Maker, ...] = tuple(functools.partial(_wire, action) for action in _ACTIONS)
"""One for each action of the proxy."""
