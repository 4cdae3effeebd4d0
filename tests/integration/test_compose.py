"""docker-compose.yml without a Docker engine: what it says, and its command lines really started.

The commands and configurations run as they stand in the file, with local binaries. Only what must
differ outside of a container is rewritten (addresses, ports, folders), and each rewritten piece
must be there exactly once: the file cannot change its shape without a change here.
"""

import asyncio
import contextlib
import http.client
import inspect
import json
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import fastjsonschema
import pytest
import yaml
from typer.testing import CliRunner

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import nats_configuration, redis_arguments
from hookbench.brokers.passwords import NAMES, write_passwords
from hookbench.brokers.ports import free_port
from hookbench.brokers.probe import probe_nats, probe_redis
from hookbench.brokers.process import Child, spawn
from hookbench.brokers.redis_join import join_nodes
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.cli.main import app
from hookbench.cli.worker import worker as worker_verb
from hookbench.clock import NS_PER_S, SystemClock
from hookbench.errors import SettingError
from hookbench.migration.phases import parse_phase
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import StreamSettings, ensure_stream
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.transport import AppTransport
from hookbench.task import Names
from tests.conftest import eventually

ROOT = Path(__file__).parents[2]
SCHEMA = Path(__file__).parent / "data" / "compose" / "compose-spec.json"
LOOPBACK = "127.0.0.1"
ANYWHERE = "0.0.0.0"  # noqa: S104 - the address of a container
REDIS = ("redis", "redis-replica")
CLUSTER = ("redis-cluster-1", "redis-cluster-2", "redis-cluster-3")
NATS = ("nats-1", "nats-2", "nats-3")
BROKERS = (*REDIS, *NATS)
OURS = ("worker", "locust-master", "locust-worker", "jupyterlab", "redis-cluster-join")
WATCHING = ("prometheus", "grafana")
UNPUBLISHED = ("worker", "locust-worker", "redis-replica", "redis-cluster-join", *CLUSTER)
BUS_OFFSET = 10_000
"""The port of a cluster's bus is that of its clients and this, where it is not told."""
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
METRICS_FOLDER = ROOT / "hookbench" / "metrics"
HAS_METRICS = "metrics" in inspect.signature(worker_verb).parameters


class Server(NamedTuple):
    port: int
    command: list[str]
    child: Child
    folder: Path
    http_port: int = 0


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


