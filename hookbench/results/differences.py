"""How much a metric differs between two sides, and how far chance and the machine account for it.

Why it is done this way stands in ``results.compare``.
"""

import math
from collections.abc import Sequence
from typing import TypedDict

import msgspec
import numpy as np
import numpy.typing as npt

from hookbench.clock import NS_PER_MS
from hookbench.results.blocks import LAG, PhaseBlocks, join_histograms
from hookbench.results.metrics import METRICS, Metric
from hookbench.results.stats import (
    MIN_REPEATS,
    autocorrelation,
    degrees_of_freedom,
    dependence_factor,
    draw_blocks,
    weighted_percentiles,
)

__all__ = ["MIN_BLOCKS", "Difference", "Differences", "Side", "phase_differences", "run_difference"]

Floats = npt.NDArray[np.float64]

MIN_BLOCKS = 5
"""Of a side; with fewer nobody knows how much they vary."""
MIN_BEYOND = 5
"""Tasks that lie beyond a percentile, so that it is not the word of one of them."""
WAKE_UPS = {"end_to_end": 3, "enqueue": 2}
"""How often a task waits until a process is woken: the generator's timer, the broker's answer or
the worker's delivery, and the end of the handler's wait."""
_SKEW = 1 / math.log(2)
"""Mean over median of an exponential wait: the median of a sum of waits may grow by so much more
than that of one of them does."""
_UNLIKE = 0.25
"""Standard error of the slope as a share of it, at the least: between runs it need not be what it
is within them, however many blocks tell the latter."""
_PERCENTILES = (50.0, 90.0, 99.0)
_DRAWS = 500
_PERCENT = 100
_MOST_LAG = 0.9
"""Share of a latency that is put down to the lag at the most."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one phase.

    Attributes:
        base, new: value of each side, ms, per second, or seconds per million tasks.
        base_repeats, new_repeats: of each run on its own.
        change: logarithm of NEW / BASE, at the same schedule lag.
        error: standard error of the difference.
        degrees: of freedom of that error.
        measured: the same as it was measured, each side at its own lag.
        lags_ms: the same percentile of the schedule lag of both sides.
        least: the smallest change that can be told from the clocks', a logarithm.
        unknown: why there is nothing to test; empty if there is.
    """

    base: float | None = None
    new: float | None = None
    base_repeats: list[float] = []
    new_repeats: list[float] = []
    change: float = 0.0
    error: float = 0.0
    degrees: float = 1.0
    measured: float = 0.0
    lags_ms: list[float] = []
    least: float = 0.0
    unknown: str = ""


Differences = dict[tuple[str, str], Difference]
"""By phase and metric."""


class Side:
    """The runs of one side in one phase.

    Args:
        name: ``BASE`` or ``NEW``.
        runs: their blocks.
        max_lag_ms: p99 of the schedule lag above which latencies are not valid.
    """

    def __init__(self, name: str, runs: Sequence[PhaseBlocks], max_lag_ms: float) -> None:
        self.name = name
        self.runs = runs
        self.max_lag_ms = max_lag_ms
        self.counts = [len(run.done) for run in runs]
        self.lengths_s = np.repeat([float(run.block_s) for run in runs], self.counts)
        self.done = np.concatenate([run.done for run in runs]).astype(np.float64)
        whats = runs[0].latencies
        self.histograms = {
            what: join_histograms([run.latencies[what] for run in runs]) for what in whats
        }

    @property
    def total(self) -> int:
        """Blocks of all runs."""
        return sum(self.counts)

    def draw(self, rng: np.random.Generator) -> None:
        """Weigh the blocks: all of them, each run, each block on its own, and as they are drawn."""
        run = np.repeat(np.arange(len(self.runs)), self.counts)
        by_run = run == np.arange(len(self.runs))[:, None]
        drawn = draw_blocks(self.counts, _DRAWS, rng)
        self.weights = np.vstack([np.ones((1, self.total)), by_run, np.eye(self.total), drawn])
        self.rates = (self.weights @ self.done) / (self.weights @ self.lengths_s)
        self.percentiles = {what: self._ms(what) for what in self.histograms}

    def _ms(self, what: str) -> dict[float, Floats]:
        """By percentile, one for each row of weights; at least a ns."""
        found = weighted_percentiles(self.histograms[what], self.weights, _PERCENTILES)
        columns = np.maximum(found, 1).T / NS_PER_MS
        return dict(zip(_PERCENTILES, columns, strict=True))

    def too_short(self) -> str:
        """Why nothing can be said of its blocks; empty if it can."""
        if self.total >= MIN_BLOCKS and min(self.counts) > 1:
            return ""
        return (
            f"{self.name} has {self.total} whole blocks of time in {len(self.runs)} runs, and"
            f" {MIN_BLOCKS} are needed, 2 or more of each: use longer phases, or more repeats"
        )

    def too_few(self, metric: Metric) -> str:
        """Why this metric cannot be told; empty if it can."""
        if metric.percentile is None:
            return "" if self.done.any() else f"{self.name} has no task that was done"
        tasks = self.histograms[metric.what].total
        if tasks * (_PERCENT - metric.percentile) / _PERCENT < MIN_BEYOND:
            needed = round(MIN_BEYOND * _PERCENT / (_PERCENT - metric.percentile))
            return f"{self.name} has {tasks:,} tasks in its blocks, and {needed:,} are needed"
        lags_ms = self.percentiles[LAG][99.0][1 : 1 + len(self.runs)].tolist()
        for number, lag_ms in enumerate(lags_ms, 1):
            if lag_ms > self.max_lag_ms:
                return (
                    f"the producers of run {number} of {self.name} were late, p99 {lag_ms:,.0f} ms"
                    f" with a bound of {self.max_lag_ms:g} ms: its latencies are not valid (if they"
                    " were late at the start alone, --warm-up leaves it out)"
                )
        return ""


