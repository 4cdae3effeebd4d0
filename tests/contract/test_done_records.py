"""What one authority hands over to the other, and what a full Redis still takes."""

import asyncio
import random
import uuid

import pytest
import redis.exceptions

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_redis
from hookbench.brokers.resolve import resolve_redis
from hookbench.errors import ConfigDriftError, SettingError
from hookbench.ids import uuid7
from hookbench.migration.done_store import (
    Authority,
    ClaimOutcome,
    authority_of,
    parse_authority,
)
from hookbench.migration.phases import Phase
from hookbench.migration.records import move_records
from hookbench.queues.kv_bucket import NOTHING, Bucket, Entry, State, ensure_bucket
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.redis_done_store import RedisDoneStore
from hookbench.queues.transport import AppTransport
from tests.contract.test_done_store import LEASE_S, RETENTION_S, granted, open_store
from tests.virtual import FixedClock


@pytest.fixture
async def source(redis_broker, names):
    async with open_store("redis", redis_broker.url, names) as store:
        yield store
        await store.remove_all()


@pytest.fixture
async def target(nats_broker, names):
    async with open_store("kv", nats_broker.url, names) as store:
        yield store
        await store._bucket._transport.jetstream.delete_stream(f"KV_{names.done_bucket}")


async def done(store, count):
    tasks = [uuid.uuid4() for _ in range(count)]
    claims = await asyncio.gather(*(store.claim(task, "a", LEASE_S) for task in tasks))
    assert all(await asyncio.gather(*map(store.complete, claims)))
    return tasks


async def test_all_that_ended_is_known_to_the_next_authority(source, target):
    tasks = await done(source, 700)
    moved = await move_records(source, target)
    assert (moved.read, moved.done, moved.copied) == (700, 700, 700)
    assert (moved.live, moved.missing, moved.complete) == (0, 0, True)
    assert await target.are_done([*tasks, uuid.uuid4()]) == set(tasks)


async def test_a_move_can_be_repeated(source, target):
    first = await done(source, 20)
    await move_records(source, target)
    second = await done(source, 5)
    moved = await move_records(source, target)
    assert (moved.read, moved.done, moved.copied, moved.complete) == (5, 5, 5, True)
    moved = await move_records(source, target, whole=True)
    assert (moved.read, moved.done, moved.copied, moved.complete) == (25, 25, 0, True)
    assert (await move_records(source, target)).copied == 0
    assert await target.are_done([*first, *second]) == {*first, *second}


async def test_an_open_claim_keeps_the_authority_where_it_is(source, target):
    task = uuid.uuid4()
    claim = await granted(source, task)
    moved = await move_records(source, target)
    assert (moved.read, moved.live, moved.copied, moved.complete) == (1, 1, 0, False)
    assert moved.examples == (task,)
    await source.complete(claim)
    assert (await move_records(source, target)).complete
    assert await target.are_done([task]) == {task}


async def test_a_record_that_is_missing_is_told(source):
    class Forgetful:
        async def put_record(self, _record):
            return False

        async def are_done(self, task_ids):
            return set(list(task_ids)[1:])

        async def records_of(self, _task_ids):
            yield []

        async def put_orders(self, orders):
            assert orders == {}

        async def read_mark(self):
            return None

        async def write_mark(self, mark):
            pytest.fail(f"{mark}: what is missing would not be read again")

    await done(source, 10)
    moved = await move_records(source, Forgetful())
    assert (moved.missing, moved.complete, len(moved.examples)) == (1, False, 1)


async def test_a_full_redis_still_takes_claims_and_records(names, tmp_path, make_task):
    """So a queue at maxmemory can be drained; LPUSH is refused all the while."""
    broker = start_redis(resolve_redis(env={"PATH": ""}), tmp_path, Durability.MEMORY)
    client = connect_redis(broker.url)
    try:
        store = RedisDoneStore(client, names=names, retention_s=RETENTION_S)
        await client.config_set("maxmemory-policy", "noeviction")
        await client.config_set("maxmemory", 1)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            await client.lpush("list", b"value")
        task = make_task().id
        claim = await granted(store, task)
        assert await store.renew(claim, LEASE_S)
        assert await store.complete(claim)
        assert await store.forget([task]) == 1
        assert (await granted(store, task)).token > claim.token
    finally:
        await client.aclose()
        broker.stop()


async def test_a_token_grows_although_the_last_one_is_lost(source, redis_broker, names):
    """A failover may lose the last writes: keys and the counter of tokens."""
    task = uuid.uuid4()
    before = await granted(source, task)
    client = connect_redis(redis_broker.url)
    try:
        keys = [key async for key in client.scan_iter(match=f"{names.prefix}:*", count=10)]
        assert len(keys) == 3
        await client.delete(*keys)
    finally:
        await client.aclose()
    assert (await granted(source, task, "b")).token > before.token


