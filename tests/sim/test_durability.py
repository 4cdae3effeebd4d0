"""Whole migrations by durability class: what a power cut and a dead leader take of them."""

import os
import subprocess
import sys

import pytest

from hookbench.brokers.durability import Durability
from hookbench.ledger.model import Verdict
from hookbench.migration.phases import Design, Phase
from hookbench.sim.errors import SimulationError
from hookbench.sim.faults import kill_broker, kill_leader, kill_nodes, power_cut, step_down
from hookbench.sim.migration import MigrationPlan, simulate_migration
from tests.sim.replay_child import REPLICATED, digest_of

pytestmark = pytest.mark.usefixtures("quiet")


def run(folder, engine, faults=(), *, design=Design.HARDENED, seed=7, **options):
    plan = MigrationPlan(
        design=design, **{"phases": (Phase.NATS_PRIMARY,), "phase_s": 15.0, **options}
    )
    return simulate_migration(plan, seed, folder, engine=engine, faults=faults)


def invalid(outcome):
    return [item.number for item in outcome.account.invariants if item.verdict is not Verdict.VALID]


def test_a_replicated_migration_without_faults_is_valid(tmp_path, engine):
    outcome = run(
        tmp_path, engine, phases=tuple(Phase), phase_s=4.0, durability=Durability.REPLICATED
    )
    account = outcome.account
    assert account.accepted >= 200
    assert account.done + account.superseded == account.accepted
    assert (invalid(outcome), outcome.unfinished) == ([], "")


@pytest.mark.parametrize(
    "faults",
    [
        [kill_leader(at_s=3.0, for_s=4.0), kill_leader(at_s=9.0, for_s=0.5, consumer=True)],
        [step_down(at_s=2.0), step_down(at_s=4.0, consumer=True), step_down(at_s=4.1)],
        [power_cut("nats", at_s=2.0 + 5 * node, for_s=1.5, nodes=(node,)) for node in range(3)],
        [kill_nodes(at_s=4.0, for_s=6.0, nodes=(0, 2))],
        [kill_broker("redis", at_s=3.0)],
    ],
    ids=["killed", "deposed", "one-cut-after-the-other", "no-quorum", "redis"],
)
@pytest.mark.parametrize("seed", [7, 8])
def test_hardened_with_three_nodes_loses_nothing(tmp_path, engine, faults, seed):
    outcome = run(tmp_path, engine, faults, seed=seed, durability=Durability.REPLICATED)
    account = outcome.account
    assert (account.lost, account.stuck) == (0, 0), [str(item) for item in account.findings]
    assert (invalid(outcome), outcome.unfinished) == ([], "")
    assert account.done + account.superseded + account.dead == account.accepted > 0


def test_the_guide_refuses_tasks_while_the_stream_has_no_leader(tmp_path, engine):
    """Hazard N1."""
    fault = kill_leader(at_s=5.0, for_s=1.0)
    options = {"design": Design.GUIDE, "durability": Durability.REPLICATED}
    account = run(tmp_path, engine, [fault], **options).account
    assert 200 * 4 / 15 < 200 - account.accepted < 200 * 10 / 15
    assert account.lost == 0


@pytest.mark.parametrize(
    ("durability", "some"),
    [
        (Durability.MEMORY, True),
        (Durability.LAZY, True),
        (Durability.FSYNC, False),
        (Durability.REPLICATED, True),
    ],
)
def test_what_a_power_cut_of_the_whole_broker_takes(tmp_path, engine, durability, some):
    """Of tasks that wait: all that were accepted within the sync interval, and none with fsync."""
    fault = power_cut("nats", at_s=6.0, for_s=1.0)
    account = run(
        tmp_path,
        engine,
        [fault],
        durability=durability,
        workers=1,
        concurrency=1,
        service_s=0.3,
        drain_s=120.0,
    ).account
    assert (account.lost > 0) is some
    if durability is Durability.LAZY:
        assert account.lost <= 200 * 1.05 / 15


def test_a_leader_is_only_killed_where_there_are_several_nodes(tmp_path, engine):
    with pytest.raises(SimulationError, match="durability replicated"):
        run(tmp_path, engine, [kill_leader(at_s=1.0)])


def test_a_cluster_replays_to_the_byte_under_any_hash_seed():
    here = digest_of(Design.HARDENED, 5, **REPLICATED)
    assert digest_of(Design.HARDENED, 5, **REPLICATED) == here
    assert digest_of(Design.HARDENED, 6, **REPLICATED) != here
    for hash_seed in (1, 2):
        told = subprocess.run(
            [sys.executable, "-m", "tests.sim.replay_child", Design.HARDENED, "5", "replicated"],
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert told.strip() == str(here)
