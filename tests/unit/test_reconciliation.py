"""Reconciliation over brokers in memory, in virtual time."""

import asyncio
import random
import uuid

import pytest

from hookbench.errors import (
    BrokerUnreachableError,
    PublishRefusedError,
    PublishUnknownError,
    SettingError,
)
from hookbench.ids import uuid7_wall_ms
from hookbench.ledger.events import Broker, Event
from hookbench.migration.phases import Phase
from hookbench.migration.reconcile_loop import ReconcileLoop, repeat_rounds
from hookbench.migration.reconciliation import Reconciler, ReconcileSettings, ReconcileTotals
from hookbench.queues.stream_log import StoredTask
from hookbench.task import Names, encode_task, new_task, task_id_of
from tests.fakes import MemoryRecorder
from tests.virtual import VirtualClock

PENDING, WORK = "{hook}:sync", "{hook}:sync:work"
SUBJECT = "queue.hook.sync"
GRACE = ReconcileSettings(grace_s=2.0)


class Lists:
    """The lists of Redis, with the scripts as they mean it; the most that was read at once."""

    def __init__(self):
        self.lists = {PENDING: [], WORK: []}
        self.most = 0
        self.error = None

    async def lrange(self, key, start, end):
        found = self.lists[key][start : end + 1]
        self.most = max(self.most, len(found))
        return found

    async def eval(self, script, count, *more):
        keys, payload = more[:count], more[count]
        lies = any(payload in self.lists[key] for key in keys)
        if "LPUSH" not in script:
            return int(lies)
        if self.error is not None:
            raise self.error
        if lies:
            return 0
        self.lists[keys[0]].insert(0, payload)
        return len(self.lists[keys[0]])


class Stream:
    """A stream, and the guide's publish into it; sequences begin at ``first``."""

    def __init__(self, clock, first=1):
        self.clock = clock
        self.first = first
        self.stored = []
        self.error = None
        self.published = []
        self.reads = []

    def keep(self, payload, subject=SUBJECT, wall_ms=None):
        stored_ms = self.clock.wall_ns() // 1_000_000 if wall_ms is None else wall_ms
        self.stored.append((subject, payload, stored_ms))

    async def bounds(self):
        return self.first, self.first + len(self.stored) - 1

    async def read(self, first, last):
        self.reads.append((first, last))
        return [
            StoredTask(number, task_id_of(payload), subject, payload)
            for number, (subject, payload, _ms) in enumerate(self.stored, self.first)
            if first <= number <= last
        ]

    async def first_since(self, wall_ms):
        for number, (_subject, _payload, stored_ms) in enumerate(self.stored, self.first):
            if stored_ms >= wall_ms:
                return number
        return self.first + len(self.stored)

    async def publish(self, subject, payload):
        if self.error is not None:
            raise self.error
        self.published.append(payload)
        self.keep(payload, subject)
        return self.first + len(self.stored) - 1


class Done:
    def __init__(self):
        self.ids = set()
        self.most = 0

    async def are_done(self, task_ids):
        self.most = max(self.most, len(task_ids))
        return {task_id for task_id in task_ids if task_id in self.ids}


@pytest.fixture
def scene():
    class Scene:
        def __init__(self):
            self.clock = VirtualClock()
            self.entropy = random.Random(7)
            self.lists, self.stream, self.done = Lists(), Stream(self.clock), Done()
            self.recorder = MemoryRecorder()

        def tasks(self, count):
            return [
                encode_task(
                    new_task(
                        repo_id="one",
                        task_type="sync",
                        payload={},
                        clock=self.clock,
                        entropy=self.entropy,
                    )
                )
                for _ in range(count)
            ]

        def both(self, payloads):
            for payload in payloads:
                self.lists.lists[PENDING].insert(0, payload)
                self.stream.keep(payload)

        def redis_only(self, payloads, key=PENDING):
            for payload in payloads:
                self.lists.lists[key].insert(0, payload)

        def reconciler(self, *, done=True, settings=GRACE):
            return Reconciler(
                self.lists,
                self.stream,
                self.stream.publish,
                Names(),
                clock=self.clock,
                done=self.done if done else None,
                settings=settings,
                recorder=self.recorder,
            )

        def after(self, seconds, act):
            async def later():
                await self.clock.sleep(seconds)
                act()

            return asyncio.ensure_future(later())

    return Scene()


async def test_nothing_is_missing(scene):
    scene.both(scene.tasks(5))
    totals = await scene.reconciler().round()
    assert totals == ReconcileTotals(in_redis=5, in_stream=5, stream_judged=True)
    assert scene.recorder.events == []


