"""What every authority promises, whatever keeps its records."""

import asyncio
import contextlib
import random
import uuid

import pytest

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.clock import SystemClock
from hookbench.errors import BrokerUnreachableError
from hookbench.ids import uuid7
from hookbench.migration.done_store import ClaimOutcome
from hookbench.migration.joint_store import JointStore
from hookbench.queues.kv_bucket import ensure_bucket
from hookbench.queues.kv_done_store import KvDoneStore
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.redis_done_store import RedisDoneStore
from hookbench.queues.transport import AppTransport
from tests.conftest import eventually
from tests.fakes import MemoryDoneStore
from tests.virtual import FixedClock

KINDS = ("redis", "kv", "joint", "memory")
LEASE_S = 30.0
SHORT_S = 0.05
RETENTION_S = 3600.0
GRANTED, HELD, DONE, SUPERSEDED = ClaimOutcome


@contextlib.asynccontextmanager
async def open_store(kind, url, names, *, retention_s=RETENTION_S):
    """A store with connections of its own; ``url`` is a pair for the joint one."""
    if kind == "joint":
        async with (
            open_store("redis", url[0], names, retention_s=retention_s) as first,
            open_store("kv", url[1], names, retention_s=retention_s) as second,
        ):
            yield JointStore(first, second)
    elif kind == "redis":
        client = connect_redis(url)
        try:
            yield RedisDoneStore(client, names=names, retention_s=retention_s, timeout_s=1.0)
        finally:
            await client.aclose()
    else:
        async with await AppTransport.connect(url, names=names) as transport:
            direct = await ensure_bucket(transport, retention_s=retention_s, storage="memory")
            # Server and test share their clock: nothing has to be added to a lease.
            yield KvDoneStore(
                transport, clock=SystemClock(), skew_s=0.0, timeout_s=1.0, direct=direct
            )


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def url(kind, request):
    if kind == "memory":
        return None
    if kind == "joint":
        return [request.getfixturevalue(f"{name}_broker").url for name in ("redis", "nats")]
    return request.getfixturevalue("redis_broker" if kind == "redis" else "nats_broker").url


@pytest.fixture
async def opened(kind, url, names):
    async with contextlib.AsyncExitStack() as stack:
        shared = ({}, {})

        async def open_one(**settings):
            if kind == "memory":
                return MemoryDoneStore(SystemClock(), *shared)
            return await stack.enter_async_context(open_store(kind, url, names, **settings))

        yield open_one
    urls = {"redis": (url, None), "kv": (None, url), "joint": url}.get(kind, (None, None))
    await remove_stores(*urls, names)


async def remove_stores(redis_url, nats_url, names):
    """What these tests leave on the session's brokers."""
    if redis_url is not None:
        client = connect_redis(redis_url)
        await RedisDoneStore(client, names=names, retention_s=RETENTION_S).remove_all()
        await client.aclose()
    if nats_url is not None:
        async with await AppTransport.connect(nats_url, names=names) as transport:
            await transport.jetstream.delete_stream(f"KV_{names.done_bucket}")


@pytest.fixture
async def store(opened):
    return await opened()


@pytest.fixture
async def other(opened):
    """The store as another process has it."""
    return await opened()


async def granted(store, task, owner="a", lease_s=LEASE_S):
    claim = await store.claim(task, owner, lease_s)
    assert claim.outcome is GRANTED
    return claim


async def taken_over(store, task, owner="b", lease_s=LEASE_S):
    """The claim of somebody who waits for the lease of another to end."""

    async def claimed():
        claim = await store.claim(task, owner, lease_s)
        return claim if claim.outcome is GRANTED else None

    return await eventually(claimed, what="the end of the lease")


@pytest.fixture
def task():
    return uuid.uuid4()


async def test_of_many_at_once_one_is_granted(store, other, task):
    claims = await asyncio.gather(
        *(
            (store, other)[number % 2].claim(task, f"owner-{number}", LEASE_S)
            for number in range(40)
        )
    )
    assert sorted(claim.outcome for claim in claims) == [GRANTED, *[HELD] * 39]
    assert all(0 < claim.held_for_s <= LEASE_S for claim in claims if claim.outcome is HELD)
    assert all((claim.token > 0) == (claim.outcome is GRANTED) for claim in claims)


async def test_tasks_do_not_hinder_each_other(store):
    tasks = [uuid.uuid4() for _ in range(600)]
    claims = await asyncio.gather(*(store.claim(item, "a", LEASE_S) for item in tasks))
    assert [claim.task_id for claim in claims] == tasks
    assert {claim.outcome for claim in claims} == {GRANTED}
    assert len({claim.token for claim in claims}) == len(tasks)


async def test_a_task_that_has_ended_is_granted_to_nobody(store, other, task):
    claim = await granted(store, task)
    assert await other.are_done([task]) == set()
    assert await store.complete(claim)
    for which in (store, other):
        again = await which.claim(task, "b", LEASE_S)
        assert (again.outcome, again.token) == (DONE, 0)
        assert await which.are_done([task]) == {task}