async def test_a_bucket_with_other_settings_is_refused(nats_broker, names):
    async with await AppTransport.connect(nats_broker.url, names=names) as transport:
        await ensure_bucket(transport, retention_s=60.0, storage="memory")
        await ensure_bucket(transport, retention_s=60.0, storage="memory")
        with pytest.raises(ConfigDriftError, match=r"max_age: wanted 90\.0, found 60\.0"):
            await ensure_bucket(transport, retention_s=90.0, storage="memory")
        await transport.jetstream.delete_stream(f"KV_{names.done_bucket}")


@pytest.mark.parametrize("allowed", [True, False])
async def test_the_order_is_read_directly_where_that_is_allowed(
    nats_broker, names, monkeypatch, allowed
):
    """And else by a request of the API, also where it was allowed at the start."""
    async with await AppTransport.connect(nats_broker.url, names=names) as transport:
        assert await ensure_bucket(transport, retention_s=60.0, storage="memory")
        jetstream, stream = transport.jetstream, f"KV_{names.done_bucket}"
        if not allowed:
            config = (await jetstream.stream_info(stream)).config
            await jetstream.update_stream(config.evolve(allow_direct=False))
            assert not await ensure_bucket(transport, retention_s=60.0, storage="memory")
        requests, asked = transport.client.requests, []

        def noted(subject, *arguments, ask=requests.ask_now):
            asked.append(subject)
            return ask(subject, *arguments)

        monkeypatch.setattr(requests, "ask_now", noted)
        bucket = Bucket(transport, timeout_s=5.0, direct=True)
        assert await bucket.read_order("last.repo") == NOTHING
        entry = Entry(state=State.RELEASED, done_ms=7)
        assert await bucket.replace("last.repo", entry, over=0) == 1
        found = await bucket.read_order("last.repo")
        assert (found.entry.done_ms, found.revision) == (7, 1)
        by_api = [subject for subject in asked if ".STREAM.MSG.GET." in subject]
        assert len(by_api) == (0 if allowed else 2)
        await jetstream.delete_stream(stream)


def test_redis_is_the_authority_for_as_long_as_a_phase_has_it():
    assert {phase: authority_of(phase) for phase in Phase} == {
        Phase.REDIS_ONLY: Authority.REDIS,
        Phase.DUAL_WRITE: Authority.REDIS,
        Phase.DUAL_READ: Authority.REDIS,
        Phase.NATS_PRIMARY: Authority.BOTH,
        Phase.NATS_ONLY: Authority.NATS,
    }
    assert authority_of(Phase.DUAL_READ, Authority.NATS) is Authority.NATS
    assert parse_authority("nats") is Authority.NATS
    with pytest.raises(SettingError, match="authority 'etcd': use one of redis, both, nats"):
        parse_authority("etcd")


async def test_an_owner_that_would_break_the_record_is_refused(source):
    for owner in ("", "a|b"):
        with pytest.raises(SettingError, match="owner"):
            await source.claim(uuid.uuid4(), owner, LEASE_S)
    assert (await source.claim(uuid.uuid4(), "a", LEASE_S)).outcome is ClaimOutcome.GRANTED


async def test_a_question_does_not_carry_its_script(source, monkeypatch):
    """Its text is larger than all the rest of a claim; a server that forgot it is sent it again."""
    client, texts = source._client, []

    async def counted(script, *arguments, send=client.eval):
        texts.append(script)
        return await send(script, *arguments)

    monkeypatch.setattr(client, "eval", counted)
    await done(source, 3)
    texts.clear()
    await done(source, 3)
    assert texts == []
    await client.script_flush()
    await done(source, 3)
    assert len(texts) == 1


async def test_the_last_task_of_a_repository_is_read_once(target, monkeypatch):
    entropy = random.Random(7)
    older, newer, newest = (
        uuid7(FixedClock(wall_ns=ms * 1_000_000), entropy) for ms in (1_000, 2_000, 3_000)
    )
    requests, read = target._bucket._transport.client.requests, []

    def counted(subject, *arguments, ask=requests.ask_now):
        if ".GET." in subject:
            read.append(subject)
        return ask(subject, *arguments)

    monkeypatch.setattr(requests, "ask_now", counted)
    first = await target.claim(older, "a", LEASE_S, repository="repo-1")
    assert await target.complete(first)
    assert len(read) == 1
    second = await target.claim(newer, "a", LEASE_S, repository="repo-1")
    third = await target.claim(newer, "a", LEASE_S, repository="repo-1")
    assert await target.complete(third)
    assert not await target.complete(second), "claimed once more since"
    fourth = await target.claim(newest, "a", LEASE_S, repository="repo-1")
    assert await target.release(fourth)
    assert target._held == {}
