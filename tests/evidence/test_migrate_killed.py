"""Every transition and rollback, its operator killed at each step, before it and after it."""

import uuid
from collections import Counter

import pytest

from hookbench.brokers.probe import probe_nats, probe_redis
from hookbench.migration.procedures import PROCEDURES, Step
from hookbench.migration.reconcile import read_progress
from hookbench.task import Names
from tests.integration.migrating import Scene
from tests.integration.test_migrate import DO, KILLED, move, progress_of, under_load

# A machine that is busy with other things makes it slow, and not wrong.
PATIENT = {"timeout_s": 600.0}
PATIENCE = "--patience=120"
FEWEST = 50
"""Tasks of a move, for the claim to be about something."""


async def kill_at_each_step(scene, way):
    """Kills, and what was not as it should be.

    A process dies before each step, the next one once the step is done and before that is noted, so
    that each step is also done twice.
    """
    wrong, kills = [], 0
    for number, step in enumerate(PROCEDURES[way]):
        # The one before it is done again first, except before the first.
        for when, call in (("before", 2 if number else 1), ("after", 1)):
            dying = (DO, when, str(call))
            code, said = await move(scene, *way, PATIENCE, dying=dying, **PATIENT)
            if code != KILLED:
                wrong.append(f"{when} {step}: exit code {code}: {said[-300:]}")
                return kills, wrong
            kills += 1
            found = read_progress(progress_of(scene))
            done = found.done if found else []
            if done != [item.value for item in PROCEDURES[way][:number]]:
                wrong.append(f"{when} {step}: {', '.join(done) or 'nothing'} is noted as done")
    return kills, wrong


async def go(scene, way):
    """Figures of one move, and what contradicts the claim."""
    await under_load(scene, way[0])
    kills, wrong = await kill_at_each_step(scene, way)
    if not wrong:
        code, said = await move(scene, *way, PATIENCE, **PATIENT)
        if code != 0 or progress_of(scene).exists():
            wrong.append(f"resumed it ended with {code}: {said[-300:]}")
    await scene.come_to_rest()
    changes = 1 + PROCEDURES[way].count(Step.JOIN_WORKERS)
    account = await scene.account(way[1], changes=changes)
    repeated = sum(times - 1 for times in Counter(scene.executed).values())
    figures = {
        "steps": len(PROCEDURES[way]),
        "kills": kills,
        "accepted": account.accepted,
        "lost": account.lost,
        "stuck": account.stuck,
        "executed_again": repeated,
    }
    wrong += [
        f"{name} is {figures[name]}"
        for name in ("lost", "stuck", "executed_again")
        if figures[name]
    ]
    if account.accepted < FEWEST:
        wrong.append(f"{account.accepted} tasks were accepted")
    return figures, wrong


@pytest.mark.evidence(
    claim="In every transition and rollback the operator's process is killed before each step and"
    " after it, called again, and goes on: under load no task is lost, stuck, or executed twice.",
    seed=3,
)
@pytest.mark.timeout(3_600)
async def test_migrate_killed(proof, redis_broker, nats_broker, tmp_path, forks):
    found = await probe_redis(redis_broker.url), await probe_nats(nats_broker.url)
    proof.record_versions(**{f"{info.kind}-server": info.version for info in found})
    refuted = []
    total = Counter()
    for way in PROCEDURES:
        name = f"{way[0].label} to {way[1].label}"
        folder = tmp_path / name.replace(" ", "-")
        folder.mkdir()
        names = Names.for_run(uuid.uuid4().hex[:12])
        scene = Scene(redis_broker.url, nats_broker.url, names, folder, forks=forks)
        scene.records, scene.places, scene.rest_s = True, (), 300.0
        try:
            figures, wrong = await go(scene, way)
        finally:
            await scene.close()
        proof.record(**{name: figures})
        total.update(figures)
        refuted += [f"{name}: {item}" for item in wrong]
    proof.record(moves=len(PROCEDURES), **total)
    proof.conclude(refuted)
