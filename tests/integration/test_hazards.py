"""Rows of the table of hazards on real brokers: the quick ones. All of them run as evidence."""

import pytest

from hookbench.clock import SystemClock
from hookbench.hazards.model import Outcome
from hookbench.hazards.registry import HAZARDS
from hookbench.hazards.suite import run_hazard
from hookbench.migration.phases import Design

FAST = ("R3", "R5", "R7", "P8", "C1", "B2", "N2", "N7")


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
