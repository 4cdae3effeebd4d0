"""Embedded brokers, and the rules for somebody else's."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest
import redis

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.ports import free_port
from hookbench.brokers.probe import (
    check_nats_unused,
    check_redis_unused,
    probe_nats,
    probe_redis,
)
from hookbench.brokers.process import is_stopped, spawn
from hookbench.brokers.resolve import Origin, Resolved, resolve_nats, resolve_redis
from hookbench.errors import (
    BrokerInUseError,
    BrokerNotFoundError,
    BrokerUnreachableError,
    BrokerUnsuitableError,
    PortTakenError,
    SettingError,
)
from hookbench.queues.jetstream import StreamSettings, ensure_stream
from hookbench.queues.transport import AppTransport
from hookbench.task import Names
from tests.conftest import eventually


@contextlib.contextmanager
def listener(answer):
    """Something on a loopback port that says ``answer`` to everybody."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        stop = threading.Event()

        def serve():
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            stop.set()
            thread.join()


def test_a_url_of_the_users_comes_first():
    env = {"HOOKBENCH_REDIS_URL": "redis://a", "HOOKBENCH_NATS_URL": "nats://b"}
    assert resolve_redis(env=env).url == "redis://a"
    assert resolve_redis("redis://c", env=env).url == "redis://c"
    assert resolve_nats(env=env).url == "nats://b"
    assert resolve_nats(env=env).origin is Origin.URL


def test_the_wheels_come_next():
    assert resolve_redis(env={"PATH": ""}).label.startswith("redis-server 8.2")
    assert resolve_nats(env={"PATH": ""}).label.startswith("nats-server 2.")
    assert resolve_redis(env={"PATH": ""}).origin is Origin.WHEEL


def test_then_the_path_then_an_error_that_helps(tmp_path, monkeypatch):
    monkeypatch.setattr("hookbench.brokers.resolve._falkordb_redis", lambda: None)
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    for name, resolve in (("redis-server", resolve_redis), ("nats-server", resolve_nats)):
        with pytest.raises(BrokerNotFoundError, match=r"pip install 'hookbench\[embedded\]'"):
            resolve(env={"PATH": str(tmp_path)})
        script = tmp_path / name
        script.write_text("#!/bin/sh\necho 'server v=9.8.7 x'\n")
        script.chmod(0o755)
        found = resolve(env={"PATH": str(tmp_path)})
        assert (found.origin, found.version) == (Origin.PATH, "9.8.7")
        script.write_text("#!/bin/sh\nexit 127\n")
        with pytest.raises(BrokerNotFoundError, match="does not run"):
            resolve(env={"PATH": str(tmp_path)})


def test_passwords_are_not_shown():
    resolved = Resolved(kind="redis", origin=Origin.URL, url="redis://me:secret@h:1")
    assert "secret" not in resolved.label


@pytest.mark.parametrize(
    ("durability", "appendonly", "appendfsync"),
    [
        (Durability.MEMORY, "no", None),
        (Durability.LAZY, "yes", "everysec"),
        (Durability.FSYNC, "yes", "always"),
    ],
)
def test_redis_has_the_durability_that_was_asked_for(tmp_path, durability, appendonly, appendfsync):
    broker = start_redis(resolve_redis(env={"PATH": ""}), tmp_path, durability)
    try:
        client = redis.Redis.from_url(broker.url)
        assert client.config_get("appendonly")["appendonly"] == appendonly
        assert client.config_get("save")["save"] == ""
        assert client.config_get("bind")["bind"] == "127.0.0.1"
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        assert b"graph" not in {module[b"name"] for module in client.module_list()}
        if appendfsync is not None:
            assert client.config_get("appendfsync")["appendfsync"] == appendfsync
        assert client.info("server")["process_id"] == broker.pid
        client.close()
    finally:
        broker.stop()
    assert not psutil.pid_exists(broker.pid)


@pytest.mark.parametrize("start", [start_redis, start_nats])
def test_one_server_cannot_be_replicated(tmp_path, start):
    resolve = resolve_redis if start is start_redis else resolve_nats
    with pytest.raises(SettingError, match="replicated: one server has no replica"):
        start(resolve(env={"PATH": ""}), tmp_path, Durability.REPLICATED)


