"""What a crash, a failover and a lost reply take, and how the reference queues fare."""

import asyncio

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from hookbench.errors import PublishRefusedError, PublishUnknownError
from hookbench.queues.base import Depth
from hookbench.queues.redis_list import RedisListQueue
from hookbench.sim.connection import Direction
from hookbench.sim.redis.client import connect_simulated_redis
from hookbench.sim.redis.log import rebuild, survivors
from hookbench.sim.redis.replication import Replica, promote
from hookbench.sim.redis.server import RedisServer
from hookbench.sim.redis.settings import Persistence, RedisSettings
from hookbench.sim.simulate import simulate
from hookbench.sim.wire_rules import WireAction, WireRule
from tests.sim.world import World

TASK = b'{"id":"018bcfe5-6800-752e-89a7-834df2a74de4","retry_count":0}'


def in_world(scene):
    async def main(_loop):
        return await scene(World())

    return simulate(main)


def start(world, name="redis", **settings):
    node = world.network.node(name)
    server = RedisServer(world.loop, node, world.engine, settings=RedisSettings(**settings))
    node.start(server)
    return node, server


def client_of(world, *nodes, **options):
    return connect_simulated_redis(world.network, "client", nodes, **options)


@pytest.mark.parametrize(
    ("persistence", "after_kill", "after_cut"),
    [(Persistence.NONE, 0, 0), (Persistence.EVERYSEC, 12, 10), (Persistence.ALWAYS, 12, 12)],
)
def test_what_a_crash_leaves(persistence, after_kill, after_cut):
    async def scene(world):
        _node, server = start(world, persistence=persistence)
        client = client_of(world, "redis")
        for number in range(12):
            await client.lpush("tasks", b"%d" % number)
            await asyncio.sleep(0.1)
        cut_us = world.clock.wall_ns() // 1000
        left = [survivors(server.log, persistence, cut_us=at) for at in (None, cut_us)]
        for count in left:
            again = rebuild(server.log[:count])
            assert len(again.any_of(b"tasks") or ()) == count
        await client.aclose()
        return left

    assert in_world(scene) == [after_kill, after_cut]


def test_a_log_leads_to_the_same_keys_also_with_scripts_and_expiry():
    async def scene(world):
        _node, server = start(world)
        client = client_of(world, "redis")
        queue = RedisListQueue(client, clock=world.clock, requeue_only_held=True)
        for _ in range(3):
            await queue.put(TASK)
        waiting = asyncio.ensure_future(queue.receive(3, 1.0))
        (first, *_rest) = await waiting
        await first.nak()
        await client.eval("return redis.call('SET', KEYS[1], 'x', 'PX', 50)", 1, "short")
        await asyncio.sleep(0.1)
        assert await client.eval("return redis.call('GET', KEYS[1])", 1, "short") is None
        again = rebuild(server.log)
        assert again.all_keys() != []
        again.now_ms = server.db.now_ms
        assert {key: again.any_of(key) for key in again.all_keys()} == {
            key: server.db.any_of(key) for key in server.db.all_keys()
        }
        await client.aclose()

    in_world(scene)


def test_a_lost_reply_strands_a_task_of_the_guide():
    """Hazard R1, found by a rule on the wire as the proxy's in a rehearsal."""

    async def scene(world):
        start(world)
        queue = RedisListQueue(client_of(world, "redis"), clock=world.clock)
        await queue.put(TASK)
        world.network.link("client", "redis").rules.append(
            WireRule(WireAction.LOSE, Direction.TO_CLIENT, matches=lambda told: told == [TASK])
        )
        with pytest.raises(Exception, match="Timeout reading"):
            await queue.receive(1, 5.0)
        assert await queue.depth() == Depth(pending=0, in_flight=1)

    in_world(scene)


def test_a_lost_reply_to_a_put_is_unknown_and_a_refused_connection_is_not():
    async def scene(world):
        node, _server = start(world)
        queue = RedisListQueue(client_of(world, "redis"), clock=world.clock)
        world.network.link("client", "redis").rules.append(
            WireRule(WireAction.RESET, Direction.TO_CLIENT)
        )
        with pytest.raises(PublishUnknownError):
            await queue.put(TASK)
        assert (await queue.depth()).pending == 1
        node.kill()
        await asyncio.sleep(1)
        with pytest.raises(PublishRefusedError):
            await queue.put(TASK)

    in_world(scene)


