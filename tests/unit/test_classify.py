import pytest

from hookbench.brokers.classify import (
    REDIS_SETTINGS,
    BrokerReport,
    FoundDurability,
    changed_settings,
    classify_nats,
    classify_redis,
    name_durability,
    unlike_asked,
)
from hookbench.brokers.durability import Durability

REDIS = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory": "0",
    "maxmemory-policy": "noeviction",
}
NATS = {
    "stream.storage": "file",
    "stream.replicas": "1",
    "sync_interval_ns": "1000000000",
    "sync_always": "no",
}
SHIPPED_SAVE = "3600 1 300 100 60 10000"


def report(name="redis", durability=FoundDurability.LAZY, configuration=None, **more):
    configuration = REDIS if configuration is None else configuration
    return BrokerReport(
        name=name,
        version="1.2.3",
        origin="-",
        durability=durability,
        configuration=configuration,
        **more,
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "lazy"),
        ({"appendfsync": "always"}, "fsync"),
        ({"appendfsync": "no"}, "unlike"),
        ({"save": SHIPPED_SAVE}, "lazy"),
        ({"appendfsync": "always", "save": "60 1"}, "fsync"),
        ({"appendonly": "no"}, "memory"),
        ({"appendonly": "no", "appendfsync": "always"}, "memory"),
        ({"appendonly": "no", "save": SHIPPED_SAVE}, "as_shipped"),
        ({"appendonly": "no", "save": "60 1"}, "unlike"),
        ({"maxmemory": "1000000"}, "lazy"),
        ({"maxmemory": "1000000", "maxmemory-policy": "volatile-lru"}, "lazy"),
        ({"maxmemory": "1000000", "maxmemory-policy": "allkeys-lru"}, "unlike"),
        ({"maxmemory-policy": "allkeys-lru"}, "lazy"),
        ({"replication.role": "master", "replication.replicas": "0"}, "lazy"),
        ({"replication.role": "master", "replication.replicas": "1"}, "replicated"),
        ({"replication.role": "slave", "replication.link": "up"}, "replicated"),
        ({"replication.role": "slave", "replication.link": "down"}, "lazy"),
        ({"appendonly": "no", "replication.replicas": "1"}, "memory"),
        ({"appendfsync": "always", "replication.replicas": "1"}, "fsync"),
    ],
)
def test_every_class_of_redis(changes, expected):
    assert classify_redis({**REDIS, **changes}) == expected


@pytest.mark.parametrize("name", REDIS_SETTINGS)
def test_a_redis_that_tells_only_a_part_is_not_guessed_at(name):
    assert classify_redis({key: value for key, value in REDIS.items() if key != name}) == (
        "unreadable"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "lazy"),
        ({"sync_always": "yes", "sync_interval_ns": "120000000000"}, "fsync"),
        ({"sync_interval_ns": "120000000000"}, "as_shipped"),
        ({"sync_interval_ns": "10000000000"}, "unlike"),
        ({"stream.storage": "memory"}, "memory"),
        ({"stream.storage": "memory", "sync_always": "yes"}, "memory"),
        ({"stream.replicas": "3"}, "replicated"),
        ({"stream.replicas": "3", "sync_always": "yes"}, "unlike"),
        ({"stream.replicas": "3", "sync_interval_ns": "120000000000"}, "unlike"),
        ({"stream.replicas": "3", "stream.storage": "memory"}, "unlike"),
        ({"stream.replicas": "3", "sync_interval_ns": None}, "unreadable"),
        ({"stream.replicas": "2"}, "unlike"),
        ({"stream.persist_mode": "default"}, "lazy"),
        ({"stream.persist_mode": "async"}, "unlike"),
        ({"stream.storage": None, "stream": "none"}, "unused"),
        ({"stream.storage": None}, "unreadable"),
        ({"sync_interval_ns": None}, "unreadable"),
        ({"sync_always": None}, "unreadable"),
        ({"stream.storage": "memory", "sync_interval_ns": None, "sync_always": None}, "memory"),
    ],
)
def test_every_class_of_nats(changes, expected):
    settings = {key: value for key, value in {**NATS, **changes}.items() if value is not None}
    assert classify_nats(settings) == expected


