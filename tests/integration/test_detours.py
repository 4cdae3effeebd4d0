"""Nodes that reach each other through proxies only, and a node that is cut off."""

import asyncio
import contextlib

import psutil
import pytest

from hookbench.brokers.durability import Durability
from hookbench.brokers.nats_nodes import ask_node as ask_nats
from hookbench.brokers.redis_nodes import ask_node as ask_redis
from hookbench.errors import BrokerUnreachableError, FaultError
from hookbench.faults.partition import Partition
from hookbench.queues.jetstream import ensure_stream
from hookbench.queues.transport import AppTransport
from hookbench.rehearsal.detours import Detours
from hookbench.rehearsal.stage import open_stage
from tests.conftest import eventually
from tests.integration.topologies import NOT_STORED

pytestmark = [pytest.mark.timeout(90), pytest.mark.usefixtures("no_process_left")]


@contextlib.asynccontextmanager
async def staged(topology, faults, folder, clock):
    (folder / "logs").mkdir()
    detours = Detours(faults, topology)
    try:
        opening = asyncio.ensure_future(
            open_stage(
                None,
                None,
                folder=folder,
                durability=Durability.REPLICATED,
                own_names=True,
                allow_existing=False,
                run="detours",
                topology=topology,
                addresses=detours.addresses,
                replication=detours.replication,
            )
        )
        stage = await detours.start(opening, folder / "logs", clock=clock)
        try:
            yield stage, detours
        finally:
            stage.close()
    finally:
        await detours.close()


def direct_connections(nodes):
    """Pairs of nodes with a connection whose ends are both theirs."""
    ends = {
        (end.laddr.port, end.raddr.port): node.name
        for node in nodes
        for end in psutil.Process(node.pid).net_connections("tcp")
        if end.raddr
    }
    return [(name, ends[far, near]) for (near, far), name in ends.items() if (far, near) in ends]


async def lost_something(detours, number):
    return await detours.firings(number) > 0


async def test_a_replica_that_is_cut_off_lags_behind_and_catches_up(tmp_path, clock):
    fault = Partition(target="redis-2", at_s=1.0, for_s=1.0)
    async with staged("redis_replica", (fault,), tmp_path, clock) as (stage, detours):
        first, second = stage.nodes("redis")
        assert direct_connections([first, second]) == []
        assert [name for name, _pid in detours.processes()] == ["proxy-redis"]
        number = await detours.add(fault)
        assert await ask_redis(first, "LPUSH", "a", "1") == 1
        await eventually(lambda: lost_something(detours, number), what="bytes that got lost")
        assert await ask_redis(second, "LLEN", "a") == 0
        await detours.remove(fault)
        await stage.wait_until_ready()
        assert await ask_redis(second, "LLEN", "a") == 1
        # And the other way round, through the other link.
        assert await stage.redis.promote() is second
        await stage.wait_until_ready()
        number = await detours.add(fault)
        assert await ask_redis(second, "LPUSH", "a", "2") == 2
        await eventually(lambda: lost_something(detours, number), what="bytes that got lost")
        assert await ask_redis(first, "LLEN", "a") == 1
        await detours.remove(fault)
        await stage.wait_until_ready()
        assert await ask_redis(first, "LLEN", "a") == 2
        assert direct_connections([first, second]) == []


async def leader_of(node, stream):
    """Who leads the stream in the eyes of one node; ``None`` if nobody does."""
    with contextlib.suppress(BrokerUnreachableError):
        info = await ask_nats(node, f"$JS.API.STREAM.INFO.{stream}")
        return (info.get("cluster") or {}).get("leader")
    return None


async def test_a_leader_that_is_cut_off_is_replaced_and_comes_back(tmp_path, clock):
    faults = tuple(
        Partition(target=f"nats-{number}", at_s=1.0, for_s=1.0) for number in range(1, 4)
    )
    async with staged("nats_cluster", faults, tmp_path, clock) as (stage, detours):
        group, stream = stage.nats, stage.names.stream
        assert direct_connections(group.nodes) == []
        async with await AppTransport.connect(stage.nats_url) as transport:
            await ensure_stream(transport, stage.stream)
        old = await group.stream_leader(stream)
        others = [node for node in group.nodes if node is not old]
        fault = faults[group.nodes.index(old)]
        number = await detours.add(fault)
        async with await AppTransport.connect(others[0].url, names=stage.names) as transport:

            async def takes():
                try:
                    await transport.publish(stage.names.subject("sync"), b"task", msg_id="1")
                except NOT_STORED:
                    return False
                return True

            await eventually(takes, timeout_s=30.0, what="a publish without the old leader")
            assert await leader_of(others[0], stream) in [
                f"hookbench-{node.port}" for node in others
            ]
            assert await lost_something(detours, number)
            assert direct_connections(group.nodes) == []
            await detours.remove(fault)

            # The one that was cut off takes itself for the leader until it hears of another.
            async def agree():
                leaders = {await leader_of(node, stream) for node in group.nodes}
                return len(leaders) == 1 and None not in leaders

            await eventually(agree, timeout_s=30.0, what="one leader in the eyes of all nodes")
            await group.wait_until_current(stream)
            info = await transport.jetstream.stream_info(stream)
            assert info.state.messages == 1
        assert direct_connections(group.nodes) == []


async def test_without_a_partition_there_is_no_detour(tmp_path, clock):
    async with staged("redis_replica", (), tmp_path, clock) as (stage, detours):
        assert detours.processes() == []
        assert len(direct_connections(stage.nodes("redis"))) > 0
        with pytest.raises(FaultError, match="no connection between these nodes"):
            await detours.add(Partition(target="redis-2", at_s=1.0, for_s=1.0))
