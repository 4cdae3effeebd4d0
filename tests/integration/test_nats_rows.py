"""Rows of the table of hazards with one measure on NATS switched on, on real brokers."""

import pytest

from hookbench.clock import SystemClock
from hookbench.hazards.model import Outcome
from hookbench.hazards.registry import HAZARDS
from hookbench.hazards.suite import run_hazard
from hookbench.migration.phases import Design

ROWS = (
    ("N3", "own_attempts", Outcome.PREVENTED),
    ("N4", "ack_after,growing_nak", Outcome.PREVENTED),
    ("N5", "sized_pending", Outcome.PREVENTED),
    ("N8", "epoch_consumer", Outcome.REFUSED),
    ("N9", "short_pings", Outcome.PREVENTED),
    ("P7", "rescue_aged", Outcome.PREVENTED),
    ("T1", "consumer_per_type", Outcome.PREVENTED),
)


@pytest.mark.timeout(150)
@pytest.mark.parametrize(("row", "measures", "outcome"), ROWS)
async def test_the_measure_alone_closes_the_row(row, measures, outcome, tmp_path):
    result = await run_hazard(
        HAZARDS[row],
        Design.GUIDE,
        measures=measures,
        folder=tmp_path / row,
        clock=SystemClock(),
        seed=7,
    )
    assert result.problem == ""
    assert result.outcome is outcome, result.observations