def test_nothing_read_is_no_class():
    assert classify_redis({}) == classify_nats({}) == "unreadable"


def test_the_classes_that_can_be_asked_for_are_those_that_are_found():
    assert {str(item) for item in Durability} < {str(item) for item in FoundDurability}


@pytest.mark.parametrize(
    ("redis", "nats", "expected"),
    [
        ("lazy", "lazy", "lazy"),
        ("fsync", "unused", "fsync"),
        ("lazy", "as_shipped", "redis lazy, nats as_shipped"),
        ("unreadable", "unreadable", "unreadable"),
        ("memory", "unreadable", "redis memory, nats unreadable"),
    ],
)
def test_the_durability_of_a_run_names_every_broker_where_they_differ(redis, nats, expected):
    reports = [report("redis", FoundDurability(redis)), report("nats", FoundDurability(nats))]
    assert name_durability(reports) == expected


@pytest.mark.parametrize("asked", list(Durability))
def test_what_was_asked_for_and_found_gives_no_reason(asked):
    assert unlike_asked(report(durability=FoundDurability(asked)), asked) is None
    assert unlike_asked(report("nats", FoundDurability.UNUSED), asked) is None


def test_another_class_is_named_with_its_evidence():
    reason = unlike_asked(report(), Durability.FSYNC)
    assert reason is not None
    assert "redis: durability fsync was asked for and is lazy in fact" in reason
    assert "appendfsync everysec" in reason


def test_what_could_not_be_read_back_is_not_taken_on_trust():
    unread = report(durability=FoundDurability.UNREADABLE, configuration={}, problem="it is gone")
    reason = unlike_asked(unread, Durability.LAZY)
    assert reason == "redis: durability lazy could not be read back (it is gone)"


def test_a_changed_setting_is_named_and_a_new_one_is_none():
    before = report("nats", configuration={"stream": "none", "sync_always": "no"})
    after = report("nats", configuration={"stream.storage": "file", "sync_always": "yes"})
    assert changed_settings(before, after) == [
        "nats: sync_always changed during the run, 'no' before, 'yes' now"
    ]
    assert changed_settings(before, before) == []


def test_a_report_is_one_line_for_a_person():
    assert report("nats", configuration=NATS).line == (
        "nats 1.2.3: durability lazy, read back: sync_interval 1 s, sync_always no,"
        " stream.storage file, stream.replicas 1"
    )
    assert report(configuration={}, problem="not readable: NOPERM").line == (
        "redis 1.2.3: durability lazy, not readable: NOPERM"
    )
    assert "save off" in report().line


def test_the_nodes_of_a_broker_are_named_where_they_differ():
    replicated, lazy = FoundDurability.REPLICATED, FoundDurability.LAZY
    nodes = [report("redis-1", replicated), report("redis-2", replicated), report("nats", lazy)]
    assert name_durability(nodes) == "redis replicated, nats lazy"
    nodes[1] = report("redis-2", lazy)
    assert name_durability(nodes) == "redis-1 replicated, redis-2 lazy, nats lazy"
    assert name_durability(nodes[1:]) == "lazy"


def test_one_that_is_replicated_is_lazy_as_well_and_not_the_other_way_round():
    assert unlike_asked(report(durability=FoundDurability.REPLICATED), Durability.LAZY) is None
    assert unlike_asked(report(durability=FoundDurability.LAZY), Durability.REPLICATED)


def test_a_promotion_is_no_change_of_settings():
    master = report(configuration={**REDIS, "replication.role": "master"})
    replica = report(configuration={**REDIS, "replication.role": "slave"})
    assert changed_settings(master, replica) == []
