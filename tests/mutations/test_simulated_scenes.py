"""Every planted bug is caught over simulated brokers, by the checker that catches it on real ones.

Scenario by scenario as in ``test_mutations.py``, in virtual time.
"""

import dataclasses

import pytest

from hookbench.ledger.model import Verdict
from hookbench.sim.digest import ledger_digest
from hookbench.sim.explore import quiet
from hookbench.sim.redis.scripts import ScriptEngine
from tests.mutations import scenarios
from tests.mutations.planting import Trace
from tests.mutations.simulated_scene import play, try_scenario
from tests.mutations.table import MUTATIONS
from tests.mutations.verdicts import assert_caught, assert_clean

SEED = 1
BY_NAME = {item.name: item for item in MUTATIONS}


@pytest.fixture(autouse=True)
def _quiet():
    with quiet():
        yield


@pytest.fixture(scope="module")
def engine():
    return ScriptEngine()


@pytest.fixture(scope="module")
def clean_accounts():
    """Accounts of scenarios without a bug, by scenario: each is run once."""
    return {}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda item: item.name)
def test_the_bug_is_caught_as_on_real_brokers(mutation, engine, clean_accounts, tmp_path):
    clean, planted = tmp_path / "clean", tmp_path / "planted"
    clean.mkdir()
    planted.mkdir()
    if mutation.scenario not in clean_accounts:
        clean_accounts[mutation.scenario] = play(mutation.scenario, SEED, engine, clean)
    assert_clean(clean_accounts[mutation.scenario])
    trace = Trace(tmp_path / "trace")
    with mutation.planted(trace):
        account = play(mutation.scenario, SEED, engine, planted)
    assert_caught(mutation, account, trace.harmed())


def test_a_seed_is_the_same_run_again_and_another_is_another(engine, tmp_path):
    digests = []
    for number, seed in enumerate((SEED, SEED, SEED + 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        play(scenarios.killed_worker, seed, engine, folder)
        digests.append(ledger_digest(folder / "scene" / "ledger"))
    assert digests[0] == digests[1] != digests[2]


def test_a_scenario_that_breaks_down_is_unknown(engine):
    async def broken(_scene):
        raise LookupError("of this test")

    trial = try_scenario(broken, SEED, engine)
    assert trial.verdict is Verdict.UNKNOWN
    (cause,) = trial.causes
    assert cause.invariant == 0
    assert "of this test" in cause.text


def test_a_bug_that_does_nothing_is_not_caught(engine, tmp_path):
    mutation = BY_NAME["hung-tasks-are-kept"]
    trace = Trace(tmp_path / "trace")
    nothing = dataclasses.replace(mutation, plant=lambda original, _trace: original)
    with nothing.planted(trace):
        assert try_scenario(mutation.scenario, SEED, engine).verdict is Verdict.VALID
    with mutation.planted(trace):
        assert try_scenario(mutation.scenario, SEED, engine).verdict is Verdict.INVALID
