"""Records that go from either store to the other one, and a third that asks both."""

import asyncio
import random
import uuid

import msgspec
import pytest

from hookbench.errors import BrokerUnreachableError
from hookbench.ids import uuid7
from hookbench.migration.joint_store import JointStore
from hookbench.migration.records import catch_up, find_unmoved, move_records
from hookbench.queues.authority import ClaimOutcome, DoneRecord, MoveMark
from hookbench.queues.redis_client import connect_redis
from tests.contract.test_done_records import done
from tests.contract.test_done_store import (
    LEASE_S,
    SHORT_S,
    granted,
    open_store,
    remove_stores,
    taken_over,
)
from tests.contract.test_moving_records import Dying, KilledError
from tests.virtual import FixedClock

GRANTED, HELD, DONE, SUPERSEDED = ClaimOutcome


@pytest.fixture
async def redis(redis_broker, nats_broker, names):
    async with open_store("redis", redis_broker.url, names) as store:
        yield store
    await remove_stores(redis_broker.url, nats_broker.url, names)


@pytest.fixture
async def kv(nats_broker, names):
    async with open_store("kv", nats_broker.url, names) as store:
        yield store


@pytest.fixture
async def both(redis, kv):
    return JointStore(redis, kv)


@pytest.fixture(params=["to_nats", "to_redis"])
async def way(request, redis, kv):
    """Source and target."""
    return (redis, kv) if request.param == "to_nats" else (kv, redis)


@pytest.fixture
def task():
    return uuid.uuid4()


async def test_all_that_ended_is_known_to_the_other_one(way):
    source, target = way
    tasks = await done(source, 300)
    moved = await move_records(source, target)
    assert (moved.read, moved.done, moved.copied, moved.whole) == (300, 300, 300, True)
    assert (moved.live, moved.missing, moved.complete) == (0, 0, True)
    assert await target.are_done([*tasks, uuid.uuid4()]) == set(tasks)
    late = await done(source, 5)
    moved = await move_records(source, target)
    assert (moved.read, moved.copied, moved.whole) == (5, 5, False)
    moved = await move_records(source, target, whole=True)
    assert (moved.read, moved.copied, moved.complete) == (305, 0, True)
    assert await target.are_done(late) == set(late)


async def test_what_was_copied_is_not_copied_back(way):
    source, target = way
    tasks = await done(source, 20)
    await move_records(source, target)
    moved = await move_records(target, source)
    assert (moved.read, moved.copied, moved.complete) == (20, 0, True)
    more = await done(target, 3)
    assert (await move_records(target, source)).copied == 3
    assert await source.are_done([*tasks, *more]) == {*tasks, *more}


async def test_what_was_tried_goes_along_and_tokens_go_on(way, task):
    source, target = way
    claim = await granted(source, task)
    await source.release(claim, failure="no luck")
    claim = await granted(source, task, "b", SHORT_S)
    await asyncio.sleep(2 * SHORT_S)
    moved = await move_records(source, target)
    assert (moved.copied, moved.done, moved.complete) == (1, 0, True)
    again = await granted(target, task, "c")
    assert again.token > claim.token
    assert (again.failures, again.losses, again.last_failure) == (1, 1, "no luck")
    assert await target.release(again, failure="no luck again")
    assert (await move_records(source, target)).copied == 0, "it had the older of two records"
    assert (await granted(target, task, "d")).failures == 2


async def test_the_order_of_a_repository_goes_along(way):
    """Else an earlier task of it, that comes for the first time, is executed after a later one."""
    source, target = way
    entropy = random.Random(7)
    first, second, third = (
        uuid7(FixedClock(wall_ns=ms * 1_000_000), entropy) for ms in (1_000, 2_000, 3_000)
    )
    for store, task in ((source, second), (target, third)):
        for repository in ("here", "there"):
            if (store is target) == (repository == "there"):
                claim = await store.claim(task, "a", LEASE_S, repository=repository)
                assert await store.complete(claim)
    await move_records(source, target, whole=True)
    assert len(await source.orders()) == 1
    assert sorted((await target.orders()).values()) == [2_000, 3_000]
    assert (await target.claim(first, "b", LEASE_S, repository="here")).outcome is SUPERSEDED
    await target.put_orders(dict.fromkeys(await target.orders(), 1_500))
    assert sorted((await target.orders()).values()) == [2_000, 3_000], "what is later stays"


async def test_an_end_is_taken_over_a_claim(way, task):
    """Whose worker died before it could tell the second one, or goes on in vain."""
    source, target = way
    elsewhere = await granted(target, task, "a")
    assert await source.complete(await granted(source, task, "b"))
    assert (await move_records(source, target)).missing == 0
    assert await target.are_done([task]) == {task}
    assert (await target.claim(task, "c", LEASE_S)).outcome is DONE
    assert not await target.complete(elsewhere)


async def test_an_end_is_not_taken_twice(way, task):
    _source, target = way
    end = DoneRecord(task_id=task, done=True, token=17)
    assert [await target.put_record(end), await target.put_record(end)] == [True, False]
    assert not await target.put_record(DoneRecord(task_id=task, done=False, token=18))
    assert await target.are_done([task]) == {task}
    await target.forget([task])
    assert (await granted(target, task)).token > 17