@pytest.fixture(scope="module")
def services(compose):
    return compose["services"]


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """What Compose reads from .env, as ``hookbench secrets`` makes it."""
    path = tmp_path_factory.mktemp("compose-env") / ".env"
    assert write_passwords(path)
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture(scope="module")
def stages():
    """The instructions of each stage of the Dockerfile by its name, as pairs of word and rest."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    found = {}
    for line in lines:
        if not line or line.startswith("#"):
            continue
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            image, name = rest.split(" AS ")
            found[name] = []
            rest = image
        found[name].append((word, rest))
    return found


# Rewriting


def interpolated(text, values):
    """``${NAME}``, ``${NAME:-default}`` and ``${NAME:?error}`` as Compose replaces them."""

    def value(found):
        name, kind, rest = found.groups()
        if name in values:
            return values[name]
        assert kind == ":-", f"{name} has no value: {rest}"
        return rest

    result = re.sub(r"\$\{([A-Z_]+)(?:(:-|:\?)([^}]*))?\}", value, str(text))
    assert "$" not in result
    return result


def command_of(service, values):
    return [interpolated(token, values) for token in service["command"]]


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


def configured(compose, service, command, values, folder, changes):
    """The command with its configuration from the file, written to ``folder`` with ``changes``."""
    (config,) = service["configs"]
    text = interpolated(compose["configs"][config["source"]]["content"], values)
    for old, new in changes.items():
        text = replace_text(text, old, new)
    path = folder / Path(config["target"]).name
    path.write_text(text)
    return replace_tokens(command, [config["target"]], [path])


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


def ask_redis(port, *lines):
    """What Redis answers to the last of some inline commands, empty while nothing answers."""
    answer = b""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0) as connection:
            for line in lines:
                connection.sendall(f"{line}\r\n".encode())
                answer = connection.recv(65_536)
    except OSError:
        return b""
    return answer


def check_health(service, changes):
    """Run a health check that is a command of ours, as it stands but for ``changes``."""
    kind, program, *rest = service["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    for old, new in changes.items():
        rest[-1] = replace_text(rest[-1], old, new)
    done = subprocess.run(
        [sys.executable, *rest], timeout=30, check=False, env=plain_environment(no_proxy="*")
    )
    return done.returncode


def healthy(service, changes, child, log):
    """It is healthy soon; and the check can fail."""
    wait_until(lambda: check_health(service, changes) == 0, child, log)
    elsewhere = {
        old: new.replace(re.search(r"\d{4,5}", new)[0], str(free_port()))
        for old, new in changes.items()
    }
    assert check_health(service, elsewhere) != 0


def redis_node(compose, values, name, folder, *, port=None, tokens=()):
    """A Redis of the file on a free port of the loopback."""
    service, port = compose["services"][name], port or free_port()
    assert mounts(service)["/data"] == f"{name}-data"
    command = replace_program(
        command_of(service, values), "redis-server", resolve_redis(env={}).binary
    )
    for old, new in tokens:
        command = replace_tokens(command, old, new)
    command = configured(
        compose, service, command, values, folder,
        {
            "port 6379": f"port {port}",
            f"bind {ANYWHERE}": f"bind {LOOPBACK}",
            "protected-mode no": "protected-mode yes",
            "dir /data": f"dir {folder}",
        },
    )  # fmt: skip
    return port, command


@pytest.fixture(scope="module")
def redis_server(compose, values, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compose-redis")
    port, command = redis_node(compose, values, "redis", folder)
    log = folder / "redis.log"
    login = f"AUTH {values['HOOKBENCH_REDIS_PASSWORD']}"
    with running("redis", command, log) as child:
        wait_until(lambda: ask_redis(port, login, "PING") == b"+PONG\r\n", child, log)
        yield Server(port, command, child, folder)


@pytest.fixture(scope="module")
def replica(compose, values, redis_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compose-replica")
    port, command = redis_node(
        compose, values, "redis-replica", folder,
        tokens=[(["--replicaof", "redis", "6379"], ["--replicaof", LOOPBACK, redis_server.port])],
    )  # fmt: skip
    log = folder / "redis.log"
    login = f"AUTH {values['HOOKBENCH_REDIS_PASSWORD']}"

    def linked():
        return b"master_link_status:up" in ask_redis(port, login, "INFO replication")

    with running("replica", command, log) as child:
        wait_until(linked, child, log)
        yield Server(port, command, child, folder)


@pytest.fixture(scope="module")
def nats_servers(compose, values, tmp_path_factory):
    """Three nodes, each with routes to all as the file has them."""
    routes = {name: free_port() for name in NATS}
    servers = []
    with contextlib.ExitStack() as stack:
        for name in NATS:
            service, folder = compose["services"][name], tmp_path_factory.mktemp(f"compose-{name}")
            port, http_port = free_port(), free_port()
            assert mounts(service)["/data"] == f"{name}-data"
            command = replace_program(
                command_of(service, values), "nats-server", resolve_nats(env={}).binary
            )
            command = configured(
                compose, service, command, values, folder,
                {
                    f'listen: "{ANYWHERE}:4222"': f'listen: "{LOOPBACK}:{port}"',
                    f'http: "{LOOPBACK}:8222"': f'http: "{LOOPBACK}:{http_port}"',
                    'store_dir: "/data"': f'store_dir: "{folder}"',
                    f'listen: "{ANYWHERE}:6222"': f'listen: "{LOOPBACK}:{routes[name]}"',
                    **{f"@{other}:6222": f"@{LOOPBACK}:{at}" for other, at in routes.items()},
                },
            )  # fmt: skip
            child = stack.enter_context(running(name, command, folder / "nats.log"))
            servers.append(Server(port, command, child, folder, http_port))
        for server in servers:
            up = lambda port=server.http_port: status_of(port, "/healthz") == 200  # noqa: E731
            wait_until(up, server.child, server.folder / "nats.log")
        yield servers


@pytest.fixture
def local_environment(services, values, redis_server, nats_servers):
    """The environment of the worker and of Locust, with the local brokers in place of Compose's."""
    environment = {
        name: interpolated(text, values) for name, text in services["worker"]["environment"].items()
    }
    assert services["worker"]["environment"] == services["locust-master"]["environment"]
    places = [("REDIS", "@redis:6379", redis_server.port)]
    places += [
        ("NATS", f"@{name}:4222", server.port)
        for name, server in zip(NATS, nats_servers, strict=True)
    ]
    for kind, place, port in places:
        name = f"HOOKBENCH_{kind}_URL"
        environment[name] = replace_text(environment[name], place, f"@{LOOPBACK}:{port}")
    return environment


