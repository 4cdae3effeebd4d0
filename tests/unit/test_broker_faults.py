"""Faults of brokers on fakes that keep settings as the servers do; time is virtual."""

import copy

import pytest

from hookbench.brokers.resolve import Origin, Resolved
from hookbench.errors import SettingError
from hookbench.faults.registry import parse_fault
from hookbench.rehearsal.administration import check_needs
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.rehearsal.stage import Stage
from hookbench.rehearsal.targets import check_targets
from tests.fake_brokers import NAMES, maxmemory, nats, power_cut, promote

S = 1_000_000_000


async def test_memory_is_limited_on_every_node_and_the_former_limit_comes_back(rehearse, servers):
    servers.redis_nodes = ["redis-1", "redis-2"]
    servers.settings("redis-2")["maxmemory"] = "5000"
    (record,), seen = await rehearse(
        maxmemory(headroom_bytes=24, policy="allkeys-lru"), look=lambda: servers.config
    )
    assert record.problem is None
    full = {"maxmemory": "1024", "maxmemory-policy": "allkeys-lru"}
    assert seen == {"redis-1": full, "redis-2": full}
    assert [servers.settings(node)["maxmemory"] for node in servers.redis_nodes] == ["0", "5000"]
    assert servers.settings("redis-1")["maxmemory-policy"] == "noeviction"
    assert record.noted["redis-1 maxmemory_bytes"] == "1024"
    # Full nodes act at once: the policy is there before the limit, and stays until it is gone.
    one = [(name, value) for node, _set, name, value in servers.requests if node == "redis-1"]
    assert one == [
        ("maxmemory-policy", "allkeys-lru"),
        ("maxmemory", "1024"),
        ("maxmemory", "0"),
        ("maxmemory-policy", "noeviction"),
    ]


async def test_limits_of_the_stream_change_what_they_name_and_nothing_else(rehearse, servers):
    former = copy.deepcopy(servers.stream["config"])
    (record,), seen = await rehearse(
        nats("stream_limits", max_bytes=4096, max_msgs=7, max_age_s=60.0),
        look=lambda: servers.stream["config"],
    )
    assert record.problem is None
    # The server refuses a window that is longer than the age.
    wanted = {"max_bytes": 4096, "max_msgs": 7, "max_age": 60 * S, "duplicate_window": 60 * S}
    assert seen == former | wanted
    assert servers.stream["config"] == former
    assert record.noted == {"messages before": "500", "messages at its end": "500"}


