"""``dual_read`` with Redis beside NATS: which tasks are taken there, and in which turn."""

import random
import uuid

import msgspec
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from hookbench.errors import BrokerUnreachableError
from hookbench.ids import uuid7
from hookbench.ledger.events import Broker
from hookbench.migration.consumer import RedisConsumer
from hookbench.migration.read_both import AgedTasks, made_at_ms
from hookbench.task import encode_task, new_task
from tests.fakes import FakeRedis
from tests.unit.test_consumer import Nats
from tests.virtual import VirtualClock

PENDING, WORK = "{hook}:sync", "{hook}:sync:work"


class Scene:
    """A consumer of ``dual_read`` on a clock that a test moves on."""

    def __init__(self, min_age_s=5.0):
        self.clock = VirtualClock()
        self.entropy = random.Random(7)
        self.redis = FakeRedis()
        self.nats = Nats()
        aged = AgedTasks(self.clock, min_age_s=min_age_s)
        self.consumer = RedisConsumer.with_nats(self.redis, "{hook}", 5, self.nats, aged=aged)

    def task(self):
        return encode_task(
            new_task(
                repo_id="synthetic/plain/repo-0",
                task_type="sync",
                payload={},
                clock=self.clock,
                entropy=self.entropy,
            )
        )

    def pass_time(self, seconds):
        self.clock.now_ns += int(seconds * 1e9)

    async def receive(self, limit=10):
        return [
            (item.delivery.broker, item.delivery.payload)
            for item in await self.consumer.receive("sync", limit)
        ]


@pytest.fixture
def scene():
    return Scene()


async def test_a_task_is_left_to_nats_until_it_is_old_enough(scene):
    data = scene.task()
    await scene.redis.lpush(PENDING, data)
    scene.pass_time(4.9)
    assert await scene.receive() == []
    assert scene.redis.lists[PENDING] == [data]
    scene.pass_time(1.1)
    assert await scene.receive() == [(Broker.REDIS, data)]
    assert scene.redis.lists == {PENDING: [], WORK: [data]}


async def test_the_oldest_go_and_the_fresh_ones_behind_them_stay(scene):
    old = [scene.task(), scene.task()]
    await scene.redis.lpush(PENDING, *old)
    scene.pass_time(6)
    fresh = scene.task()
    await scene.redis.lpush(PENDING, fresh)
    assert [data for _broker, data in await scene.receive()] == old
    assert scene.redis.lists[PENDING] == [fresh]


async def test_no_more_are_taken_than_there_are_free_slots(scene):
    old = [scene.task() for _ in range(5)]
    await scene.redis.lpush(PENDING, *old)
    scene.pass_time(6)
    assert len(await scene.receive(limit=2)) == 2
    assert len(scene.redis.lists[PENDING]) == 3


async def test_what_another_worker_took_in_between_is_not_made_up_by_fresh_ones(scene):
    old = scene.task()
    await scene.redis.lpush(PENDING, old)
    scene.pass_time(6)
    await scene.redis.lpush(PENDING, scene.task())
    peek = scene.redis.lrange

    async def lrange_then_lost(name, start, end):
        found = await peek(name, start, end)
        if start != -1:  # the second look: somebody is quicker now
            await scene.redis.blmove(PENDING, "another", 0, "RIGHT", "LEFT")
        return found

    scene.redis.lrange = lrange_then_lost
    assert await scene.receive() == []
    assert len(scene.redis.lists[PENDING]) == 1
    assert scene.redis.lists["another"] == [old]


async def test_both_are_read_in_turns_while_both_have_tasks(scene):
    await scene.redis.lpush(PENDING, *[scene.task() for _ in range(4)])
    scene.nats.payloads = [scene.task() for _ in range(3)]
    brokers = []
    for _ in range(3):
        brokers += [broker for broker, _data in await scene.receive(1)]
    assert brokers == [Broker.NATS] * 3  # none in Redis is old enough
    scene.nats.payloads = [scene.task() for _ in range(2)]
    scene.pass_time(6)
    turns = [[broker for broker, _data in await scene.receive(1)] for _ in range(7)]
    redis, nats = [Broker.REDIS], [Broker.NATS]
    assert turns == [redis, nats, redis, nats, redis, [], redis]  # once NATS had none left


async def test_after_a_look_that_found_nothing_redis_is_left_alone_for_a_second(scene):
    looks = []
    peek = scene.redis.lrange

    async def lrange(*arguments):
        looks.append(arguments)
        return await peek(*arguments)

    scene.redis.lrange = lrange
    for _ in range(3):
        await scene.receive()
    assert looks == [(PENDING, -1, -1)]
    scene.pass_time(1)
    await scene.receive()
    assert len(looks) == 2


async def test_a_redis_that_is_away_does_not_keep_nats_from_being_read(scene):
    async def lrange(*_arguments):
        raise RedisConnectionError("gone")

    scene.redis.lrange = lrange
    data = scene.task()
    scene.nats.payloads = [data]
    assert await scene.receive() == [(Broker.NATS, data)]


async def test_after_a_failed_nats_read_redis_is_read_whatever_the_age(scene):
    fresh = scene.task()
    await scene.redis.lpush(PENDING, fresh)
    scene.nats.error = BrokerUnreachableError("down")
    assert await scene.receive() == [(Broker.REDIS, fresh)]


async def test_junk_has_no_age_and_blocks_nothing(scene):
    await scene.redis.lpush(PENDING, b"junk")
    assert await scene.receive() == [(Broker.REDIS, b"junk")]


def test_an_id_of_another_version_is_as_old_as_its_label(make_task):
    task = make_task()
    by_label = msgspec.structs.replace(task, id=uuid.UUID(int=4, version=4))
    made_ms = made_at_ms(encode_task(by_label))
    assert made_ms == int(task.created_at.timestamp() * 1000)
    assert made_at_ms(b"{}") is None


def test_an_id_of_version_7_tells_when_it_was_made(make_task):
    clock = VirtualClock()
    task = msgspec.structs.replace(make_task(), id=uuid7(clock, random.Random(1)))
    assert made_at_ms(encode_task(task)) == clock.wall_ns() // 1_000_000