@pytest.mark.parametrize("durability", [Durability.MEMORY, Durability.LAZY, Durability.FSYNC])
async def test_nats_has_the_durability_that_was_asked_for(tmp_path, durability):
    broker = start_nats(resolve_nats(env={"PATH": ""}), tmp_path, durability)
    try:
        text = (tmp_path / "nats.conf").read_text()
        wanted = "always" if durability is Durability.FSYNC else "1s"
        assert f"sync_interval: {wanted}" in text
        async with await AppTransport.connect(broker.url) as transport:
            info = await ensure_stream(transport, StreamSettings(storage=durability.stream_storage))
            expected = "memory" if durability is Durability.MEMORY else "file"
            assert info.config.storage == expected
    finally:
        broker.stop()


@pytest.mark.parametrize("start", [start_redis, start_nats])
def test_a_port_that_is_taken_is_named(tmp_path, start):
    resolve = resolve_redis if start is start_redis else resolve_nats
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(PortTakenError, match=str(server.getsockname()[1])),
    ):
        start(resolve(env={"PATH": ""}), tmp_path, Durability.LAZY, port=server.getsockname()[1])


@pytest.mark.parametrize("port", [0, 65536, -1])
def test_a_port_that_cannot_be_is_named(tmp_path, port):
    with pytest.raises(SettingError, match=str(port)):
        start_redis(resolve_redis(env={"PATH": ""}), tmp_path, Durability.LAZY, port=port)