@pytest.mark.parametrize("key", [PENDING, WORK])
async def test_what_only_redis_has_is_published(scene, key):
    both, alone = scene.tasks(3), scene.tasks(2)
    scene.both(both)
    scene.redis_only(alone, key)
    totals = await scene.reconciler(done=False).round()
    assert totals == ReconcileTotals(in_redis=5, put_on_nats=2)
    assert sorted(scene.stream.published) == sorted(alone)
    told = {(event, key, broker, value) for event, key, broker, value, _ in scene.recorder.events}
    assert told == {
        (Event.PUT_OK, task_id_of(payload).bytes, Broker.NATS, sequence)
        for sequence, payload in enumerate(scene.stream.published, 4)
    }
    assert (await scene.reconciler(done=False).round()).put_on_nats == 0


async def test_what_only_the_stream_has_is_pushed_unless_it_is_done(scene):
    done, open_ = scene.tasks(2), scene.tasks(2)
    for payload in (*done, *open_):
        scene.stream.keep(payload)
    scene.done.ids = {task_id_of(payload) for payload in done}
    totals = await scene.reconciler().round()
    assert totals == ReconcileTotals(in_stream=4, done=2, put_on_redis=2, stream_judged=True)
    assert sorted(scene.lists.lists[PENDING]) == sorted(open_)
    assert [event[0] for event in scene.recorder.events] == [Event.PUT_OK] * 2
    assert {event[2] for event in scene.recorder.events} == {Broker.REDIS}


async def test_without_a_done_store_nothing_goes_to_redis(scene):
    scene.stream.keep(*scene.tasks(1))
    totals = await scene.reconciler(done=False).round()
    assert (totals.stream_judged, totals.put_on_redis) == (False, 0)
    assert scene.lists.lists[PENDING] == []


async def test_a_done_copy_in_redis_is_left_alone(scene):
    payloads = scene.tasks(2)
    scene.redis_only(payloads)
    scene.done.ids = {task_id_of(payload) for payload in payloads}
    assert (await scene.reconciler().round()).put_on_nats == 0


async def test_a_task_between_its_two_writes_is_given_time(scene):
    (to_nats,), (to_redis,) = scene.tasks(1), scene.tasks(1)
    scene.redis_only([to_nats])
    scene.stream.keep(to_redis)
    scene.after(1.0, lambda: scene.stream.keep(to_nats))
    scene.after(3.0, lambda: scene.redis_only([to_redis]))
    totals = await scene.reconciler().round()
    assert (totals.turned_up, totals.put_on_nats, totals.put_on_redis) == (2, 0, 0)


async def test_a_task_that_a_worker_finishes_meanwhile_is_not_put(scene):
    (from_redis,), (from_stream,) = scene.tasks(1), scene.tasks(1)
    scene.redis_only([from_redis])
    scene.stream.keep(from_stream)
    scene.after(1.0, scene.lists.lists[PENDING].clear)
    scene.after(3.0, lambda: scene.done.ids.add(task_id_of(from_stream)))
    totals = await scene.reconciler().round()
    assert (totals.turned_up, totals.put_on_nats, totals.put_on_redis) == (2, 0, 0)
    assert scene.lists.lists[PENDING] == []


async def test_a_bounded_number_is_held_at_a_time(scene):
    for _ in range(30):
        scene.both(scene.tasks(1))
        scene.redis_only(scene.tasks(1))
    settings = ReconcileSettings(window=7, grace_s=0.1)
    totals = await scene.reconciler(settings=settings).round()
    assert totals.put_on_nats == 30
    assert scene.lists.most <= 7
    assert scene.done.most <= 7
    assert (await scene.reconciler(settings=settings).round()).put_on_nats == 0


async def test_only_the_part_of_the_stream_that_is_young_enough_is_read(scene):
    for _ in range(500):
        scene.stream.keep(*scene.tasks(1))
    await scene.clock.sleep(3600.0)
    scene.both(scene.tasks(3))
    scene.redis_only(scene.tasks(1))
    assert (await scene.reconciler(done=False).round()).put_on_nats == 1
    assert min(first for first, _last in scene.stream.reads) > 500


@pytest.mark.parametrize("skew_ms", [-30_000, 30_000])
async def test_clocks_may_be_apart(scene, skew_ms):
    (payload,) = scene.tasks(1)
    wall_ms = uuid7_wall_ms(task_id_of(payload)) + skew_ms
    for _ in range(3):
        scene.stream.keep(*scene.tasks(1), wall_ms=wall_ms - 3_600_000)
    scene.stream.keep(payload, wall_ms=wall_ms)
    scene.redis_only([payload])
    assert (await scene.reconciler(done=False).round()).put_on_nats == 0


