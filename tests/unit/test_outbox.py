"""The outbox over a real file, its brokers in memory."""

import asyncio
import sqlite3

import pytest
from redis.exceptions import ResponseError

from hookbench.clock import SystemClock
from hookbench.errors import OversizeError, PublishUnknownError, SendError, SettingError, SpoolError
from hookbench.ledger.events import Broker, Event
from hookbench.migration.outbox import Outbox, OutboxSettings
from hookbench.migration.outbox_file import OutboxFile, hold_outbox
from hookbench.migration.phases import Phase, WriteRoute
from hookbench.migration.producer import Receipt, ReceiveSyncService
from hookbench.migration.spool import ON_NATS, ON_REDIS, Spool
from hookbench.migration.sweeper import SweeperSettings
from hookbench.task import Names, encode_task
from tests.conftest import eventually
from tests.fakes import FakeRedis, MemoryRecorder

BOOT = b"b" * 16
QUICK = SweeperSettings(pause_s=0.01, pause_max_s=0.02)


class Nats:
    def __init__(self):
        self.error = None
        self.held = None
        self.published = []

    async def __call__(self, _subject, payload):
        if self.held is not None:
            await self.held.wait()
        if self.error is not None:
            raise self.error
        self.published.append(payload)
        return len(self.published)


class LookingRedis(FakeRedis):
    """With the push that looks first."""

    async def eval(self, _script, count, *more):
        keys, payload = more[:count], more[count]
        if any(payload in self.lists.get(key, []) for key in keys):
            return 0
        return await self.lpush(keys[0], payload)


@pytest.fixture
async def bench(tmp_path):
    class Bench:
        def __init__(self):
            self.path = tmp_path / "outbox"
            self.redis, self.nats = LookingRedis(), Nats()
            self.recorder = MemoryRecorder()
            self.outboxes = []

        def open(self, **settings):
            clock = SystemClock()
            file = OutboxFile(self.path, boot_id=BOOT, clock=clock)
            more = OutboxSettings(**{"sweeper": QUICK, **settings})
            self.outbox = Outbox(file, clock=clock, settings=more)
            self.outboxes.append(self.outbox)

        async def enter(self, phase):
            self.service = ReceiveSyncService.for_phase(
                phase,
                pool=self.redis,
                nats_publish=self.nats,
                names=Names(),
                recorder=self.recorder,
            )
            self.service.outbox = self.outbox
            await self.outbox.enter(self.service)
            return self.service

        async def started(self, phase, **settings):
            self.open(**settings)
            return await self.enter(phase)

        def rows(self):
            with Spool(self.path) as spool:
                return [(row.task, row.acked) for row in spool.oldest(1000)]

        @property
        def listed(self):
            return self.redis.lists.get("{hook}:sync", [])[::-1]

        async def crash(self):
            """What is in memory is gone, the file stays."""
            for sweeper in self.outbox._sweepers.values():
                await sweeper.abandon()
            self.outbox.file._marks.clear()
            await self.outbox.file.close()
            self.outboxes.remove(self.outbox)

    made = Bench()
    yield made
    for outbox in made.outboxes:
        await outbox.close()


async def test_a_task_is_accepted_when_it_is_on_the_disk_and_not_before(bench, make_task):
    service = await bench.started(Phase.DUAL_WRITE)
    bench.nats.held = asyncio.Event()
    bench.redis.push_error = ConnectionRefusedError()
    task = make_task()
    assert await service.send(task, intended_ns=77) == Receipt(spooled=True)
    assert bench.rows() == [(encode_task(task), 0)]
    with sqlite3.connect(bench.path) as db:
        assert db.execute("SELECT intended_ns, boot_id FROM spool").fetchall() == [(77, BOOT)]
    assert bench.recorder.kinds(task.id.bytes)[:2] == [Event.PUT_INVOKED, Event.ACCEPTED]
    assert Event.PUT_OK not in bench.recorder.kinds()
    bench.nats.held.set()


async def test_it_leaves_when_both_brokers_have_it(bench, make_task):
    service = await bench.started(Phase.DUAL_WRITE)
    bench.redis.push_error = ConnectionRefusedError()
    task = make_task()
    await service.send(task)
    await eventually(lambda: bench.rows() == [(encode_task(task), ON_NATS)], what="NATS has it")
    assert not bench.outbox.idle
    bench.redis.push_error = None
    assert await bench.outbox.drain() == 0
    assert bench.rows() == []
    assert bench.nats.published == bench.listed == [encode_task(task)]
    assert bench.outbox.file.cleared == 1


async def test_a_route_of_one_broker_needs_one(bench, make_task):
    service = await bench.started(Phase.NATS_PRIMARY)
    await service.send(make_task())
    assert await bench.outbox.drain() == 0
    assert (len(bench.nats.published), bench.listed) == (1, [])


