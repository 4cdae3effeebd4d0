"""A random schedule of faults from a seed, each with the words that tell it."""

import random
from collections.abc import Callable

import msgspec

from hookbench.sim.connection import Direction
from hookbench.sim.faults import cut_off, kill_broker, kill_worker, lose_replies, stop_worker
from hookbench.sim.migration import Fault

__all__ = ["DrawnFault", "draw_schedule"]

_CLIENTS = ("producer", "worker-1", "worker-2")
_BROKERS = ("redis", "nats")
_WAYS = ((), (Direction.TO_CLIENT,), (Direction.TO_SERVER,))
_FIRST_S = 0.5
"""Faults before that would meet processes that have not begun."""


class DrawnFault(msgspec.Struct, frozen=True):
    """One fault: what a person is told, and what does it."""

    text: str
    fault: Fault


def draw_schedule(entropy: random.Random, *, end_s: float, most: int = 3) -> list[DrawnFault]:
    """One to ``most`` faults before ``end_s`` of virtual time, in the order of their times.

    Brokers are killed for less than 3 s, links cut for less than 6 and workers stopped for less
    than 8: longer than a lease, shorter than the drain.
    """
    times_s = sorted(entropy.uniform(_FIRST_S, end_s) for _ in range(entropy.randint(1, most)))
    return [entropy.choice(_KINDS)(entropy, at_s) for at_s in times_s]


def _kill_worker(_entropy: random.Random, at_s: float) -> DrawnFault:
    return DrawnFault(f"{at_s:.2f} s: the oldest worker is killed", kill_worker(at_s=at_s))


def _stop_worker(entropy: random.Random, at_s: float) -> DrawnFault:
    for_s = entropy.uniform(0.5, 8.0)
    text = f"{at_s:.2f} s: the oldest worker is stopped for {for_s:.2f} s"
    return DrawnFault(text, stop_worker(at_s=at_s, for_s=for_s))


def _kill_broker(entropy: random.Random, at_s: float) -> DrawnFault:
    broker, for_s = entropy.choice(_BROKERS), entropy.uniform(0.2, 3.0)
    text = f"{at_s:.2f} s: {broker} is killed, and started again after {for_s:.2f} s"
    return DrawnFault(text, kill_broker(broker, at_s=at_s, for_s=for_s))


def _cut_off(entropy: random.Random, at_s: float) -> DrawnFault:
    client, broker = entropy.choice(_CLIENTS), entropy.choice(_BROKERS)
    for_s, ways = entropy.uniform(0.2, 6.0), entropy.choice(_WAYS)
    which = " and ".join(way.value for way in ways) or "both ways"
    text = f"{at_s:.2f} s: {client} is cut off from {broker} for {for_s:.2f} s ({which})"
    return DrawnFault(text, cut_off(client, broker, at_s=at_s, for_s=for_s, ways=ways))


def _lose_replies(entropy: random.Random, at_s: float) -> DrawnFault:
    client, broker = entropy.choice(_CLIENTS), entropy.choice(_BROKERS)
    count = entropy.randint(1, 3)
    text = f"{at_s:.2f} s: the next {count} replies of {broker} to {client} are lost"
    return DrawnFault(text, lose_replies(client, broker, at_s=at_s, count=count))


_KINDS: tuple[Callable[[random.Random, float], DrawnFault], ...] = (
    _kill_worker,
    _stop_worker,
    _kill_broker,
    _cut_off,
    _lose_replies,
)
