"""Whether the model holds: fitted on one half of the cells, compared with the other."""

import itertools
import statistics
from collections.abc import Sequence

import msgspec

from hookbench.errors import ResultsError
from hookbench.load.objectives import MAX_GROWTH
from hookbench.model.fit import fit_model
from hookbench.model.fitted import LATENCIES, Model
from hookbench.model.observations import ROLES, Knee, Observation
from hookbench.model.saturation import most_batch, processes_of

__all__ = ["FigureError", "HeldOut", "Validation", "halves_of", "predicted_figures", "validate"]

_US_PER_S = 1e6


class HeldOut(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of a cell that the fit had not seen.

    Attributes:
        cell: for a line of text.
        route, durability, payload_bytes, kind, rate_per_s: of the cell.
        figure: as of ``measure_trial``.
        predicted, measured: in its unit.
        error: predicted over measured, minus 1.
    """

    cell: str
    route: str
    durability: str
    payload_bytes: float
    kind: str
    rate_per_s: float
    figure: str
    predicted: float
    measured: float
    error: float


class FigureError(msgspec.Struct, frozen=True, kw_only=True):
    """The errors of one figure, or of all: absolute values.

    Attributes:
        figure: ``all`` for all of them.
        cells: that it is of.
        median, worst: of the absolute errors.
        worst_cell: where that is.
    """

    figure: str
    cells: int
    median: float
    worst: float
    worst_cell: str


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """What came of both halves.

    Attributes:
        rows: every figure of every cell, each predicted by a fit without that cell.
        errors: by figure, those of all last.
        halves: cells of each.
    """

    rows: tuple[HeldOut, ...]
    errors: tuple[FigureError, ...]
    halves: tuple[int, int]


def halves_of(
    observations: Sequence[Observation],
) -> tuple[list[Observation], list[Observation]]:
    """The cells as the fields of a chess board: neighbours are in different halves.

    The fields are routes, durability classes and payloads in their order, so that each half has
    every pair of route and class that has two payloads, and about as many small as large ones. Of
    a pair with four payloads each half has two; of one with two, each has one, and what a byte
    costs is taken from the other pairs.
    """
    routes = sorted({item.route for item in observations})
    classes = sorted({item.durability for item in observations})
    halves: tuple[list[Observation], list[Observation]] = ([], [])
    for item in observations:
        payloads = sorted({o.payload_bytes for o in observations if o.pair == item.pair})
        place = (
            routes.index(item.route)
            + classes.index(item.durability)
            + payloads.index(item.payload_bytes)
        )
        halves[place % 2].append(item)
    return halves


def validate(observations: Sequence[Observation], knees: Sequence[Knee] = ()) -> Validation:
    """Fit each half, and predict the other: every cell is predicted by a fit without it.

    Args:
        observations: all of them.
        knees: of which each fit has the interval, and every other rate with its p99.

    Raises:
        ResultsError: a half cannot be fitted; the text says what to measure.
    """
    first, second = halves_of(observations)
    rows: list[HeldOut] = []
    even, odd = _halves_of_rates(knees)
    for fitted, held_out, rates, other in (
        (first, second, even, odd),
        (second, first, odd, even),
    ):
        known = {item.pair for item in fitted}
        missing = sorted({item.pair for item in held_out} - known)
        if missing:
            raise ResultsError(
                f"model: {' '.join(missing[0])} has one payload, which is held out: nothing is"
                " left to fit; measure a second one: hookbench matrix --payload 64,4096"
            )
        model = fit_model(fitted, rates)
        rows += itertools.chain.from_iterable(_rows(model, item) for item in held_out)
        rows += itertools.chain.from_iterable(_rows_of_knee(model, knee) for knee in other)
    rows.sort(key=lambda row: (row.figure, row.cell))
    figures = sorted({row.figure for row in rows})
    errors = [_error(figure, [row for row in rows if row.figure == figure]) for figure in figures]
    cells = tuple(len({item.cell for item in half}) for half in (first, second))
    return Validation(
        rows=tuple(rows),
        errors=(*errors, _error("all", rows)),
        halves=(cells[0], cells[1]),
    )


def predicted_figures(model: Model, item: Observation) -> dict[str, float]:
    """What the model says of a cell with the setup that it was measured with.

    A latency of a rate that is not sustained is left out, for it grows with the length of a trial.
    """
    payload, setup = item.payload_bytes, item.setup
    done = item.figures["done"]
    found = {}
    for role, cost in model.costs(item.pair).items():
        most, processes = most_batch(role, setup), processes_of(role, setup)
        saturated = item.kind == "throughput"
        batch = most if saturated else cost.batch_at(item.rate_per_s / processes, payload, most)
        start_us = model.start_s(role) * processes * _US_PER_S / max(1.0, done)
        found[f"{role}_cpu_us"] = cost.of_batch(payload, batch) + start_us
    if item.kind == "throughput":
        flood = model.flood(item.pair, payload, setup)
        for name in ("done_per_s", "accepted_per_s"):
            found[name] = getattr(flood, name) * model.efficiency(item.pair, name)
        return found
    if item.figures["growth_share"] > MAX_GROWTH:
        return found
    for name in LATENCIES:
        if item.pair not in model.terms[name].by_pair:
            continue
        limit = model.measured_limit_per_s(item.pair, payload, name)
        if item.rate_per_s < limit:
            wait_ms = model.wait_ms(name, item.rate_per_s, limit)
            found[name] = model.fixed_ms(item.pair, name, payload) + wait_ms
    return found


def _rows(model: Model, item: Observation) -> list[HeldOut]:
    return [
        HeldOut(
            cell=item.label,
            route=item.route,
            durability=item.durability,
            payload_bytes=item.payload_bytes,
            kind=item.kind,
            rate_per_s=item.rate_per_s,
            figure=_named(figure, item),
            predicted=value,
            measured=item.figures[figure],
            error=value / item.figures[figure] - 1,
        )
        for figure, value in predicted_figures(model, item).items()
    ]


def _halves_of_rates(knees: Sequence[Knee]) -> tuple[list[Knee], list[Knee]]:
    """Each answer twice, with every other rate."""

    def half(knee: Knee, first: int) -> Knee:
        rates = sorted(knee.p99_ms)[first::2]
        return msgspec.structs.replace(knee, p99_ms={rate: knee.p99_ms[rate] for rate in rates})

    return [half(knee, 0) for knee in knees], [half(knee, 1) for knee in knees]


def _rows_of_knee(model: Model, knee: Knee) -> list[HeldOut]:
    """p99 of the rates of an answer that the fit has not seen, if it has the pair and design."""
    if knee.pair not in model.knees or knee.pair not in model.terms["p99_ms"].by_pair:
        return []
    limit = model.measured_limit_per_s(knee.pair, knee.payload_bytes, "p99_ms")
    fixed_ms = model.fixed_ms(knee.pair, "p99_ms", knee.payload_bytes)
    return [
        HeldOut(
            cell=f"{' '.join(knee.pair)} answer at {rate:g}/s",
            route=knee.route,
            durability=knee.durability,
            payload_bytes=knee.payload_bytes,
            kind="answer",
            rate_per_s=rate,
            figure="answers_p99_ms",
            predicted=(predicted := fixed_ms + model.wait_ms("p99_ms", rate, limit)),
            measured=measured,
            error=predicted / measured - 1,
        )
        for rate, measured in knee.p99_ms.items()
        if rate < limit * model.headroom
    ]


def _named(figure: str, item: Observation) -> str:
    """CPU at a low rate and at saturation are two figures."""
    if figure.removesuffix("_cpu_us") not in ROLES:
        return figure
    return f"{figure}, {'saturated' if item.kind == 'throughput' else 'at a rate'}"


def _error(figure: str, rows: Sequence[HeldOut]) -> FigureError:
    worst = max(rows, key=lambda row: abs(row.error))
    return FigureError(
        figure=figure,
        cells=len({(row.route, row.durability, row.payload_bytes) for row in rows}),
        median=statistics.median(abs(row.error) for row in rows),
        worst=abs(worst.error),
        worst_cell=worst.cell if figure != "all" else f"{worst.figure} of {worst.cell}",
    )
