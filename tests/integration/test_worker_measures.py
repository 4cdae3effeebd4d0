"""The worker's measures on real brokers, with either authority: what came of it is the account."""

import asyncio

import msgspec
import pytest

from hookbench.ledger.events import Event
from hookbench.ledger.model import Verdict
from hookbench.ledger.read import read_ledger
from hookbench.migration.done_store import Authority
from hookbench.migration.measures import Measures
from hookbench.migration.phases import Phase
from hookbench.migration.records import move_records
from hookbench.queues.kv_bucket import ensure_bucket
from hookbench.queues.kv_done_store import KvDoneStore
from hookbench.queues.redis_done_store import RedisDoneStore
from tests.conftest import eventually
from tests.mutations.scenarios import Failing, Gate
from tests.mutations.scene import LEASE_S, LONG_LEASE_S, Scene, environment

CLAIMED = Measures(ack_after=True, done_store=True)
BEATING = Measures(ack_after=True, done_store=True, heartbeats=True)

BEATS_S = 1.5
"""A lease that a busy machine does not miss."""


@pytest.fixture
async def scene(redis_broker, nats_broker, tmp_path):
    scene = Scene(redis_broker.url, nats_broker.url, tmp_path / "scene")
    yield scene
    await scene.close()


def broken(account):
    return [item.number for item in account.invariants if item.verdict is Verdict.INVALID]


def count(scene, event):
    return int((read_ledger(scene.ledger).records["event"] == event).sum())


async def entered(worker, index):
    await eventually(
        lambda: [event for event in worker.said if event.get("index") == index],
        what=f"step {index}",
    )


@pytest.mark.parametrize("authority", list(Authority))
async def test_what_redis_did_is_skipped_when_nats_replays_it(scene, authority):
    scene.enter(Phase.DUAL_WRITE)
    with environment():
        await scene.put(*scene.tasks())
        async with scene.worker(1, measures=CLAIMED, authority=authority) as worker:
            await scene.quiet()
            scene.enter(Phase.DUAL_READ)
            await entered(worker, 1)
            await scene.sees(
                lambda sample: (sample.consumer_pending, sample.ack_pending) == (0, 0),
                "the end of the replay",
            )
    account = (await scene.conclude())()
    assert (account.done, account.duplicated, account.duplicated_deliveries) == (3, 0, 3)
    assert broken(account) == []
    assert count(scene, Event.SKIPPED) == 3


@pytest.mark.parametrize("authority", list(Authority))
async def test_signs_of_life_keep_a_long_task_from_a_second_worker(scene, authority):
    """The gate is opened after several leases, which are also the AckWait."""
    scene.enter(Phase.NATS_PRIMARY)
    gate = Gate()
    settings = {"measures": BEATING, "claim_s": BEATS_S, "authority": authority, "service": gate}
    with environment(lease_s=BEATS_S):
        await scene.put(scene.task())
        async with scene.worker(1, **settings), scene.worker(2, **settings):
            await eventually(lambda: gate.inside, what="a task in hand")
            await asyncio.sleep(3 * BEATS_S)
            assert len(gate.inside) == 1
            gate.open.set()
            await scene.quiet(leases=True)
    account = (await scene.conclude())()
    assert (account.done, account.duplicated_effects) == (1, 0)
    assert broken(account) == []
    assert count(scene, Event.STALE) == 0


@pytest.mark.parametrize("authority", list(Authority))
async def test_without_signs_of_life_the_first_completion_is_refused(scene, authority):
    scene.enter(Phase.NATS_PRIMARY)
    first, second = Gate(), Gate()
    settings = {"measures": CLAIMED, "claim_s": LEASE_S, "authority": authority}
    with environment(lease_s=LEASE_S):
        await scene.put(scene.task("transactional"))
        async with scene.worker(1, service=first, **settings):
            await eventually(lambda: first.inside, what="a task in hand")
            async with scene.worker(2, service=second, **settings):
                await eventually(lambda: second.inside, what="the second claim")
                first.open.set()
                await eventually(lambda: count(scene, Event.STALE), what="the refusal")
                second.open.set()
                await scene.quiet(leases=True)
    account = (await scene.conclude())()
    assert (account.done, account.effects) == (1, 1)
    assert broken(account) == []


