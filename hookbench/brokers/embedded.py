"""Embedded servers: started on free loopback ports, with data folders of their own."""

import json
import re
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from hookbench.brokers.durability import Durability
from hookbench.brokers.ports import LOOPBACK, check_free, free_port
from hookbench.brokers.process import Child, spawn
from hookbench.brokers.resolve import Resolved
from hookbench.clock import NS_PER_S, SystemClock
from hookbench.errors import BrokerUnreachableError, SettingError

__all__ = [
    "START_ATTEMPTS",
    "EmbeddedBroker",
    "launch",
    "lost_ports",
    "nats_configuration",
    "redis_arguments",
    "start_nats",
    "start_redis",
    "start_redis_node",
    "wait_until_up",
]

START_ATTEMPTS = 5
_START_TIMEOUT_S = 15.0
_POLL_S = 0.02
_TAKEN = re.compile(r":(\d+): bind: address already in use", re.IGNORECASE)


class EmbeddedBroker(msgspec.Struct, kw_only=True):
    """A server that this process started, and so may stop, kill or pause.

    Attributes:
        name: ``redis`` or ``nats``, with a number where it is a node of several (``nats-2``).
        durability: the class that was asked for.
        monitor_port: where a nats-server tells its settings over HTTP; ``None`` for Redis.
    """

    kind: str
    name: str
    resolved: Resolved
    durability: Durability
    url: str
    port: int
    monitor_port: int | None = None
    data: Path
    log: Path
    command: list[str]
    child: Child

    @property
    def pid(self) -> int:
        """Process id of the server itself."""
        return self.child.pid

    @property
    def running(self) -> bool:
        """Whether the process is there, be it paused."""
        return self.child.exit_code is None

    @property
    def monitor_url(self) -> str | None:
        """``http://127.0.0.1:8222`` of a nats-server."""
        return None if self.monitor_port is None else f"http://{LOOPBACK}:{self.monitor_port}"

    def stop(self) -> None:
        """Stop the server."""
        self.child.stop()

    def kill(self) -> None:
        """SIGKILL the server."""
        self.child.kill()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        self.child.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self.child.signal(signal.SIGCONT)

    def restart(self) -> None:
        """Start the server again on the same port and data, after it ended."""
        self.child = launch(self.kind, self.command, self.log)
        wait_until_up(self.kind, self.child, self.port, self.log)


def redis_arguments(port: int, data: Path, durability: Durability) -> list[str]:
    """Options of an embedded redis-server: loopback only, a queue is never evicted."""
    return [
        "--port",
        str(port),
        "--bind",
        LOOPBACK,
        "--protected-mode",
        "yes",
        "--daemonize",
        "no",
        "--dir",
        str(data),
        "--maxmemory-policy",
        "noeviction",
        *durability.redis_arguments,
    ]


def nats_configuration(
    port: int,
    data: Path,
    durability: Durability,
    *,
    monitor_port: int | None = None,
    more: Sequence[str] = (),
) -> str:
    """Configuration of an embedded nats-server: loopback only, JetStream on, then ``more``."""
    monitor = [] if monitor_port is None else [f"http: {json.dumps(f'{LOOPBACK}:{monitor_port}')}"]
    return "\n".join(
        [
            f"server_name: hookbench-{port}",
            f"listen: {json.dumps(f'{LOOPBACK}:{port}')}",
            *monitor,
            "jetstream {",
            f"  store_dir: {json.dumps(str(data))}",
            f"  sync_interval: {durability.nats_sync_interval}",
            "}",
            *more,
            "",
        ]
    )


def start_redis(
    resolved: Resolved, folder: Path, durability: Durability, *, port: int | None = None
) -> EmbeddedBroker:
    """Start a redis-server and wait until it answers.

    Raises:
        SettingError: ``durability`` needs more than one node.
        PortTakenError: ``port`` was asked for and is taken.
        BrokerUnreachableError: it did not come up; the text has the end of its log.
    """
    _check_one_node(durability)
    return start_redis_node(resolved, folder, durability, port=port)


def start_redis_node(
    resolved: Resolved,
    folder: Path,
    durability: Durability,
    *,
    port: int | None = None,
    name: str = "redis",
    options: Callable[[], Sequence[str]] = tuple,
) -> EmbeddedBroker:
    """As ``start_redis``, of one node of several.

    Args:
        resolved: the binary.
        folder: for the data folder and the log, called as the node is.
        durability: the class.
        port: ``None`` for a free one.
        name: of the node.
        options: further arguments of redis-server. Called for each attempt to start, so that it
            can choose ports of its own; those that another program took meanwhile are replaced.
    """

    def command(chosen: int, _monitor: int | None, data: Path) -> list[str]:
        return [_binary(resolved), *redis_arguments(chosen, data, durability), *options()]

    return _start("redis", name, resolved, folder, durability, port, command)


