"""Copies that read what changed: what they must not miss, whatever was lost or killed before."""

import asyncio
import math
import uuid

import msgspec
import pytest

from hookbench.clock import SystemClock
from hookbench.errors import BrokerUnreachableError
from hookbench.migration.done_store import MovingStore
from hookbench.migration.records import catch_up, find_unmoved, move_records
from hookbench.queues.authority import Authority, ClaimOutcome
from hookbench.queues.jetstream import StreamSettings
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.transport import AppTransport
from hookbench.rehearsal.done_stores import BothStores
from tests.contract.test_done_records import done
from tests.contract.test_done_records import source as source  # noqa: PLC0414 - a fixture
from tests.contract.test_done_records import target as target  # noqa: PLC0414 - a fixture
from tests.contract.test_done_store import LEASE_S, RETENTION_S, SHORT_S, granted, open_store


@pytest.fixture
async def redis(redis_broker):
    client = connect_redis(redis_broker.url)
    yield client
    await client.aclose()


@pytest.fixture
def log(names):
    return f"{names.prefix}:changes"


@pytest.fixture
async def jetstream(nats_broker, names):
    async with await AppTransport.connect(nats_broker.url, names=names) as transport:
        yield transport.jetstream


class KilledError(Exception):
    """The process of the copy has ended."""


class Dying:
    """A target whose process is killed before, or after, a call of it."""

    def __init__(self, target, place, number, *, after=False):
        self.target, self.place, self.left, self.after = target, place, number, after

    def __getattr__(self, name):
        called = getattr(self.target, name)

        async def call(*arguments):
            self.left -= name == self.place
            if self.left < 0 and not self.after:
                raise KilledError
            answer = await called(*arguments)
            if self.left < 0:
                raise KilledError
            return answer

        return call


async def test_a_copy_reads_what_changed_since_the_one_before(source, target):
    tasks = await done(source, 300)
    assert (await move_records(source, target)).whole
    moved = await move_records(source, target)
    assert (moved.whole, moved.read) == (False, 0)
    late = await done(source, 3)
    tried = uuid.uuid4()
    claim = await granted(source, tried)
    assert await source.renew(claim, LEASE_S)
    assert await source.release(claim, failure="no luck")
    moved = await move_records(source, target)
    assert (moved.whole, moved.read, moved.copied, moved.done) == (False, 4, 4, 3)
    assert (await granted(target, tried)).failures == 1
    assert await target.are_done([*tasks, *late]) == {*tasks, *late}


async def test_what_is_superseded_or_forgotten_is_a_change_too(source, target, make_task):
    earlier, later = make_task(), make_task()
    earlier = msgspec.structs.replace(earlier, id=uuid.UUID(int=later.id.int - (1 << 90)))
    await move_records(source, target)
    await done(source, 1)
    await move_records(source, target)
    claim = await source.claim(later.id, "a", LEASE_S, repository="one")
    assert await source.complete(claim)
    answer = await source.claim(earlier.id, "a", LEASE_S, repository="one")
    assert answer.outcome is ClaimOutcome.SUPERSEDED
    moved = await move_records(source, target)
    assert (moved.whole, moved.read, moved.done) == (False, 2, 2)
    told = [(await target.claim(task.id, "b", LEASE_S)).outcome for task in (earlier, later)]
    assert told == [ClaimOutcome.SUPERSEDED, ClaimOutcome.DONE]
    assert await source.forget([later.id]) == 1
    assert await target.forget([later.id]) == 1
    assert (await move_records(source, target)).read == 1
    assert (await granted(target, later.id)).token > claim.token


