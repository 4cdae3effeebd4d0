"""``dual_read`` with Redis read as well: real brokers, and bugs that are planted on purpose."""

import asyncio
import random

import msgspec
import pytest

from hookbench.errors import BrokerUnreachableError
from hookbench.ids import uuid7
from hookbench.migration.measures import Measures
from hookbench.migration.phases import Phase
from hookbench.migration.read_both import AgedTasks
from hookbench.queues.redis_list import RedisListQueue
from hookbench.task import decode_task
from hookbench.worker.service import WorkerService, WorkerSettings
from tests.conftest import eventually
from tests.integration.migrating import CONSUMER, Scene
from tests.integration.migrating_child import STREAM
from tests.virtual import FixedClock

AGE_S = 600.0


@pytest.fixture
async def scene(redis_broker, nats_broker, names, tmp_path):
    opened = Scene(redis_broker.url, nats_broker.url, names, tmp_path)
    yield opened
    await opened.close()


async def run_worker(scene, until, *, measures, handler):
    """A worker in ``dual_read`` until a condition holds."""
    worker = WorkerService(
        WorkerSettings(
            redis_url=scene.redis_url,
            nats_url=scene.nats_url,
            phase=Phase.DUAL_READ,
            names=scene.names,
            block_timeout_secs=0.2,
            measures=measures,
            redis_age_s=AGE_S,
            stream=STREAM,
            consumer=CONSUMER,
        ),
        handler,
        clock=scene.clock,
        ledger=scene.ledger("worker", 1),
    )
    running = asyncio.ensure_future(worker.run())
    try:
        await eventually(until, timeout_s=20)
    finally:
        worker.request_stop()
        await running


def plain(executed):
    async def handle(task, _execution):
        executed.append(task.id)

    return handle


def made_an_hour_ago(make_task, clock):
    wall_ns = clock.wall_ns() - 3600 * 10**9
    task_id = uuid7(FixedClock(wall_ns=wall_ns), random.SystemRandom())
    return msgspec.structs.replace(make_task(), id=task_id)


async def stranded_and_fresh(scene, make_task, *, measures, wanted):
    """Three old tasks that Redis alone has, and ten fresh ones on both; what is executed."""
    old = [made_an_hour_ago(make_task, scene.clock) for _ in range(3)]
    both = [make_task() for _ in range(10)]
    await scene.put(Phase.REDIS_ONLY, old, writer=10)
    await scene.put(Phase.DUAL_WRITE, both, writer=11)
    executed = []
    await run_worker(
        scene, lambda: len(executed) >= wanted, measures=measures, handler=plain(executed)
    )
    return executed, {task.id for task in old}, {task.id for task in both}


async def test_what_redis_alone_has_is_done_and_fresh_copies_are_left_to_nats(scene, make_task):
    measures = Measures(ack_after=True, read_both=True)
    executed, old, both = await stranded_and_fresh(scene, make_task, measures=measures, wanted=13)
    assert len(executed) == 13
    assert set(executed) == old | both
    pending, work = await RedisListQueue(scene.client, names=scene.names).contents()
    assert {decode_task(payload).id for payload in pending} == both
    assert work == []


async def test_without_the_measure_it_stays_where_it_is(scene, make_task):
    measures = Measures(ack_after=True)
    executed, _old, both = await stranded_and_fresh(scene, make_task, measures=measures, wanted=10)
    assert set(executed) == both
    pending, _work = await RedisListQueue(scene.client, names=scene.names).contents()
    assert len(pending) == 13


async def test_a_planted_leg_that_does_not_look_at_the_age_does_fresh_tasks_twice(
    scene, make_task, monkeypatch
):
    monkeypatch.setattr(AgedTasks, "_aged", lambda _self, payloads: payloads)
    executed = []
    tasks = [make_task() for _ in range(10)]
    await scene.put(Phase.DUAL_WRITE, tasks, writer=11)
    await run_worker(
        scene,
        lambda: len(executed) >= 20,
        measures=Measures(ack_after=True, read_both=True),
        handler=plain(executed),
    )
    assert len(set(executed)) == 10  # and the test above says that none is


async def test_a_redis_that_fails_does_not_keep_nats_from_being_read(scene, make_task, monkeypatch):
    async def oldest(_self, _count):
        raise BrokerUnreachableError("planted")

    tasks = [make_task() for _ in range(5)]
    await scene.put(Phase.NATS_PRIMARY, tasks, writer=11)
    monkeypatch.setattr(RedisListQueue, "oldest", oldest)
    executed = []
    measures = Measures(ack_after=True, read_both=True)
    await run_worker(scene, lambda: len(executed) == 5, measures=measures, handler=plain(executed))
    assert sorted(executed) == sorted(task.id for task in tasks)
