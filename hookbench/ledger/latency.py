"""HDR histograms out of columns: merged by adding counts, never by averaging percentiles.

https://hdrhistogram.github.io/HdrHistogram/: three significant digits, so a percentile is at most
0.1 % above the value that it stands for. No sample is dropped, and none is clamped but where two
clocks are not known well enough to tell it from zero.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from hdrh.histogram import HdrHistogram

from hookbench.errors import LedgerError
from hookbench.ledger.columns import Ints

__all__ = [
    "PERCENTILES",
    "LatencyHistogram",
    "decode_histogram",
    "histogram_of",
    "merge_histograms",
    "percentiles_of",
]

HIGHEST_NS = 24 * 3600 * 1_000_000_000
SIGNIFICANT_DIGITS = 3
_EXACT_BITS = 11  # 2,048 buckets for each doubling hold three digits
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}


class LatencyHistogram(msgspec.Struct, frozen=True, kw_only=True):
    """A stored histogram of latencies in ns.

    Attributes:
        row: name of the phase or transition.
        step: index in the timeline.
        transition: whether it is the row of the change into that step.
        what: ``enqueue`` (intended to accepted) or ``end_to_end`` (intended to first done).
        second: of those that were due in that second since the first task of the run was; ``None``
            for all of the row. Those of a phase's seconds add up to that of the phase.
        count: samples.
        max_ns: the largest, exactly.
        encoded: base64 of the compressed V2 form, which other HDR libraries read as well.
    """

    row: str
    step: int
    transition: bool
    what: str
    count: int
    max_ns: int
    encoded: str
    second: int | None = None


def histogram_of(values_ns: Ints, *, clock_error_ns: int = 0) -> Any:
    """An ``HdrHistogram`` of all values.

    Args:
        values_ns: the samples.
        clock_error_ns: how far the two clocks that they span may be apart: so far below zero they
            are kept, as the shortest that there is.

    Raises:
        LedgerError: a value is longer than a day, or more negative than that.
    """
    histogram = HdrHistogram(1, HIGHEST_NS, SIGNIFICANT_DIGITS)
    if len(values_ns) == 0:
        return histogram
    low, high = int(values_ns.min()), int(values_ns.max())
    if low < -clock_error_ns or high > HIGHEST_NS:
        raise LedgerError(f"latencies from {low} to {high} ns: not between 0 and a day")
    values_ns = np.maximum(values_ns, 0)
    # Only the distinct bucket values are recorded, with their counts: a record is Python code.
    bits = np.frexp(values_ns.astype(np.float64))[1]
    shift = np.maximum(bits - _EXACT_BITS, 0)
    buckets, counts = np.unique((values_ns >> shift) << shift, return_counts=True)
    for value, count in zip(buckets.tolist(), counts.tolist(), strict=True):
        histogram.record_value(value, count)
    return histogram


def percentiles_of(histogram: Any, max_ns: int) -> dict[str, int] | None:
    """p50, p90, p99, p999 and max in ns; ``None`` without samples."""
    if histogram.get_total_count() == 0:
        return None
    # As ``get_value_at_percentile``, which walks over the counts in Python for each percentile.
    counted = np.cumsum(np.frombuffer(histogram.counts, dtype=np.uint64))
    found = {}
    for name, percentile in PERCENTILES.items():
        index = np.searchsorted(counted, histogram.get_target_count_at_percentile(percentile))
        value = histogram.get_value_from_index(int(index))
        found[name] = min(int(histogram.get_highest_equivalent_value(value)), max_ns)
    return {**found, "max": max_ns}


def decode_histogram(stored: LatencyHistogram) -> Any:
    """The ``HdrHistogram`` again, for adding it to others."""
    return HdrHistogram.decode(stored.encoded)


def merge_histograms(stored: Iterable[LatencyHistogram]) -> Any:
    """One ``HdrHistogram`` of all of them, by adding their counts."""
    merged = HdrHistogram(1, HIGHEST_NS, SIGNIFICANT_DIGITS)
    for item in stored:
        merged.add(decode_histogram(item))
    return merged
