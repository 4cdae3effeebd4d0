"""What a notebook asks a model: it, its error, the day and the plan, as objects and as tables."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hookbench.model.fit import fit_model
from hookbench.model.fitted import Model
from hookbench.model.observations import Knee, Observation, knees_of, read_observations
from hookbench.model.scale import SitePlan
from hookbench.model.texts import effect_rows, error_rows, site_rows
from hookbench.model.timeline import Timeline
from hookbench.model.validate import Validation, validate
from hookbench.rehearsal.answers import load_answers

__all__ = [
    "check_model",
    "errors_table",
    "held_out_frame",
    "load_model",
    "outages_table",
    "plan_table",
]


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


def plan_table(found: SitePlan) -> pd.DataFrame:
    """One row per figure of the plan of a site, a column per phase."""
    return pd.DataFrame(site_rows(found)).set_index("phase").T.rename_axis("figure")