def test_a_stopped_server_times_out_and_what_it_was_sent_counts_later():
    async def scene(world):
        node, server = start(world)
        client = client_of(world, "redis", block_timeout_secs=-4.0)
        await client.lpush("tasks", b"1")
        node.stop()
        with pytest.raises(RedisTimeoutError):
            await client.lpush("tasks", b"2")
        node.resume()
        assert await client.llen("tasks") == 2
        assert len(server.log) == 2

    in_world(scene)


def test_a_failover_forgets_what_the_replica_did_not_have():
    """Hazard R7, and that WAIT on the connection of the write tells."""

    async def scene(world):
        master, first = start(world, "one")
        _other, second = start(world, "two")
        replica = Replica(second, world.network, "one")
        await asyncio.sleep(2)
        client = client_of(world, "one", "two")
        safe = RedisListQueue(client, clock=world.clock, replicas=1)
        await safe.put(b"safe")
        world.network.cut(world.network.link("two", "one"))
        await client.lpush("{hook}:sync", b"lost")
        with pytest.raises(PublishUnknownError, match="0 of 1 replicas"):
            await safe.put(b"doubtful")
        assert (await safe.depth()).pending == 3
        master.kill()
        await promote(replica)
        await asyncio.sleep(1)
        assert await safe.oldest(5) == [b"safe"]
        with pytest.raises(PublishRefusedError, match="NOREPLICAS"):
            await safe.put(b"alone")
        master.start(RedisServer(world.loop, master, world.engine, log=first.log))
        world.network.heal(world.network.link("two", "one"))
        back = Replica(master.server, world.network, "two")
        await asyncio.sleep(3)
        await safe.put(b"again")
        assert list(master.server.db.any_of(b"{hook}:sync")) == [b"again", b"safe"]
        await client.aclose()
        await back.end()

    in_world(scene)


def test_a_replica_takes_no_writes_and_a_client_goes_to_the_master():
    async def scene(world):
        start(world, "one")
        _node, second = start(world, "two")
        replica = Replica(second, world.network, "one")
        await asyncio.sleep(2)
        alone = client_of(world, "two")
        with pytest.raises(Exception, match="read only replica"):
            await alone.lpush("tasks", b"1")
        both = client_of(world, "two", "one")
        assert await both.lpush("tasks", b"1") == 1
        await asyncio.sleep(1)
        assert await alone.llen("tasks") == 1
        await replica.end()

    in_world(scene)


def test_a_cancelled_command_costs_its_connection_and_no_other():
    async def scene(world):
        start(world)
        client = client_of(world, "redis")
        waiting = asyncio.ensure_future(client.blmove("tasks", "work", 5, "RIGHT", "LEFT"))
        await asyncio.sleep(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.sleep(1)
        await client.lpush("tasks", b"1")
        assert await client.llen("tasks") == 1, "nobody waits for it any more"
        await client.aclose()
        with pytest.raises(RedisConnectionError, match="was closed"):
            await client.llen("tasks")

    in_world(scene)


def test_a_read_that_waits_is_answered_once_by_a_server_that_goes_on():
    """Its wait ended while the server was stopped, and what it waits for arrived as well."""

    async def scene(world):
        node, _server = start(world)
        reader, writer = client_of(world, "redis"), client_of(world, "redis")
        reading = asyncio.ensure_future(reader.blmove("tasks", "work", 1, "RIGHT", "LEFT"))
        await asyncio.sleep(0.5)
        node.stop()
        writing = asyncio.ensure_future(writer.lpush("tasks", b"a"))
        await asyncio.sleep(2)
        node.resume()
        found = await reading
        await writing
        told = [await reader.llen("tasks"), await reader.llen("work")]
        await reader.aclose()
        await writer.aclose()
        return found, told

    found, told = in_world(scene)
    assert (found, told) in [(b"a", [0, 1]), (None, [1, 0])]


def test_every_kind_of_value_takes_memory():
    async def scene(world):
        start(world)
        client = client_of(world, "redis")
        told = [(await client.info("memory"))["used_memory"]]
        for put in (
            client.set("text", b"x"),
            client.lpush("list", b"x"),
            client.hset("hash", "field", b"x"),
            client.sadd("set", b"x"),
            client.zadd("sorted", {"x": 1}),
            client.xadd("stream", {"field": b"x"}),
        ):
            await put
            told.append((await client.info("memory"))["used_memory"])
        assert told == sorted(set(told))

    in_world(scene)
