import logging

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from hookbench.errors import (
    OversizeError,
    PublishRefusedError,
    PublishUnknownError,
    SendError,
    SettingError,
)
from hookbench.ledger.events import Event
from hookbench.migration.metrics import HookMetrics
from hookbench.migration.phases import Phase, WriteRoute
from hookbench.migration.producer import Receipt, ReceiveSyncService
from hookbench.task import Names, encode_task
from tests.fakes import FakeRedis, MemoryRecorder


class Nats:
    """An injected ``nats_publish`` that remembers."""

    def __init__(self, error=None):
        self.published = []
        self.error = error

    async def __call__(self, subject, payload):
        if self.error is not None:
            raise self.error
        self.published.append((subject, payload))
        return len(self.published)


@pytest.fixture
def redis():
    return FakeRedis()


@pytest.fixture
def nats():
    return Nats()


async def test_the_plain_constructor_writes_redis_only(redis, make_task):
    task = make_task()
    receipt = await ReceiveSyncService(redis).send(task)
    assert receipt == Receipt(sequence=None, redis_length=1)
    assert redis.lists == {"{hook}:sync": [encode_task(task)]}


async def test_the_prefix_is_the_guides_parameter(redis, make_task):
    await ReceiveSyncService(redis, "{other}").send(make_task())
    assert list(redis.lists) == ["{other}:sync"]


async def test_with_nats_tries_nats_first_and_leaves_redis_alone(redis, nats, make_task):
    task = make_task()
    receipt = await ReceiveSyncService.with_nats(redis, nats).send(task)
    assert receipt == Receipt(sequence=1, redis_length=None)
    assert nats.published == [("queue.hook.sync", encode_task(task))]
    assert redis.lists == {}


@pytest.mark.parametrize("error", [PublishRefusedError("no"), PublishUnknownError("?")])
async def test_with_nats_falls_back_to_redis(redis, make_task, error):
    receipt = await ReceiveSyncService.with_nats(redis, Nats(error)).send(make_task())
    assert receipt == Receipt(sequence=None, redis_length=1)


async def test_both_writes_both(redis, nats, make_task):
    service = ReceiveSyncService.with_nats(redis, nats, route=WriteRoute.BOTH)
    assert await service.send(make_task()) == Receipt(sequence=1, redis_length=1)


async def test_in_a_dual_route_either_write_is_enough(redis, nats, make_task):
    refused = Nats(PublishRefusedError("no"))
    service = ReceiveSyncService.with_nats(redis, refused, route=WriteRoute.BOTH)
    assert await service.send(make_task()) == Receipt(sequence=None, redis_length=1)
    redis.push_error = ResponseError("OOM")
    service = ReceiveSyncService.with_nats(redis, nats, route=WriteRoute.BOTH)
    assert await service.send(make_task()) == Receipt(sequence=1, redis_length=None)


@pytest.mark.parametrize(
    ("redis_error", "nats_error", "outcome", "told"),
    [
        (ResponseError("OOM"), PublishRefusedError("no"), "fail", Event.REFUSED),
        (RedisConnectionError("gone"), PublishRefusedError("no"), "unknown", Event.DOUBTFUL),
        (ResponseError("OOM"), PublishUnknownError("?"), "unknown", Event.DOUBTFUL),
        (ResponseError("OOM"), TimeoutError("injected"), "unknown", Event.DOUBTFUL),
    ],
)
async def test_no_acknowledgement_is_an_error_that_says_whether_it_may_be_there(
    redis, make_task, redis_error, nats_error, outcome, told
):
    recorder = MemoryRecorder()
    redis.push_error = redis_error
    service = ReceiveSyncService.with_nats(
        redis, Nats(nats_error), route=WriteRoute.BOTH, recorder=recorder
    )
    task = make_task()
    with pytest.raises(SendError, match=str(task.id)) as caught:
        await service.send(task)
    assert caught.value.outcome == outcome
    assert recorder.kinds(task.id.bytes)[-1] is told


