"""Statistics of repeats and blocks, against what is known of them."""

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the extra notebooks is not installed")

from scipy import sparse, stats

from hookbench.results.blocks import Histograms, join_histograms
from hookbench.results.stats import (
    autocorrelation,
    degrees_of_freedom,
    dependence_factor,
    draw_blocks,
    holm,
    median_interval,
    p_above,
    p_beyond,
    weighted_percentiles,
)


def histograms(rows, values):
    return Histograms(np.array(values), sparse.csr_array(np.array(rows)))


def autoregressive(rng, correlation, shape):
    out = np.zeros(shape)
    out[:, 0] = rng.normal(size=shape[0])
    for place in range(1, shape[1]):
        new = rng.normal(0, np.sqrt(1 - correlation**2), size=shape[0])
        out[:, place] = correlation * out[:, place - 1] + new
    return out


def test_the_interval_of_a_median_is_that_of_scipy_and_the_same_for_the_same_seed():
    values = [1.0, 5.0, 2.0, 9.0, 4.0, 7.0, 3.0]
    found = median_interval(values, seed=3)
    assert found == median_interval(values, seed=3)
    assert found.median == 4.0
    assert 1.0 <= found.low < 4.0 < found.high <= 9.0
    narrow = median_interval(values, seed=3, confidence=0.5)
    assert found.low < narrow.low
    assert narrow.high < found.high


def test_two_repeats_have_no_interval_and_none_have_no_median():
    assert median_interval([1.0, 3.0]) == median_interval([3.0, 1.0])
    assert (median_interval([1.0, 3.0]).median, median_interval([1.0, 3.0]).low) == (2.0, None)
    assert (median_interval([2.0, 1.0, 3.0]).low, median_interval([2.0, 1.0, 3.0]).high) == (1, 3)
    with pytest.raises(ValueError, match="no values"):
        median_interval([])


def test_draws_have_the_variance_of_a_mean_also_for_few_blocks():
    rng = np.random.default_rng(1)
    values = np.array([1.0, 4.0, 2.0, 8.0, 3.0])
    weights = draw_blocks([5], 20_000, rng)
    assert weights.sum(axis=1) == pytest.approx(5)
    means = weights @ values / weights.sum(axis=1)
    assert np.var(means) == pytest.approx(np.var(values, ddof=1) / 5, rel=0.05)


def test_the_blocks_of_a_run_replace_each_other_only():
    weights = draw_blocks([2, 3], 50, np.random.default_rng(1))
    assert weights[:, :2].sum(axis=1) == pytest.approx(2)
    assert weights[:, 2:].sum(axis=1) == pytest.approx(3)


def test_percentiles_are_those_of_counts_that_are_added_up():
    blocks = histograms([[9, 1, 0], [0, 0, 90]], [10, 20, 30])
    weights = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [9.0, 0.0]])
    found = weighted_percentiles(blocks, weights, [5.0, 50.0, 90.0, 100.0])
    assert found[:3].tolist() == [[10, 30, 30, 30], [10, 10, 10, 20], [30, 30, 30, 30]]
    assert np.isnan(found[3]).all()
    assert found[4].tolist() == found[1].tolist()


def test_joined_histograms_keep_every_count_at_its_value():
    one, other = histograms([[1, 2]], [10, 30]), histograms([[4, 8], [16, 0]], [20, 30])
    joined = join_histograms([one, other])
    assert joined.values_ns.tolist() == [10, 20, 30]
    assert joined.counts.toarray().tolist() == [[1, 0, 2], [0, 4, 8], [0, 16, 0]]
    assert joined.total == 31


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6])
def test_autocorrelation_of_short_series_is_right_on_average(correlation):
    series = autoregressive(np.random.default_rng(2), correlation, (400, 12))
    assert autocorrelation(list(series)) == pytest.approx(correlation, abs=0.12)


def test_autocorrelation_of_what_does_not_vary_is_none_and_it_has_an_upper_end():
    assert autocorrelation([np.ones(6), np.full(6, np.nan)]) == 0.0
    assert autocorrelation([np.arange(1000.0)]) == 0.7
    assert autocorrelation([np.array([1.0, -1.0] * 20)]) == 0.0


@pytest.mark.parametrize("count", [6, 30])
def test_the_factor_makes_up_for_the_dependence_of_blocks(count):
    series = autoregressive(np.random.default_rng(3), 0.5, (20_000, count))
    of_means = np.var(series.mean(axis=1))
    as_if_independent = np.mean(np.var(series, axis=1, ddof=1)) / count
    assert dependence_factor(0.5, count) == pytest.approx(of_means / as_if_independent, rel=0.05)
    assert dependence_factor(0.0, count) == 1.0


def test_degrees_of_two_equal_variances_add_up():
    assert degrees_of_freedom([(2.0, 5.0), (2.0, 5.0)]) == pytest.approx(10)
    assert degrees_of_freedom([(2.0, 5.0), (0.0, 1.0)]) == pytest.approx(5)
    assert degrees_of_freedom([(0.0, 5.0), (0.0, 3.0)]) == 3.0


def test_p_of_no_least_difference_is_that_of_a_t_test_for_two_sides():
    rng = np.random.default_rng(4)
    one, other = rng.normal(0, 1, 12), rng.normal(0.8, 1, 15)
    error = np.sqrt(np.var(one, ddof=1) / 12 + np.var(other, ddof=1) / 15)
    known = stats.ttest_ind(one, other, equal_var=False)
    assert p_beyond(other.mean() - one.mean(), 0.0, error, known.df) == pytest.approx(known.pvalue)
    assert p_above(other.mean() - one.mean(), 0.0, error, known.df) == pytest.approx(
        known.pvalue / 2
    )


def test_p_of_a_least_difference_is_half_at_it_and_small_far_beyond_it_either_way():
    assert p_beyond(0.05, 0.05, 0.001, 50) == pytest.approx(0.5)
    assert p_beyond(-0.07, 0.05, 0.001, 50) == p_beyond(0.07, 0.05, 0.001, 50) < 1e-6
    assert p_beyond(0.04, 0.05, 0.001, 50) > 0.99
    assert (p_beyond(0.05, 0.05, 0, 5), p_beyond(0.06, 0.05, 0, 5)) == (1.0, 0.0)
    assert (p_above(-0.2, 0.05, 0, 5), p_above(0.06, 0.05, 0, 5)) == (1.0, 0.0)


def test_holm_multiplies_the_smallest_by_all_and_keeps_the_order():
    assert holm([0.04, 0.01, 0.03, 0.9]) == pytest.approx([0.09, 0.04, 0.09, 0.9])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
