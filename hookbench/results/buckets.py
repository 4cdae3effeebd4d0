"""Counts of values in the buckets of an HDR histogram, for many groups at once.

The buckets are those of ``ledger.latency``: 2,048 for each doubling, so a percentile is at most
0.1 % from the value that it stands for, and counts of parts are added up, never percentiles.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["BucketCounts"]

Ints = npt.NDArray[np.int64]
_EXACT_BITS = 11


class BucketCounts:
    """Counts by group and bucket; parts are added one after another.

    Args:
        groups: how many there are.
    """

    def __init__(self, groups: int) -> None:
        self._groups = groups
        self._pairs = np.zeros(0, dtype=np.int64)
        self._counts = np.zeros(0, dtype=np.int64)
        self.max = np.full(groups, -1, dtype=np.int64)
        """Per group the largest value, exactly; -1 for none."""
        self.total = np.zeros(groups, dtype=np.float64)
        """Per group the sum of its values."""

    def add(self, groups: Ints, values: Ints) -> None:
        """Count values, 0 or more, each in its group."""
        if len(values) == 0:
            return
        np.maximum.at(self.max, groups, values)
        self.total += np.bincount(groups, weights=values, minlength=self._groups)
        pairs, counts = np.unique(groups << 32 | _bucket_of(values), return_counts=True)
        every = np.concatenate((self._pairs, pairs))
        self._pairs, place = np.unique(every, return_inverse=True)
        self._counts = np.bincount(
            place, weights=np.concatenate((self._counts, counts)), minlength=len(self._pairs)
        ).astype(np.int64)

    @property
    def counts(self) -> Ints:
        """Values per group."""
        found = np.bincount(self._pairs >> 32, weights=self._counts, minlength=self._groups)
        return found.astype(np.int64)

    def percentiles(self, wanted: Sequence[float]) -> npt.NDArray[np.float64]:
        """Shape (groups, wanted): the smallest bucket that so many percent are at or below.

        It is told by its upper end, but never above the maximum; NaN for an empty group.
        """
        out = np.full((self._groups, len(wanted)), np.nan)
        group = self._pairs >> 32
        starts = np.searchsorted(group, np.arange(self._groups + 1))
        for index in range(self._groups):
            low, high = starts[index], starts[index + 1]
            if low == high:
                continue
            below = np.cumsum(self._counts[low:high])
            ranks = np.maximum(1, np.ceil(np.asarray(wanted) / 100 * below[-1] - 1e-9))
            places = np.searchsorted(below, ranks)
            uppers = _upper_of(self._pairs[low:high] & 0xFFFFFFFF)
            out[index] = np.minimum(uppers[places], self.max[index])
        return out

    def entries(self) -> tuple[Ints, Ints, Ints]:
        """Group, upper end of the bucket, and how many values: one of each per bucket in use."""
        return self._pairs >> 32, _upper_of(self._pairs & 0xFFFFFFFF), self._counts

    def distribution(self, group: int) -> tuple[Ints, Ints]:
        """Upper ends of the buckets of a group that have values, and how many each has."""
        low, high = np.searchsorted(self._pairs >> 32, [group, group + 1])
        uppers = np.minimum(_upper_of(self._pairs[low:high] & 0xFFFFFFFF), self.max[group])
        return uppers, self._counts[low:high]


def _bucket_of(values: Ints) -> Ints:
    """The number of the bucket of each value, in the order of values; below 2**32."""
    bits = np.frexp(values.astype(np.float64))[1]
    shift = np.maximum(bits - _EXACT_BITS, 0).astype(np.int64)
    buckets: Ints = shift << _EXACT_BITS | values >> shift
    return buckets


def _upper_of(buckets: Ints) -> Ints:
    shift = buckets >> _EXACT_BITS
    uppers: Ints = ((buckets & ((1 << _EXACT_BITS) - 1)) << shift) + (np.int64(1) << shift) - 1
    return uppers
