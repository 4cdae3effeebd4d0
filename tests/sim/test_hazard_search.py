"""The search that the proof ``simulated_hazards`` makes for each hazard."""

from types import SimpleNamespace

import pytest

from hookbench.ledger.model import Finding, Verdict
from tests.evidence import test_simulated_hazards as proof
from tests.evidence.simulated_hazards import WANTED

pytestmark = pytest.mark.usefixtures("quiet")
BY_HAZARD = {item.hazard: item for item in WANTED}


@pytest.fixture
def search(monkeypatch, tmp_path):
    """Searches with real brokers that find these hazards; what they were told."""

    def run(hazard, *shown):
        told = []

        def rehearse(settings):
            told.append(settings)
            findings = [
                Finding(invariant=number, row="-", hazard=name, count=1, text="", examples=[])
                for name, number in shown
            ]
            account = SimpleNamespace(findings=findings)
            return SimpleNamespace(run="0001", verdict=Verdict.INVALID, account=account)

        monkeypatch.setattr(proof, "rehearse", rehearse)
        return proof.Search(BY_HAZARD[hazard], tmp_path).run(), told

    return run


def test_a_hazard_is_shrunk_told_replayed_and_held_against_hardened(search):
    found, told = search("P10", ("P10", 1))
    assert (found.cause, found.faults, found.scope) == ("P10/1", 1, "guide nats_primary")
    assert found.seed == found.replayed > 0
    assert found.rehearsals == len(told) == 1
    assert (found.hardened, found.hardened_drawn) == ("valid", "valid")
    assert found.story[-1].startswith("So: ")
    assert 1 < found.events == len(found.story) - 2
    assert found.schedule.endswith(" s")
    assert proof.refuted([found]) == []


def test_what_real_brokers_do_not_show_is_tried_with_further_schedules(search):
    found, told = search("P10", ("P8", 5))
    assert found.seed > 0
    assert found.replayed == 0
    assert found.rehearsals == len(told) == proof.MOST_SCHEDULES * proof.TRIES
    assert len({settings.seed for settings in told}) == proof.MOST_SCHEDULES
    assert found.instead == "P8/5"
    assert proof.too_few(["P10"]) == ["only P10 shown on real brokers"]
