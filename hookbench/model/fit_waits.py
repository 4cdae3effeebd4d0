"""The fit of latencies: what is fixed, and how much of the tail is a wait."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hookbench.errors import ResultsError
from hookbench.load.objectives import MAX_GROWTH
from hookbench.model.fitted import LATENCIES, Model, Pair, Residual
from hookbench.model.observations import Knee, Observation, noise_of
from hookbench.model.terms import Floats, Spread, Terms, fit_terms

__all__ = ["fit_latencies"]

_LEAST_FIXED = 0.1
"""Of a measured latency, that is no wait in a queue."""
_SPREADS = np.geomspace(0.1, 50, 14)
_FINER = np.geomspace(0.7, 1.43, 9)
_HEADROOMS = (1.01, 1.05, 1.1, 1.2, 1.4)
_WORST = 3.0
"""Of the logarithm of an error, as it counts for the spread."""
_LEAST_RATES = 3
_BYTES_PER_KIB = 1024


@dataclass(frozen=True, slots=True)
class _Latency:
    """One measured percentile."""

    label: str
    pair: Pair
    payload_bytes: float
    rate_per_s: float
    value_ms: float


def fit_latencies(
    model: Model, observations: Sequence[Observation], knees: Sequence[Knee]
) -> tuple[Model, list[Residual]]:
    """Fit the fixed part of every percentile; first how waits grow, where rates tell it.

    They do where one pair has p99 at three rates at least. Else waits are those of M/M/1, and have
    no end at the sustained rate.

    Returns:
        The model with them, and what is left over.

    Raises:
        ResultsError: no latency was measured at a rate that is sustained.
    """
    steady = [
        item
        for item in observations
        if item.kind == "latency" and item.figures["growth_share"] <= MAX_GROWTH
    ]
    if not steady:
        raise ResultsError(
            "model: the latency cannot be fitted: in every trial the backlog grew; measure at a"
            " lower rate: hookbench matrix --rate 200"
        )

    def of(figure: str) -> list[_Latency]:
        return [
            _Latency(o.label, o.pair, o.payload_bytes, o.rate_per_s, o.figures[figure])
            for o in steady
        ]

    tails = of("p99_ms") + [
        _Latency(f"{' '.join(k.pair)} at {rate:g}/s", k.pair, k.payload_bytes, rate, value)
        for k in knees
        for rate, value in k.p99_ms.items()
    ]
    rates = {pair: {item.rate_per_s for item in tails if item.pair == pair} for pair in model.pairs}
    if any(len(found) >= _LEAST_RATES for found in rates.values()):
        model = _with_growth(model, tails, noise_of(steady, "p99_ms"))
    terms, residuals = dict(model.terms), []
    for figure in LATENCIES:
        items = tails if figure == "p99_ms" else of(figure)
        limits, noise = _limits(model, figure, items), noise_of(steady, figure)
        terms[figure], errors = _fit_fixed(model, figure, items, limits, noise)
        residuals += [
            Residual(figure, item.label, float(error))
            for item, error in zip(items, errors, strict=True)
        ]
    return replace(model, terms=terms), residuals


def _with_growth(model: Model, tails: list[_Latency], noise: float) -> Model:
    """The spread and the headroom that explain p99 over the rates best: by trial, then finer."""
    limits = _limits(model, "p99_ms", tails)

    def cost(tried: Model) -> float:
        _terms, errors = _fit_fixed(tried, "p99_ms", tails, limits, noise)
        return float((np.minimum(np.abs(np.log1p(errors)), _WORST) ** 2).sum())

    def best(spreads: Floats, headrooms: Sequence[float]) -> Model:
        tries = [
            replace(model, spread=float(spread), headroom=headroom, spread_fitted=True)
            for spread in spreads
            for headroom in headrooms
        ]
        return min(tries, key=cost)

    rough = best(_SPREADS, _HEADROOMS)
    return best(rough.spread * _FINER, [rough.headroom])


def _limits(model: Model, figure: str, items: list[_Latency]) -> list[float]:
    return [model.measured_limit_per_s(item.pair, item.payload_bytes, figure) for item in items]


def _fit_fixed(
    model: Model, figure: str, items: list[_Latency], limits: list[float], noise: float
) -> tuple[Terms, Floats]:
    """The fixed part by pair and payload, and the errors of the whole."""
    waits = np.array(
        [
            model.wait_ms(figure, item.rate_per_s, limit)
            for item, limit in zip(items, limits, strict=True)
        ]
    )
    observed = np.array([item.value_ms for item in items])
    left = observed - np.minimum(waits, (1 - _LEAST_FIXED) * observed)
    kib = np.array([item.payload_bytes / _BYTES_PER_KIB for item in items])
    base = float(np.log(np.median(observed)))
    terms = fit_terms(
        [item.pair for item in items],
        np.stack([np.ones(len(kib)), kib], axis=1),
        left,
        [
            Spread(middle=base),
            Spread(middle=base - math.log(20), route=0.5, durability=0.5, pair=0.2),
        ],
        noise=noise,
    )
    fixed = (terms.residuals + 1) * left
    return terms, (fixed + waits) / observed - 1
