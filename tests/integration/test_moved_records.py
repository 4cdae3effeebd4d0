"""The authority moves under traffic, either way, by a procedure that is killed while it copies."""

import pytest

from hookbench.ledger.events import Event
from hookbench.ledger.read import read_ledger
from hookbench.migration.done_store import retention_s
from hookbench.migration.phases import Phase
from hookbench.queues.kv_bucket import ensure_bucket
from hookbench.queues.kv_done_store import KvDoneStore
from hookbench.queues.redis_done_store import RedisDoneStore
from hookbench.task import encode_task
from tests.conftest import eventually
from tests.integration.migrating import Scene
from tests.integration.migrating_child import HELD_BACK, STREAM

pytestmark = pytest.mark.timeout(170)

KILLED = -9
LEASE_S = 120.0
WAY = (Phase.NATS_PRIMARY, Phase.NATS_ONLY)
PUT = "hookbench.queues.kv_done_store:KvDoneStore.put_record"
ASKED = "hookbench.queues.kv_bucket:Bucket.ended_among"
MARKED = "hookbench.queues.kv_done_store:KvDoneStore.write_mark"
COPIED = "hookbench.rehearsal.done_stores:BothStores.move_records"
COMPARED = "hookbench.rehearsal.done_stores:BothStores.unmoved"
PLACES = {
    "before a record is put": (PUT, "before", 1),
    "amid the records": (PUT, "before", 15),
    "before nats is asked": (ASKED, "before", 1),
    "before nats is asked again": (ASKED, "before", 2),
    "before the mark": (MARKED, "before", 1),
    "after the mark": (MARKED, "after", 1),
    "after a copy": (COPIED, "after", 1),
    "before a check": (COMPARED, "before", 1),
}
LATER = {
    "before a mark": (MARKED, "before", 2),
    "after a copy": (COPIED, "after", 2),
    "before a check": (COMPARED, "before", 2),
}
"""When the workers have changed, if not before."""


@pytest.fixture
async def scene(redis_broker, nats_broker, names, tmp_path, forks):
    opened = Scene(redis_broker.url, nats_broker.url, names, tmp_path, forks=forks)
    opened.records = True
    yield opened
    await opened.close()


@pytest.fixture
def store(scene):
    """As another worker has it."""
    kept_s = retention_s(STREAM.max_age_s)
    return RedisDoneStore(scene.client, names=scene.names, retention_s=kept_s)


@pytest.fixture
async def bucket(scene, transport):
    """Likewise."""
    await ensure_bucket(
        transport, retention_s=retention_s(STREAM.max_age_s), storage=STREAM.storage
    )
    return KvDoneStore(transport, clock=scene.clock)


async def begin(scene, store, transport, make_task, phase=Phase.NATS_PRIMARY):
    """Traffic, and the claim of another worker whose task NATS delivers again and again."""
    await scene.put(phase, [make_task() for _ in range(40)], writer=10)
    scene.start(phase)
    await eventually(lambda: len(scene.done()) > 5, timeout_s=20)
    for _ in range(30):  # of another phase, whose ends were told to that store alone
        earlier = await store.claim(make_task().id, "worker-elsewhere", LEASE_S)
        assert await store.complete(earlier)
    late = make_task()
    claim = await store.claim(late.id, "worker-elsewhere", LEASE_S)
    await transport.publish(scene.names.subject("sync"), encode_task(late))
    await eventually(lambda: len(scene.done()) > 20, timeout_s=20)
    return claim


def skipped(scene):
    ledger = read_ledger(scene.folder / "ledger", lenient=True)
    rows = ledger.records["event"] == Event.SKIPPED
    return {ledger.ids[task].tobytes() for task in ledger.task[rows]}


async def check(scene, target, phase=Phase.NATS_ONLY):
    """Nothing is lost, nothing was executed twice, and the store of that phase knows all of it."""
    await scene.come_to_rest()
    account = await scene.account(phase)
    assert account.accepted > 40
    assert account.lost == 0, account.findings
    assert len(scene.executed) == len(set(scene.executed))
    ended = set(scene.executed)
    assert await target.are_done(ended) == ended


