"""Statistics of repeats and of blocks of time: intervals, resampling, dependence, tests.

Percentiles of several blocks or runs come from histograms that are added up, never from averages of
percentiles. What is random follows from a seed.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import stats

from hookbench.results.blocks import Histograms

__all__ = [
    "ALPHA",
    "MIN_REPEATS",
    "MedianInterval",
    "autocorrelation",
    "degrees_of_freedom",
    "dependence_factor",
    "draw_blocks",
    "holm",
    "median_interval",
    "p_above",
    "p_beyond",
    "t_of",
    "weighted_percentiles",
]

Floats = npt.NDArray[np.float64]

ALPHA = 0.05
"""The chance of calling anything significant where nothing has changed."""
MIN_REPEATS = 3
"""An interval of a median needs as many."""
MOST_DEPENDENT = 0.7
"""Autocorrelation that is reckoned with at the most: near 1 a run would be a single block."""
_RESAMPLES = 2_000
_SHARE = 100
"""Draws whose histograms are held at once."""


class MedianInterval(msgspec.Struct, frozen=True):
    """The median of repeats, and a bootstrap interval of it; ``None`` for too few repeats."""

    median: float
    low: float | None
    high: float | None


def median_interval(
    values: Sequence[float], *, seed: int = 0, confidence: float = 0.95
) -> MedianInterval:
    """The median of repeats with the percentile interval of ``scipy.stats.bootstrap``.

    Of three repeats it goes from the smallest to the largest; with fewer there is none.

    Raises:
        ValueError: there is no value.
    """
    if not len(values):
        raise ValueError("the median of no values")
    found = np.asarray(values, dtype=np.float64)
    median = float(np.median(found))
    if len(found) < MIN_REPEATS:
        return MedianInterval(median, None, None)
    interval = stats.bootstrap(
        (found,),
        np.median,
        n_resamples=_RESAMPLES,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return MedianInterval(median, float(interval.low), float(interval.high))


def draw_blocks(blocks: Sequence[int], draws: int, rng: np.random.Generator) -> Floats:
    """Weights of the blocks of several runs in each draw; the blocks of a run replace each other.

    Of the n blocks of a run n - 1 are drawn with replacement and weighted with n / (n - 1), which
    makes the variance right for few blocks (Rao and Wu, JASA 83, 1988).

    Args:
        blocks: how many each run has, 2 or more.
        draws: how many.
        rng: of the draws.

    Returns:
        Shape (draws, all blocks).
    """
    parts = [
        rng.multinomial(count - 1, np.full(count, 1 / count), size=draws) * (count / (count - 1))
        for count in blocks
    ]
    return np.concatenate(parts, axis=1)


def weighted_percentiles(
    blocks: Histograms, weights: Floats, percentiles: Sequence[float]
) -> Floats:
    """Percentiles of the blocks added up, each with its weight, in ns.

    Args:
        blocks: their histograms.
        weights: shape (draws, blocks).
        percentiles: wanted.

    Returns:
        Shape (draws, percentiles); NaN where a draw has no task.
    """
    out = np.full((len(weights), len(percentiles)), np.nan)
    shares = np.asarray(percentiles) / 100 * (1 - 1e-12)
    for begin in range(0, len(weights), _SHARE):
        below = np.cumsum(weights[begin : begin + _SHARE] @ blocks.counts, axis=1)
        for row, cumulated in enumerate(below, begin):
            if len(cumulated) and cumulated[-1] > 0:
                places = np.searchsorted(cumulated, shares * cumulated[-1])
                out[row] = blocks.values_ns[places]
    return out


def autocorrelation(series: Sequence[Floats]) -> float:
    """Of neighbours in series that belong together, from 0 to ``MOST_DEPENDENT``.

    Each series has a mean of its own. That makes the estimate r too low by about (1 + 3 r) / n, n
    blocks long (Marriott and Pope, Biometrika 41, 1954), which is added again. NaN counts for
    nothing.
    """
    product, square, length, used = 0.0, 0.0, 0, 0
    for values in series:
        if not np.isfinite(values).any():
            continue
        apart = np.nan_to_num(values - np.nanmean(values))
        product += float(apart[1:] @ apart[:-1])
        square += float(apart @ apart)
        length += len(values)
        used += 1
    if square <= 0:
        return 0.0
    found = product / square
    found += (1 + 3 * found) * used / length
    return min(max(found, 0.0), MOST_DEPENDENT)


def dependence_factor(correlation: float, count: int) -> float:
    """How much larger the variance of a mean of ``count`` blocks is than independence has it.

    Exact for the mean of a first-order autoregressive series and its sample variance, which is too
    small as well (Law, Simulation Modeling and Analysis, section 4.4).
    """
    lags = np.arange(1, count)
    factor = 1 + 2 * float(((1 - lags / count) * correlation**lags).sum())
    return factor * (count - 1) / (count - factor)


def degrees_of_freedom(parts: Sequence[tuple[float, float]]) -> float:
    """Of a sum of variances, each with degrees of its own (Welch and Satterthwaite)."""
    total = sum(variance for variance, _degrees in parts)
    if total <= 0:
        return min(degrees for _variance, degrees in parts)
    return total**2 / sum(variance**2 / degrees for variance, degrees in parts)


def p_beyond(difference: float, least: float, error: float, degrees: float) -> float:
    """How likely a difference so far from 0 is, either way, if the true one is within ``least``.

    The largest over all true differences from ``-least`` to ``least``, which is at its ends
    (Hodges and Lehmann, JRSS B 16, 1954). With ``least`` 0 it is the t test for two sides.

    Args:
        difference: that was found.
        least: the smallest that matters, 0 or more.
        error: standard error of the difference.
        degrees: of freedom of that error.
    """
    far = abs(difference)
    if error <= 0:
        return 1.0 if far <= least else 0.0
    near, other = stats.t.sf([(far - least) / error, (far + least) / error], degrees)
    return min(1.0, float(near + other))


def p_above(difference: float, bound: float, error: float, degrees: float) -> float:
    """How likely a difference so large is, if the true one is ``bound`` at the most."""
    if error <= 0:
        return 1.0 if difference <= bound else 0.0
    return float(stats.t.sf((difference - bound) / error, degrees))


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979).

    If all of them are compared with 0.05, the chance that any says so wrongly is 5 % at the most,
    however they depend on each other.
    """
    corrected, highest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = highest
    return corrected


def t_of(chance: float, degrees: float) -> float:
    """The value that a t distribution exceeds with this chance."""
    value = float(stats.t.isf(chance, degrees))
    return value if math.isfinite(value) else math.inf
