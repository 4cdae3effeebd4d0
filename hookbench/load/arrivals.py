"""Arrival processes: when each task is to be sent, as offsets from the start in nanoseconds."""

import math
import random
from collections.abc import Iterator

from hookbench.clock import NS_PER_S
from hookbench.errors import SettingError

__all__ = ["ARRIVALS", "check_rate", "constant", "poisson"]

MAX_RATE_PER_S = 1_000_000.0
ARRIVALS = ("constant", "poisson")


def check_rate(rate_per_s: float) -> float:
    """``rate_per_s`` unchanged.

    Raises:
        SettingError: not positive, not finite, or above a million.
    """
    if not (math.isfinite(rate_per_s) and 0 < rate_per_s <= MAX_RATE_PER_S):
        raise SettingError(
            f"rate of {rate_per_s} tasks/s: use more than 0 and at most {MAX_RATE_PER_S:.0f}"
        )
    return rate_per_s


def constant(rate_per_s: float, count: int) -> Iterator[int]:
    """``count`` arrivals at equal distances."""
    check_rate(rate_per_s)
    for number in range(count):
        yield int(number * NS_PER_S / rate_per_s)


def poisson(rate_per_s: float, count: int, rng: random.Random) -> Iterator[int]:
    """``count`` arrivals of a Poisson process: exponential gaps, independent of each other."""
    check_rate(rate_per_s)
    at_s = 0.0
    for _ in range(count):
        at_s += rng.expovariate(rate_per_s)
        yield int(at_s * NS_PER_S)
