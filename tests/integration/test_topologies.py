"""Brokers of several nodes, by name; and a Redis master with its replica."""

from collections import Counter

import psutil
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError

from hookbench.brokers.durability import Durability
from hookbench.brokers.nats_cluster import ClusterAddresses
from hookbench.brokers.redis_nodes import ask_node
from hookbench.brokers.resolve import Origin, Resolved, resolve_redis
from hookbench.brokers.topology import TOPOLOGIES, open_topology
from hookbench.errors import BrokerUnreachableError, BrokerUnsuitableError, SettingError
from hookbench.queues.base import Depth
from hookbench.queues.jetstream import JetStreamQueue, ensure_consumer, ensure_stream
from hookbench.queues.redis_errors import NeverSentError
from hookbench.queues.redis_list import RedisListQueue
from hookbench.queues.transport import AppTransport
from hookbench.task import Names, decode_task, encode_task
from tests.conftest import eventually
from tests.integration.topologies import opened, redis_of

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("no_process_left")]

REPLICATED_ONES = {"redis_replica", "nats_cluster", "replicated"}
ROLES = {
    "single": {"redis": "master", "nats": "leader"},
    "redis_replica": {"redis-1": "master", "redis-2": "replica", "nats": "leader"},
    "redis_cluster": dict.fromkeys(("redis-1", "redis-2", "redis-3"), "master")
    | {"nats": "leader"},
}


def usual_durability(name):
    return Durability.REPLICATED if name in REPLICATED_ONES else Durability.LAZY


async def goes_through(queue, task):
    await queue.put(encode_task(task))
    (delivery,) = await queue.receive(1, 5.0)
    assert decode_task(delivery.payload) == task
    await delivery.ack()
    await eventually(lambda: is_empty(queue), what="an empty queue")


async def is_empty(queue):
    return await queue.depth() == Depth(pending=0, in_flight=0)


@pytest.mark.parametrize("name", TOPOLOGIES)
async def test_every_topology_carries_tasks_and_leaves_no_process(name, tmp_path, make_task):
    async with opened(name, tmp_path, usual_durability(name)) as topology:
        roles = await topology.roles()
        if name in ROLES:
            assert roles == ROLES[name]
        nats_roles = Counter(role for node, role in roles.items() if node.startswith("nats"))
        assert nats_roles["leader"] == 1
        assert sum(nats_roles.values()) == len(topology.nats.nodes)
        async with redis_of(topology.redis_url) as client:
            await goes_through(RedisListQueue(client), make_task())
        async with await AppTransport.connect(topology.nats_url) as transport:
            info = await ensure_stream(transport, topology.stream)
            assert info.config.num_replicas == topology.nats.durability.stream_replicas
            await ensure_consumer(transport)
            await goes_through(JetStreamQueue(transport), make_task())
        nodes = topology.nodes
        assert len({node.data for node in nodes}) == len({node.pid for node in nodes}) == len(roles)
        for node in nodes:
            assert listens_on(node) == {"127.0.0.1"}
        nodes[0].pause()
        nodes[-1].kill()
        roles = await topology.roles()
        assert [roles[nodes[0].name], roles[nodes[-1].name]] == ["silent", "silent"]
    assert not any(psutil.pid_exists(node.pid) for node in nodes)


def listens_on(node):
    sockets = psutil.Process(node.pid).net_connections("tcp")
    return {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nats-cluster", "did you mean nats_cluster"),
        ("redis_replicas", "did you mean redis_replica"),
        ("", r"known: single, redis_replica"),
    ],
)
async def test_an_unknown_name_gives_the_nearest(name, message, tmp_path):
    with pytest.raises(SettingError, match=message):
        await open_topology(name, tmp_path, Durability.LAZY)


@pytest.mark.parametrize("name", ["single", "redis_cluster"])
async def test_what_has_no_replicas_is_not_replicated(name, tmp_path):
    with pytest.raises(SettingError, match="has no replicas"):
        await open_topology(name, tmp_path, Durability.REPLICATED)


async def test_settings_that_fit_no_topology_are_refused(tmp_path):
    with pytest.raises(SettingError, match="no NATS cluster"):
        await open_topology("single", tmp_path, Durability.LAZY, addresses=ClusterAddresses())
    foreign = Resolved(kind="nats", origin=Origin.URL, url="nats://h:1")
    with pytest.raises(SettingError, match="not ours to start"):
        await open_topology(
            "nats_cluster",
            tmp_path,
            Durability.LAZY,
            redis=resolve_redis(env={"PATH": ""}),
            nats=foreign,
        )
    old = Resolved(kind="redis", origin=Origin.PATH, binary=tmp_path, version="6.2.1")
    with pytest.raises(SettingError, match="needs Redis 7"):
        await open_topology("redis_cluster", tmp_path, Durability.LAZY, redis=old)


