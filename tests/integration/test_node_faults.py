"""Faults of nodes on real servers: a Redis with a replica, and three NATS nodes."""

import asyncio
import contextlib
import shutil
import types

import nats.errors
import pytest

from hookbench.clock import SystemClock
from hookbench.faults.memory import FaultMemory
from hookbench.faults.registry import parse_fault
from hookbench.faults.schedule import FaultSchedule
from hookbench.queues.jetstream import StreamSettings, ensure_consumer, ensure_stream
from hookbench.queues.transport import AppTransport
from hookbench.rehearsal.administration import RunAdministration
from hookbench.task import Names
from tests.conftest import eventually
from tests.fakes import MemoryRecorder
from tests.integration.topologies import NOT_STORED, opened, redis_of

pytestmark = [pytest.mark.timeout(90), pytest.mark.usefixtures("no_process_left")]


class Node:
    """A node as a process that a fault may be aimed at."""

    replaced = False

    def __init__(self, broker):
        self._broker = broker
        self.signal = broker.child.signal
        self.restart = broker.restart

    @property
    def pid(self):
        return self._broker.pid

    @property
    def exit_code(self):
        return self._broker.child.exit_code


class Targets:
    def __init__(self, topology):
        self.clock = SystemClock()
        self.memory = FaultMemory()
        stage = types.SimpleNamespace(
            names=Names(),
            redis=topology.redis,
            nodes=lambda broker: getattr(topology, broker).nodes,
        )
        self.administration = RunAdministration(stage, clock=self.clock)
        self.process = lambda name: Node(topology.node(name))

    async def resolve(self, target):
        return target


async def carry_out(topology, **table):
    """One fault from beginning to end; its record."""
    fault = parse_fault({"at_s": 0.0, **table}, "faults")
    targets = Targets(topology)
    schedule = FaultSchedule((fault,), targets, MemoryRecorder())
    await schedule.run(targets.clock.monotonic_ns())
    (record,) = schedule.records
    assert record.problem is None
    return record


async def test_leaders_step_down_and_a_cluster_loses_its_power(tmp_path):
    async with (
        opened("nats_cluster", tmp_path) as topology,
        await AppTransport.connect(topology.nats_url) as transport,
    ):
        await ensure_stream(transport, StreamSettings(replicas=3))
        await ensure_consumer(transport)
        await topology.nats.wait_until_current("HOOK_QUEUE")
        leader = (await topology.nats.stream_leader("HOOK_QUEUE")).port
        record = await carry_out(topology, kind="step_down", target="nats")
        now = (await topology.nats.stream_leader("HOOK_QUEUE")).port
        assert record.noted["leader"] == f"hookbench-{leader}, then hookbench-{now}"
        assert now != leader
        record = await carry_out(topology, kind="step_down", target="nats", of="consumer")
        former, _then, latter = record.noted["leader"].partition(", then ")
        assert former != latter

        await topology.nats.wait_until_current("HOOK_QUEUE")
        for number in range(20):
            await transport.publish("queue.hook.sync", b"before %d" % number)
        cut = {"kind": "power_cut", "target": "nats", "at_s": 4.2, "rollback_s": 4.0, "for_s": 0.2}
        running = asyncio.ensure_future(carry_out(topology, **cut))
        copies = "nats-before-cut-*/nats-3"
        await eventually(lambda: list(tmp_path.glob(copies)), what="copies")
        await eventually(lambda: published(transport, b"after"), what="a publish after the copy")
        record = await running
        await topology.nats.wait_until_current("HOOK_QUEUE")
        # Three replicas had acknowledged it, and it is gone: hazard N10.
        await eventually(lambda: messages(transport, 20), what="what there was before")
        assert float(record.noted["rolled back s"]) >= 4.0
        counted = record.noted["fsync calls in between"]
        assert counted.isdigit() == (shutil.which("strace") is not None), counted


async def published(transport, payload):
    with contextlib.suppress(*NOT_STORED):
        return (await transport.publish("queue.hook.sync", payload)).sequence > 20
    return False


async def messages(transport, number):
    with contextlib.suppress(nats.errors.Error, TimeoutError):
        return (await transport.jetstream.stream_info("HOOK_QUEUE")).state.messages == number
    return False


@pytest.mark.parametrize("kill_master", [False, True])
async def test_a_promotion_loses_what_the_replica_had_not_applied(
    tmp_path, monkeypatch, kill_master
):
    """Hazard R7."""
    async with opened("redis_replica", tmp_path) as topology:
        old, new = topology.redis.nodes
        paused, pause = asyncio.Event(), topology.redis.pause_replication

        async def pause_and_tell():
            await pause()
            paused.set()

        monkeypatch.setattr(topology.redis, "pause_replication", pause_and_tell)
        async with redis_of(old.url) as client:
            await client.lpush("kept", b"1")
            promote = {"target": "redis", "at_s": 3.0, "pause_s": 2.8, "for_s": 0.3}
            running = asyncio.ensure_future(
                carry_out(topology, kind="promote", kill_master=kill_master, **promote)
            )
            await asyncio.wait_for(paused.wait(), 10.0)
            assert await client.lpush("lost", b"1") == 1
            record = await running
        assert record.noted["promoted"] == "redis-2 in place of redis-1"
        assert int(record.noted["not applied bytes"]) > 0
        assert await topology.redis.roles() == {"redis-1": "replica", "redis-2": "master"}
        async with redis_of(new.url) as client:
            assert [await client.llen(key) for key in ("kept", "lost")] == [1, 0]
            await client.lpush("kept", b"2")
        async with redis_of(old.url) as client:
            await eventually(lambda: holds(client, "kept", 2), what="the old master following")
            assert await client.llen("lost") == 0


async def holds(client, key, number):
    return await client.llen(key) == number
