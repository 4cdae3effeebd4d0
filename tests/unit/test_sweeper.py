"""The sweeper over rows in memory, in virtual time."""

import itertools

import pytest

from hookbench.cancellation import cancel
from hookbench.migration.spool import ON_NATS, Spooled
from hookbench.migration.sweeper import Outgoing, PutOutcome, Sweeper, SweeperSettings
from hookbench.task import encode_task
from tests.virtual import VirtualClock

S = 1_000_000_000
OK, FAIL, UNKNOWN, TOO_LARGE = PutOutcome


class Rows:
    """An outbox in memory."""

    def __init__(self):
        self.rows = {}
        self.acked = {}
        self.rejected = {}
        self.reads = []

    def add(self, task):
        number = len(self.rows) + 1
        self.rows[number] = task
        return Outgoing(number, task, encode_task(task))

    def acknowledge(self, number, broker):
        self.acked[number] = broker
        return True

    async def lacking(self, _broker, limit, *, after=0):
        self.reads.append((after, limit))
        return [
            Spooled(number, encode_task(task), 0, bytes(16))
            for number, task in self.rows.items()
            if number > after and number not in self.acked and number not in self.rejected
        ][:limit]

    async def reject(self, number, reason):
        self.rejected[number] = reason


class Broker:
    """Puts take a while; what comes out is as told."""

    def __init__(self, clock):
        self.clock = clock
        self.up = True
        self.verdicts = {}
        self.began = []
        self.done = []
        self.doubted = []
        self.times_ns = []
        self.at_once = self.most_at_once = 0

    async def __call__(self, item, doubtful):
        self.began.append(item.number)
        self.times_ns.append(self.clock.now_ns)
        if doubtful:
            self.doubted.append(item.number)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await self.clock.sleep(0.001)
        self.at_once -= 1
        verdict = self.verdicts.get(item.number, OK if self.up else FAIL)
        if verdict is OK:
            self.done.append(item.number)
        return verdict


@pytest.fixture
async def scene():
    class Scene:
        def __init__(self):
            self.clock = VirtualClock()
            self.rows = Rows()
            self.sweepers = []
            self.broker = Broker(self.clock)

        def open(self, *, inherited=lambda _number: False, **settings):
            self.sweeper = Sweeper(
                ON_NATS,
                self.rows,
                clock=self.clock,
                settings=SweeperSettings(**settings),
                inherited=inherited,
                introduce=lambda row, _task: introduced.append(row.number),
            )
            self.sweepers.append(self.sweeper)
            self.sweeper.start(self.broker)
            return self.sweeper

        async def until(self, condition):
            for _ in range(10_000):
                if condition():
                    return
                await self.clock.sleep(0.001)
            raise AssertionError("it did not come true")

    introduced = []
    made = Scene()
    made.introduced = introduced
    yield made
    for sweeper in made.sweepers:
        await sweeper.abandon()


async def test_what_an_earlier_process_left_is_put_oldest_first_and_may_be_there(scene, make_task):
    for _ in range(5):
        scene.rows.add(make_task(repo_id="one"))
    sweeper = scene.open(inherited=lambda number: number <= 2)
    await scene.until(lambda: sweeper.idle)
    assert scene.broker.done == [1, 2, 3, 4, 5]
    assert scene.broker.doubted == [1, 2]
    assert scene.introduced == [1, 2, 3, 4, 5]
    assert scene.rows.acked == dict.fromkeys([1, 2, 3, 4, 5], ON_NATS)


async def test_what_is_offered_is_put_without_reading_it_again(scene, make_task):
    sweeper = scene.open()
    await scene.until(lambda: sweeper.idle)
    reads = len(scene.rows.reads)
    for _ in range(5):
        sweeper.offer(scene.rows.add(make_task()))
    await scene.until(lambda: len(scene.broker.done) == 5)
    assert scene.broker.most_at_once == 5
    assert len(scene.rows.reads) == reads
    assert sweeper.idle


async def test_tasks_of_one_repository_go_one_after_the_other(scene, make_task):
    sweeper = scene.open()
    await scene.until(lambda: sweeper.idle)
    for _ in range(5):
        sweeper.offer(scene.rows.add(make_task(repo_id="one")))
    await scene.until(lambda: len(scene.broker.done) == 5)
    assert scene.broker.done == [1, 2, 3, 4, 5]
    assert scene.broker.most_at_once == 1


