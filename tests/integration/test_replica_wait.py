"""A put that waits for the replica of a Redis master (hazard R7)."""

import contextlib

import pytest

from hookbench.errors import (
    BrokerUnreachableError,
    PublishRefusedError,
    PublishUnknownError,
    SendError,
)
from hookbench.ledger.events import Broker
from hookbench.migration.measures import Measures
from hookbench.migration.phases import Phase
from hookbench.migration.service import open_service
from hookbench.queues.authority import ClaimOutcome
from hookbench.queues.connections import Connections
from hookbench.queues.moving import Mover
from hookbench.queues.redis_absent import push_if_absent
from hookbench.queues.redis_done_store import RedisDoneStore
from hookbench.queues.redis_list import RedisListQueue
from hookbench.queues.redis_stream import RedisStreamQueue
from hookbench.queues.transport import AppTransport
from hookbench.task import Names, encode_task
from hookbench.worker.dead_letters import DeadLetter, RedisDeadLetters
from tests.integration.topologies import opened, redis_of


@pytest.mark.timeout(60)
async def test_what_the_replica_does_not_have_is_not_acknowledged(tmp_path, make_task, clock):
    async with opened("redis_replica", tmp_path) as topology:
        connections = Connections(
            redis_url=topology.redis_url, nats_url=None, names=Names(), clock=clock
        )
        try:
            plain, waiting = [
                await open_service(Phase.REDIS_ONLY, connections, Names(), measures=measures)
                for measures in (Measures(), Measures(replica_wait=True))
            ]
            assert (await waiting.send(make_task())).redis_length == 1
            await topology.redis.pause_replication()
            assert (await plain.send(make_task())).redis_length == 2
            with pytest.raises(SendError, match="0 of 1 replicas") as caught:
                await waiting.send(make_task())
            assert caught.value.outcome == "unknown"
            async with redis_of(topology.redis_url) as client:
                assert await client.llen(Names().pending_key("sync")) == 3
            await topology.redis.resume_replication()
            assert (await waiting.send(make_task())).redis_length == 4
        finally:
            await connections.close()


async def test_one_node_has_no_replica_to_wait_for(redis_broker, names, clock, make_task):
    connections = Connections(redis_url=redis_broker.url, nats_url=None, names=names, clock=clock)
    try:
        service = await open_service(
            Phase.REDIS_ONLY, connections, names, measures=Measures(replica_wait=True)
        )
        assert (await service.send(make_task())).redis_length == 1
        queue = RedisListQueue(connections.redis(), names=names, replicas=1)
        with pytest.raises(PublishRefusedError, match="0 of 1 replicas are connected"):
            await queue.put(encode_task(make_task()))
        assert (await queue.depth()).pending == 1
    finally:
        await connections.redis().delete(names.pending_key("sync"))
        await connections.close()


@pytest.mark.timeout(60)
async def test_what_lies_there_already_is_waited_for_as_well(tmp_path, make_task):
    """By a push that looks first, over a connection that has written nothing before."""
    key, payload = Names().pending_key("sync"), encode_task(make_task())
    async with opened("redis_replica", tmp_path) as topology:
        await topology.redis.pause_replication()
        async with redis_of(topology.redis_url) as client:
            await client.lpush(key, payload)
        async with redis_of(topology.redis_url) as client:
            with pytest.raises(PublishUnknownError, match="0 of 1 replicas"):
                await push_if_absent(client, key, [], payload, replicas=1)
            await topology.redis.resume_replication()
            assert await push_if_absent(client, key, [], payload, replicas=1) == 0
            assert await client.lrange(key, 0, -1) == [payload]


@pytest.mark.timeout(60)
async def test_a_stream_waits_for_the_replica_as_well(tmp_path, make_task):
    """Also for an entry that is there already, which is found again and not written twice."""
    payload = encode_task(make_task())
    async with opened("redis_replica", tmp_path) as topology:
        await topology.redis.pause_replication()
        async with redis_of(topology.redis_url) as client:
            plain = RedisStreamQueue(client)
            number = await plain.put(payload)
        async with redis_of(topology.redis_url) as client:
            queue = RedisStreamQueue(client, replicas=1)
            for put in (queue.put_if_absent, queue.put):
                with pytest.raises(PublishUnknownError, match="0 of 1 replicas"):
                    await put(payload)
            await topology.redis.resume_replication()
            assert await queue.put_if_absent(payload) > number  # of the second one
            assert await queue.put(b"other") > await queue.put_if_absent(payload)
            assert (await queue.depth()).pending == 3