# A master with a replica


async def wait_in_pipeline(client, key, values, wait_ms):
    """Lengths after LPUSH of each value, and how many replicas have them all."""
    pipeline = client.pipeline(transaction=False)
    for value in values:
        pipeline.lpush(key, value)
    pipeline.execute_command("WAIT", 1, wait_ms)
    *lengths, replicas = await pipeline.execute()
    return lengths, replicas


async def test_writes_acknowledged_while_replication_stood_still_are_gone(tmp_path):
    """Hazard R7."""
    async with opened("redis_replica", tmp_path) as topology:
        group, key = topology.redis, Names().pending_key("sync")
        old = await group.master()
        async with redis_of(topology.redis_url) as client:
            assert await wait_in_pipeline(client, key, [b"kept"], 5000) == ([1], 1)
            await group.pause_replication()
            acknowledged = await wait_in_pipeline(client, key, [b"lost-1", b"lost-2"], 200)
            assert acknowledged == ([2, 3], 0)
        async with redis_of(topology.redis_url) as fresh:
            # A connection that wrote nothing has nothing to wait for.
            assert await fresh.execute_command("WAIT", 1, 200) == 1
        old.kill()
        new = await group.promote()
        assert new is await group.master()
        assert new is not old
        async with redis_of(new.url) as client:
            assert await client.lrange(key, 0, -1) == [b"kept"]
            await group.rejoin(old)
            assert await wait_in_pipeline(client, key, [b"later"], 5000) == ([2], 1)
        assert await ask_node(old, "LRANGE", key, 0, -1) == [b"later", b"kept"]


async def test_replication_that_goes_on_loses_nothing(tmp_path):
    async with opened("redis_replica", tmp_path) as topology:
        group = topology.redis
        await group.pause_replication()
        async with redis_of(topology.redis_url) as client:
            assert await wait_in_pipeline(client, "a", [b"1"], 100) == ([1], 0)
            assert await ask_node(await group.replica(), "LLEN", "a") == 0
            await group.resume_replication()
            assert await wait_in_pipeline(client, "a", [b"2"], 5000) == ([2], 1)
        assert await ask_node(await group.replica(), "LLEN", "a") == 2


async def test_an_old_master_never_comes_back_as_one(tmp_path):
    async with opened("redis_replica", tmp_path) as topology:
        group = topology.redis
        first, second = group.nodes
        first.kill()
        with pytest.raises(BrokerUnreachableError, match="redis-1 silent, redis-2 replica"):
            await group.master()
        await group.promote()
        first.restart()
        assert (await group.roles())[first.name] == "replica"
        await group.wait_until_ready()
        assert await group.promote() is first  # and now back, with both alive
        await group.wait_until_ready()
        assert await group.replica() is second
        second.kill()
        second.restart()
        await group.wait_until_ready()
        assert await group.master() is first


async def test_a_master_that_was_paused_meanwhile_is_a_second_one(tmp_path):
    async with opened("redis_replica", tmp_path) as topology:
        group = topology.redis
        old, new = group.nodes
        await group.pause_replication()
        assert await ask_node(old, "LPUSH", "a", "held back") == 1
        old.pause()  # its connection to the replica stays, with what it sent
        await group.promote()
        old.resume()
        assert [await ask_node(node, "LLEN", "a") for node in group.nodes] == [1, 0]
        with pytest.raises(BrokerUnsuitableError, match="two Redis nodes are master"):
            await group.master()
        await group.rejoin(old)
        assert await group.master() is new
        with pytest.raises(BrokerUnsuitableError, match=r"redis-2 cannot follow redis-1"):
            await group.rejoin(new)


async def test_a_client_follows_the_master(tmp_path):
    """Demoted alive, killed, and with nobody left: the next command goes where the master is."""
    async with opened("redis_replica", tmp_path) as topology:
        group, key = topology.redis, "a"
        first, second = group.nodes
        async with redis_of(topology.redis_url) as client:
            await client.lpush(key, b"1")
            await group.wait_until_ready()
            assert await group.promote() is second
            with pytest.raises(ReadOnlyError):  # refused by the one that it is connected to
                await client.lpush(key, b"2")
            assert await client.lpush(key, b"2") == 2
            assert await ask_node(second, "LLEN", key) == 2
            await group.wait_until_ready()
            second.kill()
            with pytest.raises(RedisConnectionError):
                await client.lpush(key, b"3")  # the connection broke
            with pytest.raises(NeverSentError, match=f"{second.port} Error .*{first.port} slave"):
                await client.lpush(key, b"3")
            await group.promote()
            assert await client.lpush(key, b"3") == 3
            assert await ask_node(first, "LLEN", key) == 3
