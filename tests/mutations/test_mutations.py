"""Every planted bug is caught by the checker that is meant to catch it, and by no other."""

import contextlib
from pathlib import Path

import pytest

from hookbench.ledger.invariants import RULE_OF_THE_WHOLE, RULES
from hookbench.rehearsal.load_check import Load, load_differences
from hookbench.results.check import git_differences
from hookbench.results.store import GitCheck
from tests.mutations.planting import Trace
from tests.mutations.scene import Scene
from tests.mutations.table import BLIND_SPOTS, COUNTED, MUTATIONS, caught, document
from tests.mutations.verdicts import assert_caught, assert_clean, broken, unknown


@pytest.fixture(scope="session")
def clean_accounts():
    """Accounts of scenarios without a bug, by scenario: each is run once."""
    return {}


@pytest.fixture
def plays():
    """Account, tasks offered and pushes of each scenario that was run."""
    return []


@pytest.fixture
def play(redis_broker, nats_broker, tmp_path, plays):
    """Runs a scenario, with a bug or without one; the function that makes its account."""

    async def run(scenario, mutation=None):
        folder = tmp_path / (mutation.name if mutation else "clean")
        name = mutation.name if mutation else None
        scene = Scene(redis_broker.url, nats_broker.url, folder, mutation=name)
        trace = Trace(scene.trace_path)
        try:
            with mutation.planted(trace) if mutation else contextlib.nullcontext():
                await scenario(scene)
            make_account = await scene.conclude()
            plays.append((make_account(), scene.offered, scene.pushes))
            return make_account, trace.harmed()
        finally:
            await scene.close()

    return run


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda item: item.name)
async def test_the_bug_is_caught_by_its_checker_alone(mutation, play, clean_accounts):
    if mutation.scenario not in clean_accounts:
        account, _ = await play(mutation.scenario)
        clean_accounts[mutation.scenario] = account()
    assert_clean(clean_accounts[mutation.scenario])

    make_account, harmed = await play(mutation.scenario, mutation)
    assert_caught(mutation, make_account(), harmed)

    assert broken(make_account(without=mutation.breaks)) == []
    for number in mutation.breaks:
        assert number in broken(make_account(without=set(mutation.breaks) - {number}))


def differences(account, offered, pushes):
    """What the counts of a rehearsal say."""
    held = account.tasks - account.pushed_tasks
    load = Load(held=held, offered=offered, planned=offered, unfinished=[], replaced=0)
    git = GitCheck(
        pushes=pushes,
        tasks=account.pushed_tasks,
        repositories=0,
        equal=0,
        refs=0,
        differences=[],
    )
    return load_differences(load) + git_differences(git)


@pytest.mark.parametrize("mutation", COUNTED, ids=lambda item: item.name)
async def test_the_bug_is_caught_by_the_counts_of_a_rehearsal(mutation, play, plays):
    await play(mutation.scenario)
    make_account, harmed = await play(mutation.scenario, mutation)
    clean, planted = plays
    assert differences(*clean) == []
    assert harmed, "the planted code did no harm to any task"
    assert differences(*planted)
    assert planted[0].tasks == clean[0].tasks + len(harmed)
    assert (broken(make_account()), unknown(make_account())) == ([], [])


@pytest.mark.parametrize("mutation", BLIND_SPOTS, ids=lambda item: item.name)
async def test_a_blind_spot_is_still_one(mutation, play):
    make_account, harmed = await play(mutation.scenario, mutation)
    assert harmed, "the planted code did no harm to any task"
    account = make_account()
    assert (broken(account), unknown(account)) == ([], []), "caught: name its checker"
    assert mutation.blind


def test_every_checker_catches_a_bug():
    assert caught() == set(RULES) - {RULE_OF_THE_WHOLE}


def test_the_names_are_distinct():
    names = [item.name for item in (*MUTATIONS, *COUNTED, *BLIND_SPOTS)]
    assert len(set(names)) == len(names)
    assert len(MUTATIONS) >= 20


def test_the_document_is_up_to_date():
    found = (Path(__file__).parents[2] / "docs" / "mutations.md").read_text()
    assert found == document(), "python -m tests.mutations.table > docs/mutations.md"
