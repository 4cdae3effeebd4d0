"""Rows of the table of hazards on real brokers: the quick ones. All of them run as evidence."""

import pytest

from hookbench.clock import SystemClock
from hookbench.hazards.model import Outcome
from hookbench.hazards.registry import HAZARDS
from hookbench.hazards.suite import run_hazard
from hookbench.migration.phases import Design

FAST = ("R3", "R5", "R7", "P8", "P10", "C1", "B2", "N2", "N7")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("row", FAST)
async def test_the_guide_shows_the_harm_of_the_row(row, tmp_path):
    result = await run_hazard(
        HAZARDS[row], Design.GUIDE, folder=tmp_path / row, clock=SystemClock(), seed=7
    )
    assert result.problem == ""
    assert result.outcome is Outcome.SHOWN
    assert result.count > 0
    assert result.tasks


CLOSED = (
    ("R3", "leases", Outcome.PREVENTED),
    ("R4", "exact_removal", Outcome.PREVENTED),
    ("R5", "exact_removal", Outcome.PREVENTED),
    ("R5", "leases", Outcome.PREVENTED),
    ("R6", "oom_claims", Outcome.REFUSED),
    ("R7", "replica_wait", Outcome.PREVENTED),
    ("P10", "ack_after", Outcome.PREVENTED),
    ("P11", "repository_order", Outcome.PREVENTED),
)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("row", "measure", "outcome"), CLOSED)
async def test_one_measure_alone_closes_the_row(row, measure, outcome, tmp_path):
    result = await run_hazard(
        HAZARDS[row],
        Design.GUIDE,
        measures=measure,
        folder=tmp_path / row,
        clock=SystemClock(),
        seed=7,
    )
    assert result.problem == ""
    assert result.outcome is outcome


KEPT = (
    ("R4", Outcome.PREVENTED),
    ("R6", Outcome.REFUSED),
    ("R7", Outcome.PREVENTED),
    ("R8", Outcome.PREVENTED),
    ("P8", Outcome.PREVENTED),
    ("P11", Outcome.PREVENTED),
    ("N4", Outcome.PREVENTED),
)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("row", "outcome"), KEPT)
async def test_all_measures_together_close_the_row(row, outcome, tmp_path):
    result = await run_hazard(
        HAZARDS[row], Design.HARDENED, folder=tmp_path / row, clock=SystemClock(), seed=7
    )
    assert result.problem == ""
    assert result.outcome is outcome