def start_nats(
    resolved: Resolved,
    folder: Path,
    durability: Durability,
    *,
    port: int | None = None,
    more: Sequence[str] = (),
) -> EmbeddedBroker:
    """Start a nats-server with JetStream and wait until it answers.

    Args:
        resolved: the binary.
        folder: for its configuration, data and log.
        durability: the class.
        port: ``None`` for a free one.
        more: lines of its configuration, such as an ``authorization`` or a ``tls`` block.

    Raises:
        SettingError: ``durability`` needs more than one node.
        PortTakenError: ``port`` was asked for and is taken.
        BrokerUnreachableError: it did not come up; the text has the end of its log.
    """
    _check_one_node(durability)

    def command(chosen: int, monitor: int | None, data: Path) -> list[str]:
        configuration = folder / "nats.conf"
        configuration.write_text(
            nats_configuration(chosen, data, durability, monitor_port=monitor, more=more)
        )
        return [_binary(resolved), "-c", str(configuration)]

    return _start("nats", "nats", resolved, folder, durability, port, command)


def _check_one_node(durability: Durability) -> None:
    if durability is Durability.REPLICATED:
        raise SettingError(
            f"durability {durability}: one server has no replica; use the topology redis_replica"
            " or nats_cluster, or another durability"
        )


def _binary(resolved: Resolved) -> str:
    if resolved.binary is None:
        raise SettingError(f"{resolved.label} is not ours to start")
    return str(resolved.binary)


def _start(
    kind: str,
    name: str,
    resolved: Resolved,
    folder: Path,
    durability: Durability,
    port: int | None,
    command_for: Callable[[int, int | None, Path], list[str]],
) -> EmbeddedBroker:
    if port is not None:
        check_free(port, f"--{kind}-port")
    data = folder / name
    data.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    for attempt in range(1, START_ATTEMPTS + 1):
        chosen = port or free_port()
        monitor = free_port() if kind == "nats" else None
        command = command_for(chosen, monitor, data)
        begin = log.stat().st_size if log.exists() else 0
        child = launch(kind, command, log)
        try:
            wait_until_up(kind, child, chosen, log)
        except BrokerUnreachableError:
            child.kill()
            # Somebody may have taken a free port in between: then another one will do.
            lost = lost_ports(log, begin)
            if attempt == START_ATTEMPTS or not lost or port in lost:
                raise
        except BaseException:
            child.kill()
            raise
        else:
            return EmbeddedBroker(
                kind=kind,
                name=name,
                resolved=resolved,
                durability=durability,
                url=f"{kind}://{LOOPBACK}:{chosen}",
                port=chosen,
                monitor_port=monitor,
                data=data,
                log=log,
                command=command,
                child=child,
            )
    raise BrokerUnreachableError(f"{kind}-server found no free port in {START_ATTEMPTS} tries")


def launch(kind: str, command: list[str], log: Path) -> Child:
    """Start a server; nobody waits for it here."""
    with log.open("ab") as output:
        return spawn(f"{kind}-server", command, output=output)


def lost_ports(log: Path, offset: int) -> set[int]:
    """The ports that a start found taken, as the log of either server names them."""
    text = log.read_bytes()[offset:].decode(errors="replace")
    return {int(port) for port in _TAKEN.findall(text)}


def wait_until_up(kind: str, child: Child, port: int, log: Path) -> None:
    """Wait until the server itself answers.

    Raises:
        BrokerUnreachableError: it ended, or is silent; the text has the end of its log.
    """
    clock = SystemClock()
    deadline_ns = clock.monotonic_ns() + int(_START_TIMEOUT_S * NS_PER_S)
    while not _answers(kind, port):
        code = child.exit_code
        if code is not None or clock.monotonic_ns() > deadline_ns:
            why = f"ended with {code}" if code is not None else f"silent for {_START_TIMEOUT_S} s"
            tail = log.read_text(errors="replace")[-800:].strip()
            raise BrokerUnreachableError(f"{kind}-server did not start ({why}):\n{tail}")
        clock.block(_POLL_S)


def _answers(kind: str, port: int) -> bool:
    """Whether our own server answers, and not another that took the port in between."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0) as connection:
            if kind == "redis":
                connection.sendall(b"CONFIG GET port\r\n")
                return str(port).encode() in connection.recv(256)
            return f'"hookbench-{port}"'.encode() in connection.recv(4096)
    except OSError:
        return False
