"""Whom a fault may be aimed at, by topology; no server is started."""

from types import SimpleNamespace

import pytest

from hookbench.brokers.durability import Durability
from hookbench.brokers.nats_cluster import NatsCluster
from hookbench.brokers.nats_nodes import SingleNats
from hookbench.brokers.redis_cluster import RedisCluster
from hookbench.brokers.redis_nodes import SingleRedis
from hookbench.brokers.redis_replica import RedisReplica
from hookbench.brokers.resolve import Origin, Resolved
from hookbench.errors import SettingError
from hookbench.faults.registry import parse_fault
from hookbench.rehearsal.links import cluster_addresses
from hookbench.rehearsal.roles import aims, find_node
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.rehearsal.stage import Stage
from hookbench.rehearsal.targets import check_targets
from hookbench.task import Names


def nodes(kind, count):
    names = [kind] if count == 1 else [f"{kind}-{number}" for number in range(1, count + 1)]
    return [
        SimpleNamespace(
            name=name,
            url=f"{kind}://127.0.0.1:{port}",
            port=port,
            command=[],
            durability=Durability.LAZY,
        )
        for port, name in enumerate(names, 1000)
    ]


def stage_of(topology):
    redis, nats = SingleRedis(*nodes("redis", 1)), SingleNats(*nodes("nats", 1))
    if topology in ("redis_replica", "replicated"):
        redis = RedisReplica(nodes("redis", 2), Durability.REPLICATED)
    if topology == "redis_cluster":
        redis = RedisCluster(nodes("redis", 3), Durability.LAZY)
    if topology in ("nats_cluster", "replicated"):
        nats = NatsCluster(nodes("nats", 3), Durability.REPLICATED)
    if topology == "foreign":
        nats = Resolved(kind="nats", origin=Origin.URL, url="nats://me:secret@a:1,nats://b:2")
    return Stage(redis, nats, Names(), [])


def check(topology, target, kind="kill", **more):
    fault = parse_fault({"kind": kind, "target": target, "at_s": 1.0, **more}, "faults")
    settings = RehearsalSettings(
        faults=(fault,), topology="single" if topology == "foreign" else topology
    )
    check_targets(settings.faults, settings, stage_of(topology))


@pytest.mark.parametrize(
    ("topology", "target"),
    [
        ("single", "redis"),
        ("single", "redis_master"),
        ("single", "stream_leader"),
        ("single", "meta_leader"),
        ("redis_replica", "redis-2"),
        ("redis_replica", "redis_replica"),
        ("redis_cluster", "redis-3"),
        ("redis_cluster", "redis_master"),
        ("nats_cluster", "nats-3"),
        ("replicated", "stream_leader"),
        ("replicated", "worker-1"),
        ("foreign", "redis"),
    ],
)
def test_a_target_that_there_is(topology, target):
    check(topology, target)


@pytest.mark.parametrize(
    ("topology", "target", "named"),
    [
        ("single", "redis_replica", r"did you mean 'redis_master'\?"),
        ("single", "nats-2", r"did you mean 'nats'\?"),
        ("redis_cluster", "redis_replica", "use redis-1, redis-2, redis-3, redis_master, nats"),
        ("nats_cluster", "nats", r"did you mean 'nats-\d'\?"),
        ("nats_cluster", "nats-4", r"did you mean 'nats-\d'\?"),
        ("replicated", "stream_leeder", r"did you mean 'stream_leader'\?"),
        ("replicated", "worker-9", r"did you mean 'worker-\d'\?"),
        ("foreign", "stream_leader", "this run did not start it"),
        ("foreign", "nats", "this run did not start it"),
        ("foreign", "nats-2", "this run did not start it"),
    ],
)
def test_a_target_that_there_is_not(topology, target, named):
    with pytest.raises(SettingError, match=named) as raised:
        check(topology, target)
    assert "secret" not in str(raised.value)


def test_a_link_that_cannot_go_through_a_proxy_is_refused():
    wire = {"kind": "wire", "action": "partition", "for_s": 1.0}
    check("redis_cluster", "workers-nats", **wire)
    check("redis_replica", "workers-redis", **wire)
    with pytest.raises(SettingError, match="lead around a proxy"):
        check("redis_cluster", "workers-redis", **wire)


@pytest.mark.parametrize(
    ("topology", "target", "named"),
    [
        ("single", "redis", "topology single has no connections between nodes of redis"),
        ("redis_replica", "stream_leader", "between nodes of nats that could be cut"),
        ("redis_cluster", "redis-1", "between nodes of redis that could be cut"),
        ("replicated", "worker-0", "no such target"),
        ("replicated", "nats", "no such target"),
    ],
)
def test_a_partition_needs_nodes_that_are_connected(topology, target, named):
    check("replicated", "stream_leader", kind="partition", for_s=1.0)
    check("redis_replica", "redis_replica", kind="partition", for_s=1.0)
    with pytest.raises(SettingError, match=named):
        check(topology, target, kind="partition", for_s=1.0)


def test_clients_of_a_cluster_behind_proxies_are_told_of_no_node():
    table = {"kind": "wire", "action": "partition", "for_s": 1.0, "at_s": 1.0}
    of_nats = (parse_fault({**table, "target": "workers-nats"}, "faults"),)
    of_redis = (parse_fault({**table, "target": "workers-redis"}, "faults"),)
    assert cluster_addresses(of_nats, "replicated").no_advertise
    assert cluster_addresses(of_nats, "single") is None
    assert cluster_addresses(of_redis, "replicated") is None


async def test_of_one_node_every_role_is_its_own_but_that_of_a_replica():
    stage = stage_of("single")
    assert aims(stage) == ["redis", "redis_master", "nats", "stream_leader", "meta_leader"]
    for role, name in (("redis_master", "redis"), ("stream_leader", "nats")):
        assert (await find_node(stage, role)).name == name
    with pytest.raises(SettingError, match="no Redis of this run has a replica"):
        await find_node(stage, "redis_replica")
