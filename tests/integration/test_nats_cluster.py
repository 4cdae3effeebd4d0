"""A NATS cluster: leaders that die, a quorum that is gone, and who is told of which address."""

import asyncio
import contextlib
import re
import socket
from collections import Counter

import pytest

from hookbench.brokers import nats_cluster
from hookbench.brokers.nats_cluster import ClusterAddresses
from hookbench.brokers.nats_nodes import meta_state
from hookbench.brokers.ports import free_port
from hookbench.brokers.readback import read_back_nats
from hookbench.errors import BrokerUnreachableError, ConfigDriftError
from hookbench.queues.jetstream import StreamSettings, ensure_dead_stream, ensure_stream
from hookbench.queues.transport import AppTransport
from hookbench.task import Names
from tests.conftest import eventually
from tests.integration.topologies import NOT_STORED, opened

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("no_process_left")]


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


async def test_a_start_that_lost_a_port_leaves_no_node_behind_in_the_cluster(tmp_path, monkeypatch):
    """All are started anew with other ports, and so with other names."""
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        ports = [free_port() for _ in range(8)] + [somebody.getsockname()[1]]  # routes of the last
        given = iter(ports)
        monkeypatch.setattr(nats_cluster, "free_port", lambda: next(given, None) or free_port())
        async with opened("nats_cluster", tmp_path) as topology:
            assert not {node.port for node in topology.nats.nodes} & set(ports)
            for node in topology.nats.nodes:
                assert (await meta_state(node))["cluster_size"] == 3


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
            assert report.configuration["cluster"].startswith("hookbench-")
        assert topology.durabilities == {"redis": "lazy", "nats": "replicated"}


async def test_without_a_quorum_there_is_no_leader_and_with_one_again_there_is(
    tmp_path, monkeypatch
):
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
        # A client is given the paused node first, and gets by without it.
        monkeypatch.setattr("nats.aio.client.shuffle", lambda _servers: None)
        urls = [leader.url, *(node.url for node in followers)]
        async with await AppTransport.connect(",".join(urls)) as other:
            assert other.client.connected_url.port == followers[0].port
        followers[0].kill()
        with pytest.raises(BrokerUnreachableError, match="leader of stream"):
            await group.stream_leader(stream, timeout_s=1.0)
        leader.resume()
        followers[0].restart()
        await group.wait_until_current(stream)
        assert await ids_in(transport) == ["id-0"]


async def test_a_node_of_another_cluster_is_turned_away(tmp_path):
    """Its routes lead to a port that was somebody else's before."""
    async with opened("nats_cluster", tmp_path / "one") as one:
        text = (tmp_path / "one" / "nats-2.conf").read_text()
        ours = re.search(r'listen: "127\.0\.0\.1:(\d+)"\n  routes', text)[1]

        def astray(source, target, port):
            return f"nats://127.0.0.1:{ours if (source, target) == (0, 1) else port}"

        addresses = ClusterAddresses(route_url=astray)
        async with opened("nats_cluster", tmp_path / "other", addresses=addresses) as other:
            log = tmp_path / "one" / "nats-2.log"
            await eventually(lambda: "does not match" in log.read_text(), what="the refusal")
            for topology in (one, other):
                await topology.nats.wait_until_ready()


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