async def test_every_change_but_a_renewal_is_in_the_log(source):
    await done(source, 1)
    task = uuid.uuid4()

    async def changed(work):
        place = await source.log_end()
        answer = await work
        return answer, (await source.changes_after(place)).ages_s.keys()

    claim, ids = await changed(granted(source, task))
    assert ids == {task}
    assert await changed(source.renew(claim, LEASE_S)) == (True, set())
    assert (await changed(source.claim(task, "b", LEASE_S)))[1] == set()
    assert await changed(source.release(claim, failure="no luck")) == (True, {task})
    assert await changed(source.complete(claim)) == (False, set())
    claim = await granted(source, task)
    assert await changed(source.complete(claim)) == (True, {task})
    assert await changed(source.forget([task, uuid.uuid4()])) == (1, {task})


async def test_a_worker_that_was_taken_for_dead_and_completes_is_seen(source, target):
    """Its claim was copied as one that is lost, and is not open any more."""
    await done(source, 1)
    claim = await granted(source, uuid.uuid4(), lease_s=SHORT_S)
    await asyncio.sleep(2 * SHORT_S)
    moved = await move_records(source, target)
    assert (moved.live, moved.copied) == (0, 2)
    assert await source.complete(claim)
    assert (await find_unmoved(source, target)).ages_s.keys() == {claim.task_id}
    assert (await move_records(source, target)).copied == 1
    assert await target.are_done([claim.task_id]) == {claim.task_id}


@pytest.mark.parametrize("ends", ["completed", "expired"])
async def test_a_claim_that_was_open_is_looked_at_again(source, target, ends):
    """One that nobody ends is not in the log once more."""
    await done(source, 1)
    task = uuid.uuid4()
    claim = await granted(source, task)
    assert (await move_records(source, target)).live == 1
    for _ in range(2):
        moved = await move_records(source, target)
        assert (moved.whole, moved.live, moved.copied) == (False, 1, 0)
    if ends == "completed":
        assert await source.complete(claim)
    else:  # a renewal is not in the log
        assert await source.renew(claim, SHORT_S)
        await asyncio.sleep(2 * SHORT_S)
    moved = await move_records(source, target)
    assert (moved.whole, moved.live, moved.copied) == (False, 0, 1)
    if ends == "completed":
        assert await target.are_done([task]) == {task}
    else:
        again = await granted(target, task)
        assert again.losses == 1
        assert again.token > claim.token


async def test_the_token_of_a_claim_that_is_held_is_known_to_the_next_authority(source, target):
    """Its effect has that token; a lower one would be refused when the task comes again."""
    task = uuid.uuid4()
    held = await granted(source, task)
    assert (await move_records(source, target)).live == 1
    again = await granted(target, task)
    assert again.token > held.token
    assert (again.failures, again.losses) == (0, 0), "it may not be lost"


async def test_what_became_of_a_claim_that_was_held_is_copied(source, target):
    await done(source, 1)
    lost, failed, released = (uuid.uuid4() for _ in range(3))
    claims = [await granted(source, task) for task in (lost, failed, released)]
    assert (await move_records(source, target)).live == 3
    assert await source.renew(claims[0], SHORT_S)
    assert await source.release(claims[1], failure="no luck")
    assert await source.release(claims[2])
    await asyncio.sleep(2 * SHORT_S)
    assert (await move_records(source, target)).copied == 2, "what says no more is left"
    answers = [await granted(target, task) for task in (lost, failed, released)]
    assert [(item.losses, item.failures) for item in answers] == [(1, 0), (0, 1), (0, 0)]
    assert all(new.token > old.token for new, old in zip(answers, claims, strict=True))


@pytest.mark.parametrize("lost", ["all", "its end", "all, and begun with the same id"])
async def test_a_log_that_lost_something_is_not_relied_on(source, target, redis, log, lost):
    """A task is done and its change is not to be found behind the mark."""
    await done(source, 10)
    await move_records(source, target)
    ((last, _fields),) = await redis.execute_command("XREVRANGE", log, "+", "-", "COUNT", 1)
    await done(source, 1)
    if lost == "its end":
        await redis.execute_command("XDEL", log, last)
    else:
        await redis.delete(log)
    if lost.endswith("id"):
        await redis.execute_command("XADD", log, last, "ids", uuid.uuid4().bytes)
    await done(source, 1)
    moved = await move_records(source, target)
    assert (moved.whole, moved.read, moved.copied, moved.complete) == (True, 12, 2, True)
    assert (await move_records(source, target)).read == 0


