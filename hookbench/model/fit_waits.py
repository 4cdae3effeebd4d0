"""The fit of latencies: what is fixed, and how much of the tail is a wait."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hookbench.errors import ResultsError
from hookbench.load.objectives import MAX_GROWTH
from hookbench.model.fitted import LATENCIES, Model, Pair, Residual, wait_ms
from hookbench.model.observations import Knee, Observation
from hookbench.model.terms import Floats, Spread, Terms, fit_terms

__all__ = ["fit_latencies"]

_LEAST_FIXED = 0.1
"""Of a measured latency, that is no wait in a queue."""
_SPREADS = np.geomspace(0.05, 50, 40)
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
) -> tuple[float, bool, list[Residual]]:
    """Fit the fixed part of every percentile into the model's terms; first the spread.

    Returns:
        The spread, whether rates tell it (one pair has at least three), and what is left over.

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

    known = [
        _Latency(f"{' '.join(k.pair)} at {rate:g}/s", k.pair, k.payload_bytes, rate, value)
        for k in knees
        if k.pair in model.payloads
        for rate, value in k.p99_ms.items()
    ]
    tails = of("p99_ms") + known
    rates = {pair: {item.rate_per_s for item in tails if item.pair == pair} for pair in model.pairs}
    fitted = any(len(found) >= _LEAST_RATES for found in rates.values())
    spread = _best_spread(model, tails) if fitted else 1.0
    residuals = []
    for figure in LATENCIES:
        items = tails if figure == "p99_ms" else of(figure)
        model.terms[figure], errors = _fit_fixed(model, figure, items, spread)
        residuals += [
            Residual(figure, item.label, float(error))
            for item, error in zip(items, errors, strict=True)
        ]
    return spread, fitted, residuals


def _best_spread(model: Model, tails: list[_Latency]) -> float:
    def cost(spread: float) -> float:
        _terms, errors = _fit_fixed(model, "p99_ms", tails, spread)
        return float((np.log1p(errors) ** 2).sum())

    return float(min(_SPREADS, key=lambda spread: cost(float(spread))))


def _fit_fixed(
    model: Model, figure: str, items: list[_Latency], spread: float
) -> tuple[Terms, Floats]:
    """The fixed part by pair and payload, and the errors of the whole."""
    waits = np.array(
        [
            wait_ms(
                figure,
                item.rate_per_s,
                model.measured_limit_per_s(item.pair, item.payload_bytes, figure),
                spread,
            )
            for item in items
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
    )
    fixed = (terms.residuals + 1) * left
    return terms, (fixed + waits) / observed - 1
