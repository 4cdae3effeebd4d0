"""Rows of the table of hazards that the producer's measures close, each with its switch alone."""

import pytest

from hookbench.clock import SystemClock
from hookbench.hazards.model import Harm, Outcome
from hookbench.hazards.registry import HAZARDS
from hookbench.hazards.rows import nats_window
from hookbench.hazards.suite import run_hazard
from hookbench.migration.phases import Design


async def look(row, measures, tmp_path):
    result = await run_hazard(
        HAZARDS[row],
        Design.GUIDE,
        measures=measures,
        folder=tmp_path / row,
        clock=SystemClock(),
        seed=7,
    )
    assert result.problem == ""
    return result


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("row", "measures"),
    [("P3", "outbox"), ("P4", "outbox"), ("P4", "message_ids")],
)
async def test_the_harm_is_prevented(row, measures, tmp_path):
    result = await look(row, measures, tmp_path)
    assert result.outcome is Outcome.PREVENTED, result.observations


@pytest.mark.timeout(120)
async def test_no_publish_stalls_while_a_leader_is_elected(tmp_path):
    """The guide's acknowledgements may be lost with the leader, which is another measure's."""
    result = await look("N1", "outbox", tmp_path)
    harms = {item.harm for item in result.observations if item.count and item.harm is not None}
    assert harms <= {Harm.DUPLICATED}, result.observations


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("row", "measures"), [("P2", "outbox"), ("P9", "outbox"), ("P9", "reconcile")]
)
async def test_nothing_is_stuck(row, measures, tmp_path):
    """What is left is another measure's: Redis copies of finished tasks stay."""
    result = await look(row, measures, tmp_path)
    harms = {item.harm for item in result.observations if item.count}
    assert Harm.STUCK not in harms, result.observations
    assert Harm.LEFT in harms


@pytest.mark.timeout(120)
@pytest.mark.parametrize("measures", ["message_ids", "outbox"])
async def test_a_repeat_within_the_window_is_stored_once(measures, tmp_path, monkeypatch):
    """A producer that could repeat outside of it is refused; what a caller repeats is not."""
    monkeypatch.setattr(nats_window, "_WINDOW_S", 5.0)  # for a machine that is busy
    result = await look("N2", measures, tmp_path)
    texts = [item.text for item in result.observations]
    assert any(text.startswith("refused at its start") for text in texts)
    assert any("the stream holds 2 copies, 2 with a Nats-Msg-Id" in text for text in texts)