async def test_a_bucket_that_is_lost_takes_its_mark_along(
    source, target, jetstream, names, nats_broker
):
    tasks = await done(source, 10)
    await move_records(source, target)
    await jetstream.delete_stream(f"KV_{names.done_bucket}")
    async with open_store("kv", nats_broker.url, names) as empty:
        moved = await move_records(source, empty)
        assert (moved.whole, moved.copied, moved.complete) == (True, 10, True)
        assert await empty.are_done(tasks) == set(tasks)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("place", "number"), [("are_done", 0), ("put_record", 7), ("are_done", 1), ("write_mark", 0)]
)
async def test_a_copy_that_was_killed_and_a_late_completion_leave_nothing_out(
    source, target, place, number, after
):
    first = await done(source, 5)
    await move_records(source, target)
    late = uuid.uuid4()
    claim = await granted(source, late)
    second = await done(source, 20)
    with pytest.raises(KilledError):
        await move_records(source, Dying(target, place, number, after=after))
    assert await source.complete(claim)
    moved = await move_records(source, target)
    assert (moved.whole, moved.complete) == (False, True)
    tasks = [*first, *second, late]
    assert await target.are_done(tasks) == set(tasks)
    assert (await find_unmoved(source, target, whole=True)).ages_s == {}


@pytest.mark.parametrize("whole", [False, True])
async def test_a_completion_during_the_copy_is_in_the_next_one(source, target, whole):
    """Once its records are read, and once nothing is left but the mark."""
    await done(source, 5)
    await move_records(source, target)
    for place in ("are_done", "write_mark"):
        late = []

        class Meanwhile(Dying):
            def __getattr__(self, name, late=late):
                called = getattr(self.target, name)

                async def call(*arguments):
                    if name == self.place and not late:
                        late.extend(await done(source, 2))
                    return await called(*arguments)

                return call

        await done(source, 3)
        await move_records(source, Meanwhile(target, place, 0), whole=whole)
        assert set(late) == (await find_unmoved(source, target)).ages_s.keys()
        await move_records(source, target)
        assert await target.are_done(late) == set(late)


async def test_a_mark_stays_where_it_is_while_something_is_missing(source, target):
    await done(source, 5)
    await move_records(source, target)
    late = await done(source, 3)

    class Refusing(Dying):
        async def put_record(self, record):
            return record.task_id != late[0] and await self.target.put_record(record)

    moved = await move_records(source, Refusing(target, "", 0))
    assert (moved.copied, moved.missing, moved.examples) == (2, 1, (late[0],))
    moved = await move_records(source, target)
    assert (moved.whole, moved.read, moved.copied, moved.complete) == (False, 3, 1, True)


async def test_an_away_target_is_said_and_nothing_is_marked(source, target):
    await done(source, 3)

    class Away(Dying):
        async def put_record(self, _record):
            raise BrokerUnreachableError("away")

    with pytest.raises(BrokerUnreachableError):
        await move_records(source, Away(target, "", 0))
    assert await target.read_mark() is None


async def test_what_is_missing_is_told_with_its_age(source, target, redis, log):
    none = await find_unmoved(source, target)
    assert (none.ages_s, none.whole) == ({}, True)
    first = await done(source, 2)
    unknown = await find_unmoved(source, target)
    assert unknown.ages_s == dict.fromkeys(first, math.inf)
    await move_records(source, target)
    old = await done(source, 1)
    await asyncio.sleep(4 * SHORT_S)
    late = await done(source, 1)
    found = await find_unmoved(source, target)
    assert not found.whole
    assert found.ages_s.keys() == {*old, *late}
    assert found.ages_s[old[0]] >= found.ages_s[late[0]] + 4 * SHORT_S - 0.002
    await redis.delete(log)
    assert (await find_unmoved(source, target)).whole


