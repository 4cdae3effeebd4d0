"""A put that waits for the replica of a Redis master (hazard R7)."""

import pytest

from hookbench.errors import PublishRefusedError, PublishUnknownError, SendError
from hookbench.migration.measures import Measures
from hookbench.migration.phases import Phase
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.redis_absent import push_if_absent
from hookbench.queues.redis_list import RedisListQueue
from hookbench.task import Names, encode_task
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