@pytest.mark.parametrize("where", list(PLACES))
async def test_killed_while_it_copies_and_a_late_completion_is_not_executed_again(
    scene, store, bucket, make_task, transport, where
):
    claim = await begin(scene, store, transport, make_task)
    code, said = await scene.migrate(*WAY, *PLACES[where])
    assert code == KILLED, said
    assert await store.complete(claim)
    code, said = await scene.migrate(*WAY)
    assert code == 0, said
    await eventually(lambda: claim.task_id.bytes in skipped(scene), timeout_s=40)
    await check(scene, bucket)
    assert claim.task_id not in scene.executed
    assert await bucket.are_done([claim.task_id])


@pytest.mark.parametrize("where", list(LATER))
async def test_killed_when_workers_have_changed_what_ended_on_redis_is_known(
    scene, store, bucket, make_task, transport, where
):
    claim = await begin(scene, store, transport, make_task)
    assert await store.complete(claim)
    code, said = await scene.migrate(*WAY, *LATER[where])
    assert code == KILLED, said
    code, said = await scene.migrate(*WAY)
    assert code == 0, said
    await check(scene, bucket)
    assert claim.task_id not in scene.executed


async def test_workers_do_not_change_while_their_records_are_on_redis_alone(
    scene, store, make_task, transport
):
    scene.bug = "nothing_is_copied"
    scene.wait_s = 3.0
    claim = await begin(scene, store, transport, make_task)
    assert await store.complete(claim)
    code, said = await scene.migrate(*WAY)
    assert code == HELD_BACK, said
    assert "authority no-go" in said
    scene.bug = None
    scene.wait_s = 15.0
    code, said = await scene.migrate(*WAY)
    assert code == 0, said
    await scene.come_to_rest()
    assert claim.task_id not in scene.executed
    assert len(scene.executed) == len(set(scene.executed))


BACK = "hookbench.queues.redis_done_store:RedisDoneStore.put_record"
BACK_MARK = "hookbench.queues.redis_done_store:RedisDoneStore.write_mark"
BACK_PLACES = {
    "before a record is put": (BACK, "before", 1),
    "amid the records": (BACK, "before", 15),
    "before the mark": (BACK_MARK, "before", 1),
    "after a copy": (COPIED, "after", 1),
    "before a check": (COMPARED, "before", 1),
}
ROLLBACKS = (Phase.NATS_PRIMARY, Phase.REDIS_ONLY)


@pytest.mark.parametrize("where", list(BACK_PLACES))
@pytest.mark.parametrize("target", ROLLBACKS)
async def test_on_the_way_back_what_nats_alone_knows_is_not_executed_again(
    scene, store, bucket, make_task, transport, target, where
):
    claim = await begin(scene, bucket, transport, make_task, Phase.NATS_ONLY)
    way = (Phase.NATS_ONLY, target)
    code, said = await scene.migrate(*way, *BACK_PLACES[where])
    assert code == KILLED, said
    assert await bucket.complete(claim)
    code, said = await scene.migrate(*way)
    assert code == 0, said
    if target is Phase.NATS_PRIMARY:  # else it was acknowledged when NATS was drained
        await eventually(lambda: claim.task_id.bytes in skipped(scene), timeout_s=40)
    await check(scene, store, target)
    assert claim.task_id not in scene.executed
    assert await store.are_done([claim.task_id])


@pytest.mark.parametrize("target", ROLLBACKS)
async def test_the_way_back_waits_for_who_has_a_task_by_nats_alone(
    scene, store, bucket, make_task, transport, target
):
    scene.wait_s = 3.0
    claim = await begin(scene, bucket, transport, make_task, Phase.NATS_ONLY)
    way = (Phase.NATS_ONLY, target)
    code, said = await scene.migrate(*way)
    assert code == HELD_BACK, said
    assert f"authority no-go: 1 records are on NATS and not on Redis, e.g. {claim.task_id}" in said
    assert await bucket.complete(claim)
    scene.wait_s = 15.0
    code, said = await scene.migrate(*way)
    assert code == 0, said
    await check(scene, store, target)
    assert claim.task_id not in scene.executed