async def test_limits_of_the_consumer_are_updated_in_place(rehearse, servers):
    former = copy.deepcopy(servers.consumer["config"])
    (record,), seen = await rehearse(
        nats("consumer_limits", ack_wait_s=0.5, max_deliver=-1, max_ack_pending=1),
        look=lambda: servers.consumer,
    )
    assert record.problem is None
    assert seen["config"] == {"ack_wait": S // 2, "max_deliver": -1, "max_ack_pending": 1}
    assert (seen["created"], servers.consumer["created"]) == ("1", "1")
    assert servers.consumer["config"] == former


class Meddler:
    """Somebody who deletes or makes the consumer right before a request, so many times."""

    def __init__(self, servers, monkeypatch, action, meddle, *, times=1, wait=0):
        self.servers, self.action, self.meddle = servers, action, meddle
        self.times, self.wait = times, wait
        self.create = servers.consumer_durable_create
        monkeypatch.setattr(servers, "consumer_durable_create", self)

    def __call__(self, body):
        if body["action"] == self.action and self.times:
            if self.wait:
                self.wait -= 1
            else:
                self.times -= 1
                self.meddle(self.servers)
        return self.create(body)


def deleted(servers):
    """By another fault, which makes it anew a moment later."""
    former = servers.consumer
    servers.consumer = None
    servers.comes_back = former


def made_by_a_worker(servers):
    theirs = {"config": {"max_deliver": 9}, "created": "7", "delivered": {"stream_seq": 0}}
    servers.consumer = theirs


@pytest.mark.parametrize("at", ["beginning", "end"])
async def test_limits_of_a_consumer_that_is_deleted_meanwhile_are_those_of_the_next_one(
    rehearse, servers, monkeypatch, at
):
    former = copy.deepcopy(servers.consumer["config"])
    Meddler(servers, monkeypatch, "update", deleted, wait=0 if at == "beginning" else 1)
    (record,), seen = await rehearse(
        nats("consumer_limits", ack_wait_s=0.5, for_s=3.0), look=lambda: servers.consumer, at_s=2.5
    )
    assert record.problem is None
    assert seen["config"]["ack_wait"] == S // 2
    assert servers.consumer["config"] == former


async def test_a_consumer_that_a_worker_makes_before_it_is_recreated_is_another_one(
    rehearse, servers, monkeypatch
):
    Meddler(servers, monkeypatch, "create", made_by_a_worker)
    (record,), seen = await rehearse(nats("recreate_consumer"), look=lambda: servers.consumer)
    assert record.problem is None
    assert seen["created"] == "7"
    assert record.noted == {"delivered before": "42", "made anew by": "a worker"}


@pytest.mark.parametrize("times", [1, 3, 1_000])
async def test_a_consumer_that_workers_make_when_it_is_deleted_is_deleted_as_well(
    rehearse, servers, monkeypatch, times
):
    delete, made = servers.consumer_delete, []

    def delete_and_make(body):
        answer = delete(body)
        if len(made) < times:
            made_by_a_worker(servers)
            made.append(servers.consumer)
        return answer

    monkeypatch.setattr(servers, "consumer_delete", delete_and_make)
    (record,), seen = await rehearse(nats("delete_consumer"), look=lambda: servers.consumer)
    if times == 1_000:
        assert "is there after 10 deletions" in record.problem
        return
    assert record.problem is None
    assert (seen, len(made)) == (None, times)


async def test_a_deleted_consumer_that_a_worker_makes_at_its_end_stays(
    rehearse, servers, monkeypatch
):
    Meddler(servers, monkeypatch, "create", made_by_a_worker)
    (record,), _seen = await rehearse(nats("delete_consumer"))
    assert record.problem is None
    assert servers.consumer["created"] == "7"
    assert record.noted["made anew by"] == "a worker, before its end"


@pytest.mark.parametrize("first_ends", [1.0, 3.0])
async def test_two_faults_of_one_setting_leave_what_was_before_both(rehearse, servers, first_ends):
    records, seen = await rehearse(
        nats("stream_limits", max_msgs=10, for_s=first_ends),
        nats("stream_limits", max_msgs=5, at_s=1.4, for_s=1.6),
        look=lambda: servers.stream["config"]["max_msgs"],
    )
    assert [record.problem for record in records] == [None, None]
    assert seen == 5
    assert servers.stream["config"]["max_msgs"] == -1


async def test_a_deleted_consumer_is_made_again_and_delivers_all(rehearse, servers):
    former = servers.consumer["config"]
    former |= {"deliver_policy": "by_start_sequence", "opt_start_seq": 7}
    (record,), seen = await rehearse(nats("delete_consumer"), look=lambda: servers.consumer)
    assert record.problem is None
    assert seen is None
    made = servers.consumer["config"]
    assert made.pop("deliver_policy") == "all"
    assert made == {"ack_wait": 30 * S, "max_deliver": 3, "max_ack_pending": 100}
    assert record.noted == {"delivered before": "42"}


async def test_a_consumer_that_a_worker_made_meanwhile_stays(rehearse, servers):
    theirs = {"config": {"max_deliver": 9}, "created": "7", "delivered": {"stream_seq": 0}}

    def worker_starts():
        servers.consumer = theirs

    (record,), _seen = await rehearse(nats("delete_consumer"), look=worker_starts)
    assert record.problem is None
    assert servers.consumer["created"] == "7"
    assert record.noted["made anew by"] == "a worker, before its end"


async def test_a_recreated_consumer_is_another_one(rehearse, servers):
    (record,), seen = await rehearse(nats("recreate_consumer"), look=lambda: servers.consumer)
    assert record.problem is None
    assert (seen["created"], seen["delivered"]["stream_seq"]) == ("2", 0)
    assert record.noted == {"delivered before": "42"}


@pytest.mark.parametrize("of", ["stream", "consumer"])
async def test_a_leader_that_steps_down_is_followed_by_another(rehearse, servers, of):
    (record,), _seen = await rehearse(nats("step_down", of=of))
    assert record.problem is None
    assert record.noted == {"leader": "n1, then n2"}
    other = servers.stream if of == "consumer" else servers.consumer
    assert other["cluster"]["leader"] == "n1"


async def test_a_leader_that_wins_again_is_asked_again(rehearse, servers):
    servers.wins_again = 2
    (record,), _seen = await rehearse(nats("step_down"))
    assert record.noted == {"leader": "n1, then n2"}
    assert servers.steps_down == 3


async def test_a_leader_that_stays_is_no_step_down(rehearse, servers):
    servers.next_leader = "n1"
    (record,), _seen = await rehearse(nats("step_down", within_s=2.0))
    assert record.problem == (
        "it did not fire: the leader of the stream was n1 and is n1 after 2 s"
    )


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (maxmemory(maxmemory_bytes=5), "maxmemory-policy is noeviction after CONFIG SET"),
        (nats("stream_limits", max_msgs=5), "max_msgs is -1, not 5"),
        (nats("consumer_limits", max_deliver=5), "max_deliver is 3, not 5"),
        (nats("delete_consumer"), "is there after its deletion"),
        (nats("recreate_consumer"), "is the one of 1 still"),
    ],
)
async def test_a_server_that_does_not_obey_is_seen(rehearse, servers, table, told):
    servers.deaf = True
    if table["kind"] == "maxmemory":
        table["policy"] = "allkeys-lfu"
    (record,), _seen = await rehearse(table)
    assert record.begin_ns is None
    assert told in record.problem