@pytest.mark.parametrize("confirmed", [True, False])
async def test_the_server_says_of_each_acknowledgement_that_it_has_it(scene, confirmed):
    scene.enter(Phase.NATS_PRIMARY)
    measures = Measures(ack_after=True, confirmed_acks=confirmed)
    with environment(lease_s=LONG_LEASE_S):
        await scene.put(*scene.tasks())
        async with scene.worker(1, measures=measures):
            await scene.quiet(leases=True)
    account = (await scene.conclude())()
    assert (account.done, broken(account)) == (3, [])
    assert count(scene, Event.ACK_SENT) == 3
    assert count(scene, Event.ACK_CONFIRMED) == (3 if confirmed else 0)


async def test_the_authority_moves_between_two_phases(scene):
    """What was done under Redis is copied, and skipped when it is delivered without Redis."""
    scene.enter(Phase.NATS_PRIMARY)
    tasks = scene.tasks()
    with environment(lease_s=LEASE_S):
        await scene.put(*tasks)
        async with scene.worker(1, measures=CLAIMED):
            await scene.quiet(leases=True)
        opened = scene.connections()
        try:
            transport = await opened.nats()
            kept_s = 8 * 24 * 3600.0
            await ensure_bucket(transport, retention_s=kept_s, storage="memory")
            target = KvDoneStore(transport, clock=scene.clock)
            source = RedisDoneStore(opened.redis(), names=scene.names, retention_s=kept_s)
            moved = await move_records(source, target)
            assert (moved.done, moved.complete) == (3, True)
            await transport.jetstream.delete_consumer(scene.names.stream, scene.names.consumer)
        finally:
            await opened.close()
        scene.enter(Phase.NATS_ONLY)
        async with scene.worker(2, measures=CLAIMED):
            await scene.quiet(leases=True)
    account = (await scene.conclude())()
    assert (account.done, account.duplicated, broken(account)) == (3, 0, [])
    assert count(scene, Event.SKIPPED) == 3


async def test_who_starts_without_redis_knows_what_was_done_just_before(scene):
    """Nothing was copied: in nats_primary each end is told to the next authority as well."""
    scene.enter(Phase.DUAL_READ)
    with environment(lease_s=LEASE_S):
        earlier, later = scene.tasks(), scene.tasks()
        await scene.put(*earlier)
        async with scene.worker(1, measures=msgspec.structs.replace(CLAIMED, trim=True)) as worker:
            await scene.quiet(leases=True)
            scene.enter(Phase.NATS_PRIMARY)
            await entered(worker, 1)
            await scene.put(*later)
            await scene.quiet(leases=True)
        opened = scene.connections()
        try:
            transport = await opened.nats()
            target = KvDoneStore(transport, clock=scene.clock)
            every = {task.id for task in (*earlier, *later)}
            assert await target.are_done(every) == {task.id for task in later}
        finally:
            await opened.close()
    account = (await scene.conclude())()
    assert broken(account) == []


async def test_a_task_that_fails_on_both_brokers_has_one_budget(scene):
    """Its copy in Redis is not tried again when it is a dead letter of NATS."""
    scene.enter(Phase.DUAL_READ)
    with environment():
        await scene.put(scene.task())
        async with scene.worker(1, service=Failing(5), measures=CLAIMED) as worker:
            await eventually(lambda: count(scene, Event.DEAD), what="the letter")
            scene.enter(Phase.REDIS_ONLY)
            await entered(worker, 1)
            await scene.quiet()
    account = (await scene.conclude())()
    assert (account.dead, account.done, account.handler_failures) == (1, 0, 3)
    assert broken(account) == []


async def test_a_worker_takes_its_records_along_when_it_leaves_redis(scene):
    """One task is done before the change, one is at work during it; both are delivered again."""
    scene.enter(Phase.NATS_PRIMARY)
    gate = Gate()
    done, at_work = scene.task("idempotent", "repo-1"), scene.task("transactional", "repo-2")

    async def serve(task, execution):
        if task.id == at_work.id:
            await gate(task, execution)

    with environment(lease_s=LONG_LEASE_S):
        async with scene.worker(1, service=serve, measures=CLAIMED, concurrency=2) as worker:
            await scene.put(done, at_work)
            await eventually(lambda: gate.inside, what="a task in hand")
            await eventually(lambda: count(scene, Event.DONE), what="the other one done")
            scene.enter(Phase.NATS_ONLY)
            await entered(worker, 1)
            gate.open.set()
            await scene.quiet()
        opened = scene.connections()
        try:
            transport = await opened.nats()
            await transport.jetstream.delete_consumer(scene.names.stream, scene.names.consumer)
        finally:
            await opened.close()
        async with scene.worker(2, measures=CLAIMED):
            await scene.quiet(leases=True)
    account = (await scene.conclude())()
    assert (account.done, account.duplicated, broken(account)) == (2, 0, [])
    assert count(scene, Event.SKIPPED) == 2