def phase_differences(
    base: Side, new: Side, rng: np.random.Generator, *, level: bool, min_ms: float
) -> dict[str, Difference]:
    """Every metric that a phase has, by its name.

    Args:
        base: one side.
        new: the other.
        rng: of what is drawn.
        level: compare latencies at the same lag.
        min_ms: the smallest difference of a latency that matters.
    """
    if reason := base.too_short() or new.too_short():
        return {name: Difference(unknown=reason) for name in METRICS if not METRICS[name].of_run}
    for side in (base, new):
        side.draw(rng)
    found = {}
    for name, metric in METRICS.items():
        if metric.of_run:
            continue
        parts = [_Values(side, metric) for side in (base, new)]
        slope = Slope()
        if level and metric.percentile is not None:
            slope = slope_of_lag(parts, WAKE_UPS[metric.what] * _SKEW)
        item = _difference(parts, slope, base.too_few(metric) or new.too_few(metric))
        if metric.percentile is not None and not item.unknown:
            least = math.log1p(min_ms / min(part.whole[0][0] for part in parts))
            item = msgspec.structs.replace(item, least=least)
        found[name] = item
    return found


class _Told(TypedDict):
    """What a difference says of its sides."""

    base: float | None
    new: float | None
    base_repeats: list[float]
    new_repeats: list[float]


class _Values:
    """A metric of a side, and the lag beside it: of all blocks, each run, each block, each draw.

    Each is a pair of arrays, values and lags; a rate has no lag.
    """

    def __init__(self, side: Side, metric: Metric) -> None:
        self.counts = side.counts
        if metric.percentile is None:
            values, lags = side.rates, np.zeros(len(side.weights))
        else:
            values = side.percentiles[metric.what][metric.percentile]
            lags = side.percentiles[LAG][metric.percentile]
        ends = np.cumsum([1, len(side.runs), side.total])
        pairs = list(zip(np.split(values, ends), np.split(lags, ends), strict=True))
        self.whole, self.runs, self.blocks, self.drawn = pairs

    def split(self, values: Floats) -> list[Floats]:
        """Values of blocks, run by run."""
        return np.split(values, np.cumsum(self.counts)[:-1])


class Slope(msgspec.Struct, frozen=True):
    """By how much a latency grows with the lag, its standard error, and its degrees of freedom."""

    value: float = 0.0
    error: float = 0.0
    degrees: float = 1.0


def slope_of_lag(parts: Sequence[_Values], most: float) -> Slope:
    """From the blocks of each run, so that no difference between runs or sides is in it.

    It is between 0 and ``most``, and never so large that nearly all of a latency would be lag.
    """
    pairs = []
    for part in parts:
        for values, lags in zip(*(part.split(item) for item in part.blocks), strict=True):
            known = np.isfinite(values) & np.isfinite(lags)
            if known.any():
                y, x = values[known], lags[known]
                pairs.append((y - y.mean(), x - x.mean()))
    y, x = (np.concatenate(item) for item in zip(*pairs, strict=True))
    degrees = len(x) - len(pairs) - 1
    square = float(x @ x)
    unsure = most / np.sqrt(12)  # all that is known without data: between 0 and most
    shares = [part.whole[0][0] / part.whole[1][0] for part in parts]
    most = min(most, _MOST_LAG * min(shares))
    if degrees < 1 or square <= 0:
        return Slope(most / 2, unsure)
    value = float(x @ y) / square
    left = y - value * x
    error = float(np.sqrt(left @ left / degrees / square))
    value = min(max(value, 0.0), most)
    return Slope(value, max(min(error, unsure), _UNLIKE * value), float(degrees))


