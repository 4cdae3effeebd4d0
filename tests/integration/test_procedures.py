"""Every transition and rollback under traffic, killed at each of its steps and resumed."""

import msgspec
import pytest

from hookbench import __version__
from hookbench.ledger.events import Broker
from hookbench.migration.phases import Phase
from hookbench.migration.procedures import PROCEDURES, Step
from hookbench.migration.reconcile import read_progress
from hookbench.queues.jetstream import ensure_dead_stream
from hookbench.queues.stored import read_stream
from hookbench.task import encode_task
from hookbench.worker.dead_letters import DeadLetter, RedisDeadLetters
from tests.conftest import eventually
from tests.integration.migrating import Scene
from tests.integration.migrating_child import HELD_BACK

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
async def scene(redis_broker, nats_broker, names, tmp_path, forks):
    opened = Scene(redis_broker.url, nats_broker.url, names, tmp_path, forks=forks)
    yield opened
    await opened.close()


async def set_up(scene, source, make_task, *, orphans):
    """A backlog under load; with ``orphans`` also what nobody reads in Redis any more."""
    await scene.put(source, [make_task() for _ in range(40)], writer=10)
    if orphans:
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


@WAYS
@pytest.mark.parametrize("where", list(PLACES))
async def test_killed_at_each_step_and_resumed_nothing_is_lost(
    scene, make_task, source, target, where
):
    place, when = PLACES[where]
    leaving_redis = Phase.DUAL_READ <= source < target
    await set_up(scene, source, make_task, orphans=leaving_redis)
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
    assert account.stuck == 0, [row.stuck for row in account.rows]
    assert len(scene.executed) == len(set(scene.executed))
    again, said = await scene.migrate(source, target)
    assert (again, said) == (0, "")


MOVES = {
    "published, not yet removed from redis": (
        (Phase.DUAL_READ, Phase.NATS_PRIMARY),
        ("hookbench.queues.moving:Mover._publish", "after"),
    ),
    "published, not yet removed from redis, 3 to 4": (
        (Phase.NATS_PRIMARY, Phase.NATS_ONLY),
        ("hookbench.queues.moving:Mover._publish", "after"),
    ),
    "pushed to redis, not yet acknowledged": (
        (Phase.NATS_PRIMARY, Phase.REDIS_ONLY),
        ("hookbench.queues.moving:Mover._push_once", "after"),
    ),
    "taken from nats, not yet pushed": (
        (Phase.NATS_ONLY, Phase.REDIS_ONLY),
        ("hookbench.queues.moving:Mover._push_once", "before"),
    ),
    "pushed what nats had alone": (
        (Phase.DUAL_WRITE, Phase.REDIS_ONLY),
        ("hookbench.queues.moving:Mover._push_once", "after"),
    ),
    "a copy trimmed": (
        (Phase.DUAL_READ, Phase.REDIS_ONLY),
        ("hookbench.queues.moving:Mover._remove", "after"),
    ),
}


@pytest.mark.parametrize("name", list(MOVES))
async def test_killed_in_the_middle_of_a_move_nothing_is_lost_or_done_twice(scene, make_task, name):
    (source, target), (place, when) = MOVES[name]
    if (source, target) == (Phase.DUAL_READ, Phase.REDIS_ONLY):
        # The worker leaves the copies to the procedure, however long that takes to come to them.
        scene.redis_age_s = 600.0
    if target is Phase.NATS_PRIMARY:
        # So that the worker does not come to what is in Redis alone before it is rerouted.
        await scene.put(source, [make_task() for _ in range(600)], writer=12)
    await set_up(scene, source, make_task, orphans=Phase.DUAL_READ <= source < target)
    if source >= Phase.NATS_PRIMARY and target is Phase.REDIS_ONLY:
        # More than the worker gets done before it is rerouted.
        scene.work_s = 0.5
        await scene.put(source, [make_task() for _ in range(2000)], writer=12)
    if target is Phase.NATS_PRIMARY:
        scene.work_s = 0.5
    if source is Phase.DUAL_WRITE:
        await scene.put(Phase.NATS_ONLY, [make_task() for _ in range(3)], writer=12)
    for number in (1, 2):  # and again in the middle of what is left
        code, said = await scene.migrate(source, target, place, when, number)
        assert code == KILLED, said
    code, said = await scene.migrate(source, target)
    scene.work_s = 0.02
    assert code == 0, said
    account = await check(scene, target)
    assert account.stuck == 0, [row.stuck for row in account.rows]
    assert len(scene.executed) == len(set(scene.executed))
    assert await scene.client.llen(scene.names.work_key("sync")) == 0


async def test_dead_letters_of_redis_are_moved_before_it_goes(scene, make_task, transport):
    await ensure_dead_stream(transport, storage="memory")
    letter = DeadLetter.of(
        encode_task(make_task()),
        task_type="sync",
        reason="failed",
        broker=Broker.REDIS,
        attempts=3,
        died_at_ns=1,
    )
    await RedisDeadLetters(scene.client, scene.names).bury(letter)
    await set_up(scene, Phase.NATS_PRIMARY, make_task, orphans=True)
    way = (Phase.NATS_PRIMARY, Phase.NATS_ONLY)
    code, said = await scene.migrate(
        *way, "hookbench.queues.moving:Mover.letters_to_nats", "after", 1
    )
    assert code == KILLED, said
    code, said = await scene.migrate(*way)
    assert code == 0, said
    found = [item async for item in read_stream(transport, scene.names.dead_stream, limit=10)]
    assert [msgspec.json.decode(item.payload, type=DeadLetter) for item in found] == [letter]
    for key in (scene.names.pending_key("sync"), scene.names.work_key("sync")):
        assert await scene.client.llen(key) == 0
    await check(scene, Phase.NATS_ONLY)