@pytest.mark.parametrize(
    "table",
    [
        nats("stream_limits", max_msgs=5),
        nats("consumer_limits", max_deliver=5),
        nats("delete_consumer"),
        nats("recreate_consumer"),
        nats("step_down"),
    ],
)
async def test_before_there_is_a_stream_nothing_fires(rehearse, servers, table):
    servers.stream = servers.consumer = None
    (record,), _seen = await rehearse(table)
    assert "did not fire: JetStream refused" in record.problem
    assert "use a later at_s" in record.problem


@pytest.mark.parametrize(
    ("table", "setting"),
    [
        (maxmemory(maxmemory_bytes=5), lambda servers: servers.config["redis"]["maxmemory"]),
        (nats("stream_limits", max_msgs=5), lambda servers: servers.stream["config"]["max_msgs"]),
        (nats("delete_consumer"), lambda servers: servers.consumer and "there"),
    ],
)
async def test_a_broker_that_is_away_at_the_end_is_healed_when_it_is_back(
    rehearse, servers, table, setting
):
    before = setting(servers) if table["kind"] != "maxmemory" else "0"

    def go_away():
        servers.unreachable = 20

    (record,), _seen = await rehearse(table, look=go_away)
    assert record.problem is None
    assert setting(servers) == before


async def test_a_broker_that_stays_away_is_said_not_to_be_healed(rehearse, servers):
    def go_away():
        servers.unreachable = 100_000

    (record,), _seen = await rehearse(maxmemory(maxmemory_bytes=5), look=go_away)
    assert record.problem == "it was not healed: down"


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (maxmemory(), "either maxmemory_bytes or headroom_bytes"),
        (maxmemory(maxmemory_bytes=5, headroom_bytes=5), "not both"),
        (maxmemory(maxmemory_bytes=0), "maxmemory_bytes 0: use 1 or more"),
        (maxmemory(maxmemory_bytes=5, policy="lru"), "policy 'lru': use one of noeviction"),
        (maxmemory(maxmemory_bytes=5, for_s=0.0), r"for_s 0\.0: use more than 0"),
        (maxmemory(maxmemory_bytes=5, target="nats"), "target 'nats': use redis"),
        (nats("stream_limits"), "no limit: give max_bytes, max_msgs"),
        (nats("stream_limits", max_msgs=0), "max_msgs 0: use 1 or more"),
        (nats("stream_limits", max_age_s=0.01), r"max_age_s 0\.01: use 0\.1 or more"),
        (
            nats("stream_limits", max_age_s=1.0, duplicate_window_s=2.0),
            r"use no more than max_age_s 1\.0",
        ),
        (nats("stream_limits", max_msgs=1, for_s=0.0), "use more than 0"),
        (nats("consumer_limits"), "no limit: give ack_wait_s"),
        (nats("consumer_limits", ack_wait_s=0.0), r"ack_wait_s 0\.0"),
        (nats("consumer_limits", max_deliver=0), "use 1 or more, or -1"),
        (nats("consumer_limits", max_ack_pending=0), "max_ack_pending 0"),
        (nats("delete_consumer", for_s=0.0), "or recreate_consumer"),
        (nats("recreate_consumer", for_s=1.0), "or use delete_consumer"),
        (nats("step_down", for_s=1.0), "leave it out"),
        (power_cut(target="worker-0"), "use redis or nats"),
        (power_cut(rollback_s=0.0), r"rollback_s 0\.0: use between 0\.1 and at_s 2\.0"),
        (power_cut(rollback_s=3.0), r"rollback_s 3\.0: use between"),
        (promote(target="nats"), "target 'nats': use redis"),
        (promote(pause_s=3.0), r"pause_s 3\.0: use between 0 and at_s 2\.0"),
        (nats("step_down", of="cluster"), "'cluster'"),
        *(
            (nats(kind, target="redis", **more), "target 'redis': use nats")
            for kind, more in (
                ("stream_limits", {"max_msgs": 1}),
                ("consumer_limits", {"max_deliver": 1}),
                ("delete_consumer", {}),
                ("recreate_consumer", {}),
                ("step_down", {}),
            )
        ),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_run(table, told):
    with pytest.raises(SettingError, match=told):
        parse_fault({"at_s": 1.0, **table}, "faults")