# What the files say


def test_the_file_is_of_the_compose_schema(compose):
    """As the Compose Specification has it; each of some mistakes is found."""
    check = fastjsonschema.compile(json.loads(SCHEMA.read_text()), use_default=False)
    check(compose)
    for name, wrong in (("ports", "6379"), ("command", {}), ("depnds_on", []), ("restart", 1)):
        broken = {**compose["services"], "redis": {**compose["services"]["redis"], name: wrong}}
        with pytest.raises(fastjsonschema.JsonSchemaException):
            check({**compose, "services": broken})


def test_the_services(services):
    assert set(services) == {*BROKERS, *CLUSTER, *OURS, *WATCHING}
    started = {name for name, service in services.items() if "profiles" not in service}
    assert {*BROKERS, *WATCHING, *OURS[:-1]} == started
    assert all(services[name]["profiles"] == ["cluster"] for name in (*CLUSTER, OURS[-1]))


def test_every_image_is_pinned(services, stages):
    for name in (*REDIS, *CLUSTER):
        assert re.fullmatch(r"redis:\d+\.\d+\.\d+-alpine", services[name]["image"])
    assert re.fullmatch(r"prom/prometheus:v\d+\.\d+\.\d+", services["prometheus"]["image"])
    assert re.fullmatch(r"grafana/grafana:\d+\.\d+\.\d+", services["grafana"]["image"])
    targets = {**dict.fromkeys(NATS, "nats"), **dict.fromkeys(OURS, "hookbench")}
    for name, target in targets.items():
        build = services[name]["build"]
        assert (build["context"], build["target"]) == (".", target)
        assert services[name]["pull_policy"] == "build"
    assert re.fullmatch(r"nats:\d+\.\d+\.\d+-alpine", dict(stages["nats"])["FROM"])
    assert re.fullmatch(r"python:3\.12\.\d+-slim-[a-z]+", dict(stages["hookbench"])["FROM"])


def test_every_port_is_bound_to_loopback(services):
    published = {name: service.get("ports", []) for name, service in services.items()}
    for name in UNPUBLISHED:
        assert published.pop(name) == [], name
    outside = []
    for name, ports in published.items():
        assert ports, name
        for port in ports:
            found = re.fullmatch(r"127\.0\.0\.1:(\d+):(\d+)", port)
            assert found, f"{name}: {port}"
            outside.append(found[1])
            assert found[1] == found[2] or name in NATS
    assert len(outside) == len(set(outside))


