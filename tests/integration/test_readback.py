"""What brokers say of themselves, and a rehearsal whose brokers are not what was asked for."""

import contextlib
import socket

import msgspec
import psutil
import pytest
import redis
from rich.console import Console

from hookbench.brokers import embedded, readback
from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.nats_nodes import SingleNats
from hookbench.brokers.readback import check_monitor_url, read_back_nats, read_back_redis
from hookbench.brokers.redis_nodes import SingleRedis
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.errors import SettingError
from hookbench.migration.phases import Phase
from hookbench.queues.jetstream import (
    ConsumerSettings,
    StreamSettings,
    ensure_consumer,
    ensure_stream,
)
from hookbench.queues.transport import AppTransport
from hookbench.rehearsal.configured import compare_brokers, record_brokers
from hookbench.rehearsal.progress import open_progress
from hookbench.rehearsal.run import Rehearsal
from hookbench.rehearsal.settings import RehearsalSettings
from hookbench.rehearsal.stage import Stage
from hookbench.task import Names
from tests.conftest import eventually
from tests.unit.test_store import make_manifest

NOBODY = "127.0.0.1:1"


@contextlib.contextmanager
def running(folder, durability=Durability.LAZY):
    """A Redis and a NATS server of this test's own."""
    brokers = []
    try:
        brokers.append(start_redis(resolve_redis(env={"PATH": ""}), folder, durability))
        brokers.append(start_nats(resolve_nats(env={"PATH": ""}), folder, durability))
        yield brokers
    finally:
        for broker in brokers:
            broker.stop()


async def make_stream(url, names, *, storage):
    async with await AppTransport.connect(url, names=names) as transport:
        await ensure_stream(transport, StreamSettings(storage=storage, max_age_s=3600.0))
        await ensure_consumer(transport, ConsumerSettings(max_ack_pending=7))


@pytest.mark.parametrize("durability", [Durability.MEMORY, Durability.LAZY, Durability.FSYNC])
async def test_embedded_brokers_are_of_the_class_that_was_asked_for(tmp_path, durability):
    with running(tmp_path, durability) as (redis_broker, nats_broker):
        stage = Stage(SingleRedis(redis_broker), SingleNats(nats_broker), Names(), [])
        of_redis, of_nats = await stage.read_back()
        assert (of_redis.problem, of_nats.problem) == (None, None)
        assert of_redis.durability == durability
        assert of_redis.version.startswith("8.2")
        assert of_redis.origin == redis_broker.resolved.label
        assert of_nats.durability == "unused"
        assert of_nats.configuration["stream"] == "none"
        assert of_nats.version == nats_broker.resolved.version
        await make_stream(nats_broker.url, Names(), storage=durability.stream_storage)
        _of_redis, of_nats = await stage.read_back()
    assert of_nats.durability == durability
    found = of_nats.configuration
    assert found["sync_always"] == ("yes" if durability is Durability.FSYNC else "no")
    assert found["stream.storage"] == durability.stream_storage
    assert found["stream.max_age_ns"] == str(3600 * 10**9)
    assert found["stream.duplicate_window_ns"] == str(120 * 10**9)
    assert found["consumer.ack_wait_ns"] == str(30 * 10**9)
    assert (found["consumer.max_deliver"], found["consumer.max_ack_pending"]) == ("3", "7")
    assert (found["max_payload_bytes"], found["cluster"]) == ("1048576", "none")
    assert stage.asked_durability() == {"redis": durability, "nats": durability}


async def test_the_brokers_counters_grow(tmp_path):
    with running(tmp_path, Durability.MEMORY) as (redis_broker, nats_broker):
        stage = Stage(SingleRedis(redis_broker), SingleNats(nats_broker), Names(), [])
        before = await stage.read_back()
        client = redis.Redis.from_url(redis_broker.url)
        client.set("key", b"x" * 5000)
        client.close()
        await make_stream(nats_broker.url, Names(), storage="memory")
        after = await stage.read_back()
    for first, second, name in zip(
        before, after, ("total_net_input_bytes", "in_bytes"), strict=True
    ):
        assert second.counters[name] > first.counters[name]
    grown = after[0].counters["total_net_input_bytes"] - before[0].counters["total_net_input_bytes"]
    assert grown > 5000


async def test_a_redis_whose_config_is_forbidden_says_so(redis_broker, names):
    user = names.prefix.strip("{}").replace(":", "-")
    admin = redis.Redis.from_url(redis_broker.url)
    admin.execute_command("ACL", "SETUSER", user, "on", ">pw", "~*", "+@all", "-config")
    try:
        url = redis_broker.url.replace("//", f"//{user}:pw@")
        report = await read_back_redis(url, origin="-")
    finally:
        admin.execute_command("ACL", "DELUSER", user)
        admin.close()
    assert report.durability == "unreadable"
    assert "no permissions" in report.problem
    assert "config" in report.problem
    assert report.configuration == {}
    assert report.version.startswith("8.2")


async def test_nobody_there_is_a_report_that_says_so():
    of_redis = await read_back_redis(f"redis://{NOBODY}", origin="-")
    of_nats = await read_back_nats(
        f"nats://{NOBODY}", origin="-", monitor_url=f"http://{NOBODY}", names=Names()
    )
    for report in (of_redis, of_nats):
        assert (report.version, report.durability) == ("-", "unreadable")
        assert report.problem.startswith("not readable: ")
    assert f"http://{NOBODY} does not answer" in of_nats.problem