@pytest.mark.timeout(60)
async def test_a_promoted_master_takes_nothing_until_it_has_a_replica(tmp_path, make_task):
    """Neither at first nor when a put is repeated: a task would be written with each try."""
    key = Names().pending_key("sync")
    known, new = encode_task(make_task()), encode_task(make_task())
    async with opened("redis_replica", tmp_path) as topology:
        old = await topology.redis.master()
        async with redis_of(topology.redis_url) as client:
            await RedisListQueue(client, replicas=1).put(known)
        old.kill()
        await topology.redis.promote()
        async with redis_of(topology.redis_url) as client:
            queue = RedisListQueue(client, replicas=1)
            for put in (
                lambda: queue.put(new),
                lambda: push_if_absent(client, key, [], new, replicas=1),
                lambda: push_if_absent(client, key, [], known, replicas=1),
            ):
                with pytest.raises(PublishRefusedError, match="0 of 1 replicas are connected"):
                    await put()
            assert await client.lrange(key, 0, -1) == [known]
            await topology.redis.rejoin(old)
            assert await push_if_absent(client, key, [], known, replicas=1) == 0
            assert await push_if_absent(client, key, [], new, replicas=1) == 2
            assert await queue.put(encode_task(make_task())) == 3


@pytest.mark.timeout(60)
async def test_a_claim_and_a_record_count_when_the_replica_has_them(tmp_path, make_task):
    """Also an answer that tells what was written before, over a connection that wrote nothing."""
    task = make_task()
    async with opened("redis_replica", tmp_path) as topology:

        @contextlib.asynccontextmanager
        async def stores():
            async with redis_of(topology.redis_url) as client:
                yield RedisDoneStore(client, retention_s=60.0, replicas=1)

        async with stores() as store, stores() as other:
            claim = await store.claim(task.id, "a", 30.0)
            await topology.redis.pause_replication()
            for ask in (
                lambda: store.complete(claim),
                lambda: store.complete(claim),
                lambda: other.claim(task.id, "b", 30.0),
                lambda: other.claim(make_task().id, "b", 30.0),
                lambda: other.forget([task.id]),
            ):
                with pytest.raises(BrokerUnreachableError, match="0 of 1 replicas"):
                    await ask()
            await topology.redis.resume_replication()
            again = await store.claim(task.id, "a", 30.0)
            assert again.token > claim.token
            assert await store.complete(again)
            old = await topology.redis.master()
            old.kill()
            await topology.redis.promote()
            await topology.redis.rejoin(old)
        async with stores() as store:
            assert await store.are_done([task.id]) == {task.id}
            assert (await store.claim(task.id, "c", 30.0)).outcome is ClaimOutcome.DONE


@pytest.mark.timeout(60)
async def test_a_dead_letter_is_buried_when_the_replica_has_it(tmp_path, make_task):
    letter = DeadLetter.of(
        encode_task(make_task()),
        task_type="sync",
        reason="it failed",
        broker=Broker.REDIS,
        attempts=3,
        died_at_ns=0,
    )
    async with opened("redis_replica", tmp_path) as topology:
        await topology.redis.pause_replication()
        async with redis_of(topology.redis_url) as client:
            letters = RedisDeadLetters(client, Names(), replicas=1)
            with pytest.raises(BrokerUnreachableError, match="0 of 1 replicas"):
                await letters.bury(letter)
            await topology.redis.resume_replication()
            await letters.bury(letter)
            assert await client.llen(Names().dead_key("sync")) == 2


@pytest.mark.timeout(60)
async def test_a_procedure_pushes_once_and_waits_for_the_replica(tmp_path, make_task, clock):
    task = make_task()
    async with (
        opened("redis_replica", tmp_path) as topology,
        redis_of(topology.redis_url) as client,
        await AppTransport.connect(topology.nats_url) as transport,
    ):
        await topology.redis.pause_replication()
        payload = encode_task(task)
        for _ in range(2):
            async with redis_of(topology.redis_url) as fresh:
                mover = Mover(fresh, transport, clock=clock, replicas=1)
                with pytest.raises(BrokerUnreachableError, match="0 of 1 replicas"):
                    await mover._push_once(task.id, payload, "sync")
        await topology.redis.resume_replication()
        mover = Mover(client, transport, clock=clock, replicas=1)
        assert await mover._push_once(task.id, payload, "sync") == 0
        assert await client.lrange(Names().pending_key("sync"), 0, -1) == [payload]