def test_nothing_has_more_rights_than_it_needs(services, stages):
    for name, service in services.items():
        given = {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & set(service)
        assert not given, name
        assert "docker.sock" not in str(service), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["restart"] in ("unless-stopped", "on-failure"), name
    # The images of Prometheus and Grafana have users of their own.
    for name in (*REDIS, *CLUSTER):
        assert services[name]["user"] == "redis", name
    for stage in stages.values():
        users = [rest for word, rest in stage if word == "USER"]
        assert users in (["1000:1000"], ["hookbench"])
        last = max(place for place, (word, _rest) in enumerate(stage) if word == "USER")
        assert {word for word, _rest in stage[last + 1 :]} <= {"CMD"}


def test_every_password_is_generated(services, compose, values):
    text = json.dumps([services, compose["configs"]])
    asked = set(re.findall(r"\$\{([A-Z_]+):\?run hookbench secrets\}", text))
    assert asked == set(NAMES)
    plain = set(re.findall(r"\$\{([A-Z_]+)\}", text))
    assert plain <= asked
    commands = json.dumps([service.get("command", []) for service in services.values()])
    assert not re.search("PASSWORD|TOKEN|secret", commands)
    assert all(re.fullmatch("p[0-9a-f]{48}", values[name]) for name in NAMES)
    assert len({values[name] for name in NAMES}) == len(NAMES)


def test_the_passwords_are_private_and_kept(tmp_path):
    path = tmp_path / ".env"
    assert write_passwords(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_text()
    assert not write_passwords(path)
    assert path.read_text() == before
    assert [item.name for item in tmp_path.iterdir()] == [".env"], "nothing is left aside"
    path.write_text(before.replace("HOOKBENCH_NATS_PASSWORD", "OTHER"))
    with pytest.raises(SettingError, match=r"is kept: add HOOKBENCH_NATS_PASSWORD, or move it"):
        write_passwords(path)
    with pytest.raises(SettingError, match="cannot be made"):
        write_passwords(tmp_path / "nowhere" / ".env")
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_make_and_the_verb_make_the_same_file(tmp_path, monkeypatch):
    """``make secrets`` without an environment, and ``hookbench secrets`` after it."""
    monkeypatch.chdir(tmp_path)
    make = ["make", "--no-print-directory", "-f", str(ROOT / "Makefile"), "secrets"]
    done = subprocess.run(
        [*make, f"PYTHON={sys.executable} -S"], capture_output=True, text=True, timeout=60,
        check=False, env=plain_environment(PYTHONPATH=str(ROOT)),
    )  # fmt: skip
    assert done.stdout == "made .env\n", done.stderr
    said = CliRunner().invoke(app, ["secrets", "--json"])
    assert json.loads(said.stdout) == {"file": ".env", "made": False, "names": list(NAMES)}


def test_compose_itself_takes_the_file(values, tmp_path):
    docker = shutil.which("docker")
    known = docker and subprocess.run(
        [docker, "compose", "version"], capture_output=True, timeout=30, check=False
    )
    if not known or known.returncode != 0:
        pytest.skip("docker compose is not installed")
    path = tmp_path / "values.env"
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    done = subprocess.run(
        [docker, "compose", "--env-file", str(path), "config", "--quiet"], cwd=ROOT,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_volumes_are_named_and_declared(compose, services):
    used = [volume for service in services.values() for volume in service.get("volumes", [])]
    sources = [volume.split(":")[0] for volume in used]
    folders = {source for source in sources if source.startswith("./")}
    named = [source for source in sources if source not in folders]
    assert sorted(named) == sorted(compose["volumes"]), "each is declared, and of one service"
    metrics = {"./hookbench/metrics/prometheus", "./hookbench/metrics/grafana"}
    assert folders == {"./notebooks", *metrics}
    assert all(volume.endswith(":ro") for volume in used if volume.split(":")[0] in metrics)
    configs = {item["source"] for item in services.values() for item in item.get("configs", [])}
    assert configs == set(compose["configs"])


def test_services_wait_for_healthy_ones(services):
    for name, service in services.items():
        if name == "redis-cluster-join":
            continue  # it ends
        check = service["healthcheck"]
        assert check["test"][0] in ("CMD", "CMD-SHELL"), name
        assert {"interval", "timeout", "retries", "start_period"} < set(check), name
    waiting = {"condition": "service_healthy"}
    for name in ("worker", "locust-master"):
        assert services[name]["depends_on"] == dict.fromkeys(BROKERS, waiting)
    assert services["locust-worker"]["depends_on"] == {"locust-master": waiting}
    assert services["redis-cluster-join"]["depends_on"] == dict.fromkeys(CLUSTER, waiting)
    # A rehearsal in this container starts brokers of its own.
    assert set(services["jupyterlab"]["environment"]) == {"JUPYTER_TOKEN"}


def test_the_image_has_what_the_services_need(stages):
    (extras,) = [
        set(found[1].split(","))
        for word, rest in stages["hookbench"]
        if word == "RUN" and (found := re.search(r"pip install '\.\[([a-z,]+)\]'", rest))
    ]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extras == {"embedded", "loadtest", "notebooks"} <= set(project["optional-dependencies"])


def test_the_build_context_holds_what_is_copied_and_nothing_else(stages):
    rules = settings_of((ROOT / ".dockerignore").read_text())
    assert rules[0] == "*"
    admitted = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = [rest.split() for stage in stages.values() for word, rest in stage if word == "COPY"]
    sources = {
        word for words in copied for word in words[:-1] if not word.startswith("--chown=hookbench")
    }
    assert sources == admitted
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_prometheus_and_grafana_find_their_files(services):
    if not METRICS_FOLDER.is_dir() or not HAS_METRICS:
        pytest.skip("hookbench/metrics or the option --metrics of the worker is not there")
    for name in WATCHING:
        for source in mounts(services[name]).values():
            assert not source.startswith("./") or (ROOT / source).is_dir()
    targets = (METRICS_FOLDER / "prometheus" / "prometheus.yml").read_text()
    port = services["worker"]["command"][-1].rpartition(":")[2]
    assert "worker" in targets
    assert port in targets


# What the commands do


def test_redis_is_of_the_class_of_embedded_ones(redis_server):
    lines = settings_of(Path(redis_server.command[1]).read_text())
    expected = redis_arguments(redis_server.port, redis_server.folder, Durability.REPLICATED)
    *plain, delay, password, master_password = [shlex.split(line) for line in lines]
    assert [word for name, value in plain for word in (f"--{name}", value)] == expected
    assert delay == ["repl-diskless-sync-delay", "0"], "of the topology redis_replica"
    assert [password[0], master_password[0]] == ["requirepass", "masterauth"]


def test_nats_is_of_the_class_of_embedded_ones(nats_servers):
    for server in nats_servers:
        found = settings_of(Path(server.command[2]).read_text())
        expected = nats_configuration(server.port, server.folder, Durability.REPLICATED)
        for line in settings_of(expected)[1:]:  # the first is the name, here an option
            assert line.replace("hookbench-", "") in found


async def test_redis_says_so_itself(redis_server, replica, values):
    """It asks for its password, and a replica has what it is given."""
    bare = f"redis://{LOOPBACK}:{redis_server.port}"
    assert b"NOAUTH" in ask_redis(redis_server.port, "PING")
    assert b"NOAUTH" in ask_redis(replica.port, "PING")
    url = bare.replace("//", f"//:{values['HOOKBENCH_REDIS_PASSWORD']}@")
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
        await client.set("compose", b"here")
        assert await client.execute_command("WAIT", 1, 5_000) == 1
    finally:
        await client.aclose()


async def test_nats_says_so_itself(nats_servers, local_environment, names):
    for server in nats_servers:
        status, body = get(server.http_port, "/varz")
        assert status == 200
        said = json.loads(body)
        assert said["jetstream"]["config"]["sync_interval"] == NS_PER_S
        assert said["auth_required"]
        assert said["cluster"]["name"] == "hookbench"
    url = local_environment["HOOKBENCH_NATS_URL"]
    assert (await probe_nats(url)).kind == "nats"  # the INFO line: too old or no JetStream raises
    async with await AppTransport.connect(url, names=names) as transport:
        info = await ensure_stream(transport, StreamSettings(storage="file", replicas=3))
        assert info.config.name == names.stream
        assert len(info.cluster.replicas) == 2
        assert (await transport.publish(names.subject("sync"), b"{}")).sequence == 1
        await transport.jetstream.delete_stream(names.stream)


def test_the_brokers_health_checks_hold(services, redis_server, nats_servers, values, tmp_path):
    redis_check = services["redis"]["healthcheck"]["test"][1]
    redis_check = replace_text(redis_check, "-p 6379", f"-p {redis_server.port}")
    assert redis_check == f"redis-cli -p {redis_server.port} ping | grep -q PONG"
    password = values["HOOKBENCH_REDIS_PASSWORD"]
    asked = services["redis"]["environment"]
    assert {name: interpolated(text, values) for name, text in asked.items()} == {
        "REDISCLI_AUTH": password
    }
    assert ask_redis(redis_server.port, f"AUTH {password}", "PING") == b"+PONG\r\n"
    nats_check = services["nats-1"]["healthcheck"]["test"][1]
    address = f"{LOOPBACK}:{nats_servers[0].http_port}"
    nats_check = replace_text(nats_check, f"{LOOPBACK}:8222", address)
    assert nats_check == f"wget -q -O /dev/null http://{address}/healthz"
    assert status_of(nats_servers[0].http_port, "/healthz") == 200
    for program, line in (("redis-cli", redis_check), ("wget", nats_check)):
        if shutil.which(program) is not None:
            shell = ["sh", "-c", f"unset http_proxy; {line}"]
            done = subprocess.run(
                shell, cwd=tmp_path, timeout=30, check=False,
                env={**os.environ, "REDISCLI_AUTH": password},
            )  # fmt: skip
            assert done.returncode == 0


def cluster_port():
    """A free port whose bus has a free one too."""
    for _ in range(100):
        port = free_port()
        with socket.socket() as bus:
            try:
                bus.bind((LOOPBACK, port + BUS_OFFSET))
            except (OSError, OverflowError):
                continue
            return port
    pytest.fail("no two ports are free")


def test_the_nodes_of_the_cluster_find_together(compose, values, tmp_path, tmp_path_factory):
    """By the very command of redis-cluster-join; a second time it changes nothing."""
    command = command_of(compose["services"]["redis-cluster-join"], values)
    command = replace_program(command, "hookbench", script("hookbench"))
    with contextlib.ExitStack() as stack:
        urls = []
        for name in CLUSTER:
            folder = tmp_path_factory.mktemp(name)
            port, started = redis_node(
                compose, values, name, folder, port=cluster_port(),
                tokens=[
                    (["--cluster-announce-hostname", name],
                     ["--cluster-announce-hostname", "localhost"]),
                ],
            )  # fmt: skip
            child = stack.enter_context(running(name, started, folder / "redis.log"))
            wait_until(
                lambda port=port: ask_redis(port, "PING") == b"+PONG\r\n",
                child,
                folder / "redis.log",
            )
            urls.append(f"redis://{LOOPBACK}:{port}")
            command = replace_tokens(command, [f"redis://{name}:6379"], [urls[-1]])
        command = [sys.executable, "-m", "hookbench", *command[1:]]
        done = subprocess.run(
            command, cwd=tmp_path, timeout=60, check=False, capture_output=True, text=True,
            env=plain_environment(),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "now assigned" in done.stdout
        assert not asyncio.run(join_nodes(urls)), "they have their slots"
        url = f"redis+cluster://{','.join(item.partition('://')[2] for item in urls)}"
        assert asyncio.run(probe_redis(url)).kind == "redis"
    with pytest.raises(SettingError, match="2 nodes: a cluster needs 3"):
        asyncio.run(join_nodes(urls[:2]))


async def test_the_worker_works_and_stops(
    services, values, local_environment, tmp_path, clock, make_task, monkeypatch
):
    """On three NATS nodes; with ``--metrics`` it is also found healthy."""
    monkeypatch.chdir(ROOT)
    command = command_of(services["worker"], values)
    phase = parse_phase(command[command.index("--phase") + 1])
    command = replace_program(command, "hookbench", script("hookbench"))
    metrics = free_port()
    served = ["--metrics", f"{LOOPBACK}:{metrics}"] if HAS_METRICS else []
    command = replace_tokens(command, ["--metrics", f"{ANYWHERE}:9400"], served)
    replicas = int(command[command.index("--replicas") + 1])
    connections = Connections(
        redis_url=local_environment["HOOKBENCH_REDIS_URL"],
        nats_url=local_environment["HOOKBENCH_NATS_URL"],
        names=Names(),
        stream=StreamSettings(replicas=replicas),
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
            if HAS_METRICS:
                place = {f"{LOOPBACK}:9400": f"{LOOPBACK}:{metrics}"}
                healthy(services["worker"], place, child, log)
        finally:
            await connections.close()
        stop(child, log)
    said = log.read_text()
    assert "dual_read" in said
    assert re.search(r"received 1 +done 1 +failed 0", said), said


def test_a_master_and_a_worker_find_each_other(
    services, values, local_environment, tmp_path, monkeypatch
):
    """The master's log says so, and both are found healthy."""
    monkeypatch.chdir(ROOT)
    page, port = free_port(), free_port()
    for name in ("locust-master", "locust-worker"):
        assert services[name]["environment"] == services["worker"]["environment"]
    commands = {
        name: replace_program(command_of(services[name], values), "locust", script("locust"))
        for name in ("locust-master", "locust-worker")
    }
    master = replace_tokens(
        commands["locust-master"],
        ["--web-host", ANYWHERE],
        ["--web-host", LOOPBACK],
    )
    master = replace_tokens(master, ["--web-port", "8089"], ["--web-port", page])
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
        healthy(
            services["locust-master"], {f"{LOOPBACK}:8089": f"{LOOPBACK}:{page}"}, first, logs[0]
        )
        master_at = {'("locust-master", 5557)': f'("{LOOPBACK}", {port})'}
        healthy(services["locust-worker"], master_at, second, logs[1])
        wait_until(lambda: "1 workers connected" in logs[0].read_text(), second, logs[0])
        stop(second, logs[1], early=True)
        stop(first, logs[0])


def test_jupyterlab_starts_with_these_arguments(services, values, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    port = free_port()
    service = services["jupyterlab"]
    token = interpolated(service["environment"]["JUPYTER_TOKEN"], values)
    command = replace_program(command_of(service, values), "jupyter", script("jupyter"))
    command = replace_tokens(command, ["--ip", ANYWHERE], ["--ip", LOOPBACK])
    command = replace_tokens(command, ["--port", "8888"], ["--port", port])
    if os.geteuid() == 0:  # the image has a user of its own
        command.append("--allow-root")
    folders = {
        name: str(tmp_path / name)
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    }
    log = tmp_path / "jupyterlab.log"
    environment = plain_environment(HOME=str(tmp_path), JUPYTER_TOKEN=token, **folders)
    with running("jupyterlab", command, log, env=environment) as child:
        healthy(service, {f"{LOOPBACK}:8888": f"{LOOPBACK}:{port}"}, child, log)
        assert status_of(port, "/api/contents") == 403, "it must ask for its token"
        assert status_of(port, f"/api/contents?token={token}") == 200
        stop(child, log)
