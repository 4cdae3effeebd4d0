"""Schedules of faults from seeds, against the designs."""

import random

import pytest

from hookbench.ledger.model import Verdict
from hookbench.migration.phases import Design, Phase
from hookbench.sim.migration import MigrationPlan, simulate_migration
from hookbench.sim.redis.scripts import ScriptEngine
from hookbench.sim.schedule import draw_schedule

SEEDS = range(100, 112)
PHASE_S = 10.0


@pytest.fixture(scope="module")
def engine():
    return ScriptEngine()


def run(design, phase, seed, folder, engine):
    plan = MigrationPlan(design=design, phases=(phase,), phase_s=PHASE_S, tasks=120, service_s=0.03)
    drawn = draw_schedule(random.Random(f"faults:{seed}"), end_s=PHASE_S)
    faults = [item.fault for item in drawn]
    outcome = simulate_migration(plan, seed, folder, engine=engine, faults=faults)
    bad = [item.number for item in outcome.account.invariants if item.verdict != Verdict.VALID]
    return outcome, bad, [item.text for item in drawn]


def test_a_schedule_follows_from_its_seed_and_tells_itself():
    drawn = [
        [item.text for item in draw_schedule(random.Random(seed), end_s=20)]
        for seed in (1, 1, *range(40))
    ]
    assert drawn[0] == drawn[1]
    texts = [text for texts in drawn for text in texts]
    assert {len(texts) for texts in drawn} == {1, 2, 3}
    for words in ("worker is killed", "stopped for", "started again", "cut off", "are lost"):
        assert any(words in text for text in texts)


@pytest.mark.parametrize("phase", [Phase.REDIS_ONLY, Phase.NATS_PRIMARY])
def test_hardened_stays_valid_within_a_phase(phase, tmp_path, engine):
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        outcome, bad, told = run(Design.HARDENED, phase, seed, folder, engine)
        findings = [item.text for item in outcome.account.findings]
        assert (bad, outcome.unfinished) == ([], ""), f"seed {seed}: {told}: {findings}"


@pytest.mark.parametrize("phase", [Phase.REDIS_ONLY, Phase.NATS_PRIMARY])
def test_some_of_the_same_schedules_find_what_guide_does_wrong(phase, tmp_path, engine):
    found = 0
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        _outcome, bad, _told = run(Design.GUIDE, phase, seed, folder, engine)
        found += bool(bad)
    assert found
