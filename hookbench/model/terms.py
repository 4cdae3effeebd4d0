"""Sums of positive terms, fitted on the logarithmic scale, with what cells have in common.

A figure of a cell is a sum of terms, such as a cost per task, one per byte and one per wake-up:
``y = sum_k exp(theta_k) x_k``. The logarithm of each term is what all cells have in common, plus a
part of the route, one of the durability class, and one of the two together. Each part is drawn to
zero by a prior, and the weaker the data of a pair, the more it is like the others (partial pooling:
Gelman and Hill, Data Analysis Using Regression and Multilevel/Hierarchical Models, 2007, chapter
12; the estimate is the mode, found by damped Gauss-Newton steps after Marquardt, 1963). So a pair
of which only one payload was measured has the slope of its likes, and one with four its own.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from hookbench.errors import ResultsError

__all__ = ["NOISE", "Floats", "Spread", "Terms", "fit_terms"]

Floats = npt.NDArray[np.float64]
Pair = tuple[str, str]

NOISE = 0.05
"""Of a median over repeats, as a share, where nothing tells it: what a residual is weighed by."""
_MAX_STEPS = 200
_SETTLED = 1e-5
"""Of what is minimised: a step that takes off less is the last one."""
_DAMPING, _MOST_DAMPING = 1e-3, 1e12
_FREE = 4.0
"""Of a common part: a factor of e^4 either way says nothing."""


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a term before the data, as logarithms.

    Attributes:
        middle: of the common part.
        common: how far that may be off.
        route, durability, pair: how far the parts may be from 0.
    """

    middle: float
    common: float = _FREE
    route: float = 1.0
    durability: float = 1.0
    pair: float = 0.3


class Terms:
    """Fitted terms.

    Args:
        by_pair: of each route and durability class that was measured, a value per term.
        residuals: predicted over observed, minus 1, of each observation.
    """

    def __init__(self, by_pair: dict[Pair, Floats], residuals: Floats) -> None:
        self.by_pair = by_pair
        self.residuals = residuals

    def of(self, pair: Pair) -> Floats:
        """The terms of a pair.

        Raises:
            ResultsError: nothing of it was measured.
        """
        if pair not in self.by_pair:
            known = ", ".join(" ".join(item) for item in sorted(self.by_pair))
            raise ResultsError(
                f"model: {' '.join(pair)} was not measured; known are {known}; measure it with"
                " hookbench matrix"
            )
        return self.by_pair[pair]


def fit_terms(
    pairs: Sequence[Pair],
    features: Floats,
    observed: Floats,
    spreads: Sequence[Spread],
    *,
    noise: float = NOISE,
) -> Terms:
    """The terms that explain observations best.

    Args:
        pairs: route and durability class of each observation.
        features: what each term is multiplied by, one row per observation, not negative.
        observed: above 0.
        spreads: of each term.
        noise: of the logarithm of an observation: the larger, the more pairs are like each other.

    Raises:
        ResultsError: it does not settle.
    """
    known = sorted(set(pairs))
    design = _design(known)
    rows = design[[known.index(pair) for pair in pairs]]
    weights, middles = _priors(known, spreads)
    terms, parts = len(spreads), design.shape[1]

    def misses(parameters: Floats) -> tuple[Floats, Floats]:
        """What is squared and added up, and the Jacobian of it."""
        theta = rows @ parameters.reshape(terms, parts).T
        each = np.exp(theta) * features
        total = each.sum(axis=1)
        shares = each / total[:, None]
        slopes = (shares[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
        data = np.log(total / observed) / noise
        prior = (parameters - middles) * weights
        return np.concatenate([data, prior]), np.vstack([slopes / noise, np.diag(weights)])

    best = _descend(misses, middles)
    theta = design @ best.reshape(terms, parts).T
    predicted = (np.exp(rows @ best.reshape(terms, parts).T) * features).sum(axis=1)
    by_pair = {pair: np.exp(theta[index]) for index, pair in enumerate(known)}
    return Terms(by_pair, predicted / observed - 1)


def _design(known: Sequence[Pair]) -> Floats:
    """One row per pair: the common part, those of routes, of classes, and of pairs."""
    routes = sorted({route for route, _durability in known})
    classes = sorted({durability for _route, durability in known})
    return np.array(
        [
            [
                1.0,
                *(float(route == item) for item in routes),
                *(float(durability == item) for item in classes),
                *(float(index == item) for item in range(len(known))),
            ]
            for index, (route, durability) in enumerate(known)
        ]
    )


def _priors(known: Sequence[Pair], spreads: Sequence[Spread]) -> tuple[Floats, Floats]:
    routes = len({route for route, _durability in known})
    classes = len({durability for _route, durability in known})
    weights, middles = [], []
    for item in spreads:
        widths = [
            item.common,
            *[item.route] * routes,
            *[item.durability] * classes,
            *[item.pair] * len(known),
        ]
        weights += [1 / width for width in widths]
        middles += [item.middle, *[0.0] * (len(widths) - 1)]
    return np.array(weights), np.array(middles)


def _descend(misses: Any, start: Floats) -> Floats:
    """Marquardt's steps, damped by how well the last one was foreseen (Nielsen, 1999)."""
    at, damping, harder = start, _DAMPING, 2.0
    errors, slopes = misses(at)
    for _ in range(_MAX_STEPS):
        normal, down = slopes.T @ slopes, -(slopes.T @ errors)
        scale = damping * normal.diagonal()
        step = np.linalg.solve(normal + np.diag(scale), down)
        tried, slopes_there = misses(at + step)
        before, after = errors @ errors, tried @ tried
        if after < before:
            at, errors, slopes = at + step, tried, slopes_there
            foreseen = step @ (scale * step + down)
            damping *= max(1 / 3, 1 - (2 * (before - after) / foreseen - 1) ** 3)
            harder = 2.0
            if before - after <= _SETTLED * before:
                return at
        else:
            damping, harder = damping * harder, harder * 2
            if damping > _MOST_DAMPING:  # no step however short helps: it is the lowest point
                return at
    raise ResultsError(
        f"model: the fit did not settle in {_MAX_STEPS} steps; look for cells with odd figures"
    )
