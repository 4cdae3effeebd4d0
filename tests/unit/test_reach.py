"""Which broker a fault concerns, by its kind and target."""

import pytest

from hookbench.faults.registry import FAULTS
from hookbench.ledger.events import Broker
from hookbench.ledger.reach import Reach, reach_of

REDIS, NATS = frozenset({Broker.REDIS}), frozenset({Broker.NATS})


@pytest.mark.parametrize(
    ("target", "brokers"),
    [
        ("redis", REDIS),
        ("redis-1", REDIS),
        ("redis_master", REDIS),
        ("redis_replica", REDIS),
        ("nats", NATS),
        ("nats-2", NATS),
        ("stream_leader", NATS),
        ("workers-redis", REDIS),
        ("producers-nats", NATS),
        ("worker-0", frozenset()),
        ("producer-1", frozenset()),
        ("workers", frozenset()),
    ],
)
def test_the_broker_of_a_target(target, brokers):
    assert reach_of("kill", target).brokers == brokers


@pytest.mark.parametrize(
    ("kind", "target", "can"),
    [
        ("kill", "nats", "undoes loses"),
        ("restart", "nats", "undoes loses"),
        ("power_cut", "redis", "undoes loses"),
        ("promote", "redis", "undoes loses"),
        ("step_down", "nats", "undoes"),
        ("delete_consumer", "nats", "undoes"),
        ("recreate_consumer", "nats", "undoes"),
        ("maxmemory", "redis", "loses"),
        ("stream_limits", "nats", "loses"),
        ("consumer_limits", "nats", ""),
        ("pause", "nats", "holds"),
        ("pause", "stream_leader", "undoes holds"),
        ("pause", "nats-1", "undoes holds"),
        ("pause", "redis_master", "holds"),
        ("wire", "workers-nats", "holds"),
        ("wire", "producers-nats", ""),
        ("partition", "redis_replica", ""),
        ("partition", "redis-1", ""),
        ("partition", "stream_leader", "undoes holds"),
        ("partition", "nats-2", "undoes holds"),
        ("kill", "worker-0", ""),
        ("pause", "worker-0", ""),
        ("poison", "nats", ""),
    ],
)
def test_what_a_fault_can_do_to_a_broker(kind, target, can):
    reach = reach_of(kind, target)
    assert " ".join(name for name in ("undoes", "loses", "holds") if getattr(reach, name)) == can


def test_a_link_has_one_side():
    assert reach_of("wire", "workers-redis") == Reach(REDIS, puts=False, holds=True)
    assert reach_of("wire", "producers-redis") == Reach(REDIS, deliveries=False)
    assert not reach_of("kill", "worker-1").puts
    assert not reach_of("kill", "producer-1").deliveries


@pytest.mark.parametrize(
    "kind",
    [
        "kill",
        "pause",
        "restart",
        "rolling_restart",
        "kill_at_step",
        "wire",
        "partition",
        "power_cut",
        "promote",
        "step_down",
        "delete_consumer",
        "recreate_consumer",
        "maxmemory",
        "stream_limits",
        "slow_handler",
    ],
)
def test_the_kinds_that_are_told_apart_are_those_of_the_registry(kind):
    assert kind in FAULTS
