"""Samples that span the clocks of two machines."""

import numpy as np
import pytest

from hookbench.errors import LedgerError
from hookbench.ledger.latency import histogram_of


def test_what_two_clocks_cannot_tell_from_zero_is_kept():
    values = np.array([-440_030, -1, 0, 5, 78_533_237], dtype=np.int64)
    histogram = histogram_of(values, clock_error_ns=500_000)
    assert histogram.get_total_count() == len(values)
    assert histogram.get_max_value() >= values.max()
    with pytest.raises(LedgerError, match="latencies from -440030 to"):
        histogram_of(values, clock_error_ns=440_000)
