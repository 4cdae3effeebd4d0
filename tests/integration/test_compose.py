"""docker-compose.yml without a Docker engine: what it says, and its command lines really started.

The commands run as they stand in the file, with local binaries. Only what must differ outside of
a container is rewritten, and each rewritten piece must be there exactly once: the file cannot
change its shape without a change here.
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import nats_configuration, redis_arguments
from hookbench.brokers.ports import free_port
from hookbench.brokers.probe import probe_nats, probe_redis
from hookbench.brokers.process import Child, spawn
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.clock import NS_PER_S, SystemClock
from hookbench.migration.phases import parse_phase
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import StreamSettings, ensure_stream
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.transport import AppTransport
from hookbench.task import Names
from tests.conftest import eventually

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
BROKERS = ("redis", "nats")
OURS = ("worker", "locust", "locust-master", "locust-worker", "jupyterlab")
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0


class Server(NamedTuple):
    port: int
    command: list[str]
    child: Child
    http_port: int = 0


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


@pytest.fixture(scope="module")
def services(compose):
    return compose["services"]


@pytest.fixture(scope="module")
def dockerfile():
    """The instructions, as pairs of word and rest."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [tuple(line.split(maxsplit=1)) for line in lines if line and not line.startswith("#")]


# Rewriting


def command_of(service):
    """The command with ``${NAME:-default}`` replaced by its default, as Compose does."""
    command = [re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", str(token)) for token in service["command"]]
    assert not any("$" in token for token in command)
    return command


def replace_tokens(command, old, new):
    places = [
        place for place in range(len(command)) if command[place : place + len(old)] == list(old)
    ]
    assert len(places) == 1, f"{old} stands {len(places)} times in {command}"
    return [*command[: places[0]], *map(str, new), *command[places[0] + len(old) :]]


def replace_text(text, old, new):
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in\n{text}"
    return text.replace(old, new)


def replace_program(command, name, program):
    assert command[0] == name
    return [str(program), *command[1:]]


def script(name):
    """A command of the environment that runs the tests."""
    return Path(sys.executable).with_name(name)


def mounts(service):
    """Target to source of each volume."""
    pairs = [volume.split(":") for volume in service["volumes"]]
    return {target: source for source, target, *_mode in pairs}


def settings_of(configuration):
    lines = [line.strip() for line in configuration.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


# Starting


def plain_environment(**changes):
    """This process's environment without what would steer the tools, and with ``changes``."""
    steering = ("HOOKBENCH_", "LOCUST_", "JUPYTER", "IPYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    return {**kept, **changes}


@contextlib.contextmanager
def running(name, command, log, *, env=None):
    with log.open("wb") as output:
        child = spawn(name, command, output=output, env=env or plain_environment())
    try:
        yield child
    finally:
        child.stop()


def wait_until(condition, child, log, timeout_s=START_TIMEOUT_S):
    clock = SystemClock()
    deadline_ns = clock.monotonic_ns() + int(timeout_s * NS_PER_S)
    while not condition():
        assert child.exit_code is None, f"ended with {child.exit_code}:\n{log.read_text()}"
        assert clock.monotonic_ns() < deadline_ns, f"not up:\n{log.read_text()}"
        clock.block(0.02)


def get(port, path):
    """HTTP status and body, status 0 while nothing answers."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", path)
        with connection.getresponse() as response:
            return response.status, response.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def status_of(port, path="/"):
    return get(port, path)[0]


def stop(child, log, *, early=False):
    """SIGTERM; ``early``: perhaps before Locust listens to it."""
    child.signal(signal.SIGTERM)
    code = child.wait(STOP_TIMEOUT_S)
    assert code == 0 or (early and code == 128 + signal.SIGTERM), (
        f"ended with {code} after SIGTERM:\n{log.read_text()}"
    )


def ping(port):
    """What Redis answers to PING, empty while nothing does."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64)
    except OSError:
        return b""


@pytest.fixture(scope="module")
def redis_server(services, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compose-redis")
    service, port = services["redis"], free_port()
    assert mounts(service)["/data"] == "redis-data"
    command = replace_program(command_of(service), "redis-server", resolve_redis(env={}).binary)
    command = replace_tokens(command, ["--port", "6379"], ["--port", port])
    command = replace_tokens(command, ["--bind", "0.0.0.0"], ["--bind", LOOPBACK])  # noqa: S104
    command = replace_tokens(command, ["--protected-mode", "no"], ["--protected-mode", "yes"])
    command = replace_tokens(command, ["--dir", "/data"], ["--dir", folder])
    log = folder / "redis.log"
    with running("redis", command, log) as child:
        wait_until(lambda: ping(port) == b"+PONG\r\n", child, log)
        yield Server(port, command, child)


@pytest.fixture(scope="module")
def nats_server(services, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compose-nats")
    service, port, http_port = services["nats"], free_port(), free_port()
    assert mounts(service)["/data"] == "nats-data"
    inside = "/etc/nats/hookbench.conf"
    source = mounts(service)[inside]
    text = (ROOT / source).read_text()
    text = replace_text(text, 'listen: "0.0.0.0:4222"', f'listen: "{LOOPBACK}:{port}"')
    text = replace_text(text, 'http: "127.0.0.1:8222"', f'http: "{LOOPBACK}:{http_port}"')
    text = replace_text(text, 'store_dir: "/data"', f'store_dir: "{folder}"')
    text = replace_text(text, 'server_name: "hookbench"', f"server_name: hookbench-{port}")
    configuration = folder / "nats.conf"
    configuration.write_text(text)
    command = replace_program(command_of(service), "nats-server", resolve_nats(env={}).binary)
    command = replace_tokens(command, ["-c", inside], ["-c", configuration])
    log = folder / "nats.log"
    with running("nats", command, log) as child:
        wait_until(lambda: status_of(http_port, "/healthz") == 200, child, log)
        yield Server(port, command, child, http_port)


@pytest.fixture
def local_environment(services, redis_server, nats_server):
    """The environment of the worker and of Locust, with the local brokers in place of Compose's."""
    environment = dict(services["worker"]["environment"])
    assert environment == services["locust"]["environment"]
    for name, host, port in (
        ("HOOKBENCH_REDIS_URL", "redis:6379", redis_server.port),
        ("HOOKBENCH_NATS_URL", "nats:4222", nats_server.port),
    ):
        environment[name] = replace_text(environment[name], f"//{host}", f"//{LOOPBACK}:{port}")
    return environment


# What the files say


def test_the_services(services):
    assert set(services) == {*BROKERS, *OURS}


def test_every_image_is_pinned(services, dockerfile):
    for name in BROKERS:
        assert re.fullmatch(rf"{name}:\d+\.\d+\.\d+-alpine", services[name]["image"])
    for name in OURS:
        assert services[name]["image"] == "hookbench:local"
        assert services[name]["build"]["context"] == "."
        assert services[name]["pull_policy"] == "build"
    images = [rest for word, rest in dockerfile if word == "FROM"]
    assert len(images) == 1
    assert re.fullmatch(r"python:3\.12\.\d+-slim-[a-z]+", images[0])


def test_every_port_is_bound_to_loopback(services):
    published = {name: service.get("ports", []) for name, service in services.items()}
    for name in ("worker", "locust-worker"):
        assert published.pop(name) == []
    for name, ports in published.items():
        assert ports, name
        for port in ports:
            assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port), f"{name}: {port}"


def test_nothing_has_more_rights_than_it_needs(services):
    for name, service in services.items():
        given = {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & set(service)
        assert not given, name
        assert "docker.sock" not in str(service), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == "unless-stopped", name
    for name in OURS:
        assert services[name]["cap_drop"] == ["ALL"], name


def test_volumes_are_named_and_declared(compose, services):
    used = [volume for service in services.values() for volume in service.get("volumes", [])]
    sources = {volume.split(":")[0] for volume in used}
    folders = {source for source in sources if source.startswith("./")}
    assert sources - folders == set(compose["volumes"]) == {"redis-data", "nats-data", "results"}
    assert folders == {"./deploy/nats.conf", "./notebooks"}
    assert (ROOT / "deploy" / "nats.conf").is_file()
    assert "./deploy/nats.conf:/etc/nats/hookbench.conf:ro" in used


def test_services_wait_for_healthy_brokers(services):
    for name in BROKERS:
        check = services[name]["healthcheck"]
        assert check["test"][0] == "CMD-SHELL"
        assert {"interval", "timeout", "retries", "start_period"} < set(check)
    for name in ("worker", "locust", "locust-master", "locust-worker"):
        wanted = {broker: {"condition": "service_healthy"} for broker in BROKERS}
        assert services[name]["depends_on"] == wanted
    # A rehearsal in this container starts brokers of its own.
    assert "environment" not in services["jupyterlab"]


def test_the_image_runs_as_a_plain_user_with_what_the_services_need(dockerfile):
    users = [rest for word, rest in dockerfile if word == "USER"]
    assert users == ["hookbench"]
    assert [word for word, _rest in dockerfile].index("USER") == len(dockerfile) - 2
    (extras,) = [
        set(found[1].split(","))
        for word, rest in dockerfile
        if word == "RUN" and (found := re.search(r"pip install '\.\[([a-z,]+)\]'", rest))
    ]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extras == {"embedded", "loadtest", "notebooks"} <= set(project["optional-dependencies"])


def test_the_build_context_holds_what_is_copied_and_nothing_else(dockerfile):
    rules = settings_of((ROOT / ".dockerignore").read_text())
    assert rules[0] == "*"
    admitted = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = [rest.split() for word, rest in dockerfile if word == "COPY"]
    sources = {
        word for words in copied for word in words[:-1] if not word.startswith("--chown=hookbench")
    }
    assert sources == admitted
    assert [source for source in sources if not (ROOT / source).exists()] == []


# What the commands do


def test_the_brokers_are_of_class_lazy_as_embedded_ones_are(redis_server, nats_server):
    data = redis_server.command[redis_server.command.index("--dir") + 1]
    expected = redis_arguments(redis_server.port, Path(data), Durability.LAZY)
    assert redis_server.command[1:] == expected
    written = Path(nats_server.command[-1])
    expected = settings_of(nats_configuration(nats_server.port, written.parent, Durability.LAZY))
    found = settings_of(written.read_text())
    found.remove(f'http: "{LOOPBACK}:{nats_server.http_port}"')
    assert found == expected


async def test_redis_says_so_itself(redis_server):
    url = f"redis://{LOOPBACK}:{redis_server.port}"
    assert (await probe_redis(url)).kind == "redis"
    client = connect_redis(url)
    try:
        for name, value in {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "save": "",
        }.items():
            answer = await client.config_get(name)
            assert answer == {name: value} or answer == {name.encode(): value.encode()}
    finally:
        await client.aclose()


async def test_nats_says_so_itself(nats_server, names):
    url = f"nats://{LOOPBACK}:{nats_server.port}"
    assert (await probe_nats(url)).kind == "nats"  # the INFO line: too old or no JetStream raises
    status, body = get(nats_server.http_port, "/varz")
    assert status == 200
    assert json.loads(body)["jetstream"]["config"]["sync_interval"] == NS_PER_S
    async with await AppTransport.connect(url, names=names) as transport:
        info = await ensure_stream(transport, StreamSettings(storage="file"))
        assert info.config.name == names.stream
        assert (await transport.publish(names.subject("sync"), b"{}")).sequence == 1
        await transport.jetstream.delete_stream(names.stream)


def test_the_health_checks_hold(services, redis_server, nats_server, tmp_path):
    redis_check = services["redis"]["healthcheck"]["test"][1]
    redis_check = replace_text(redis_check, "-p 6379", f"-p {redis_server.port}")
    assert redis_check == f"redis-cli -p {redis_server.port} ping | grep -q PONG"
    assert ping(redis_server.port) == b"+PONG\r\n"
    nats_check = services["nats"]["healthcheck"]["test"][1]
    address = f"{LOOPBACK}:{nats_server.http_port}"
    nats_check = replace_text(nats_check, f"{LOOPBACK}:8222", address)
    assert nats_check == f"wget -q -O /dev/null http://{address}/healthz"
    assert status_of(nats_server.http_port, "/healthz") == 200
    for program, line in (("redis-cli", redis_check), ("wget", nats_check)):
        if shutil.which(program) is not None:
            shell = ["sh", "-c", f"unset http_proxy; {line}"]
            assert subprocess.run(shell, cwd=tmp_path, timeout=30, check=False).returncode == 0


async def test_the_worker_works_and_stops(
    services, local_environment, tmp_path, clock, make_task, monkeypatch
):
    monkeypatch.chdir(ROOT)
    command = command_of(services["worker"])
    phase = parse_phase(command[command.index("--phase") + 1])
    command = replace_program(command, "hookbench", script("hookbench"))
    connections = Connections(
        redis_url=local_environment["HOOKBENCH_REDIS_URL"],
        nats_url=local_environment["HOOKBENCH_NATS_URL"],
        names=Names(),
        clock=clock,
    )
    log = tmp_path / "worker.log"
    with running("worker", command, log, env=plain_environment(**local_environment)) as child:
        try:
            service = await open_service(phase, connections, Names())
            receipt = await service.send(make_task())
            transport = await connections.nats()

            async def done():
                """The command acknowledges after processing: an acknowledged task is done."""
                assert child.exit_code is None, log.read_text()
                if "phase" not in log.read_text():
                    return False  # the consumer may not be there yet
                names = transport.names
                info = await transport.jetstream.consumer_info(names.stream, names.consumer)
                return info.ack_floor.stream_seq >= receipt.sequence

            await eventually(done, timeout_s=START_TIMEOUT_S, what="the task's end")
        finally:
            await connections.close()
        stop(child, log)
    said = log.read_text()
    assert "dual_read" in said
    assert re.search(r"received 1 +done 1 +failed 0", said), said


def test_locust_starts_with_these_arguments(services, local_environment, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    port = free_port()
    command = replace_program(command_of(services["locust"]), "locust", script("locust"))
    command = replace_tokens(
        command,
        ["--web-host", "0.0.0.0"],  # noqa: S104 - the container's address
        ["--web-host", LOOPBACK],
    )
    command = replace_tokens(command, ["--web-port", "8089"], ["--web-port", port])
    log = tmp_path / "locust.log"
    with running("locust", command, log, env=plain_environment(**local_environment)) as child:
        wait_until(lambda: status_of(port) == 200, child, log)
        stop(child, log)


def test_a_master_and_a_worker_find_each_other(services, local_environment, tmp_path, monkeypatch):
    """The master's page says so; without a profile neither of them is started."""
    monkeypatch.chdir(ROOT)
    page, port = free_port(), free_port()
    for name in ("locust-master", "locust-worker"):
        assert services[name]["profiles"] == ["distributed"]
        assert services[name]["environment"] == services["locust"]["environment"]
    commands = {
        name: replace_program(command_of(services[name]), "locust", script("locust"))
        for name in ("locust-master", "locust-worker")
    }
    master = replace_tokens(
        commands["locust-master"],
        ["--web-host", "0.0.0.0"],  # noqa: S104 - the container's address
        ["--web-host", LOOPBACK],
    )
    master = replace_tokens(master, ["--web-port", "8090"], ["--web-port", page])
    master = replace_tokens(
        master,
        ["--master-bind-port", "5557"],
        ["--master-bind-host", LOOPBACK, "--master-bind-port", port],
    )
    worker = replace_tokens(
        commands["locust-worker"], ["--master-host", "locust-master"], ["--master-host", LOOPBACK]
    )
    worker = replace_tokens(worker, ["--master-port", "5557"], ["--master-port", port])
    logs = [tmp_path / "master.log", tmp_path / "worker.log"]
    environment = plain_environment(**local_environment)
    with (
        running("locust-master", master, logs[0], env=environment) as first,
        running("locust-worker", worker, logs[1], env=environment) as second,
    ):
        wait_until(lambda: status_of(page) == 200, first, logs[0])
        wait_until(lambda: "1 workers connected" in logs[0].read_text(), second, logs[0])
        stop(second, logs[1], early=True)
        stop(first, logs[0])


def test_jupyterlab_starts_with_these_arguments(services, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    port = free_port()
    command = replace_program(command_of(services["jupyterlab"]), "jupyter", script("jupyter"))
    command = replace_tokens(command, ["--ip", "0.0.0.0"], ["--ip", LOOPBACK])  # noqa: S104
    command = replace_tokens(command, ["--port", "8888"], ["--port", port])
    if os.geteuid() == 0:  # the image has a user of its own
        command.append("--allow-root")
    folders = {
        name: str(tmp_path / name)
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    }
    log = tmp_path / "jupyterlab.log"
    environment = plain_environment(HOME=str(tmp_path), **folders)
    with running("jupyterlab", command, log, env=environment) as child:
        wait_until(lambda: status_of(port, "/api") == 200, child, log)
        assert status_of(port, "/api/contents") == 403, "it must ask for its token"
        stop(child, log)