async def test_a_completion_can_be_repeated(store, other, task):
    """The answer to the first one may have been lost."""
    claim = await granted(store, task)
    assert await store.complete(claim)
    assert await store.complete(claim)
    assert await other.complete(claim)


async def test_a_claim_can_be_repeated_by_its_owner(store, other, task):
    """The answer to the first one may have been lost; the second one is what counts."""
    first = await granted(store, task, "a")
    second = await granted(other, task, "a")
    assert second.token > first.token
    assert (second.failures, second.losses) == (0, 0)
    assert not await store.complete(first)
    assert await other.complete(second)


async def test_a_lease_that_has_ended_is_taken_over_under_a_higher_token(store, other, task):
    stale = await granted(store, task, "a", SHORT_S)
    claim = await taken_over(other, task)
    assert claim.token > stale.token
    assert (claim.failures, claim.losses, claim.attempt) == (0, 1, 2)
    assert not await store.renew(stale, LEASE_S)
    assert not await store.complete(stale)
    assert not await store.release(stale, failure="late")
    assert (await store.claim(task, "c", LEASE_S)).outcome is HELD
    assert await other.complete(claim)
    assert not await store.complete(stale)


async def test_an_ended_lease_that_nobody_took_over_is_still_its_holders(store, other, task):
    claim = await granted(store, task, "a", SHORT_S)
    await asyncio.sleep(2 * SHORT_S)
    assert await store.renew(claim, LEASE_S)
    assert (await other.claim(task, "b", LEASE_S)).outcome is HELD
    assert await store.complete(claim)


async def test_a_renewed_claim_is_held_beyond_its_first_lease(store, other, task):
    claim = await granted(store, task, "a", SHORT_S)
    assert await store.renew(claim, LEASE_S)
    assert await store.renew(claim, LEASE_S)
    await asyncio.sleep(2 * SHORT_S)
    held = await other.claim(task, "b", LEASE_S)
    assert held.outcome is HELD
    assert SHORT_S < held.held_for_s <= LEASE_S
    assert await store.complete(claim)


async def test_a_claim_works_from_another_connection_too(store, other, task):
    claim = await granted(store, task)
    assert await other.renew(claim, LEASE_S)
    assert await store.renew(claim, LEASE_S)
    assert await other.complete(claim)
    assert await store.are_done([task]) == {task}


async def test_a_released_task_can_be_claimed_at_once(store, other, task):
    claim = await granted(store, task)
    assert await store.release(claim)
    assert not await store.complete(claim)
    assert not await store.renew(claim, LEASE_S)
    assert not await store.release(claim)
    again = await granted(other, task, "b")
    assert again.token > claim.token
    assert (again.failures, again.losses, again.attempt) == (0, 0, 1)


async def test_failures_and_losses_are_counted_apart_and_told(store, task):
    claim = await granted(store, task)
    assert await store.release(claim, failure="ValueError: no | luck\n" + "x" * 500)
    claim = await granted(store, task, "b", SHORT_S)
    assert (claim.failures, claim.losses, claim.attempt) == (1, 0, 2)
    assert claim.last_failure.startswith("ValueError: no | luck\nxxx")
    assert len(claim.last_failure) == 200
    claim = await taken_over(store, task, "c")
    assert (claim.failures, claim.losses, claim.attempt) == (1, 1, 3)
    assert await store.release(claim, failure="the second")
    claim = await granted(store, task, "d")
    assert (claim.failures, claim.losses, claim.last_failure) == (2, 1, "the second")


@pytest.fixture
def born():
    """Ids of tasks, by the millisecond in them."""
    entropy = random.Random(7)
    return lambda ms: uuid7(FixedClock(wall_ns=ms * 1_000_000), entropy)


async def test_a_task_is_superseded_when_a_later_one_of_its_repository_is_done(store, other, born):
    older, old, new = born(1_000), born(1_001), born(2_000)
    claim = await store.claim(new, "a", LEASE_S, repository="repo/ü 1")
    assert claim.outcome is GRANTED
    early = await other.claim(older, "b", LEASE_S, repository="repo/ü 1")
    assert early.outcome is GRANTED, "what is not done yet may fail"
    assert await store.complete(claim)
    for _ in range(2):  # the answer to the first may have been lost
        late = await other.claim(old, "c", LEASE_S, repository="repo/ü 1")
        assert (late.outcome, late.token) == (SUPERSEDED, 0)
    assert await store.are_done([old, older]) == {old}
    held = await store.claim(older, "d", LEASE_S, repository="repo/ü 1")
    assert held.outcome is HELD, "it has begun before"
    assert await other.complete(early)
    last = await store.claim(born(1_999), "e", LEASE_S, repository="repo/ü 1")
    assert last.outcome is SUPERSEDED, "an older one that is done changes nothing"
    assert await store.forget([old]) == 1


