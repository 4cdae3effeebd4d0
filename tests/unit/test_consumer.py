import logging

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from hookbench.errors import BrokerUnreachableError, SettingError
from hookbench.ledger.events import Broker, Event
from hookbench.migration.consumer import RedisConsumer
from hookbench.migration.metrics import HookMetrics
from hookbench.migration.phases import AckMode, Phase, ReadRoute
from hookbench.task import Names, encode_task
from tests.fakes import FakeRedis, MemoryRecorder


class Nats:
    """An injected ``nats_consume`` with plain ``ack`` functions, as the guide writes them."""

    def __init__(self, *payloads, error=None):
        self.payloads = list(payloads)
        self.acked = []
        self.calls = []
        self.error = error

    async def __call__(self, subject, batch):
        self.calls.append((subject, batch))
        if self.error is not None:
            raise self.error
        taken, self.payloads = self.payloads[:batch], self.payloads[batch:]
        return [(payload, self._ack_of(payload)) for payload in taken]

    def _ack_of(self, payload):
        async def ack():
            self.acked.append(payload)

        return ack


@pytest.fixture
def redis():
    return FakeRedis()


async def test_the_plain_constructor_moves_to_the_work_list_and_acks_from_there(redis, make_task):
    task = make_task()
    await redis.lpush("{hook}:sync", encode_task(task))
    (received,) = await RedisConsumer(redis, "{hook}", 5).receive("sync", 10)
    assert received.task == task
    assert received.delivery.broker is Broker.REDIS
    assert redis.lists["{hook}:sync:work"] == [encode_task(task)]
    await received.delivery.ack()
    assert redis.lists["{hook}:sync:work"] == []


async def test_nats_is_acknowledged_at_once_in_the_guides_mode(redis, make_task):
    data = encode_task(make_task())
    nats = Nats(data)
    consumer = RedisConsumer.with_nats(redis, "{hook}", 5, nats)
    (received,) = await consumer.receive("sync", 3)
    assert nats.calls == [("queue.hook.sync", 3)]
    assert nats.acked == [data]
    assert received.settled


async def test_after_processing_leaves_the_acknowledgement_to_the_worker(redis, make_task):
    data = encode_task(make_task())
    nats = Nats(data)
    consumer = RedisConsumer.with_nats(redis, "{hook}", 5, nats, ack=AckMode.AFTER_PROCESSING)
    (received,) = await consumer.receive("sync", 3)
    assert nats.acked == []
    assert not received.settled
    await received.delivery.ack()
    assert nats.acked == [data]


async def test_an_empty_fetch_is_no_error_and_does_not_fall_back(redis, make_task):
    await redis.lpush("{hook}:sync", encode_task(make_task()))
    assert await RedisConsumer.with_nats(redis, "{hook}", 5, Nats()).receive("sync", 3) == []
    assert len(redis.lists["{hook}:sync"]) == 1


@pytest.mark.parametrize("error", [BrokerUnreachableError("down"), TimeoutError()])
async def test_one_failed_read_causes_one_redis_read_then_nats_again(redis, make_task, error):
    first, second = make_task(), make_task()
    await redis.lpush("{hook}:sync", encode_task(first))
    nats = Nats(encode_task(second), error=error)
    consumer = RedisConsumer.with_nats(redis, "{hook}", 5, nats)
    (received,) = await consumer.receive("sync", 3)
    assert received.task == first
    assert received.delivery.broker is Broker.REDIS
    nats.error = None
    (received,) = await consumer.receive("sync", 3)
    assert received.task == second
    assert received.delivery.broker is Broker.NATS
    assert len(nats.calls) == 2


async def test_without_redis_a_failed_read_is_an_error():
    consumer = RedisConsumer.nats_only(Nats(error=BrokerUnreachableError("down")))
    with pytest.raises(BrokerUnreachableError):
        await consumer.receive("sync", 1)


async def test_a_failed_redis_read_is_an_error_of_ours(redis):
    redis.move_error = RedisConnectionError("gone")
    with pytest.raises(BrokerUnreachableError, match="BLMOVE"):
        await RedisConsumer(redis).receive("sync", 1)


@pytest.mark.parametrize("ack", list(AckMode))
async def test_bytes_that_are_no_task_are_not_acknowledged(redis, make_task, ack):
    good = encode_task(make_task())
    nats = Nats(b"junk", good)
    recorder = MemoryRecorder()
    consumer = RedisConsumer.with_nats(redis, "{hook}", 5, nats, ack=ack, recorder=recorder)
    junk, fine = await consumer.receive("sync", 10)
    assert junk.task is None
    assert "4 bytes" in junk.problem
    assert fine.task is not None
    assert b"junk" not in nats.acked
    assert recorder.count(Event.RECEIVED) == 2


async def test_log_lines_and_counters_are_the_guides(redis, make_task, caplog):
    await redis.lpush("{hook}:sync", encode_task(make_task()))
    metrics = HookMetrics()
    with caplog.at_level(logging.INFO):
        await RedisConsumer(redis, metrics=metrics).receive("sync", 1)
        nats = Nats(encode_task(make_task()))
        await RedisConsumer.nats_only(nats, metrics=metrics).receive("sync", 1)
    assert [record.getMessage() for record in caplog.records] == [
        "task dequeued",
        "task dequeued from NATS",
    ]
    assert metrics.value("hook_task_consumed_total", "redis") == 1
    assert metrics.value("hook_task_consumed_total", "nats") == 1


@pytest.mark.parametrize(
    ("phase", "route"),
    [
        (Phase.REDIS_ONLY, ReadRoute.REDIS),
        (Phase.DUAL_WRITE, ReadRoute.REDIS),
        (Phase.DUAL_READ, ReadRoute.NATS_THEN_REDIS),
        (Phase.NATS_PRIMARY, ReadRoute.NATS),
        (Phase.NATS_ONLY, ReadRoute.NATS),
    ],
)
def test_phases_map_to_read_routes(redis, phase, route):
    consumer = RedisConsumer.for_phase(
        phase,
        pool=redis,
        nats_consume=Nats(),
        names=Names(),
        block_timeout_secs=1,
        ack=AckMode.IMMEDIATE,
    )
    assert consumer.route is route


@pytest.mark.parametrize("phase", [Phase.REDIS_ONLY, Phase.DUAL_READ, Phase.NATS_ONLY])
def test_a_phase_without_its_broker_is_an_error(phase):
    with pytest.raises(SettingError, match=phase.label):
        RedisConsumer.for_phase(
            phase,
            pool=None,
            nats_consume=None,
            names=Names(),
            block_timeout_secs=1,
            ack=AckMode.IMMEDIATE,
        )
