"""Histograms of latencies, beside the HDR library that records value by value."""

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram

from hookbench.ledger.latency import (
    HIGHEST_NS,
    SIGNIFICANT_DIGITS,
    LatencyHistogram,
    histogram_of,
    merge_histograms,
)
from hookbench.results.buckets import BucketCounts

VALUES = 2_000
YARDSTICK_VALUES = 1_500
PARTS = 4
GROUPS = 8
ROUNDS = 200


@pytest.fixture
def values_ns():
    """Latencies around 2 ms, with the tail that latencies have."""
    return np.random.default_rng(7).lognormal(np.log(2e6), 0.8, VALUES).astype(np.int64)


def record_each(values):
    histogram = HdrHistogram(1, HIGHEST_NS, SIGNIFICANT_DIGITS)
    for value in values:
        histogram.record_value(value)
    return histogram


def stored(values):
    """The parts as a run stores them."""
    for part in np.array_split(values, PARTS):
        histogram = histogram_of(part)
        encoded = histogram.encode()
        yield LatencyHistogram(
            row="redis_only", step=0, transition=False, what="enqueue",
            count=len(part), max_ns=int(part.max()),
            encoded=encoded if isinstance(encoded, str) else encoded.decode(),
        )  # fmt: skip


@pytest.mark.benchmark(group=f"histogram: {VALUES:,} values, beside {YARDSTICK_VALUES:,} of HDR")
def test_histogram_of(beside, values_ns):
    found, _bare = beside(
        lambda: histogram_of(values_ns),
        lambda: record_each(values_ns[:YARDSTICK_VALUES].tolist()),
        rounds=ROUNDS,
    )
    whole = record_each(values_ns.tolist())
    assert found.get_total_count() == VALUES
    assert [found.get_value_at_percentile(each) for each in (50, 99, 100)] == [
        whole.get_value_at_percentile(each) for each in (50, 99, 100)
    ]


@pytest.mark.benchmark(group=f"histogram: {VALUES:,} values, beside {YARDSTICK_VALUES:,} of HDR")
def test_bucket_counts(beside, values_ns):
    groups = np.arange(VALUES, dtype=np.int64) % GROUPS

    def count():
        counts = BucketCounts(GROUPS)
        for part, of in zip(
            np.array_split(values_ns, PARTS), np.array_split(groups, PARTS), strict=True
        ):
            counts.add(of, part)
        return counts, counts.percentiles((50, 99))

    (counts, percentiles), _bare = beside(
        count, lambda: record_each(values_ns[:YARDSTICK_VALUES].tolist()), rounds=ROUNDS
    )

    def of_group(number):
        return np.percentile(values_ns[groups == number], (50, 99), method="inverted_cdf")

    assert counts.counts.tolist() == [VALUES // GROUPS] * GROUPS
    exact = [of_group(each) for each in range(GROUPS)]
    assert np.allclose(percentiles, exact, rtol=0.001)


@pytest.mark.benchmark(group=f"histogram: merge {PARTS}, beside HDR's decode and add of one")
def test_merge(beside, values_ns):
    parts = list(stored(values_ns))

    def add_one():
        merged = HdrHistogram(1, HIGHEST_NS, SIGNIFICANT_DIGITS)
        merged.add(HdrHistogram.decode(parts[0].encoded))
        return merged

    merged, one = beside(lambda: merge_histograms(parts), add_one, rounds=ROUNDS)
    assert merged.get_total_count() == VALUES
    assert one.get_total_count() == parts[0].count
    assert merged.get_max_value() >= int(values_ns.max())