async def test_sends_at_once_share_a_write_to_the_disk(bench, make_task):
    service = await bench.started(Phase.NATS_PRIMARY)
    groups, store = [], bench.outbox.file._store

    def counted(adds, marks):
        groups.append(len(adds))
        return store(adds, marks)

    bench.outbox.file._store = counted
    await asyncio.gather(*(service.send(make_task()) for _ in range(500)))
    assert sum(groups) == 500
    assert len(groups) <= 3
    assert await bench.outbox.drain() == 0


async def test_a_task_in_doubt_is_put_once_more_only_where_it_is_not(bench, make_task):
    service = await bench.started(Phase.REDIS_ONLY)
    push, task = bench.redis.lpush, make_task()

    async def stored_without_an_answer(name, *values):
        bench.redis.lpush = push
        await push(name, *values)
        raise ConnectionResetError

    bench.redis.lpush = stored_without_an_answer
    await service.send(task)
    assert await bench.outbox.drain() == 0
    assert bench.listed == [encode_task(task)]
    assert bench.recorder.count(Event.PUT_UNKNOWN) == 1
    assert bench.recorder.count(Event.PUT_OK) == 1


async def test_what_a_crashed_producer_left_is_put_in_its_order(bench, make_task):
    service = await bench.started(Phase.DUAL_WRITE)
    bench.nats.error = PublishUnknownError("no answer")
    bench.redis.push_error = ConnectionRefusedError()
    tasks = [make_task(repo_id="one") for _ in range(5)]
    for task in tasks:
        await service.send(task)
    await bench.crash()
    bench.nats.error = bench.redis.push_error = None
    await bench.started(Phase.DUAL_WRITE)
    assert await bench.outbox.drain() == 0
    assert bench.nats.published == bench.listed == [encode_task(task) for task in tasks]


async def test_a_copy_that_is_in_redis_already_is_not_pushed_by_the_next_producer(bench, make_task):
    service = await bench.started(Phase.REDIS_ONLY)
    redis = bench.redis
    push, look = redis.lpush, redis.eval

    async def stored_without_an_answer(name, *values):
        await push(name, *values)
        raise ConnectionResetError

    async def no_answer(*_arguments):
        raise ConnectionResetError

    redis.lpush, redis.eval = stored_without_an_answer, no_answer
    await service.send(make_task())
    await eventually(lambda: bench.listed, what="the push")
    await bench.crash()
    redis.lpush, redis.eval = push, look
    assert len(bench.rows()) == 1
    await bench.started(Phase.REDIS_ONLY)
    assert await bench.outbox.drain() == 0
    assert len(bench.listed) == 1


async def test_a_broker_that_the_route_has_no_more_is_left_alone(bench, make_task):
    service = await bench.started(Phase.DUAL_WRITE)
    bench.nats.error = PublishUnknownError("no answer")
    bench.redis.push_error = ConnectionRefusedError()
    await service.send(make_task())
    await bench.enter(Phase.NATS_PRIMARY)
    bench.redis.push_error = None
    unknown = bench.recorder.count(Event.PUT_UNKNOWN)
    await eventually(lambda: bench.recorder.count(Event.PUT_UNKNOWN) > unknown + 5)
    assert bench.listed == []


async def test_what_is_added_is_on_the_disk_and_what_is_acknowledged_need_not_be(bench, make_task):
    service = await bench.started(Phase.NATS_PRIMARY)
    said = []
    bench.outbox.file._spool._db.set_trace_callback(said.append)
    await asyncio.gather(*(service.send(make_task()) for _ in range(3)))
    assert await bench.outbox.drain() == 0
    await bench.outbox.file.left()
    durable, commits = True, []
    words = []
    for line in said:
        if line.startswith("PRAGMA synchronous"):
            durable = line.endswith("FULL")
        elif line == "COMMIT":
            commits.append((durable, "INSERT" in words))
            words = []
        else:
            words.append(line.split()[0])
    assert (True, True) in commits
    assert (False, True) not in commits, "an accepted task was not synced"
    assert (True, False) not in commits, "an acknowledgement waited for the disk"
    assert (False, False) in commits


async def test_rows_go_by_the_route_of_the_phase_that_is_entered(bench, make_task):
    service = await bench.started(Phase.DUAL_WRITE)
    bench.nats.error = PublishUnknownError("no answer")
    only_redis = make_task()
    await service.send(only_redis)
    await eventually(lambda: bench.rows() == [(encode_task(only_redis), ON_REDIS)])
    bench.nats.error = None
    await bench.enter(Phase.NATS_PRIMARY)
    assert await bench.outbox.drain() == 0
    assert bench.nats.published == [encode_task(only_redis)]

    service = await bench.enter(Phase.DUAL_WRITE)
    bench.redis.push_error = ConnectionRefusedError()
    only_nats = make_task()
    await service.send(only_nats)
    await eventually(lambda: bench.rows() == [(encode_task(only_nats), ON_NATS)])
    await bench.enter(Phase.NATS_PRIMARY)
    assert await bench.outbox.drain() == 0
    bench.redis.push_error = None
    assert len(bench.listed) == 1, "phase 3 puts nothing on Redis"