async def test_a_task_that_has_had_its_attempts_is_not_superseded(store, other, born):
    """It may have a dead letter, whose worker died before it recorded the end."""
    tried, young, new = born(1_000), born(1_001), born(2_000)
    for failure in ("one", "two"):
        claim = await store.claim(tried, "a", LEASE_S, repository="r", most=3)
        assert await store.release(claim, failure=failure)
    third = await store.claim(tried, "dies", SHORT_S, repository="r", most=3)
    assert (third.outcome, third.attempt) == (GRANTED, 3)
    claim = await store.claim(young, "a", LEASE_S, repository="r", most=3)
    assert await store.release(claim, failure="one")
    claim = await other.claim(new, "b", LEASE_S, repository="r", most=3)
    assert await other.complete(claim)

    async def fourth():
        claim = await other.claim(tried, "c", LEASE_S, repository="r", most=3)
        return None if claim.outcome is HELD else claim

    claim = await eventually(fourth, what="the end of the lease")
    assert (claim.outcome, claim.attempt) == (GRANTED, 4)
    assert await other.complete(claim)
    assert (await store.claim(tried, "d", LEASE_S, repository="r", most=3)).outcome is DONE
    # One that has attempts left, and one of which nobody says how many there are.
    assert (await store.claim(young, "d", LEASE_S, repository="r", most=3)).outcome is SUPERSEDED
    assert (await store.claim(born(1_002), "d", LEASE_S, repository="r")).outcome is SUPERSEDED


async def test_other_repositories_and_the_same_millisecond_have_no_order(store, born):
    claim = await store.claim(born(2_000), "a", LEASE_S, repository="repo-1")
    assert await store.complete(claim)
    for task, repository in (
        (born(1_000), "repo-2"),
        (born(1_000), ""),
        (born(2_000), "repo-1"),
        (born(2_001), "repo-1"),
    ):
        claim = await store.claim(task, "b", LEASE_S, repository=repository)
        assert claim.outcome is GRANTED


async def test_a_failed_task_covers_nothing(store, born):
    claim = await store.claim(born(2_000), "a", LEASE_S, repository="repo-1")
    assert await store.release(claim, failure="no luck")
    assert (await store.claim(born(1_000), "b", LEASE_S, repository="repo-1")).outcome is GRANTED


async def test_many_are_asked_for_at_once(store):
    tasks = [uuid.uuid4() for _ in range(600)]
    half = tasks[::2]
    claims = await asyncio.gather(*(store.claim(item, "a", LEASE_S) for item in tasks))
    assert all(await asyncio.gather(*map(store.complete, claims[::2])))
    assert await store.are_done(tasks) == set(half)
    assert await store.are_done([]) == set()


async def test_a_forgotten_task_runs_again_under_a_higher_token(store, other, task):
    claim = await granted(store, task)
    assert await store.forget([task]) == 0, "a claim is no record of an end"
    assert await store.complete(claim)
    assert await other.forget([task, uuid.uuid4()]) == 1
    assert await store.are_done([task]) == set()
    again = await granted(other, task, "b")
    assert again.token > claim.token
    assert again.attempt == 1


async def test_records_go_after_the_retention(kind, opened, task):
    if kind == "memory":
        pytest.skip("what is in this process is kept for as long as it lives")
    store = await opened(retention_s=1.0)
    claim = await granted(store, task)
    assert await store.complete(claim)
    assert await store.are_done([task]) == {task}

    async def gone():
        return await store.are_done([task]) == set()

    await eventually(gone, what="the end of the retention")
    assert (await store.claim(task, "b", LEASE_S)).outcome is GRANTED


async def silent(store):
    """Whether a claim is not answered; a stopped process may still answer for a moment."""
    try:
        await store.claim(uuid.uuid4(), "b", LEASE_S)
    except BrokerUnreachableError:
        return True
    return False


async def test_a_broker_that_is_away_is_told(kind, names, task, tmp_path):
    if kind == "memory":
        pytest.skip("memory lives in this process: it has no broker that could be away")
    started = {}
    try:
        if kind != "kv":
            redis = resolve_redis(env={"PATH": ""})
            started["redis"] = start_redis(redis, tmp_path / "redis", Durability.MEMORY)
        if kind != "redis":  # the one of both that is asked last is the one that goes
            nats = resolve_nats(env={"PATH": ""})
            started["nats"] = start_nats(nats, tmp_path / "nats", Durability.MEMORY)
        *_, broker = started.values()
        url = [item.url for item in started.values()] if kind == "joint" else broker.url
        async with open_store(kind, url, names) as store:
            claim = await granted(store, task)
            broker.pause()
            try:
                await eventually(lambda: silent(store), what="the silence of a paused broker")
                for ask in (store.complete(claim), store.are_done([uuid.uuid4()])):
                    with pytest.raises(BrokerUnreachableError):
                        await ask
            finally:
                broker.resume()
            broker.kill()
            for ask in (
                store.claim(task, "b", LEASE_S),
                store.renew(claim, LEASE_S),
                store.release(claim),
            ):
                with pytest.raises(BrokerUnreachableError):
                    await ask
    finally:
        for broker in started.values():
            broker.stop()
