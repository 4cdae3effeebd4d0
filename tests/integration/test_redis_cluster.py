"""A Redis Cluster: the queues over it, its one slot, and masters that fail."""

import asyncio
from collections import Counter

import pytest
import redis.asyncio as redis_asyncio

from hookbench.brokers.durability import Durability
from hookbench.brokers.redis_nodes import ask_node
from hookbench.clock import SystemClock
from hookbench.errors import (
    BrokerUnreachableError,
    PublishRefusedError,
    PublishUnknownError,
    SettingError,
)
from hookbench.migration.done_store import ClaimOutcome
from hookbench.queues.base import Depth
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.redis_done_store import RedisDoneStore
from hookbench.queues.redis_list import RedisListQueue
from hookbench.queues.redis_stream import RedisStreamQueue
from hookbench.task import Names, decode_task, encode_task
from hookbench.worker.trimming import Trimmer
from tests.conftest import eventually
from tests.integration.topologies import NOT_STORED, opened, redis_of

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("no_process_left")]


@pytest.mark.parametrize("queue_type", [RedisListQueue, RedisStreamQueue])
async def test_the_queues_work_over_a_redis_cluster(queue_type, tmp_path, make_task):
    async with (
        opened("redis_cluster", tmp_path, Durability.MEMORY) as topology,
        redis_of(topology.redis_url) as client,
        queue_type(client) as queue,
    ):
        assert await queue.depth() == Depth(pending=0, in_flight=0)
        tasks = [make_task() for _ in range(5)]
        for task in tasks:
            await queue.put(encode_task(task))
        assert await queue.depth() == Depth(pending=5, in_flight=0)
        first, *others = await queue.receive(10, 5.0)
        assert [decode_task(one.payload).id for one in (first, *others)] == [t.id for t in tasks]
        assert (await queue.depth()).in_flight == 5
        await first.in_progress()
        await first.nak()
        for delivery in others[:-1]:
            await delivery.ack()
        await others[-1].term("enough")
        (again,) = await queue.receive(1, 5.0)
        task = decode_task(again.payload)
        assert task.id == tasks[0].id
        assert max(again.attempt, task.retry_count + 1) == 2
        await again.ack()
        assert await queue.depth() == Depth(pending=0, in_flight=0)
        assert await queue.receive(1, 0.1) == []
        waiting = asyncio.ensure_future(queue.receive(1, 5.0))
        await asyncio.sleep(0)
        await queue.put(encode_task(tasks[1]))
        assert len(await waiting) == 1


async def test_the_done_store_works_over_a_redis_cluster(tmp_path, make_task):
    async with (
        opened("redis_cluster", tmp_path, Durability.MEMORY) as topology,
        redis_of(topology.redis_url) as client,
    ):
        store = RedisDoneStore(client, retention_s=60.0)
        tasks = [make_task().id for _ in range(300)]
        claims = await asyncio.gather(
            *(store.claim(task, "a", 30.0, repository=f"repo-{n}") for n, task in enumerate(tasks))
        )
        assert {claim.outcome for claim in claims} == {ClaimOutcome.GRANTED}
        assert (await store.claim(tasks[0], "b", 30.0)).outcome is ClaimOutcome.HELD
        assert all(await asyncio.gather(*map(store.complete, claims)))
        assert await store.are_done(tasks) == set(tasks)
        found = [record.task_id async for part in store.records() for record in part]
        assert sorted(found) == sorted(tasks)
        pending = Names().pending_key("sync")
        await client.lpush(pending, b"payload")
        trimmer = Trimmer(client, task_type="sync", clock=SystemClock())
        trimmer.trim(b"payload")
        await trimmer.close()
        assert trimmer.trimmed == 1
        assert await store.forget(tasks) == 300
        await store.remove_all()
        sizes = [await ask_node(node, "DBSIZE") for node in topology.redis.nodes]
        assert sizes == [0, 0, 0]


async def test_all_keys_of_the_queue_are_on_one_node(tmp_path, make_task):
    async with (
        opened("redis_cluster", tmp_path, Durability.MEMORY) as topology,
        redis_of(topology.redis_url) as client,
    ):
        names = Names()
        await RedisListQueue(client).put(encode_task(make_task()))
        await RedisStreamQueue(client).put(encode_task(make_task()))
        keys = [names.pending_key("sync"), names.stream_key("sync"), names.work_key("gc")]
        owners = {(await topology.redis.owner(key)).name for key in (names.prefix, *keys)}
        assert len(owners) == 1
        for node in topology.redis.nodes:
            assert await ask_node(node, "DBSIZE") == (2 if node.name in owners else 0)