async def test_a_refused_connection_means_that_nothing_was_sent(redis, make_task):
    redis.push_error = RedisConnectionError("Error 111")
    redis.push_error.__cause__ = ConnectionRefusedError(111, "refused")
    with pytest.raises(SendError) as caught:
        await ReceiveSyncService(redis).send(make_task())
    assert caught.value.outcome == "fail"


async def test_oversize_is_refused_before_either_write(redis, nats, make_task):
    recorder = MemoryRecorder()
    service = ReceiveSyncService.with_nats(redis, nats, route=WriteRoute.BOTH, recorder=recorder)
    with pytest.raises(OversizeError, match="2097"):
        await service.send(make_task(payload={"filling": "x" * 2 * 1024 * 1024}))
    assert redis.lists == {}
    assert nats.published == []
    assert recorder.kinds() == [Event.PUT_INVOKED, Event.REFUSED]


async def test_the_ledger_tells_the_whole_put(redis, nats, make_task):
    recorder = MemoryRecorder()
    service = ReceiveSyncService.with_nats(redis, nats, route=WriteRoute.BOTH, recorder=recorder)
    await service.send(make_task(), intended_ns=77)
    assert recorder.kinds() == [Event.PUT_INVOKED, Event.PUT_OK, Event.PUT_OK, Event.ACCEPTED]
    assert recorder.events[0][3] == 77


async def test_log_lines_and_counters_are_the_guides(redis, nats, make_task, caplog):
    metrics = HookMetrics()
    service = ReceiveSyncService.with_nats(redis, nats, route=WriteRoute.BOTH, metrics=metrics)
    with caplog.at_level(logging.INFO):
        await service.send(make_task())
    assert [record.getMessage() for record in caplog.records] == [
        "hook task queued to NATS",
        "hook task queued to Redis",
    ]
    assert metrics.value("hook_task_queued_total", "nats") == 1
    assert metrics.value("hook_task_queued_total", "redis") == 1


async def test_what_failed_is_not_counted_as_queued(redis, make_task):
    metrics = HookMetrics()
    service = ReceiveSyncService.with_nats(
        redis, Nats(PublishRefusedError("no")), route=WriteRoute.BOTH, metrics=metrics
    )
    await service.send(make_task())
    assert metrics.value("hook_task_queued_total", "nats") == 0
    assert metrics.value("hook_task_queued_total", "redis") == 1


@pytest.mark.parametrize(
    ("phase", "route"),
    [
        (Phase.REDIS_ONLY, WriteRoute.REDIS),
        (Phase.DUAL_WRITE, WriteRoute.BOTH),
        (Phase.DUAL_READ, WriteRoute.BOTH),
        (Phase.NATS_PRIMARY, WriteRoute.NATS),
        (Phase.NATS_ONLY, WriteRoute.NATS),
    ],
)
def test_phases_map_to_write_routes(redis, nats, phase, route):
    pool = None if phase is Phase.NATS_ONLY else redis
    service = ReceiveSyncService.for_phase(phase, pool=pool, nats_publish=nats, names=Names())
    assert service.route is route


@pytest.mark.parametrize("phase", [Phase.REDIS_ONLY, Phase.DUAL_WRITE])
def test_a_phase_without_its_broker_is_an_error(phase):
    with pytest.raises(SettingError, match=phase.label):
        ReceiveSyncService.for_phase(phase, pool=None, nats_publish=None, names=Names())


async def test_a_publish_that_fails_before_it_can_be_awaited_is_an_outcome_as_well(make_task):
    def publish(_subject, _payload):
        raise PublishRefusedError("no stream")

    recorder = MemoryRecorder()
    service = ReceiveSyncService.nats_only(publish, recorder=recorder)
    with pytest.raises(SendError, match="no stream"):
        await service.send(make_task())
    assert recorder.kinds() == [Event.PUT_INVOKED, Event.PUT_FAIL, Event.REFUSED]
