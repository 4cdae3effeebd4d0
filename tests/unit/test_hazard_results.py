"""From what a scenario observed to the outcome of its row."""

import msgspec
import pytest

from hookbench.errors import HeldBackError
from hookbench.hazards import suite
from hookbench.hazards.model import Harm, Hazard, HazardResult, Observation, Outcome, Protection
from hookbench.hazards.suite import outcome_of
from hookbench.migration.phases import Design, Phase


async def nothing(_bench):
    return []


ROW = Hazard(id="R1", where="here", mechanism="it does", harm=Harm.LOST, scenario=nothing)


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        ([], Outcome.OTHERWISE),
        ([Observation(text="2 lost", harm=Harm.LOST, count=2)], Outcome.SHOWN),
        ([Observation(text="0 lost", harm=Harm.LOST, count=0)], Outcome.OTHERWISE),
        ([Observation(text="2 stuck", harm=Harm.STUCK, count=2)], Outcome.OTHERWISE),
        ([Observation(text="no", protection=Protection.REFUSED)], Outcome.REFUSED),
        (
            [
                Observation(text="no", protection=Protection.PREVENTED),
                Observation(text="2 stuck", harm=Harm.STUCK, count=2),
            ],
            Outcome.OTHERWISE,
        ),
        (
            [
                Observation(text="seen in time", protection=Protection.ALARMED),
                Observation(text="1 lost", harm=Harm.LOST, count=1),
            ],
            Outcome.SHOWN,
        ),
    ],
)
def test_an_outcome_follows_from_what_was_observed(found, outcome):
    assert outcome_of(ROW, found) is outcome


@pytest.mark.parametrize(
    ("design", "outcome", "otherwise", "expected"),
    [
        (Design.GUIDE, Outcome.SHOWN, "", True),
        (Design.GUIDE, Outcome.OTHERWISE, "", False),
        (Design.GUIDE, Outcome.PREVENTED, "", False),
        (Design.GUIDE, Outcome.PREVENTED, "known", True),
        (Design.GUIDE, Outcome.SHOWN, "known", False),
        (Design.GUIDE, Outcome.UNKNOWN, "known", False),
        (Design.GUIDE, Outcome.UNKNOWN, "", False),
        (Design.HARDENED, Outcome.ALARMED, "", True),
        (Design.HARDENED, Outcome.OTHERWISE, "", False),
        (Design.HARDENED, Outcome.SHOWN, "", False),
    ],
)
def test_what_is_expected_of_a_design(design, outcome, otherwise, expected):
    result = HazardResult(
        id="R1",
        where="here",
        mechanism="it does",
        design=design,
        harm=Harm.LOST,
        outcome=outcome,
        otherwise=otherwise,
    )
    assert result.as_expected is expected


@pytest.mark.parametrize("outcome", list(Outcome))
def test_of_changed_measures_nothing_is_expected_but_an_answer(outcome):
    changed = HazardResult(
        id="X1",
        where="-",
        mechanism="-",
        design=Design.GUIDE,
        harm=Harm.LOST,
        outcome=outcome,
        measures="ack_after",
    )
    assert changed.as_expected == (outcome is not Outcome.UNKNOWN)


@pytest.mark.parametrize(
    ("step", "conditions", "told"),
    [
        ("reroute_producers", (), True),
        ("ask_before", ("watermark",), True),
        ("ask_before", ("head-room",), False),
    ],
)
async def test_held_back_counts_as_refused_for_the_reason_of_the_row_only(step, conditions, told):
    class Bench:
        phases = (Phase.DUAL_READ,)

    async def scenario(_bench):
        raise HeldBackError("no", step=step, evidence="e", conditions=conditions)

    row = msgspec.structs.replace(
        ROW, scenario=scenario, held_by=("watermark", "reroute_producers")
    )
    if not told:
        with pytest.raises(HeldBackError):
            await suite._run(row, Bench())
        return
    (found,) = await suite._run(row, Bench())
    assert found.protection is Protection.REFUSED
    assert found.harm is None