async def test_what_has_not_ended_is_not_taken_over_a_claim(way, task):
    _source, target = way
    claim = await granted(target, task)
    tried = DoneRecord(task_id=task, done=False, token=claim.token + 5, failures=2)
    assert not await target.put_record(tried)
    assert await target.complete(claim)


async def test_a_claim_of_one_alone_is_told(way, task):
    """Who asks the other one would be granted it."""
    source, target = way
    claim = await granted(source, task)
    for whole in (False, True):
        assert [*(await find_unmoved(source, target, whole=whole)).ages_s] == [task]
    assert (await catch_up(source, target)).live == 1
    for whole in (False, True):
        assert [*(await find_unmoved(source, target, whole=whole)).ages_s] == [task]
    await source.release(claim)
    assert not (await find_unmoved(source, target)).ages_s


async def test_a_claim_that_ends_while_it_is_looked_at_is_not_told(way, task):
    source, target = way
    claim = await granted(source, task)

    class Meanwhile:
        def __getattr__(self, name):
            return getattr(target, name)

        async def records_of(self, task_ids):
            async for part in target.records_of(task_ids):
                yield part
            await source.release(claim)

    assert not (await find_unmoved(source, Meanwhile())).ages_s


async def test_a_claim_of_both_and_its_end_leave_nothing_to_be_moved(both, redis, kv, task):
    other = uuid.uuid4()
    claim = await granted(both, task)
    assert await both.complete(await granted(both, other))
    for source, target in ((redis, kv), (kv, redis)):
        assert not (await find_unmoved(source, target)).ages_s
        assert (await target.claim(task, "b", LEASE_S)).outcome is HELD
        assert (await target.claim(other, "b", LEASE_S)).outcome is DONE
    assert await both.renew(claim, LEASE_S)
    assert await both.complete(claim)


@pytest.mark.parametrize("alone", ["redis", "kv"])
async def test_who_asks_one_alone_and_who_asks_both_do_not_have_a_task_both(
    alone, both, redis, kv, task
):
    one = {"redis": redis, "kv": kv}[alone]
    claims = await asyncio.gather(
        *(
            store.claim(task, f"{number}-{store is both}", LEASE_S)
            for number in range(8)
            for store in (one, both)
        )
    )
    granted_ones = [claim for claim in claims if claim.outcome is GRANTED]
    assert len(granted_ones) <= 1
    if not granted_ones:  # those that ask both were in each other's way
        granted_ones = [await granted(one, task)]
    [claim] = granted_ones
    told = one if (await one.renew(claim, LEASE_S)) else both
    assert await told.complete(claim)
    for store in (one, both, one, both):
        assert (await store.claim(task, "z", LEASE_S)).outcome is DONE


@pytest.mark.parametrize("alone", ["redis", "kv"])
async def test_what_one_knows_the_other_is_told_when_the_task_comes_again(
    alone, both, redis, kv, task
):
    one, other = (redis, kv) if alone == "redis" else (kv, redis)
    assert await one.complete(await granted(one, task))
    assert await other.are_done([task]) == set()
    assert await both.are_done([task]) == {task}
    assert (await both.claim(task, "b", LEASE_S)).outcome is DONE
    assert await other.are_done([task]) == {task}
    assert await both.forget([task]) == 1
    assert (await granted(both, task)).attempt == 1


@pytest.mark.parametrize("alone", ["redis", "kv"])
async def test_a_task_that_one_alone_has_done_is_done_and_not_superseded(alone, both, redis, kv):
    """Though a later one of its repository is known to be done as well: it has one end."""
    earlier, later = (
        uuid7(FixedClock(wall_ns=1_700_000_000_000_000_000 + ms * 1_000_000), random.Random(ms))
        for ms in (0, 50)
    )
    one = {"redis": redis, "kv": kv}[alone]
    claim = await one.claim(earlier, "a", LEASE_S, repository="r")
    assert await one.complete(claim)
    claim = await both.claim(later, "a", LEASE_S, repository="r")
    assert await both.complete(claim)
    for _ in range(2):
        assert (await both.claim(earlier, "b", LEASE_S, repository="r")).outcome is DONE


@pytest.mark.parametrize("alone", ["redis", "kv"])
async def test_a_task_that_one_alone_superseded_is_that_for_both(alone, both, redis, kv):
    """Also after a copy: else its next delivery is skipped as done, and it never was."""
    earlier, later = (
        uuid7(FixedClock(wall_ns=1_700_000_000_000_000_000 + ms * 1_000_000), random.Random(ms))
        for ms in (0, 50)
    )
    one, other = (redis, kv) if alone == "redis" else (kv, redis)
    claim = await one.claim(later, "a", LEASE_S, repository="r")
    assert await one.complete(claim)
    assert (await one.claim(earlier, "a", LEASE_S, repository="r")).outcome is SUPERSEDED
    assert (await move_records(one, other)).complete
    for store in (both, other, one):
        assert (await store.claim(earlier, "b", LEASE_S, repository="r")).outcome is SUPERSEDED
        assert (await store.claim(later, "b", LEASE_S, repository="r")).outcome is DONE