async def test_a_producer_that_does_not_hear_holds_the_way_back_until_it_does(scene, make_task):
    await set_up(scene, Phase.NATS_PRIMARY, make_task, orphans=False)
    scene.wait_s = 2.0
    scene.announce("producer-7")({"phase": "nats_primary", "version": "x", "role": "producer"})
    way = (Phase.NATS_PRIMARY, Phase.REDIS_ONLY)
    code, said = await scene.migrate(*way)
    assert code == HELD_BACK
    assert "producer-7" in said  # of another version: the gate does not even begin
    (scene.folder / "said" / "producer-7.jsonl").unlink()
    said_by = scene.announce("producer-8")
    late = {"phase": "nats_primary", "version": __version__, "role": "producer", "measures": "none"}
    said_by(late)
    code, said = await scene.migrate(*way)
    assert code == HELD_BACK
    assert "producer-8 not in redis_only" in said
    done = read_progress(scene.folder / "progress.json").done
    assert done == [Step.ASK_BEFORE.value]
    said_by({**late, "phase": "redis_only"})
    scene.wait_s = 15.0
    code, said = await scene.migrate(*way)
    assert code == 0, said
    account = await check(scene, Phase.REDIS_ONLY)
    assert account.stuck == 0


async def test_the_progress_of_another_move_is_not_gone_on_with(scene, make_task):
    await set_up(scene, Phase.REDIS_ONLY, make_task, orphans=False)
    progress = scene.folder / "progress.json"
    progress.write_text('{"source": "dual_write", "target": "dual_read"}')
    code, said = await scene.migrate(Phase.REDIS_ONLY, Phase.DUAL_WRITE)
    assert code == 1
    assert "is of dual_write to dual_read: finish that one first" in said
    progress.write_text('{"sou')
    code, said = await scene.migrate(Phase.REDIS_ONLY, Phase.DUAL_WRITE)
    assert code == 1
    assert "it was not written here" in said


PLANTED = {
    "removed_before_the_publish": (
        (Phase.NATS_PRIMARY, Phase.NATS_ONLY),
        "hookbench.queues.moving:Mover._publish",
    ),
}


@pytest.mark.parametrize("bug", list(PLANTED))
async def test_the_ledger_finds_what_a_planted_bug_loses(scene, make_task, bug):
    (source, target), place = PLANTED[bug]
    scene.bug = bug
    await set_up(scene, source, make_task, orphans=source < target)
    code, said = await scene.migrate(source, target, place, "before", 1)
    assert code == KILLED, said
    code, said = await scene.migrate(source, target)
    assert code == 0, said
    scene.rest_s = 3.0  # what is lost is never done
    await scene.come_to_rest()
    assert (await scene.account(target)).lost > 0


async def test_what_was_acknowledged_before_its_push_is_found_by_its_id(scene, make_task):
    """The consumer has forgotten it, and the done-store knows of no end."""
    way = (Phase.NATS_ONLY, Phase.REDIS_ONLY)
    scene.bug, scene.work_s = "acknowledged_before_the_push", 0.5
    await set_up(scene, way[0], make_task, orphans=False)
    await scene.put(way[0], [make_task() for _ in range(2000)], writer=12)
    place = "hookbench.queues.moving:Mover._push_once"
    code, said = await scene.migrate(*way, place, "before", 1)
    assert code == KILLED, said
    code, said = await scene.migrate(*way)
    scene.work_s = 0.02
    assert code == 0, said
    assert read_progress(scene.folder / "progress.json").moved["nats_only_to_redis"] > 0
    assert (await check(scene, way[1])).stuck == 0


async def test_a_planted_step_that_is_noted_too_early_is_held_back_by_the_gate(scene, make_task):
    scene.bug = "noted_before_it_is_done"
    scene.wait_s = 2.0
    await set_up(scene, Phase.NATS_PRIMARY, make_task, orphans=False)
    way = (Phase.NATS_PRIMARY, Phase.REDIS_ONLY)
    place = "hookbench.migration.reconcile:Procedure._do"
    code, said = await scene.migrate(*way, place, "before", 2)  # producers are not rerouted
    assert code == KILLED, said
    code, said = await scene.migrate(*way)
    assert code == HELD_BACK, said
    assert "producer-0 in nats_primary" in said


@pytest.mark.parametrize("bug", ["consumers_are_lost", "consumers_are_made_anew"])
@pytest.mark.parametrize("source", [Phase.NATS_PRIMARY, Phase.NATS_ONLY])
async def test_what_a_lost_consumer_had_to_deliver_comes_to_redis_all_the_same(
    scene, make_task, source, bug
):
    await set_up(scene, source, make_task, orphans=False)
    # More than the worker gets done before it is rerouted.
    await scene.put(source, [make_task() for _ in range(2000)], writer=12)
    scene.bug, scene.work_s = bug, 0.5
    code, said = await scene.migrate(source, Phase.REDIS_ONLY)
    scene.work_s = 0.02
    assert code == 0, said
    moved = read_progress(scene.folder / "progress.json").moved
    assert (moved["drain_to_redis"], moved["nats_only_to_redis"] > 0) == (0, True)
    account = await check(scene, Phase.REDIS_ONLY)
    assert account.stuck == 0
    assert len(scene.executed) == len(set(scene.executed))
