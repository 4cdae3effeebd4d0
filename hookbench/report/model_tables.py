"""What a notebook asks a model: it, its error, the day and the plan, as objects and as tables."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hookbench.errors import ResultsError, SettingError
from hookbench.migration.phases import Design, parse_phase
from hookbench.model.fit import fit_model
from hookbench.model.fitted import Model
from hookbench.model.observations import Knee, Observation, knees_of, read_observations
from hookbench.model.scale import Site, SitePlan, plan_site
from hookbench.model.shard_day import shard_day, strikes_of
from hookbench.model.texts import effect_rows, error_rows, site_lines, site_rows, strike_rows
from hookbench.model.timeline import Timeline
from hookbench.model.validate import Validation, validate
from hookbench.rehearsal.answers import load_answers
from hookbench.rehearsal.matrix_book import MatrixBook
from hookbench.rehearsal.matrix_plan import load_stored_plan

__all__ = [
    "check_model",
    "errors_table",
    "held_out_frame",
    "identify_matrices",
    "load_model",
    "outages_table",
    "plan_of_site",
    "plan_table",
    "plan_text",
    "site_day",
    "strikes_table",
]

_MIB = 2**20


def identify_matrices(matrices: Sequence[str | Path]) -> str:
    """One line for each session of the matrices: seed, commit, versions and machine.

    Raises:
        ResultsError: one is no matrix.
    """
    lines = []
    for folder in map(Path, matrices):
        stored = load_stored_plan(folder)
        if stored is None:
            raise ResultsError(f"matrix {folder}: no plan.json; hookbench matrix --out makes one")
        lines += [
            f"{folder.name}  seed {stored.plan.seed}  design {stored.plan.design}"
            f"  commit {made.commit}  hookbench {made.hookbench}, python {made.python},"
            f" {made.cpus} x {made.cpu}"
            for made in (item.environment for item in MatrixBook(folder, stored).sessions)
        ]
    return "\n".join(lines)


def load_model(matrices: Sequence[str | Path], answers: str | Path | None = None) -> Model:
    """The model of matrices on one machine, with answers of capacity for what is sustained.

    Raises:
        ResultsError: they cannot be read or fitted.
    """
    observations, knees = _read(matrices, answers)
    return fit_model(observations, knees)


def check_model(matrices: Sequence[str | Path], answers: str | Path | None = None) -> Validation:
    """The error of the same model on the half of the cells that it was not fitted on.

    Raises:
        ResultsError: they cannot be read, or a half not be fitted.
    """
    observations, knees = _read(matrices, answers)
    return validate(observations, knees)


def _read(
    matrices: Sequence[str | Path], answers: str | Path | None
) -> tuple[list[Observation], list[Knee]]:
    observations = read_observations([Path(folder) for folder in matrices])
    return observations, knees_of(load_answers(answers)) if answers is not None else []


def errors_table(found: Validation) -> pd.DataFrame:
    """One row per figure, all of them last: cells, median and worst error."""
    return pd.DataFrame(error_rows(found)).set_index("figure")


def held_out_frame(found: Validation) -> pd.DataFrame:
    """One row per figure of a cell, as ``HeldOut`` has it: predicted, measured, error."""
    names = found.rows[0].__struct_fields__
    return pd.DataFrame({name: [getattr(row, name) for row in found.rows] for name in names})


def outages_table(found: Timeline) -> pd.DataFrame:
    """One row per outage of a day; none without."""
    rows = effect_rows(found)
    return pd.DataFrame(rows).set_index("away") if rows else pd.DataFrame()


def plan_of_site(
    model: Model, *, rate_per_s: float, workers: int, service_ms: float, design: str = "guide"
) -> SitePlan:
    """The migration of a site, sharded over Redis masters and streams; see ``Site``.

    Args:
        model: of ``load_model``.
        rate_per_s: at the peak of a day.
        workers: processes that there are.
        service_ms: time that a task takes.
        design: of the matrices that the model was fitted on.

    Raises:
        SettingError: a value is out of bounds.
    """
    if design not in tuple(Design):
        raise SettingError(f"design {design!r}: use one of {', '.join(Design)}")
    site = Site(
        rate_per_s=rate_per_s, workers=workers, service_ms=service_ms, design=Design(design)
    )
    return plan_site(model, site)


def plan_text(found: SitePlan) -> str:
    """What a plan is of, a line each, and what there is to know of its phases."""
    return "\n".join(site_lines(found))


def site_day(
    found: SitePlan,
    phase: str,
    *,
    outages: Sequence[str] = (),
    night: float = 1.0,
    maxmemory_mib: float = 0.0,
) -> Timeline:
    """A day of one shard of a planned site; see ``shard_day``.

    Raises:
        SettingError: no such phase or outage, or a value is out of bounds.
    """
    return shard_day(
        found,
        parse_phase(phase),
        outages=outages,
        night=night,
        maxmemory_bytes=maxmemory_mib * _MIB,
    )


def strikes_table(found: SitePlan, maxmemory_mib: float) -> pd.DataFrame:
    """One row per phase: after how long the limits of a shard are reached at the peak."""
    rows = strike_rows(strikes_of(found, maxmemory_mib * _MIB))
    return pd.DataFrame(rows).set_index("phase")


def plan_table(found: SitePlan) -> pd.DataFrame:
    """One row per figure of the plan of a site, a column per phase."""
    return pd.DataFrame(site_rows(found)).set_index("phase").T.rename_axis("figure")