async def test_the_last_word_is_a_comparison_of_all(source, redis, nats_broker, jetstream, names):
    """A record that went on NATS is behind no mark; then everything is copied once more."""
    tasks = await done(source, 10)
    async with await AppTransport.connect(nats_broker.url, names=names) as transport:
        settings = StreamSettings(storage="memory", max_age_s=RETENTION_S)
        stores = BothStores(redis, transport, stream=settings, clock=SystemClock())
        assert await stores.move_records(Authority.NATS) == 10
        assert await stores.move_records(Authority.NATS) == 0
        stream = f"KV_{names.done_bucket}"
        await jetstream.purge_stream(stream, subject=f"$KV.{names.done_bucket}.{tasks[0]}")
        assert (await stores.unmoved(Authority.NATS, whole=False)).ages_s == {}
        assert await stores.move_records(Authority.NATS) == 0
        assert (await stores.unmoved(Authority.NATS, whole=True)).ages_s == {tasks[0]: math.inf}
        assert await stores.move_records(Authority.NATS) == 1
        assert (await stores.unmoved(Authority.NATS, whole=True)).ages_s == {}
        # Another process compares all records once, whatever the mark says.
        await jetstream.purge_stream(stream, subject=f"$KV.{names.done_bucket}.{tasks[1]}")
        later = BothStores(redis, transport, stream=settings, clock=SystemClock())
        assert await later.move_records(Authority.NATS) == 1
        await jetstream.delete_stream(stream)


async def test_under_load_a_copy_comes_close_and_the_last_one_leaves_nothing(source, target):
    await done(source, 2000)
    stop = asyncio.Event()
    tasks = []

    async def work():
        while not stop.is_set():
            tasks.extend(await done(source, 20))

    workers = [asyncio.ensure_future(work()) for _ in range(2)]
    moved = await catch_up(source, target, whole=True)
    assert moved.copied >= 2000
    stop.set()
    await asyncio.gather(*workers)
    moved = await catch_up(source, target)
    assert not moved.whole
    assert moved.complete
    assert await target.are_done(tasks) == set(tasks)
    assert (await find_unmoved(source, target, whole=True)).ages_s == {}


async def test_what_ends_during_a_copy_is_copied_by_its_next_pass(source, target):
    await done(source, 200)
    late, begun = [], asyncio.Event()

    class Meanwhile(Dying):
        async def put_record(self, record):
            if not begun.is_set():
                begun.set()
                late.extend(await done(source, 20))
            return await self.target.put_record(record)

    moved = await catch_up(source, Meanwhile(target, "", 0))
    assert (moved.copied, moved.whole, moved.complete) == (220, True, True)
    assert await target.are_done(late) == set(late)


async def test_a_worker_that_changes_reads_what_changed(source, target):
    await done(source, 50)
    await move_records(source, target)
    worker = MovingStore(source)
    at_work = await granted(worker, uuid.uuid4())
    moved = await worker.hand_over(target)
    assert (moved.whole, moved.read, moved.live) == (False, 1, 1)
    worker.tell(target)
    assert await worker.complete(at_work)
    assert await target.are_done([at_work.task_id]) == {at_work.task_id}


async def test_the_log_keeps_what_is_as_old_as_the_records(redis_broker, names, redis, log):
    async with open_store("redis", redis_broker.url, names, retention_s=20.0) as store:
        old = str(1)  # of 1970
        for number in range(300):  # more than Redis removes only as a whole
            await redis.execute_command("XADD", log, f"{old}-{number}", "ids", uuid.uuid4().bytes)
        tasks = await done(store, 1)
        left = await redis.execute_command("XRANGE", log, "-", "+")
        assert tasks[0].bytes in [fields[b"ids"] for _entry, fields in left]
        assert len(left) < 200
        assert 0 < await redis.execute_command("PTTL", log) <= 20_000
        await store.remove_all()
        assert await redis.execute_command("EXISTS", log) == 0
