"""Percentiles of many groups at once, held against the sorted values and the HDR library."""

import numpy as np
import pytest

pytest.importorskip("pandas", reason="the extra notebooks is not installed")

from hookbench.ledger.latency import histogram_of
from hookbench.results.buckets import BucketCounts

WANTED = (50.0, 90.0, 99.0, 99.9, 100.0)


@pytest.fixture
def drawn():
    """Groups and values over eight decades."""
    rng = np.random.default_rng(7)
    values = np.exp(rng.uniform(0, np.log(1e10), 50_000)).astype(np.int64)
    return rng.integers(0, 5, len(values)), values


def test_percentiles_are_those_of_the_sorted_values_to_a_tenth_of_a_percent(drawn):
    groups, values = drawn
    counts = BucketCounts(6)
    counts.add(groups, values)
    found = counts.percentiles(WANTED)
    for group in range(5):
        mine = np.sort(values[groups == group])
        for place, percentile in enumerate(WANTED):
            exact = mine[int(np.ceil(percentile / 100 * len(mine))) - 1]
            assert exact <= found[group, place] <= exact * 1.001 + 1
        assert found[group, -1] == counts.max[group] == mine[-1]
        assert counts.counts[group] == len(mine)
        assert counts.total[group] == mine.sum()
    assert np.isnan(found[5]).all()
    assert (counts.counts[5], counts.max[5]) == (0, -1)


def test_they_agree_with_the_hdr_library(drawn):
    _groups, values = drawn
    counts = BucketCounts(1)
    counts.add(np.zeros(len(values), dtype=np.int64), values)
    library = histogram_of(values)
    for percentile, found in zip(WANTED[:-1], counts.percentiles(WANTED[:-1])[0], strict=True):
        assert found == pytest.approx(library.get_value_at_percentile(percentile), rel=2e-3)


def test_parts_add_up_to_the_whole(drawn):
    groups, values = drawn
    whole, parts = BucketCounts(5), BucketCounts(5)
    whole.add(groups, values)
    for start in range(0, len(values), 7_001):
        parts.add(groups[start : start + 7_001], values[start : start + 7_001])
    parts.add(groups[:0], values[:0])
    assert np.array_equal(parts.percentiles(WANTED), whole.percentiles(WANTED))
    assert np.array_equal(parts.counts, whole.counts)
    for group in range(5):
        for mine, other in zip(parts.distribution(group), whole.distribution(group), strict=True):
            assert np.array_equal(mine, other)


@pytest.mark.parametrize("value", [0, 1, 2047, 2048, 4095, 4096, 10**9, 24 * 3600 * 10**9])
def test_a_value_alone_is_told_exactly(value):
    counts = BucketCounts(1)
    counts.add(np.zeros(3, dtype=np.int64), np.array([value] * 3))
    assert counts.percentiles([0.0, 50.0, 100.0]).tolist() == [[value] * 3]
    uppers, number = counts.distribution(0)
    assert (uppers.tolist(), number.tolist()) == ([value], [3])
