"""One listening port, its connections, and the rules at work on them."""

import asyncio
import socket

from hookbench.clock import Clock
from hookbench.errors import FaultError
from hookbench.faults.wire.connection import Connection
from hookbench.faults.wire.model import LinkSettings, LinkStats, Trouble
from hookbench.faults.wire.pipe import Flow
from hookbench.faults.wire.rules import DIRECTIONS, LINK_ACTIONS, ActiveRule

__all__ = ["LOOPBACK", "Link"]

LOOPBACK = "127.0.0.1"
MAX_CONNECTIONS = 10_000
MAX_TROUBLES = 100
_BACKLOG = 1024


class Link:
    """A broker, reached through this process.

    Args:
        settings: name, protocol and ports.
        clock: times of firings and delays.
    """

    def __init__(self, settings: LinkSettings, clock: Clock) -> None:
        self.clock = clock
        self.name = settings.name
        self.protocol = settings.protocol
        self.stats = LinkStats(
            name=settings.name,
            protocol=settings.protocol,
            port=settings.listen_port,
            upstream_port=settings.upstream_port,
        )
        self.frame_rules: dict[str, tuple[ActiveRule, ...]] = dict.fromkeys(DIRECTIONS, ())
        self.bandwidth: dict[str, ActiveRule | None] = dict.fromkeys(DIRECTIONS)
        self.latency: dict[str, ActiveRule | None] = dict.fromkeys(DIRECTIONS)
        self.partitions: dict[str, ActiveRule | None] = dict.fromkeys(DIRECTIONS)
        self._rules: list[ActiveRule] = []
        self._connections: set[Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._reserved: socket.socket | None = None
        self._server: asyncio.Server | None = None

    @property
    def partition(self) -> ActiveRule | None:
        """A partition of either direction: a new connection needs both."""
        return next((rule for rule in self.partitions.values() if rule is not None), None)

    async def listen(self) -> int:
        """Take the port and listen; the port.

        Raises:
            FaultError: it is taken.
        """
        self._reserved = self._bind(self.stats.port)
        self.stats.port = self._reserved.getsockname()[1]
        await self._accept()
        return self.stats.port

    def _bind(self, port: int) -> socket.socket:
        """A socket that holds the port without listening: a closed port stays this process's."""
        opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            # Not SO_REUSEADDR: with it, whoever has it too may take a port that is not listened on.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            opened.bind((LOOPBACK, port))
        except OSError as error:
            opened.close()
            raise FaultError(
                f"link {self.name!r}: port {port} on {LOOPBACK} ({error.strerror}): give another"
                " with --listen, or 0 for a free one"
            ) from error
        return opened

    async def _accept(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            self._connect, sock=self._bind(self.stats.port), backlog=_BACKLOG
        )

    def _connect(self) -> asyncio.Protocol:
        self.stats.accepted += 1
        return Connection(self, self.stats.accepted).client

    def opened(self, connection: Connection) -> None:
        """A client connected: connect to the broker, unless nothing gets through to it."""
        self._connections.add(connection)
        if len(self._connections) > MAX_CONNECTIONS:
            self.trouble(connection.number, f"more than {MAX_CONNECTIONS} connections: refused")
            connection.reset()
            return
        if self.partition is not None:
            self.partition.touched(connection.number, 0, "connect")
            connection.lost_bytes = True
            return
        task = asyncio.ensure_future(self._connect_upstream(connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect_upstream(self, connection: Connection) -> None:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: connection.broker, LOOPBACK, self.stats.upstream_port
            )
        except OSError:
            # A broker that is down: the client is refused as it would be without the proxy.
            self.stats.upstream_failures += 1
            connection.reset()

    def closed(self, connection: Connection) -> None:
        """Both sides are gone."""
        self._connections.discard(connection)

    def trouble(self, connection: int, text: str) -> None:
        """Keep what a run should know."""
        if len(self.stats.troubles) >= MAX_TROUBLES:
            self.stats.troubles_left_out += 1
            return
        self.stats.troubles.append(
            Trouble(connection=connection, text=text, time_ns=self.clock.monotonic_ns())
        )

    async def add(self, rule: ActiveRule) -> None:
        """Put a rule to work.

        Raises:
            FaultError: the link has such a link-wide rule already.
        """
        action = rule.rule.action
        if action in LINK_ACTIONS:
            self._check_free(rule)
        self._rules.append(rule)
        self._arrange()
        if action == "partition" and rule.rule.refuse and self._server is not None:
            self._server.close()
            self._server = None
            rule.hit(0, 0, "port closed")

    def _check_free(self, rule: ActiveRule) -> None:
        wanted = set(_directions(rule))
        for other in self._rules:
            if other.rule.action == rule.rule.action and wanted & set(_directions(other)):
                raise FaultError(
                    f"rule: link {self.name!r} has {rule.rule.action!r} already, as rule"
                    f" {other.stats.id}: remove that first"
                )

    def _arrange(self) -> None:
        """Sort the rules by where they are looked for."""
        for direction in DIRECTIONS:
            at_work = [rule for rule in self._rules if direction in _directions(rule)]
            self.frame_rules[direction] = tuple(
                rule for rule in at_work if rule.rule.action not in LINK_ACTIONS
            )
            self.bandwidth[direction] = _first(at_work, "bandwidth")
            self.latency[direction] = _first(at_work, "latency")
            self.partitions[direction] = _first(at_work, "partition")

    async def remove(self, rule: ActiveRule) -> None:
        """End a rule: what it held back goes on, what lost bytes in a partition is closed."""
        if rule not in self._rules:
            return
        rule.remove()
        self._rules.remove(rule)
        self._arrange()
        for connection in list(self._connections):
            if rule.rule.action == "partition" and connection.lost_bytes:
                connection.abort()
                continue
            for pipe in connection.pipes.values():
                pipe.outbox.pump()
        if self.partition is None and self._server is None:
            await self._accept()

    def close_half_open(self) -> int:
        """Close what forwards nothing any more, so that clients reconnect; how many those were."""
        stuck = [item for item in self._connections if item.flow is Flow.HALF_OPEN]
        for connection in stuck:
            connection.abort()
        return len(stuck)

    def counted(self) -> LinkStats:
        """The counts as they stand."""
        self.stats.open = len(self._connections)
        self.stats.half_open = sum(item.flow is Flow.HALF_OPEN for item in self._connections)
        return self.stats

    def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._connecting:
            task.cancel()
        for connection in list(self._connections):
            connection.abort()
        if self._reserved is not None:
            self._reserved.close()


def _directions(rule: ActiveRule) -> tuple[str, ...]:
    return DIRECTIONS if rule.rule.direction is None else (rule.rule.direction,)


def _first(rules: list[ActiveRule], action: str) -> ActiveRule | None:
    return next((rule for rule in rules if rule.rule.action == action), None)