async def test_what_is_done_at_the_beginning_of_the_stream_is_not_read_again(scene):
    payloads = scene.tasks(6)
    for payload in payloads:
        scene.stream.keep(payload)
    scene.done.ids = {task_id_of(payload) for payload in payloads[:3]} | {task_id_of(payloads[4])}
    reconciler = scene.reconciler()
    await reconciler.round()
    scene.stream.reads.clear()
    totals = await reconciler.round()
    assert scene.stream.reads[-1] == (4, 6)
    assert (totals.in_stream, totals.done) == (3, 1)


async def test_other_types_and_junk_are_no_business_of_it(scene):
    scene.stream.keep(scene.tasks(1)[0], subject="queue.hook.fsck")
    scene.redis_only([b"junk"])
    totals = await scene.reconciler().round()
    assert totals == ReconcileTotals(stream_judged=True)


@pytest.mark.parametrize(
    ("error", "event", "field"),
    [
        (PublishRefusedError("no"), Event.PUT_FAIL, "refused"),
        (PublishUnknownError("?"), Event.PUT_UNKNOWN, "unknown"),
        (TimeoutError(), Event.PUT_UNKNOWN, "unknown"),
    ],
)
async def test_a_put_that_fails_is_for_the_next_round(scene, error, event, field):
    scene.redis_only(scene.tasks(2))
    scene.stream.error = error
    reconciler = scene.reconciler(done=False)
    totals = await reconciler.round()
    assert (getattr(totals, field), totals.put_on_nats) == (2, 0)
    assert scene.recorder.kinds() == [event] * 2
    scene.stream.error = None
    assert (await reconciler.round()).put_on_nats == 2


@pytest.mark.parametrize("change", [{"window": 0}, {"grace_s": -1.0}, {"period_s": 0.0}])
def test_bounds_that_are_none_are_refused(scene, change):
    with pytest.raises(SettingError, match="use at least 1"):
        scene.reconciler(settings=ReconcileSettings(**change))


class Turns:
    """The turn, as its script means it."""

    def __init__(self):
        self.owner = None
        self.error = None

    def redis(self):
        return self

    async def eval(self, _script, _count, _key, owner, _ms):
        if self.error is not None:
            raise self.error
        self.owner = self.owner or owner
        return int(self.owner == owner)


class Rounds:
    def __init__(self):
        self.count = 0

    async def round(self):
        self.count += 1
        return ReconcileTotals()


@pytest.mark.parametrize(
    ("phase", "rounds"),
    [
        (None, 0),
        (Phase.REDIS_ONLY, 0),
        (Phase.DUAL_WRITE, 3),
        (Phase.DUAL_READ, 3),
        (Phase.NATS_PRIMARY, 0),
        (Phase.NATS_ONLY, 0),
    ],
)
async def test_it_runs_while_both_are_written_by_one_process_of_a_fleet(phase, rounds):
    clock, turns, counted = VirtualClock(), Turns(), Rounds()

    def loop(owner):
        async def given():
            return counted

        return ReconcileLoop(
            turns,
            given,
            Names(),
            phase=lambda: phase,
            clock=clock,
            owner=owner,
            settings=ReconcileSettings(period_s=5.0),
        ).run()

    running = [asyncio.ensure_future(loop(owner)) for owner in ("one", "other")]
    await clock.sleep(16.0)
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    assert counted.count == rounds


async def test_a_round_that_fails_ends_nothing():
    clock, turns, counted = VirtualClock(), Turns(), Rounds()

    async def away():
        raise BrokerUnreachableError("away")

    loop = ReconcileLoop(
        turns, away, Names(), phase=lambda: Phase.DUAL_READ, clock=clock, owner="one"
    )
    running = asyncio.ensure_future(loop.run())
    await clock.sleep(20.0)
    assert not running.done()

    async def back():
        return counted

    loop._open = back
    await clock.sleep(20.0)
    running.cancel()
    await asyncio.wait([running])
    assert counted.count >= 3


async def test_rounds_are_repeated_until_they_are_asked_to_stop():
    clock, stop, told = VirtualClock(), asyncio.Event(), []
    rounds = asyncio.ensure_future(
        repeat_rounds(Rounds(), clock=clock, period_s=5.0, stop=stop, told=told.append)
    )
    await clock.sleep(11.0)
    assert len(told) == 3
    stop.set()
    await rounds
    assert len(told) == 3


async def test_an_id_that_tells_no_time_is_looked_for_everywhere(scene):
    (payload,) = scene.tasks(1)
    timeless = payload.replace(str(task_id_of(payload)).encode(), str(uuid.uuid4()).encode())
    scene.stream.keep(timeless)
    await scene.clock.sleep(3600.0)
    scene.both(scene.tasks(2))
    scene.redis_only([timeless])
    assert (await scene.reconciler(done=False).round()).put_on_nats == 0
