"""Which repository a synthetic task is of: all alike in turn, or some more often than others."""

import bisect
import itertools
import math
import random

from hookbench.errors import SettingError

__all__ = ["Repositories"]

MAX_SKEW = 10.0
MAX_REPOSITORIES = 10_000_000


class Repositories:
    """Numbers of repositories.

    Args:
        count: how many there are.
        skew: exponent of Zipf's law: the n-th of them has ``n ** -skew`` times as many tasks as the
            first. With 0 they come in turn, so that each has its share within a few tasks, too.

    Raises:
        SettingError: one of them is out of bounds.
    """

    def __init__(self, count: int, skew: float = 0.0) -> None:
        if not 1 <= count <= MAX_REPOSITORIES:
            raise SettingError(f"{count} repositories: use between 1 and {MAX_REPOSITORIES:,}")
        if not (math.isfinite(skew) and 0 <= skew <= MAX_SKEW):
            raise SettingError(f"skew {skew}: use between 0 and {MAX_SKEW:g}")
        self._count = count
        weights = (number**-skew for number in range(1, count + 1))
        self._up_to = list(itertools.accumulate(weights)) if skew else []

    def choose(self, number: int, rng: random.Random) -> int:
        """The repository of the task of that number, from 0 on."""
        if not self._up_to:
            return number % self._count
        found = bisect.bisect_right(self._up_to, rng.random() * self._up_to[-1])
        return min(found, self._count - 1)