async def test_attempts_that_redis_alone_knows_count_for_both(both, redis):
    """As after the phases that ask Redis alone: what may have a dead letter has no other end."""
    earlier, later = (
        uuid7(FixedClock(wall_ns=1_700_000_000_000_000_000 + ms * 1_000_000), random.Random(ms))
        for ms in (0, 50)
    )
    for number in range(3):
        claim = await redis.claim(earlier, "a", LEASE_S, repository="r", most=3)
        assert await redis.release(claim, failure=str(number))
    claim = await both.claim(later, "a", LEASE_S, repository="r", most=3)
    assert await both.complete(claim)
    claim = await both.claim(earlier, "b", LEASE_S, repository="r", most=3)
    assert (claim.outcome, claim.attempt) == (GRANTED, 4)


async def test_a_task_that_nobody_has_done_is_superseded_whenever_it_comes(both):
    earlier, later = (
        uuid7(FixedClock(wall_ns=1_700_000_000_000_000_000 + ms * 1_000_000), random.Random(ms))
        for ms in (0, 50)
    )
    claim = await both.claim(later, "a", LEASE_S, repository="r")
    assert await both.complete(claim)
    outcomes = [(await both.claim(earlier, "b", LEASE_S, repository="r")).outcome for _ in range(2)]
    assert outcomes == [SUPERSEDED, SUPERSEDED]


async def test_tokens_grow_whoever_is_asked(both, redis, kv, task):
    """So the effects of a worker that stood still are refused, in whatever phase the next one is.

    The bucket gives tokens above the one it was told, which may be ahead of Redis' clock.
    """
    await kv.put_record(DoneRecord(task_id=task, done=False, token=4_000_000_000_000_000))
    tokens = []
    for number, store in enumerate((both, kv, both, kv, kv, both, redis, both)):
        claim = await granted(store, task, f"{number}")
        tokens.append(claim.token)
        assert await store.release(claim)
    assert tokens == sorted(set(tokens))


async def test_failures_and_losses_count_once(both, task):
    claim = await granted(both, task)
    assert await both.release(claim, failure="no luck")
    claim = await granted(both, task, "b", SHORT_S)
    await asyncio.sleep(2 * SHORT_S)
    again = await granted(both, task, "c")
    assert (again.failures, again.losses, again.last_failure) == (1, 1, "no luck")
    assert not await both.renew(claim, LEASE_S)
    assert not await both.complete(claim)
    assert not await both.release(claim)
    assert await both.complete(again)


@pytest.mark.parametrize("alone", ["redis", "kv"])
async def test_a_claim_that_one_alone_has_given_to_another_is_lost(alone, both, redis, kv, task):
    claim = await granted(both, task, "a", SHORT_S)
    await taken_over({"redis": redis, "kv": kv}[alone], task, "b")
    assert not await both.renew(claim, LEASE_S)
    assert not await both.complete(claim)


async def test_a_claim_that_the_second_did_not_answer_is_given_back(both, redis, kv, monkeypatch):
    async def away(*_arguments, **_settings):
        raise BrokerUnreachableError("away")

    task = uuid.uuid4()
    monkeypatch.setattr(kv, "claim", away)
    with pytest.raises(BrokerUnreachableError):
        await both.claim(task, "a", LEASE_S)
    assert (await granted(redis, task, "b")).losses == 0


async def test_a_copy_that_is_killed_anywhere_is_repeated(way):
    source, target = way
    await done(source, 3)
    await move_records(source, target)
    for place in ("put_record", "are_done", "write_mark"):
        for number in range(2):
            for after in (False, True):
                if place == "write_mark" and number:
                    continue
                tasks = await done(source, 4)
                dying = Dying(target, place, number, after=after)
                with pytest.raises(KilledError):
                    await move_records(source, dying)
                await move_records(source, target)
                assert await target.are_done(tasks) == set(tasks)
    assert not (await find_unmoved(source, target, whole=True)).ages_s


async def test_a_mark_of_another_log_is_none(way):
    source, target = way
    await done(source, 2)
    await move_records(source, target)
    place = (await target.read_mark()).place
    assert await source.changes_after(place) is not None
    later = "999999999999999-0" if "-" in place.entry else "999999999"
    for wrong in ({"digest": "of another"}, {"entry": later}):
        other = msgspec.structs.replace(place, **wrong)
        assert await source.changes_after(other) is None
    await target.write_mark(MoveMark(place=other))
    assert (await move_records(source, target)).whole


async def test_a_mark_that_is_none_means_that_all_is_compared(redis, kv, redis_broker, names):
    await done(kv, 2)
    await move_records(kv, redis)
    client = connect_redis(redis_broker.url)
    await client.set(f"{names.prefix}:mark", "no mark")
    await client.aclose()
    assert await redis.read_mark() is None
    assert (await move_records(kv, redis)).whole
    assert (await redis.read_mark()) is not None
