"""Every transition and rollback under traffic, killed at each of its steps and resumed."""

import random

import pytest

from hookbench.ledger.events import Broker
from hookbench.migration.phases import Phase
from hookbench.migration.reconcile import PROCEDURES, Step, read_progress
from hookbench.queues.jetstream import ensure_dead_stream
from hookbench.queues.stored import read_stream
from hookbench.task import encode_task
from hookbench.worker.dead_letters import DeadLetter, RedisDeadLetters
from tests.conftest import eventually
from tests.integration.migrating import HELD_BACK, Scene

pytestmark = pytest.mark.timeout(170)

KILLED = -9
PLACES = {
    "before each step": ("hookbench.migration.reconcile:Procedure._do", "before"),
    "before each step is noted": ("hookbench.migration.reconcile:Procedure._save", "before"),
}
WAYS = pytest.mark.parametrize(
    ("source", "target"),
    list(PROCEDURES),
    ids=lambda phase: phase.label,
)


@pytest.fixture
async def scene(redis_broker, nats_broker, names, tmp_path):
    opened = Scene(redis_broker.url, nats_broker.url, names, tmp_path)
    yield opened
    await opened.close()


async def set_up(scene, source, make_task):
    """What the source phase may leave: a backlog, and in Redis what nobody reads any more."""
    backlog = [make_task() for _ in range(40)]
    await scene.put(source, backlog, writer=10)
    if source in (Phase.DUAL_READ, Phase.NATS_PRIMARY):
        stranded = [make_task() for _ in range(3)]
        await scene.put(Phase.REDIS_ONLY, stranded, writer=11)
        # As by a worker that died with it in hand.
        key = scene.names.pending_key("sync")
        data = encode_task(stranded[0])
        await scene.client.lrem(key, 1, data)
        await scene.client.lpush(scene.names.work_key("sync"), data)
    scene.start(source)
    await eventually(lambda: len(scene.done()) > 5, timeout_s=20)


async def check(scene, target):
    await scene.come_to_rest()
    account = await scene.account(target)
    assert account.accepted > 40
    assert account.lost == 0, account.findings
    return account


def stuck(account):
    return [finding.text for row in account.rows for finding in [row.stuck] if finding]


@WAYS
@pytest.mark.parametrize("where", list(PLACES))
async def test_killed_at_each_step_and_resumed_nothing_is_lost(
    scene, make_task, source, target, where
):
    place, when = PLACES[where]
    await set_up(scene, source, make_task)
    steps = PROCEDURES[source, target]
    # The first run dies at the first step; each later one gets one step further and dies there.
    for number in range(len(steps)):
        code, said = await scene.migrate(source, target, place, when, min(number, 1) + 1)
        assert code == KILLED, said
        done = read_progress(scene.folder / "progress.json")
        assert (done.done if done else []) == [step.value for step in steps[:number]]
    code, said = await scene.migrate(source, target)
    assert code == 0, said
    account = await check(scene, target)
    # An orphan of the Redis work list waits for a lease where Redis goes on to be read.
    orphan = 1 if source is Phase.DUAL_READ and target < Phase.DUAL_READ else 0
    orphan = 1 if source is Phase.NATS_PRIMARY and target < Phase.NATS_PRIMARY else orphan
    assert account.stuck == orphan, [row.stuck for row in account.rows]
    assert len(scene.executed) == len(set(scene.executed))
    again, said = await scene.migrate(source, target)
    assert (again, said) == (0, "")
