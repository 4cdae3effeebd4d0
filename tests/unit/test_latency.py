"""Histograms of latencies: samples that span the clocks of two machines, and percentiles."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hookbench.errors import LedgerError
from hookbench.ledger.latency import HIGHEST_NS, PERCENTILES, histogram_of, percentiles_of


def test_what_two_clocks_cannot_tell_from_zero_is_kept():
    values = np.array([-440_030, -1, 0, 5, 78_533_237], dtype=np.int64)
    histogram = histogram_of(values, clock_error_ns=500_000)
    assert histogram.get_total_count() == len(values)
    assert histogram.get_max_value() >= values.max()
    with pytest.raises(LedgerError, match="latencies from -440030 to"):
        histogram_of(values, clock_error_ns=440_000)


@given(st.lists(st.one_of(st.integers(0, 5_000), st.integers(0, HIGHEST_NS)), min_size=1))
@example([0])
@example([HIGHEST_NS])
@example([*range(1000), HIGHEST_NS])
def test_the_percentiles_are_those_of_the_library(values):
    histogram = histogram_of(np.array(values, dtype=np.int64))
    found = percentiles_of(histogram, max(values))
    for name, percentile in PERCENTILES.items():
        assert found[name] == min(histogram.get_value_at_percentile(percentile), max(values))
    assert found["max"] == max(values)
