"""The fit: from measured cells to what a task costs and waits, per route and durability class."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hookbench.errors import ResultsError
from hookbench.model.batching import mean_batch
from hookbench.model.fit_waits import fit_latencies
from hookbench.model.fitted import Model, Residual
from hookbench.model.observations import ROLES, Knee, Observation, noise_of
from hookbench.model.saturation import limits_per_s, most_batch, processes_of, saturated_us
from hookbench.model.terms import Spread, Terms, fit_terms

__all__ = ["fit_model"]

_RATES = ("done_per_s", "accepted_per_s")
_START_S = {"producer": 0.5, "broker": 0.05, "worker": 0.5}
"""CPU time of a process that is not for tasks: its start and its idle loop, before the data."""
_POOLED = {"route": 0.01, "durability": 0.01, "pair": 0.01}
"""Of a term that all pairs have in common."""
_ROUNDS = 4
"""Of the fit of costs and the batches that follow from them."""
_LEAST_PAYLOADS = 2
_US_PER_S = 1e6
_BYTES_PER_KIB = 1024


def fit_model(observations: Sequence[Observation], knees: Sequence[Knee] = ()) -> Model:
    """Fit everything.

    Args:
        observations: of both kinds, with at least two payloads.
        knees: answers of capacity on the same machine, for the sustained rate and the waits; those
            of another design, or of a pair that was not measured, are left out.

    Raises:
        ResultsError: what cannot be fitted, and what to measure.
    """
    _check(observations)
    setup = observations[0].setup
    terms = {f"{role}_cpu_us": _fit_costs(observations, role) for role in ROLES}
    saturated = [item for item in observations if item.kind == "throughput"]
    model = Model(setup=setup, terms=terms)
    residuals = [_residuals(f"{role}_cpu_us", observations, terms) for role in ROLES]
    for name in _RATES:
        terms[name] = _fit_efficiency(model, saturated, name)
        residuals.append(_residuals(name, saturated, terms))
    measured = {item.pair for item in observations}
    design = observations[0].design
    knees = [knee for knee in knees if knee.pair in measured and knee.design == design]
    model = replace(
        model,
        knees={knee.pair: _knee_share(model, knee) for knee in knees},
        payloads={
            pair: tuple(sorted({o.payload_bytes for o in observations if o.pair == pair}))
            for pair in measured
        },
    )
    model, waits = fit_latencies(model, observations, knees)
    left_over = tuple(item for found in [*residuals, waits] for item in found)
    return replace(model, residuals=left_over)


def _check(observations: Sequence[Observation]) -> None:
    """Refuse what says nothing about a term, and name the term."""
    payloads = {item.payload_bytes for item in observations}
    if len(payloads) < _LEAST_PAYLOADS:
        only = f"{payloads.pop():,.0f} B" if payloads else "no cell"
        raise ResultsError(
            f"model: the cost per byte cannot be fitted from {only} alone; measure a second"
            " payload: hookbench matrix --payload 64,4096"
        )
    for kind, what in (
        ("throughput", "the cost of a task in large batches, and the rate at saturation,"),
        ("latency", "the cost of a wake-up, and the latency,"),
    ):
        having = {item.pair for item in observations if item.kind == kind}
        for pair in sorted({item.pair for item in observations} - having):
            raise ResultsError(
                f"model: {what} of {' '.join(pair)} cannot be fitted without trials of {kind};"
                f" measure them: hookbench matrix --kinds throughput,latency"
            )
    if len({item.setup for item in observations}) > 1:
        raise ResultsError(
            "model: the matrices were made with different processes, concurrency or service times;"
            " a fit is of one of each: leave the others out"
        )


def _residuals(
    figure: str, observations: Sequence[Observation], terms: dict[str, Terms]
) -> list[Residual]:
    found = terms[figure].residuals
    return [
        Residual(figure, item.label, float(error))
        for item, error in zip(observations, found, strict=True)
    ]


def _fit_costs(observations: Sequence[Observation], role: str) -> Terms:
    """Task, KiB, wake-up and start of one role; the batches follow from them, so in rounds."""
    figure = f"{role}_cpu_us"
    observed = np.array([item.figures[figure] for item in observations])
    if (observed <= 0).any():
        odd = observations[int(np.argmax(observed <= 0))]
        raise ResultsError(f"model: {figure} of {odd.label} is {observed.min():g}: leave it out")
    pairs = [item.pair for item in observations]
    kib = np.array([item.payload_bytes / _BYTES_PER_KIB for item in observations])
    most = np.array([most_batch(role, item.setup) for item in observations])
    processes = np.array([processes_of(role, item.setup) for item in observations])
    saturated = np.array([item.kind == "throughput" for item in observations])
    rates = np.array([item.rate_per_s for item in observations]) / processes
    done = np.array([max(1.0, item.figures["done"]) for item in observations])
    starts = processes * _US_PER_S / done
    batches = np.where(saturated, most, 1.0)
    noise = noise_of(observations, figure)
    base = float(np.log(np.median(observed[saturated])))
    spreads = [
        Spread(middle=base - math.log(2)),
        Spread(middle=base - math.log(20), route=0.5, durability=0.5, pair=0.2),
        Spread(middle=float(np.log(np.median(observed)))),
        Spread(middle=math.log(_START_S[role]), common=0.5, **_POOLED),
    ]
    terms: Terms | None = None
    for _ in range(_ROUNDS):
        features = np.stack([np.ones(len(kib)), kib, 1 / batches, starts], axis=1)
        terms = fit_terms(pairs, features, observed, spreads, noise=noise)
        each = np.array([terms.by_pair[pair] for pair in pairs])
        at_rate = mean_batch(rates, each[:, 0] + each[:, 1] * kib, each[:, 2], most)
        batches = np.where(saturated, most, at_rate)
    assert terms is not None
    return terms


def _fit_efficiency(model: Model, saturated: Sequence[Observation], figure: str) -> Terms:
    """Measured over computed rates at saturation."""
    computed = [
        getattr(model.flood(item.pair, item.payload_bytes, item.setup), figure)
        for item in saturated
    ]
    observed = np.array([item.figures[figure] for item in saturated]) / np.array(computed)
    ones = np.ones((len(saturated), 1))
    return fit_terms(
        [item.pair for item in saturated],
        ones,
        observed,
        [Spread(middle=-0.3)],
        noise=noise_of(saturated, figure),
    )


def _knee_share(model: Model, knee: Knee) -> float:
    """The middle of a sustained interval over the balanced rate."""
    middle_per_s = math.sqrt(knee.low_per_s * knee.high_per_s)
    costs_us = saturated_us(model.costs(knee.pair), knee.payload_bytes, model.setup)
    return middle_per_s / min(limits_per_s(knee.pair[0], costs_us, model.setup).values())
