"""What a model is fitted from: the cells of measured matrices, and answers of capacity."""

import math
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hookbench.errors import ResultsError
from hookbench.ledger.model import Verdict
from hookbench.load.payloads import parse_payload
from hookbench.model.terms import NOISE
from hookbench.rehearsal.capacity import NULL, QUEUES, CapacityAnswer
from hookbench.rehearsal.matrix_book import MatrixBook, TrialRecord
from hookbench.rehearsal.matrix_plan import Cell, Kind, MatrixPlan, load_stored_plan

__all__ = [
    "ROLES",
    "Knee",
    "Observation",
    "Setup",
    "knees_of",
    "mean_payload_bytes",
    "noise_of",
    "observations_of",
    "read_observations",
]

ROLES = ("producer", "broker", "worker")
_LEAST_REPEATS = 3
_LEAST_NOISE = 0.03
_DRAWS = 2000
"""Of a distribution of payloads, to know its mean."""
_PAYLOAD_OF_ANSWERS_BYTES = 256.0


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What cells were measured with, or what is to be predicted.

    Attributes:
        producers, workers: processes, of which each has at most one core.
        concurrency: tasks at once in a worker.
        callers: tasks that are being put all the time, at saturation.
        cores: of the machine that all of them share.
        service_ms: time that a task takes, beside the CPU of the worker.
    """

    producers: int = 1
    workers: int = 1
    concurrency: int = 32
    callers: int = 100
    cores: int = 2
    service_ms: float = 0.0


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of trial of one cell: medians over its repeats.

    Attributes:
        route: a queue, or a phase that uses both brokers.
        durability: class.
        payload_bytes: the mean.
        kind: of the trials; ``throughput`` is at saturation.
        rate_per_s: that was offered; 0 at saturation.
        repeats: that are known.
        design: of the reference code.
        setup: that it was measured with.
        figures: as of ``measure_trial``.
        noise: of each figure that is above 0 in each of at least three repeats: the standard
            error of its logarithm.
    """

    route: str
    durability: str
    payload_bytes: float
    kind: Kind
    rate_per_s: float
    repeats: int
    design: str
    setup: Setup
    figures: dict[str, float]
    noise: dict[str, float] = {}

    @property
    def pair(self) -> tuple[str, str]:
        """Route and durability class."""
        return self.route, self.durability

    @property
    def cell(self) -> tuple[str, str, float]:
        """What is held out as a whole: the pair and the payload, with every kind and rate."""
        return *self.pair, self.payload_bytes

    @property
    def label(self) -> str:
        """For a line of text."""
        at = f" at {self.rate_per_s:g}/s" if self.rate_per_s else ""
        return f"{self.route} {self.durability} {self.payload_bytes:,.0f} B {self.kind}{at}"


