"""Minimal schedules on real brokers: when a hazard counts, and what the table says."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from hookbench.ledger.model import Finding, Verdict
from hookbench.migration.phases import Design, Phase
from hookbench.sim.replay import replay, replay_table
from hookbench.sim.replayed import Clean
from hookbench.sim.schedule import FaultKind, SimFault
from hookbench.sim.shrink import Minimal
from hookbench.sim.trial import Cause, Scope

OUT = Path("runs")


def minimal(*faults, hazard="P10", invariant=1):
    text = "3 tasks lost"
    cause = Cause(hazard=hazard, invariant=invariant, row="-", count=3, text=text)
    scope = Scope(design=Design.GUIDE, phases=(Phase.NATS_PRIMARY,))
    return Minimal(seed=12, scope=scope, faults=faults, cause=cause, tries=9, digest="")


KILL = SimFault(kind=FaultKind.KILL_AT_STEP, target="worker-0", at_s=3.0, step="start", turns=2)


def finding(hazard, invariant, text="1 tasks lost"):
    return Finding(invariant=invariant, row="-", hazard=hazard, count=1, text=text, examples=[])


def rehearsed(*answers):
    """Runs that find these, one after the other; what they were told."""
    told, left = [], list(answers)

    def rehearse(settings):
        told.append(settings)
        verdict, *findings = left.pop(0)
        return SimpleNamespace(
            run=f"{len(told):04}", verdict=verdict, account=SimpleNamespace(findings=findings)
        )

    return told, rehearse


def test_it_is_tried_until_the_same_hazard_is_named():
    told, rehearse = rehearsed(
        (Verdict.UNKNOWN, finding("P8", 5)),
        (Verdict.INVALID, finding("P10", 4)),  # of another invariant
        (Verdict.INVALID, finding("P8", 5), finding("P10", 1, "7 tasks lost")),
        (Verdict.VALID,),
    )
    item = replay(minimal(KILL), first_seed=3, tries=4, out=OUT, rehearse=rehearse)
    assert (item.found, item.named, item.tries, item.unknown) == (True, 1, 3, 1)
    assert (item.seeds, item.faults, item.runs) == (10, 1, ("0001", "0002", "0003"))
    assert item.others == ("P8/5", "P10/4")
    assert {settings.out for settings in told} == {OUT}
    assert [fault.turns for fault in told[0].faults] == [2]


def test_what_was_never_named_does_not_count():
    _told, rehearse = rehearsed(*[(Verdict.VALID,)] * 2)
    item = replay(minimal(KILL), first_seed=1, tries=2, out=OUT, rehearse=rehearse)
    assert (item.found, item.named, item.tries) == (False, 0, 2)


def test_a_cause_without_a_hazard_is_compared_by_its_words():
    _told, rehearse = rehearsed(
        (Verdict.INVALID, finding("-", 1, "5 tasks are dead")),
        (Verdict.INVALID, finding("-", 1, "5 tasks lost")),
    )
    item = replay(minimal(KILL, hazard="-"), first_seed=1, tries=3, out=OUT, rehearse=rehearse)
    assert (item.named, item.tries) == (1, 2)


def test_a_schedule_of_which_a_rehearsal_has_nothing_is_not_run():
    nowhere = SimFault(kind=FaultKind.LOSE, target="worker-0", at_s=3.0, broker="redis", way="x")
    _told, rehearse = rehearsed()
    item = replay(minimal(nowhere), first_seed=1, tries=3, out=OUT, rehearse=rehearse)
    assert (item.found, item.tries) == (False, 0)
    assert any("Left out" in note for note in item.notes)
    (_head, line, *_notes) = replay_table([item], None)
    assert "a rehearsal has none of its faults" in line


def test_a_schedule_without_faults_is_run():
    _told, rehearse = rehearsed((Verdict.INVALID, finding("P10", 1)))
    assert replay(minimal(), first_seed=1, tries=1, out=OUT, rehearse=rehearse).found


@pytest.mark.parametrize(
    ("clean", "said"),
    [
        (Clean(seeds=1000, failing=0), "none of 1,000 failing"),
        (Clean(seeds=9, failing=2), "2 of 9 failing"),
    ],
)
def test_the_table(clean, said):
    answers = [(Verdict.INVALID, finding("P10", 1)), (Verdict.UNKNOWN, finding("P8", 5))]
    _told, rehearse = rehearsed(*answers)
    items = [
        replay(minimal(KILL), first_seed=1, tries=1, out=OUT, rehearse=rehearse) for _ in answers
    ]
    head, first, second, *_notes = replay_table(items, clean)
    assert head.split() == ["hazard/invariant", "seeds", "faults", "replayed", "hardened", "counts"]
    assert first.split()[:6] == ["P10/1", "12", "1", "1", "of", "1"]
    assert first.endswith("  found")
    assert "0 of 1, 1 unknown (P8/5 instead)" in second
    assert second.endswith("not found")
    assert said in first