def test_a_server_that_does_not_start_shows_its_log(tmp_path):
    script = tmp_path / "redis-server"
    script.write_text("#!/bin/sh\necho 'cannot do that' >&2\nexit 9\n")
    script.chmod(0o755)
    resolved = Resolved(kind="redis", origin=Origin.PATH, binary=script, version="1")
    with pytest.raises(BrokerUnreachableError, match=r"(?s)ended with 9.*cannot do that"):
        start_redis(resolved, tmp_path / "data", Durability.LAZY)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_brokers_end_with_their_parent(tmp_path, number):
    script = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        from hookbench.brokers.durability import Durability
        from hookbench.brokers.embedded import start_nats, start_redis
        from hookbench.brokers.resolve import resolve_nats, resolve_redis
        folder = Path({str(tmp_path)!r})
        a = start_redis(resolve_redis(env={{"PATH": ""}}), folder, Durability.LAZY)
        b = start_nats(resolve_nats(env={{"PATH": ""}}), folder, Durability.LAZY)
        print(a.pid, b.pid, flush=True)
        sys.stdin.read()
        """
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with parent:
        children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(children) == 2
        parent.send_signal(number)
        parent.wait(timeout=10)
        _gone, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []


async def test_a_broker_can_be_paused_killed_and_restarted(tmp_path):
    broker = start_redis(resolve_redis(env={"PATH": ""}), tmp_path, Durability.FSYNC)
    client = redis.Redis.from_url(broker.url, socket_timeout=0.3)
    try:
        client.set("kept", "1")
        broker.pause()
        with pytest.raises(redis.exceptions.TimeoutError):
            client.ping()
        broker.resume()
        await eventually(lambda: psutil.Process(broker.pid).status() != psutil.STATUS_STOPPED)
        broker.kill()
        with pytest.raises(redis.exceptions.ConnectionError):
            client.ping()
        broker.restart()
        assert client.get("kept") == b"1"
    finally:
        client.close()
        broker.stop()


async def test_probes_tell_version_and_limits(redis_broker, nats_broker):
    assert (await probe_redis(redis_broker.url)).version.startswith("8.2")
    info = await probe_nats(nats_broker.url)
    assert info.max_payload_bytes == 1024 * 1024


@pytest.mark.parametrize("probe", [probe_redis, probe_nats])
async def test_nobody_there_is_an_error_that_names_the_url(probe):
    scheme = "redis" if probe is probe_redis else "nats"
    url = f"{scheme}://127.0.0.1:{free_port()}"
    with pytest.raises(BrokerUnreachableError, match=url):
        await probe(url)


@pytest.mark.parametrize(
    ("probe", "url"),
    [
        (probe_redis, "http://127.0.0.1"),
        (probe_redis, "nonsense"),
        (probe_nats, "http://127.0.0.1"),
        (probe_nats, "nats://"),
    ],
)
async def test_what_is_no_url_is_an_error(probe, url):
    with pytest.raises(SettingError, match="URL"):
        await probe(url)


async def test_a_server_of_another_kind_is_an_error():
    with listener(b"220 mail.example.com ESMTP\r\n") as port:
        with pytest.raises(BrokerUnreachableError, match="no NATS server"):
            await probe_nats(f"nats://127.0.0.1:{port}")
        with pytest.raises(BrokerUnreachableError):
            await probe_redis(f"redis://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (b'INFO {"version":"2.1.9","jetstream":true}\r\n', "2.1.9 .* too old"),
        (b'INFO {"version":"2.15.1"}\r\n', "no JetStream"),
    ],
)
async def test_a_nats_that_cannot_be_used_is_named(info, message):
    with listener(info) as port, pytest.raises(BrokerUnsuitableError, match=message):
        await probe_nats(f"nats://127.0.0.1:{port}")


async def test_a_real_nats_without_jetstream_is_named():
    port = free_port()
    binary = resolve_nats(env={"PATH": ""}).binary
    server = spawn("nats", [binary, "-a", "127.0.0.1", "-p", str(port)])
    try:
        await eventually(lambda: _answers(port))
        with pytest.raises(BrokerUnsuitableError, match="start it with -js"):
            await probe_nats(f"nats://127.0.0.1:{port}")
    finally:
        server.stop()


def _answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


async def test_a_redis_that_is_too_old_is_named(redis_broker, monkeypatch):
    monkeypatch.setattr("hookbench.brokers.probe.MINIMUM_REDIS", (99, 0))
    with pytest.raises(BrokerUnsuitableError, match=r"Redis 8\.2.* is too old: BLMOVE needs 99\.0"):
        await probe_redis(redis_broker.url)


async def test_a_broker_that_holds_a_hook_queue_is_refused(redis_broker, nats_broker, names):
    client = redis.Redis.from_url(redis_broker.url)
    await check_redis_unused(redis_broker.url, names)
    client.lpush(names.pending_key("sync"), b"x")
    with pytest.raises(BrokerInUseError, match="already holds hook queue keys"):
        await check_redis_unused(redis_broker.url, names)
    assert client.llen(names.pending_key("sync")) == 1
    client.delete(names.pending_key("sync"))
    client.set("{hook}:sync", b"somebody's")
    try:
        with pytest.raises(BrokerInUseError, match="--allow-existing"):
            await check_redis_unused(redis_broker.url, Names.for_run("other"))
    finally:
        client.delete("{hook}:sync")
        client.close()
    async with await AppTransport.connect(nats_broker.url, names=names) as transport:
        await check_nats_unused(nats_broker.url, names)
        await ensure_stream(transport, StreamSettings(storage="memory"))
        with pytest.raises(BrokerInUseError, match=names.stream):
            await check_nats_unused(nats_broker.url, names)
        await transport.jetstream.delete_stream(names.stream)


def test_brokers_up_prints_urls_and_stops_with_everything(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "hookbench", "brokers", "up", "--data", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "HOOKBENCH_REDIS_URL": "redis://127.0.0.1:1"},
    )
    with process:
        lines = [process.stdout.readline() for _ in range(3)]
        assert lines[0].startswith("export HOOKBENCH_REDIS_URL=redis://127.0.0.1:")
        assert not lines[0].strip().endswith(":1")
        assert lines[1].startswith("export HOOKBENCH_NATS_URL=nats://127.0.0.1:")
        url = lines[0].strip().split("=", 1)[1]
        assert redis.Redis.from_url(url).ping()
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=15) == 0
    _gone, alive = psutil.wait_procs(children, timeout=5)
    assert len(children) >= 2
    assert alive == []


THREADS = """
import sys, threading
for _ in range(20):
    threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()
print("busy", flush=True)
threading.Event().wait(60)
"""


def test_a_paused_process_has_no_thread_that_goes_on(tmp_path):
    log = tmp_path / "log"
    with log.open("wb") as output:
        child = spawn("a) R 1", [sys.executable, "-c", THREADS], output=output)
    try:
        while not log.read_bytes():
            assert child.exit_code is None
        assert not is_stopped(child.pid)
        child.pause()
        process = psutil.Process(child.pid)
        spent = process.cpu_times()
        assert is_stopped(child.pid)
        assert process.num_threads() == 21
        time.sleep(0.2)
        assert process.cpu_times() == spent
        child.signal(signal.SIGCONT)
        assert not is_stopped(child.pid)
    finally:
        child.kill()
    assert not is_stopped(child.pid)
    child.pause()  # of one that has ended there is nothing to wait for


def test_a_process_that_is_not_stopped_by_sigstop_is_named(monkeypatch):
    child = spawn("deaf", [sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        monkeypatch.setattr("hookbench.brokers.process.is_stopped", lambda _pid: False)
        with pytest.raises(TimeoutError, match=rf"deaf \(pid {child.pid}\) goes on after SIGSTOP"):
            child.pause(timeout_s=0.1)
    finally:
        child.kill()
