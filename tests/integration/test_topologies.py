"""Brokers of several nodes, with real servers: what they are, and what is left after a fault."""

import asyncio
import contextlib
from collections import Counter

import psutil
import pytest
import redis.asyncio as redis_asyncio

from hookbench.brokers.durability import Durability
from hookbench.brokers.nats_cluster import ClusterAddresses
from hookbench.brokers.readback import read_back_nats
from hookbench.brokers.redis_nodes import ask_node
from hookbench.brokers.resolve import Origin, Resolved, resolve_nats, resolve_redis
from hookbench.brokers.topology import TOPOLOGIES, open_topology
from hookbench.errors import (
    BrokerUnreachableError,
    BrokerUnsuitableError,
    ConfigDriftError,
    PublishRefusedError,
    PublishUnknownError,
    SettingError,
)
from hookbench.queues.base import Depth
from hookbench.queues.jetstream import (
    JetStreamQueue,
    StreamSettings,
    ensure_consumer,
    ensure_dead_stream,
    ensure_stream,
)
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.redis_list import RedisListQueue
from hookbench.queues.redis_stream import RedisStreamQueue
from hookbench.queues.transport import AppTransport
from hookbench.task import Names, decode_task, encode_task
from tests.conftest import eventually

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("no_process_left")]

NOT_STORED = (PublishRefusedError, PublishUnknownError)
REPLICATED_ONES = {"redis_replica", "nats_cluster", "replicated"}
ROLES = {
    "single": {"redis": "master", "nats": "leader"},
    "redis_replica": {"redis-1": "master", "redis-2": "replica", "nats": "leader"},
    "redis_cluster": dict.fromkeys(("redis-1", "redis-2", "redis-3"), "master")
    | {"nats": "leader"},
}


@contextlib.asynccontextmanager
async def opened(name, folder, durability=Durability.REPLICATED, **more):
    topology = await open_topology(
        name,
        folder,
        durability,
        redis=resolve_redis(env={"PATH": ""}),
        nats=resolve_nats(env={"PATH": ""}),
        **more,
    )
    try:
        yield topology
    finally:
        topology.stop()


@contextlib.asynccontextmanager
async def redis_of(url, **more):
    client = connect_redis(url, block_timeout_secs=0.5, **more)
    try:
        yield client
    finally:
        await client.aclose()


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
        old.pause()
        await group.promote()
        old.resume()
        with pytest.raises(BrokerUnsuitableError, match="two Redis nodes are master"):
            await group.master()
        await group.rejoin(old)
        assert await group.master() is new
        with pytest.raises(BrokerUnsuitableError, match=r"redis-2 cannot follow redis-1"):
            await group.rejoin(new)


# A Redis Cluster


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
        owner.pause()
        doubtful = make_task()
        with pytest.raises(PublishUnknownError):
            await queue.put(encode_task(doubtful))
        states = {"ok": 0, "fail": 2, "silent": 1}
        await eventually(lambda: has_states(group, states), what="a failed cluster")
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
        for _ in range(2):  # with the nodes known, and when they have to be found again
            with pytest.raises(PublishRefusedError):
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


# A NATS cluster


async def test_a_stream_survives_the_death_of_its_leader_three_times(tmp_path):
    async with (
        opened("nats_cluster", tmp_path) as topology,
        await AppTransport.connect(topology.nats_url) as transport,
    ):
        group, stream = topology.nats, transport.names.stream
        await ensure_stream(transport, topology.stream)
        acknowledged = {}
        stop = asyncio.Event()
        trickle = asyncio.ensure_future(publish_until(stop, transport, acknowledged))
        for _ in range(3):
            await progress(trickle, acknowledged)
            dead = await group.kill_leader(stream)
            assert await group.stream_leader(stream) is not dead
            assert (await topology.roles())[dead.name] == "silent"
            await progress(trickle, acknowledged)
            dead.restart()
            await group.wait_until_current(stream)
        await progress(trickle, acknowledged)
        stop.set()
        await trickle
        assert Counter(await ids_in(transport)) == Counter(acknowledged.keys())
        assert len(set(acknowledged.values())) == len(acknowledged)


async def publish_until(stop, transport, acknowledged):
    """One task after the other, each again with its id until it is acknowledged."""
    subject = transport.names.subject("sync")
    while not stop.is_set():
        msg_id = f"id-{len(acknowledged)}"
        while msg_id not in acknowledged:
            with contextlib.suppress(*NOT_STORED):
                ack = await transport.publish(subject, b"task", msg_id=msg_id)
                acknowledged[msg_id] = ack.sequence
            await asyncio.sleep(0.02)


async def progress(trickle, acknowledged):
    wanted = len(acknowledged) + 10

    def enough():
        assert not trickle.done(), trickle
        return len(acknowledged) >= wanted

    await eventually(enough, timeout_s=30.0, what="10 more acknowledged tasks")


async def ids_in(transport):
    jetstream, stream = transport.jetstream, transport.names.stream
    state = (await jetstream.stream_info(stream)).state
    messages = [
        await jetstream.get_msg(stream, sequence) for sequence in range(1, state.last_seq + 1)
    ]
    return [message.headers["Nats-Msg-Id"] for message in messages]