def _level(pair: tuple[Floats, Floats], slope: Slope, lag: float) -> Floats:
    """Logarithms of values as they would be at this lag; NaN for none."""
    values, lags = pair
    with np.errstate(divide="ignore", invalid="ignore"):
        levelled = values - slope.value * (lags - lag)
        found = np.log(np.maximum(levelled, (1 - _MOST_LAG) * values))
    found[~np.isfinite(found)] = np.nan
    return found


def _difference(parts: Sequence[_Values], slope: Slope, unknown: str) -> Difference:
    """One metric of both sides."""
    base, new = (float(part.whole[0][0]) for part in parts)
    values = _Told(
        base=base if np.isfinite(base) else None,
        new=new if np.isfinite(new) else None,
        base_repeats=parts[0].runs[0].tolist(),
        new_repeats=parts[1].runs[0].tolist(),
    )
    if unknown:
        return Difference(unknown=unknown, **values)
    lags = [float(part.whole[1][0]) for part in parts]
    lag = min(lags)
    series = [run for part in parts for run in part.split(_level(part.blocks, slope, lag))]
    correlation = autocorrelation(series)
    levels = [float(_level(part.whole, slope, lag)[0]) for part in parts]
    spread = [(_variance(part, slope, lag, correlation), _degrees(part)) for part in parts]
    busy = levels[int(np.argmax(lags))]
    spread.append((float((max(lags) - lag) * slope.error / np.exp(busy)) ** 2, slope.degrees))
    variance, degrees = sum(item[0] for item in spread), degrees_of_freedom(spread)
    of_runs = _variance_of_runs(*(_level(part.runs, slope, lag) for part in parts))
    if of_runs is not None and of_runs[0] > variance:
        variance, degrees = of_runs
    return Difference(
        change=levels[1] - levels[0],
        error=float(np.sqrt(variance)),
        degrees=degrees,
        measured=float(np.log(new / base)),
        lags_ms=lags,
        **values,
    )


def _variance(part: _Values, slope: Slope, lag: float, correlation: float) -> float:
    """Of the logarithm of a side's value, as far as its blocks tell."""
    drawn = _level(part.drawn, slope, lag)
    count = round(float(np.mean(part.counts)))
    return float(np.nanvar(drawn)) * dependence_factor(correlation, count)


def _degrees(part: _Values) -> float:
    return float(sum(count - 1 for count in part.counts))


def _variance_of_runs(base: Floats, new: Floats) -> tuple[float, float] | None:
    """Of a difference of means of logarithms, as runs vary; and its degrees of freedom.

    Both sides are taken to vary alike; ``None`` where no side has repeats.
    """
    degrees = len(base) + len(new) - 2
    if degrees < 1:
        return None
    squares = sum(float(((side - side.mean()) ** 2).sum()) for side in (base, new))
    return squares / degrees * (1 / len(base) + 1 / len(new)), float(degrees)


def _geometric_mean(values: Sequence[float]) -> float | None:
    found = np.asarray(values)
    return float(np.exp(np.log(found).mean())) if (found > 0).all() else None


def run_difference(base: Sequence[float], new: Sequence[float]) -> Difference:
    """Of a figure that a run has one of, so that each run is an observation; NaN for none.

    The value of a side is the geometric mean.
    """
    values = _Told(
        base=_geometric_mean(base),
        new=_geometric_mean(new),
        base_repeats=list(base),
        new_repeats=list(new),
    )
    if not (np.isfinite([*base, *new]).all() and min(*base, *new) > 0):
        return Difference(unknown="not every run has it, above zero")
    if min(len(base), len(new)) < MIN_REPEATS:
        unknown = f"a run has one figure of it: give {MIN_REPEATS} repeats or more of each side"
        return Difference(unknown=unknown, **values)
    variance, degrees = _variance_of_runs(np.log(base), np.log(new)) or (0.0, 1.0)
    change = float(np.mean(np.log(new)) - np.mean(np.log(base)))
    error = float(np.sqrt(variance))
    return Difference(change=change, error=error, degrees=degrees, measured=change, **values)
