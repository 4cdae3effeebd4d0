"""Only the links that a fault is aimed at go through a proxy."""

import json
import types

import pytest

from hookbench.errors import FaultError
from hookbench.faults.process import Kill
from hookbench.faults.wire_fault import Wire
from hookbench.queues.redis_client import connect_redis
from hookbench.rehearsal.links import open_links

LINKS = [(role, broker) for role in ("producers", "workers") for broker in ("redis", "nats")]


@pytest.fixture
def stage(redis_broker, nats_broker):
    nodes = {
        "redis": [types.SimpleNamespace(name="redis", port=redis_broker.port)],
        "nats": [types.SimpleNamespace(name="nats", port=nats_broker.port)],
    }
    return types.SimpleNamespace(
        nodes=nodes.__getitem__, redis_url=redis_broker.url, nats_url=nats_broker.url
    )


async def test_a_link_without_a_fault_is_direct(stage, tmp_path, clock):
    direct = {"redis": stage.redis_url, "nats": stage.nats_url}
    wire = Wire(target="workers-redis", action="partition", at_s=1.0, for_s=1.0)
    kill = Kill(target="redis", at_s=1.0)
    links = await open_links((wire, kill), stage, tmp_path, clock=clock)
    try:
        assert [name for name, _pid in links.processes()] == ["proxy"]
        around = [link for link in LINKS if links.url(*link) == direct[link[1]]]
        assert around == [link for link in LINKS if link != ("workers", "redis")]
        client = connect_redis(links.url("workers", "redis"))
        try:
            assert await client.llen("nothing") == 0  # it leads to the same broker
        finally:
            await client.aclose()
    finally:
        await links.close()


async def test_without_a_fault_on_the_wire_there_is_no_proxy(stage, tmp_path, clock):
    links = await open_links((Kill(target="redis", at_s=1.0),), stage, tmp_path, clock=clock)
    assert links.processes() == []
    assert [links.url(*link) for link in LINKS] == [stage.redis_url, stage.nats_url] * 2
    await links.close()


async def test_what_a_rule_met_is_counted_and_can_be_kept(stage, tmp_path, clock):
    wires = [
        Wire(
            target="workers-redis", action="delay", direction="request", command="LLEN",
            nth=nth, at_s=1.0, delay_ms=1.0,
        )
        for nth in (2, 9)
    ]  # fmt: skip
    links = await open_links(tuple(wires), stage, tmp_path, clock=clock)
    path = tmp_path / "stats.json"
    try:
        met, waits = [await links.add(wire) for wire in wires]
        client = connect_redis(links.url("workers", "redis"))
        try:
            for _ in range(3):
                await client.llen("nothing")
        finally:
            await client.aclose()
        assert (await links.firings(met), await links.firings(waits)) == (1, 0)
        await links.keep_stats(path)
        with pytest.raises(FaultError, match="no rule 7; there are 2"):
            await links._running().firings([7])
    finally:
        await links.close()
    rules = json.loads(path.read_bytes())["rules"]
    assert [(rule["matches"], rule["firings"]) for rule in rules] == [(3, 1), (3, 0)]