async def test_the_class_of_a_stream_with_replicas_is_read_back(tmp_path):
    async with (
        opened("nats_cluster", tmp_path) as topology,
        await AppTransport.connect(topology.nats_url) as transport,
    ):
        await ensure_stream(transport, topology.stream)
        dead = await ensure_dead_stream(transport, replicas=topology.stream.replicas)
        assert dead.config.num_replicas == 3
        with pytest.raises(ConfigDriftError, match="num_replicas: wanted 1, found 3"):
            await ensure_stream(transport, StreamSettings())
        with pytest.raises(ConfigDriftError, match="num_replicas"):
            await ensure_dead_stream(transport)
        for node in topology.nats.nodes:
            report = await read_back_nats(
                node.url, origin="test", monitor_url=node.monitor_url, names=Names()
            )
            assert report.durability == "replicated"
            assert report.configuration["cluster"] == "hookbench"
        assert topology.durabilities == {"redis": "lazy", "nats": "replicated"}


async def test_without_a_quorum_there_is_no_leader_and_with_one_again_there_is(tmp_path):
    async with (
        opened("nats_cluster", tmp_path) as topology,
        await AppTransport.connect(topology.nats_url) as transport,
    ):
        group, stream = topology.nats, transport.names.stream
        await ensure_stream(transport, topology.stream)
        await transport.publish(transport.names.subject("sync"), b"task", msg_id="id-0")
        leader = await group.stream_leader(stream)
        followers = [node for node in group.nodes if node is not leader]
        leader.pause()
        followers[0].kill()
        with pytest.raises(BrokerUnreachableError, match="leader of stream"):
            await group.stream_leader(stream, timeout_s=1.0)
        leader.resume()
        followers[0].restart()
        await group.wait_until_current(stream)
        assert await ids_in(transport) == ["id-0"]


def told_of(client):
    return {f"{url.hostname}:{url.port}" for url in client.discovered_servers}


@pytest.mark.parametrize("advertise", ["real", "none", "proxies"])
async def test_clients_are_told_of_no_address_but_the_allowed(advertise, tmp_path):
    addresses = {
        "real": ClusterAddresses(),
        "none": ClusterAddresses(no_advertise=True),
        "proxies": ClusterAddresses(client_address=lambda index, _port: f"127.0.0.1:{40 + index}"),
    }[advertise]
    async with opened("nats_cluster", tmp_path, addresses=addresses) as topology:
        real = {f"127.0.0.1:{node.port}" for node in topology.nats.nodes}
        proxies = {"127.0.0.1:40", "127.0.0.1:41", "127.0.0.1:42"}
        for node in topology.nats.nodes:
            async with await AppTransport.connect(node.url) as transport:
                told = told_of(transport.client)
                own = {f"127.0.0.1:{node.port}"}
                expected = {"real": real - own, "none": set(), "proxies": proxies}
                assert told == expected[advertise]


class Relays:
    """A relay for each pair of nodes and direction, which can be cut."""

    def __init__(self):
        self.cut = set()
        self.writers = {}
        self.tasks = []

    def url(self, origin, target, port):
        import socket

        listener = socket.create_server(("127.0.0.1", 0))

        async def relay(reader, writer):
            pair = frozenset((origin, target))
            if pair in self.cut:
                writer.close()
                return
            there, back = await asyncio.open_connection("127.0.0.1", port)
            self.writers.setdefault(pair, set()).update((writer, back))
            await asyncio.gather(pump(reader, back), pump(there, writer))

        self.tasks.append(asyncio.ensure_future(asyncio.start_server(relay, sock=listener)))
        return f"nats://127.0.0.1:{listener.getsockname()[1]}"

    def isolate(self, node):
        self.cut |= {frozenset((node, other)) for other in range(3) if other != node}
        for pair in self.cut:
            for writer in self.writers.pop(pair, ()):
                writer.close()

    async def close(self):
        for task in self.tasks:
            (await task).close()
        for writers in self.writers.values():
            for writer in writers:
                writer.close()
        await asyncio.sleep(0.1)


async def pump(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


def direct_connections(nodes):
    """Pairs of nodes with a connection whose ends are both theirs."""
    ends = {
        (socket.laddr.port, socket.raddr.port): node.name
        for node in nodes
        for socket in psutil.Process(node.pid).net_connections("tcp")
        if socket.raddr
    }
    return [(name, ends[far, near]) for (near, far), name in ends.items() if (far, near) in ends]


async def test_routes_go_through_what_stands_between_the_nodes(tmp_path):
    relays = Relays()
    addresses = ClusterAddresses(route_url=relays.url)
    async with opened("nats_cluster", tmp_path, addresses=addresses) as topology:
        group = topology.nats
        assert direct_connections(group.nodes) == []
        async with await AppTransport.connect(topology.nats_url) as transport:
            await ensure_stream(transport, topology.stream)
            stream = transport.names.stream
            leader = await group.stream_leader(stream)
            relays.isolate(group.nodes.index(leader))
            others = [node for node in group.nodes if node is not leader]
            async with await AppTransport.connect(others[0].url) as elsewhere:
                await eventually(
                    lambda: takes(elsewhere), timeout_s=30.0, what="a publish without the leader"
                )
            assert direct_connections(group.nodes) == []
            relays.cut.clear()
            await group.wait_until_current(stream)
            assert direct_connections(group.nodes) == []
            assert await ids_in(transport) == ["id-0"]
        await relays.close()


async def takes(transport):
    try:
        await transport.publish(transport.names.subject("sync"), b"task", msg_id="id-0")
    except NOT_STORED:
        return False
    return True