class Knee(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer of ``hookbench capacity`` says: the sustained rate, and p99 below it.

    Attributes:
        low_per_s, high_per_s: the interval.
        p99_ms: the median over the trials of a rate that was sustained, by rate.
    """

    route: str
    durability: str
    design: str
    payload_bytes: float
    low_per_s: float
    high_per_s: float
    p99_ms: dict[float, float]

    @property
    def pair(self) -> tuple[str, str]:
        """Route and durability class."""
        return self.route, self.durability


def read_observations(folders: Sequence[Path]) -> list[Observation]:
    """Every cell of matrices that was measured.

    Args:
        folders: of matrices, also ones that are not whole, on one machine and of one design.

    Raises:
        ResultsError: one is no matrix or damaged, none has a figure, or they are not alike.
    """
    found: list[Observation] = []
    made: list[tuple[Path, str, str]] = []
    for folder in folders:
        stored = load_stored_plan(folder)
        if stored is None:
            raise ResultsError(f"matrix {folder}: no plan.json; hookbench matrix --out makes one")
        book = MatrixBook(folder, stored)
        standing = (book.standing(index) for index in range(len(stored.trials)))
        machines = {(s.environment.cpu, s.environment.cpus) for s in book.sessions}
        if len(machines) > 1:
            raise ResultsError(
                f"matrix {folder}: made on {len(machines)} machines; a model is of one: measure it"
                " anew on one of them"
            )
        cores = book.sessions[0].environment.cpus if book.sessions else 1
        found += observations_of(stored.plan, [r for r in standing if r is not None], cores=cores)
        made += [(folder, str(stored.plan.design), f"{cpus} x {cpu}") for cpu, cpus in machines]
    for folder, design, machine in made[1:]:
        if (design, machine) != made[0][1:]:
            raise ResultsError(
                f"matrix {folder}: design {design} on {machine}, and {made[0][0]} is of design"
                f" {made[0][1]} on {made[0][2]}: a model is of one design on one machine"
            )
    if not found:
        names = ", ".join(map(str, folders)) or "no folder"
        raise ResultsError(f"matrix {names}: no trial has a figure; hookbench matrix goes on")
    return found


def observations_of(
    plan: MatrixPlan, records: Sequence[TrialRecord], *, cores: int
) -> list[Observation]:
    """The medians of each cell and kind over its trials that say something.

    Those of redelivery are left out: the model knows of no worker that dies.

    Args:
        plan: of the matrix.
        records: of the trials that stand.
        cores: of the machine.
    """
    setup = Setup(
        producers=plan.producers,
        workers=plan.workers,
        concurrency=plan.concurrency,
        callers=plan.callers,
        cores=cores,
        service_ms=plan.service_ms,
    )
    by_cell: dict[tuple[Cell, Kind], list[TrialRecord]] = {}
    for record in records:
        modelled = record.trial.kind != "redelivery"
        if modelled and record.verdict is not Verdict.UNKNOWN and record.figures:
            by_cell.setdefault((record.trial.cell, record.trial.kind), []).append(record)
    found = [
        Observation(
            route=cell.route,
            durability=str(cell.durability),
            payload_bytes=mean_payload_bytes(cell.payload),
            kind=kind,
            rate_per_s=plan.rate_per_s if kind == "latency" else 0.0,
            repeats=len(made),
            design=str(plan.design),
            setup=setup,
            figures={
                name: statistics.median(record.figures[name] for record in made)
                for name in made[0].figures
            },
            noise=_noise_of(made),
        )
        for (cell, kind), made in by_cell.items()
    ]
    return sorted(found, key=lambda item: (item.pair, item.payload_bytes, item.rate_per_s))


def _noise_of(made: Sequence[TrialRecord]) -> dict[str, float]:
    if len(made) < _LEAST_REPEATS:
        return {}
    values = {name: [record.figures[name] for record in made] for name in made[0].figures}
    return {
        name: statistics.stdev(map(math.log, each)) / math.sqrt(len(each))
        for name, each in values.items()
        if min(each) > 0
    }


def noise_of(observations: Sequence[Observation], figure: str) -> float:
    """Of a figure: the median over the cells, so that a few wild ones do not count for all.

    It is at least 3 %: cells differ by more than their repeats do.
    """
    known = [item.noise[figure] for item in observations if figure in item.noise]
    return max(_LEAST_NOISE, statistics.median(known)) if known else NOISE


def mean_payload_bytes(text: str) -> float:
    """The size, or the mean of a distribution over draws that are always the same."""
    sizes = parse_payload(text)
    if text.isdigit():
        return float(text)
    rng = random.Random(0)
    return statistics.fmean(sizes.draw(rng) for _ in range(_DRAWS))


def knees_of(
    answers: Sequence[CapacityAnswer], *, payload_bytes: float = _PAYLOAD_OF_ANSWERS_BYTES
) -> list[Knee]:
    """What answers say of queues; those of the harness and without an interval are left out.

    Args:
        answers: of ``hookbench capacity``.
        payload_bytes: that they were searched with, which an answer does not tell; the default is
            that of the command.
    """
    found = []
    for answer in answers:
        route, _, rest = answer.label.partition("-")
        durability, _, design = rest.partition("-")
        capacity = answer.capacity
        if answer.label == NULL or route not in QUEUES or answer.unknown_because:
            continue
        if capacity.high_per_s is None or not capacity.low_per_s:
            continue
        p99_ms = {
            judgement.rate_per_s: statistics.median(values)
            for judgement in capacity.judgements
            if judgement.sustained
            and (
                values := [
                    trial.figures.get("p99_median_ms", trial.figures["p99_ms"])
                    for trial in judgement.trials
                    if "p99_ms" in trial.figures
                ]
            )
        }
        found.append(
            Knee(
                route=route,
                durability=durability,
                design=design,
                payload_bytes=payload_bytes,
                low_per_s=capacity.low_per_s,
                high_per_s=capacity.high_per_s,
                p99_ms=p99_ms,
            )
        )
    return found