async def test_paused_brokers_do_not_hold_up_the_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(readback, "READ_TIMEOUT_S", 0.3)
    monkeypatch.setattr("hookbench.brokers.probe.PROBE_TIMEOUT_S", 0.3)
    with running(tmp_path) as (redis_broker, nats_broker):
        stage = Stage(SingleRedis(redis_broker), SingleNats(nats_broker), Names(), [])
        try:
            for broker in (redis_broker, nats_broker):
                broker.pause()
                process = psutil.Process(broker.pid)
                await eventually(lambda process=process: process.status() == psutil.STATUS_STOPPED)
            of_redis, of_nats = await stage.read_back()
        finally:
            redis_broker.resume()
            nats_broker.resume()
    assert of_redis.durability == of_nats.durability == "unreadable"
    assert of_redis.problem
    assert "sync settings not readable" in of_nats.problem


async def test_without_a_monitoring_url_only_the_sync_settings_are_missing(nats_broker, names):
    await make_stream(nats_broker.url, names, storage="file")
    report = await read_back_nats(nats_broker.url, origin="-", monitor_url=None, names=names)
    assert report.durability == "unreadable"
    assert report.configuration["stream.storage"] == "file"
    assert "sync_interval_ns" not in report.configuration
    assert "--nats-monitor-url" in report.problem
    async with await AppTransport.connect(nats_broker.url, names=names) as transport:
        await transport.jetstream.delete_stream(names.stream)


async def test_the_monitoring_of_another_server_is_not_believed(nats_broker, tmp_path):
    other = start_nats(resolve_nats(env={"PATH": ""}), tmp_path, Durability.FSYNC)
    try:
        report = await read_back_nats(
            nats_broker.url, origin="-", monitor_url=other.monitor_url, names=Names()
        )
    finally:
        other.stop()
    assert "is the monitoring of another server" in report.problem
    assert "sync_always" not in report.configuration


async def test_what_is_no_monitoring_is_named(nats_broker, redis_broker):
    for url in (nats_broker.url, redis_broker.url):
        monitor_url = f"http://{url.split('//')[1]}"
        report = await read_back_nats(
            nats_broker.url, origin="-", monitor_url=monitor_url, names=Names()
        )
        assert f"sync settings not readable: {monitor_url}" in report.problem


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1:8222", "http://h:port", "http://"])
def test_a_monitoring_url_that_is_none_is_named(url):
    with pytest.raises(SettingError, match="NATS monitoring URL"):
        check_monitor_url(url)


def test_a_monitoring_port_that_is_taken_in_between_costs_one_more_try(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        for wanted in (None, embedded.free_port()):
            ports = [taken, embedded.free_port()]
            if wanted is None:
                ports = [embedded.free_port(), taken, *(embedded.free_port() for _ in range(2))]
            queue = list(ports)
            monkeypatch.setattr(embedded, "free_port", lambda queue=queue: queue.pop(0))
            broker = start_nats(
                resolve_nats(env={"PATH": ""}), tmp_path, Durability.MEMORY, port=wanted
            )
            broker.stop()
            monkeypatch.undo()
            assert broker.monitor_port == ports[-1]
            assert queue == []


async def test_a_setting_that_is_changed_during_a_run_is_a_reason(tmp_path):
    with running(tmp_path) as (redis_broker, nats_broker):
        stage = Stage(SingleRedis(redis_broker), SingleNats(nats_broker), Names(), [])
        manifest = make_manifest()
        await record_brokers(manifest, stage)
        assert [item.durability for item in manifest.broker_reports] == ["lazy", "unused"]
        assert await compare_brokers(manifest, stage) == []
        assert manifest.durability == "lazy"
        client = redis.Redis.from_url(redis_broker.url)
        client.config_set("appendfsync", "always")
        client.close()
        changed, unlike = await compare_brokers(manifest, stage)
        assert changed == (
            "redis: appendfsync changed during the run, 'everysec' before, 'always' now"
        )
        assert unlike.startswith("redis: durability lazy was asked for and is fsync in fact")
        assert manifest.durability == "fsync"


async def test_a_broker_that_is_gone_at_the_end_keeps_what_it_said(tmp_path):
    with running(tmp_path) as (redis_broker, nats_broker):
        stage = Stage(SingleRedis(redis_broker), SingleNats(nats_broker), Names(), [])
        manifest = make_manifest()
        await record_brokers(manifest, stage)
        redis_broker.kill()
        (reason,) = await compare_brokers(manifest, stage)
    assert reason.startswith("redis: durability lazy could not be read back (not readable: ")
    of_redis = manifest.broker_reports[0]
    assert of_redis.version.startswith("8.2")
    assert of_redis.configuration["appendfsync"] == "everysec"
    assert of_redis.durability == "unreadable"


async def test_a_rehearsal_on_another_durability_than_asked_for_is_unknown(
    tmp_path, monkeypatch, clock
):
    def start_in_memory(resolved, folder, durability):
        broker = start_redis(resolved, folder, Durability.MEMORY)
        return msgspec.structs.replace(broker, durability=durability)

    monkeypatch.setattr("hookbench.brokers.topology.start_redis", start_in_memory)
    rehearsal = Rehearsal(
        RehearsalSettings(
            phases=(Phase.REDIS_ONLY,),
            phase_seconds=1.0,
            rate_per_s=50.0,
            producers=1,
            workers=1,
            repositories=1,
            durability=Durability.LAZY,
            out=tmp_path,
        ),
        clock=clock,
        teller=open_progress(Console(quiet=True), clock),
    )
    _folder, manifest = await rehearsal.run()
    assert manifest.status == "complete"
    assert [row.verdict for row in manifest.account.rows] == ["valid"]
    (reason,) = manifest.unknown_because
    assert reason.startswith("redis: durability lazy was asked for and is memory in fact")
    assert manifest.verdict == "unknown"
    assert manifest.durability == "memory"