KINDS = [
    maxmemory(maxmemory_bytes=5),
    nats("stream_limits", max_msgs=5),
    nats("consumer_limits", max_deliver=5),
    nats("delete_consumer"),
    nats("recreate_consumer"),
    nats("step_down"),
    promote(),
    power_cut(),
    power_cut(target="redis"),
    *(
        {"kind": kind, "target": target}
        for kind in ("poison", "equal_payloads")
        for target in ("queue", "redis", "nats")
    ),
]


@pytest.mark.parametrize("table", KINDS, ids=lambda table: f"{table['kind']}-{table['target']}")
def test_a_broker_that_the_run_did_not_start_is_refused_before_anything_starts(table):
    theirs = Resolved(kind="redis", origin=Origin.URL, url="redis://10.0.0.1:6379")
    stage = Stage(theirs, theirs, NAMES, [])
    fault = parse_fault({"at_s": 1.0, **table}, "faults")
    with pytest.raises(SettingError, match=f"fault {fault.name}: .*this run did not start it"):
        check_targets((fault,), RehearsalSettings(), stage)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (nats("step_down"), "it needs 3 nodes of nats and this run has 1"),
        (promote(), "it needs 2 nodes of redis and this run has 1"),
    ],
)
def test_a_cluster_is_asked_for_where_one_node_is_not_enough(table, told):
    class OneNode:
        def nodes(self, broker):
            return [broker]

    fault = parse_fault({"at_s": 1.0, **table}, "faults")
    with pytest.raises(SettingError, match=told):
        check_needs(fault, OneNode())