async def test_back_to_redis_what_only_nats_has_is_put_there(bench, make_task):
    service = await bench.started(Phase.DUAL_WRITE)
    bench.redis.push_error = ConnectionRefusedError()
    await service.send(make_task())
    await eventually(lambda: [acked for _task, acked in bench.rows()] == [ON_NATS])
    bench.redis.push_error = None
    await bench.enter(Phase.REDIS_ONLY)
    assert await bench.outbox.drain() == 0
    assert len(bench.listed) == 1


async def test_oversize_is_refused_before_it_is_accepted(bench, make_task):
    service = await bench.started(Phase.DUAL_WRITE)
    with pytest.raises(OversizeError):
        await service.send(make_task(payload={"filling": "x" * 2 * 1024 * 1024}))
    assert bench.rows() == []
    assert bench.recorder.kinds() == [Event.PUT_INVOKED, Event.REFUSED]


async def test_a_full_outbox_refuses(bench, make_task):
    service = await bench.started(Phase.NATS_PRIMARY, waiting=2)
    bench.nats.error = PublishUnknownError("no answer")
    for _ in range(2):
        await service.send(make_task())
    with pytest.raises(SendError, match="holds 2 tasks") as caught:
        await service.send(make_task())
    assert caught.value.outcome == "fail"
    assert bench.recorder.kinds()[-1] is Event.REFUSED


async def test_what_could_not_be_stored_is_in_doubt(bench, make_task):
    service = await bench.started(Phase.NATS_PRIMARY)

    def full(_adds, _marks):
        raise SpoolError("database or disk is full")

    bench.outbox.file._store = full
    with pytest.raises(SendError, match="disk is full") as caught:
        await service.send(make_task())
    assert caught.value.outcome == "unknown"
    assert bench.recorder.kinds()[-1] is Event.DOUBTFUL


async def test_a_caller_that_goes_away_takes_nothing_back(bench, make_task):
    service = await bench.started(Phase.NATS_PRIMARY)
    sending = asyncio.ensure_future(service.send(make_task()))
    await asyncio.sleep(0)
    sending.cancel()
    await eventually(lambda: len(bench.nats.published) == 1, what="the put")
    assert await bench.outbox.drain() == 0


async def test_the_same_task_twice_is_one_row(bench, make_task):
    service = await bench.started(Phase.NATS_PRIMARY)
    bench.nats.held = asyncio.Event()
    task = make_task()
    assert await service.send(task) == await service.send(task) == Receipt(spooled=True)
    bench.nats.held.set()
    assert await bench.outbox.drain() == 0
    assert len(bench.nats.published) == 1


async def test_a_stop_is_bounded_and_says_what_is_left(bench, make_task):
    service = await bench.started(Phase.NATS_PRIMARY)
    bench.nats.error = PublishUnknownError("no answer")
    await service.send(make_task())
    assert await bench.outbox.drain(0.05) == 1


async def test_what_another_process_added_is_found_when_it_is_looked_for(bench, make_task):
    await bench.started(Phase.NATS_PRIMARY)
    assert await bench.outbox.drain() == 0
    task = make_task()
    with Spool(bench.path) as spool:
        spool.add(str(task.id), encode_task(task), intended_ns=0, boot_id=BOOT)
    bench.outbox.look()
    assert await bench.outbox.drain() == 0
    assert bench.nats.published == [encode_task(task)]


async def test_the_fallback_route_has_no_outbox(bench):
    bench.open()
    service = ReceiveSyncService.with_nats(bench.redis, bench.nats)
    assert service.route is WriteRoute.NATS_THEN_REDIS
    with pytest.raises(SettingError, match="nats_then_redis"):
        await bench.outbox.enter(service)


def test_an_outbox_has_one_process(tmp_path):
    with (
        hold_outbox(tmp_path / "outbox"),
        pytest.raises(SpoolError, match="another process has it"),
        hold_outbox(tmp_path / "outbox"),
    ):
        pass
    with hold_outbox(tmp_path / "outbox"):
        pass


async def test_what_keeps_tasks_in_the_outbox_is_told_when_it_begins_and_when_it_ends(
    bench, make_task, caplog
):
    service = await bench.started(Phase.REDIS_ONLY)
    bench.redis.push_error = ResponseError("NOREPLICAS 0 of 1")
    for _ in range(2):
        await service.send(make_task())
    await eventually(lambda: bench.recorder.count(Event.PUT_FAIL) > 3)
    reason = "Redis refused LPUSH {hook}:sync: NOREPLICAS 0 of 1"
    assert service.trouble == {Broker.REDIS: reason}
    bench.redis.push_error = None
    assert await bench.outbox.drain() == 0
    assert service.trouble == {}
    assert [record.getMessage() for record in caplog.records] == [
        f"tasks for redis stay in the outbox: {reason}",
        "redis takes tasks of the outbox again",
    ]