async def test_a_paused_master_fails_the_cluster_and_comes_back(tmp_path, make_task):
    async with (
        opened("redis_cluster", tmp_path, Durability.LAZY) as topology,
        redis_of(topology.redis_url) as client,
    ):
        group, queue = topology.redis, RedisListQueue(client)
        acknowledged = [make_task()]
        await queue.put(encode_task(acknowledged[0]))
        owner = await group.owner(Names().prefix)
        elsewhere = [key for key in map(str, range(20)) if await group.owner(key) is not owner]
        owner.pause()
        doubtful = make_task()
        with pytest.raises(PublishUnknownError):
            await queue.put(encode_task(doubtful))
        states = {"ok": 0, "fail": 2, "silent": 1}
        await eventually(lambda: has_states(group, states), what="a failed cluster")
        bystander = await group.owner(elsewhere[0])
        with pytest.raises(BrokerUnreachableError, match=r"ClusterDownError.*cluster is down"):
            await ask_node(bystander, "GET", elsewhere[0])
        owner.resume()
        await group.wait_until_ready()
        acknowledged.append(make_task())
        await queue.put(encode_task(acknowledged[-1]))
        pending, _work = await queue.contents()
        stored = Counter(decode_task(payload).id for payload in pending)
        assert {task.id for task in acknowledged} <= stored.keys()
        assert stored.keys() <= {task.id for task in (*acknowledged, doubtful)}
        assert set(stored.values()) == {1}


async def has_states(group, wanted):
    found = Counter((await group.states()).values())
    return all(found[state] == count for state, count in wanted.items())


async def test_a_killed_master_keeps_its_slots_and_tasks(tmp_path, make_task):
    async with (
        opened("redis_cluster", tmp_path, Durability.FSYNC) as topology,
        redis_of(topology.redis_url) as client,
    ):
        group, queue, task = topology.redis, RedisListQueue(client), make_task()
        await queue.put(encode_task(task))
        owner = await group.owner(Names().prefix)
        owner.kill()
        with pytest.raises(NOT_STORED):
            await queue.put(encode_task(make_task()))
        other = next(node for node in group.nodes if node is not owner)
        other.pause()  # who asks for the owner gets by without a node that does not answer
        assert await group.owner(Names().prefix) is owner
        other.resume()
        owner.restart()
        await group.wait_until_ready()
        (delivery,) = await queue.receive(1, 5.0)
        assert decode_task(delivery.payload).id == task.id


async def test_with_no_node_left_nothing_was_sent(tmp_path, make_task):
    async with (
        opened("redis_cluster", tmp_path, Durability.MEMORY) as topology,
        redis_of(topology.redis_url) as client,
    ):
        queue = RedisListQueue(client)
        await queue.put(encode_task(make_task()))
        for node in topology.redis.nodes:
            node.kill()
        with pytest.raises(PublishUnknownError):  # on the connection that was open
            await queue.put(encode_task(make_task()))
        with pytest.raises(PublishRefusedError):  # the nodes have to be found again
            await queue.put(encode_task(make_task()))
        with pytest.raises(BrokerUnreachableError):
            await RedisStreamQueue(client).depth()
        with pytest.raises(BrokerUnreachableError, match="no node of the Redis cluster"):
            await topology.redis.owner("a")


async def test_commands_wait_for_their_turn_at_a_cluster(tmp_path):
    async with (
        opened("redis_cluster", tmp_path, Durability.MEMORY) as topology,
        redis_of(topology.redis_url, max_connections=2) as client,
    ):
        lengths = await asyncio.gather(*(client.lpush("{hook}", b"x") for _ in range(300)))
        assert sorted(lengths) == list(range(1, 301))
        owner = await topology.redis.owner("{hook}")
        assert len(await ask_node(owner, "CLIENT", "LIST")) > 0
        assert (await ask_node(owner, "CLIENT", "LIST")).count(b"cmd=lpush") <= 2


async def test_a_transaction_is_one(tmp_path):
    async with (
        opened("redis_cluster", tmp_path, Durability.MEMORY) as topology,
        redis_of(topology.redis_url) as client,
    ):
        await client.xadd("{hook}:s", {b"a": b"b"})
        owner = await topology.redis.owner("{hook}:s")
        plain = redis_asyncio.Redis.from_url(owner.url)
        async with plain, plain.monitor() as monitor:
            pipeline = client.pipeline(transaction=True)
            pipeline.xlen("{hook}:s")
            pipeline.xinfo_groups("{hook}:s")
            assert await pipeline.execute() == [1, []]
            seen = []
            while not seen or seen[-1]["command"] != "EXEC":
                seen.append(await monitor.next_command())
        words = [one["command"] for one in seen if one["command"] != "CLUSTER SLOTS"]
        assert words[-4:] == ["MULTI", "XLEN {hook}:s", "XINFO GROUPS {hook}:s", "EXEC"]
        assert len({one["client_port"] for one in seen[-4:]}) == 1
        pipeline = client.pipeline(transaction=True)
        pipeline.xlen("{hook}:none")
        pipeline.xinfo_groups("{hook}:none")
        length, error = await pipeline.execute(raise_on_error=False)
        assert (length, str(error)) == (0, "no such key")


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://",
        "redis+cluster://127.0.0.1",
        "redis+cluster://127.0.0.1:7000,",
        "redis+cluster://me:secret@127.0.0.1:7000",
        "redis+cluster://127.0.0.1:7000/1",
    ],
)
def test_what_is_no_cluster_url_is_an_error(url):
    with pytest.raises(SettingError, match=r"redis\+cluster://127\.0\.0\.1:7000,") as caught:
        connect_redis(url)
    assert "secret" not in str(caught.value)
