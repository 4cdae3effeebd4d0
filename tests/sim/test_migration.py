"""Whole migrations in virtual time: what the checkers of a rehearsal say of them."""

import os
import subprocess
import sys

import pytest

from hookbench.ledger.model import Verdict
from hookbench.migration.phases import Design, Phase
from hookbench.sim.connection import Direction
from hookbench.sim.faults import cut_off, kill_broker, kill_worker, lose_replies, stop_worker
from hookbench.sim.migration import MigrationPlan, simulate_migration
from tests.sim.replay_child import digest_of

pytestmark = pytest.mark.usefixtures("quiet")


def invalid(outcome):
    return [item.number for item in outcome.account.invariants if item.verdict is not Verdict.VALID]


def test_guide_is_invalid_without_any_fault(tmp_path, engine):
    outcome = simulate_migration(MigrationPlan(), 7, tmp_path, engine=engine)
    account = outcome.account
    assert (account.accepted, account.done, account.lost) == (200, 200, 0)
    assert account.duplicated > 30
    assert any("deliver-all replayed" in str(item) for item in account.findings), "hazard P5"
    assert invalid(outcome) == [4, 5]
    assert outcome.unfinished == ""


def test_hardened_is_valid_and_every_task_is_done_once(tmp_path, engine):
    plan = MigrationPlan(design=Design.HARDENED)
    outcome = simulate_migration(plan, 7, tmp_path, engine=engine)
    account = outcome.account
    assert account.accepted >= 200
    assert account.done + account.superseded == account.accepted
    assert (account.lost, account.stuck, account.duplicated, account.left) == (0, 0, 0, 0)
    assert invalid(outcome) == []


def test_an_early_ack_loses_what_a_killed_worker_had(tmp_path, engine):
    """Hazard P10 under guide; hardened has the same fault, and no loss."""
    faults = [kill_worker(at_s=1.03 + 0.6 * number) for number in range(6)]
    found = {}
    for design in Design:
        folder = tmp_path / design
        folder.mkdir()
        plan = MigrationPlan(
            design=design, phases=(Phase.NATS_PRIMARY,), phase_s=5.0, service_s=0.2
        )
        found[design] = simulate_migration(plan, 7, folder, engine=engine, faults=faults).account
    assert found[Design.GUIDE].lost > 0
    assert found[Design.HARDENED].lost == 0
    assert found[Design.HARDENED].stuck == 0


def test_a_killed_worker_strands_a_task_of_the_guide_on_redis(tmp_path, engine):
    """Hazard R3."""
    plan = MigrationPlan(phases=(Phase.REDIS_ONLY,), phase_s=5.0, service_s=0.2)
    guide = simulate_migration(plan, 7, tmp_path, engine=engine, faults=[kill_worker(at_s=2.0)])
    assert guide.account.stuck > 0
    assert any("orphaned" in key for row in guide.account.rows for key in row.stuck)


@pytest.mark.parametrize(
    "faults",
    [
        [kill_worker(at_s=2.2), kill_worker(at_s=10.1), kill_worker(at_s=14.3)],
        [kill_broker("redis", at_s=1.5, for_s=2.0), kill_broker("redis", at_s=2.0)],
        [kill_broker("nats", at_s=9.2, for_s=2.0), kill_broker("nats", at_s=17.0)],
        [stop_worker(at_s=1.0, for_s=6.0), stop_worker(at_s=13.0, for_s=6.5)],
        [lose_replies("worker-1", "redis", at_s=1.0, count=3)],
        [lose_replies("worker-1", "nats", at_s=13.0, count=3)],
        [cut_off("worker-2", "nats", at_s=13.0, for_s=4.0, ways=(Direction.TO_CLIENT,))],
    ],
    ids=["workers", "redis", "nats", "stopped", "redis-replies", "nats-replies", "half-cut"],
)
def test_hardened_stays_valid(tmp_path, engine, faults):
    plan = MigrationPlan(design=Design.HARDENED)
    outcome = simulate_migration(plan, 11, tmp_path, engine=engine, faults=faults)
    account = outcome.account
    assert invalid(outcome) == [], [str(item) for item in account.findings]
    assert outcome.unfinished == ""
    assert account.done + account.superseded + account.dead == account.accepted


@pytest.mark.parametrize("design", list(Design))
def test_a_seed_replays_to_the_byte_under_any_hash_seed(design):
    here = digest_of(design, 5)
    assert digest_of(design, 5) == here
    assert digest_of(design, 6) != here
    for hash_seed in (1, 2):
        told = subprocess.run(
            [sys.executable, "-m", "tests.sim.replay_child", design, "5"],
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert told.strip() == str(here)


def test_an_interleaving_is_another_run_and_replays():
    plain = digest_of(Design.HARDENED, 5)
    drawn = digest_of(Design.HARDENED, 5, interleave=True)
    assert drawn != plain
    assert digest_of(Design.HARDENED, 5, interleave=True) == drawn