async def test_a_failed_put_is_repeated_and_nothing_of_its_repository_overtakes_it(
    scene, make_task
):
    sweeper = scene.open()
    await scene.until(lambda: sweeper.idle)
    scene.broker.verdicts = {2: UNKNOWN}
    for repository in ("one", "two", "one", "two"):
        sweeper.offer(scene.rows.add(make_task(repo_id=repository)))
    await scene.until(lambda: scene.broker.began.count(2) > 2)
    sweeper.offer(scene.rows.add(make_task(repo_id="two")))
    await scene.until(lambda: scene.broker.began.count(2) > 4)
    assert sorted(scene.broker.done) == [1, 3]
    assert 4 not in scene.broker.began
    scene.broker.verdicts = {}
    await scene.until(lambda: sweeper.idle)
    assert [number for number in scene.broker.done if number not in (1, 3)] == [2, 4, 5]
    assert set(scene.broker.doubted) == {2}, "only a put without an answer may be there"


async def test_the_pauses_grow_and_an_outage_is_probed_with_few(scene, make_task):
    scene.broker.up = False
    for _ in range(50):
        scene.rows.add(make_task())
    sweeper = scene.open(batch=20, probe=3, pause_s=0.5, pause_max_s=2.0)
    await scene.until(lambda: len(scene.rows.reads) == 5)
    assert [limit for _after, limit in scene.rows.reads] == [20, 3, 3, 3, 3]
    starts = [scene.broker.times_ns[index] for index in (0, 20, 23, 26)]
    pauses_s = [(after - before) / S for before, after in itertools.pairwise(starts)]
    assert pauses_s == pytest.approx([0.5, 1.0, 2.0], abs=0.01)
    scene.broker.up = True
    await scene.until(lambda: sweeper.idle)
    assert len(scene.broker.done) == 50
    assert scene.broker.most_at_once == 20


async def test_too_many_on_the_way_are_left_for_the_sweep(scene, make_task):
    sweeper = scene.open(in_flight=3, batch=2)
    await scene.until(lambda: sweeper.idle)
    for _ in range(10):
        sweeper.offer(scene.rows.add(make_task()))
    await scene.until(lambda: sweeper.idle)
    assert sorted(scene.broker.done) == list(range(1, 11))
    assert scene.broker.most_at_once == 3


async def test_what_a_broker_never_takes_is_set_aside_and_holds_up_nothing(scene, make_task):
    scene.broker.verdicts = {1: TOO_LARGE}
    for _ in range(3):
        scene.rows.add(make_task(repo_id="one"))
    sweeper = scene.open()
    await scene.until(lambda: sweeper.idle)
    assert scene.broker.done == [2, 3]
    assert list(scene.rows.rejected) == [1]


async def test_a_row_that_came_while_it_read_is_not_forgotten(scene, make_task):
    sweeper = scene.open()
    read = scene.rows.lacking

    async def slow(*arguments, **more):
        found = await read(*arguments, **more)
        await scene.clock.sleep(0.01)
        return found

    scene.rows.lacking = slow
    await scene.clock.sleep(0.005)
    sweeper.offer(scene.rows.add(make_task()))
    await scene.until(lambda: sweeper.idle)
    assert scene.broker.done == [1]


async def test_after_a_stop_nothing_is_put_and_a_start_takes_all(scene, make_task):
    sweeper = scene.open()
    await scene.until(lambda: sweeper.idle)
    await sweeper.stop()
    sweeper.offer(scene.rows.add(make_task()))
    await scene.clock.sleep(1.0)
    assert scene.broker.began == []
    other = Broker(scene.clock)
    sweeper.start(other)
    await scene.until(lambda: sweeper.idle)
    assert (scene.broker.done, other.done) == ([], [1])


async def test_a_defect_of_a_put_is_not_swallowed(scene, make_task):
    sweeper = scene.open()
    await scene.until(lambda: sweeper.idle)
    put, raised = sweeper._put, []

    async def broken_once(item, doubtful):
        if not raised:
            raised.append(item)
            raise RuntimeError("defect")
        return await put(item, doubtful)

    sweeper._put = broken_once
    sweeper.offer(scene.rows.add(make_task()))
    await scene.until(lambda: scene.broker.done)
    with pytest.raises(RuntimeError, match="defect"):
        await scene.until(lambda: sweeper.idle)


async def test_a_defect_in_the_sweep_is_not_swallowed(scene, make_task):
    async def broken(_item, _doubtful):
        raise RuntimeError("defect")

    scene.rows.add(make_task())
    sweeper = scene.open()
    sweeper._put = broken
    with pytest.raises(RuntimeError, match="defect"):
        await scene.until(lambda: sweeper.idle)
    running, sweeper._running = sweeper._running, None
    with pytest.raises(RuntimeError):
        await cancel(running)
