"""A simulated network: connections between processes and nodes that behave as TCP does, or fail.

Within one connection and direction nothing overtakes anything; between connections everything may,
for each message has a delay of its own, drawn from the seed. Faults are those of a wire: a
direction that is cut and healed, a node that is killed, stopped, or loses its power, a connection
that is reset, and rules that lose, repeat or hold back single messages.

A message is any object; there are no bytes and no frames, which ``faults/wire`` is for.
"""

import asyncio
import contextvars
import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from hookbench.sim.connection import Connection, Direction, Session
from hookbench.sim.errors import SimulationError
from hookbench.sim.loop import SimulatedLoop
from hookbench.sim.processes import PROCESS, Process

if TYPE_CHECKING:
    from hookbench.sim.wire_rules import WireRule

__all__ = ["Delays", "Link", "Network", "Node", "Server"]


class Delays(msgspec.Struct, frozen=True, kw_only=True):
    """How long a message is under way, one direction: ``least_ns``, and an exponential rest.

    Attributes:
        least_ns: at the least.
        mean_rest_ns: of what is added to that; 0 for nothing.
        tick_ns: what arrives within one of these is handed over at its end, in order, as one TCP
            segment hands over several messages; 0 for each of them by itself.
    """

    least_ns: int = 100_000
    mean_rest_ns: int = 100_000
    tick_ns: int = 0

    def draw(self, entropy: random.Random) -> int:
        """Nanoseconds."""
        if not self.mean_rest_ns:
            return self.least_ns
        # As ``expovariate(1.0)`` draws, without its frame: a message costs as little as that.
        return self.least_ns + int(-math.log(1.0 - entropy.random()) * self.mean_rest_ns)


class Server(Protocol):
    """What runs on a node."""

    def accept(self, connection: Connection) -> Session:
        """Somebody has connected."""
        ...


class Node:
    """A machine with one server.

    Attributes:
        up: its process runs; a connection to one that does not is refused.
        stopped: it is stopped: connections are taken, and nothing is answered.
        on_end: called when its process ends, once, with whether that was for want of power.
        on_pause: called when its process is stopped, or goes on.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.server: Server | None = None
        self.up = False
        self.stopped = False
        self.connections: dict[Connection, None] = {}
        self.waiting: list[Callable[[], None]] = []
        self.on_end: list[Callable[[bool], None]] = []
        self.on_pause: Callable[[], None] = _nothing

    def start(self, server: Server) -> None:
        """Run a server; one that ran before must have been killed."""
        if self.up:
            raise SimulationError(f"node {self.name} runs already")
        self.server, self.up = server, True

    def kill(self) -> None:
        """SIGKILL: the kernel closes its connections, so the other side is told."""
        self._end(power=False)
        for connection in list(self.connections):
            connection.end_server_side(tell=True)

    def lose_power(self) -> None:
        """Nobody is told: the other side finds out when it sends something to what starts next."""
        self._end(power=True)
        for connection in list(self.connections):
            connection.end_server_side(tell=False)

    def stop(self) -> None:
        """SIGSTOP."""
        self.stopped = True
        self.on_pause()

    def resume(self) -> None:
        """SIGCONT: what arrived meanwhile is dealt with first, in order."""
        self.stopped = False
        waiting, self.waiting = self.waiting, []
        for deal in waiting:
            deal()
        self.on_pause()

    def _end(self, *, power: bool) -> None:
        if not self.up:
            raise SimulationError(f"node {self.name} does not run")
        self.up = self.stopped = False
        self.waiting.clear()
        tell, self.on_end = self.on_end, []
        for told in tell:
            told(power)


class Link:
    """The way between the processes of one client name and a node.

    Attributes:
        delays: of its messages.
        cut: directions in which nothing arrives until ``heal``.
        rules: for single messages.
    """

    def __init__(self, delays: Delays) -> None:
        self.delays = delays
        self.cut: set[Direction] = set()
        self.rules: list[WireRule] = []
        self.held: dict[Direction, list[Callable[[], None]]] = {way: [] for way in Direction}


class Network:
    """All links and nodes.

    Args:
        loop: of the simulation.
        entropy: what delays are drawn from.
        delays: of links that are given no others.
    """

    def __init__(
        self, loop: SimulatedLoop, entropy: random.Random, *, delays: Delays | None = None
    ) -> None:
        self.loop = loop
        self.entropy = entropy
        self.messages = 0
        self._delays = delays or Delays()
        self._nodes: dict[str, Node] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._sockets: dict[Process, dict[Connection, None]] = {}
        # What is under way belongs to no process: it arrives when its sender is dead as well.
        self._context = contextvars.Context()

    def node(self, name: str) -> Node:
        """The node of this name, made when first asked for."""
        if name not in self._nodes:
            self._nodes[name] = Node(name)
        return self._nodes[name]

    def link(self, client: str, node: str) -> Link:
        """The link between them, made when first asked for."""
        key = (client, node)
        if key not in self._links:
            self._links[key] = Link(self._delays)
        return self._links[key]

    def cut(self, link: Link, *ways: Direction) -> None:
        """Let nothing arrive any more, one way or both; nobody is told."""
        link.cut.update(ways or Direction)

    def heal(self, link: Link) -> None:
        """Let what was sent meanwhile arrive, as TCP sends it again."""
        link.cut.clear()
        for way in Direction:
            held, link.held[way] = link.held[way], []
            for send in held:
                send()

    async def connect(
        self, client: str, node: str, *, timeout_s: float, port: int = 0
    ) -> Connection:
        """A connection of the calling process.

        Args:
            client: whose link is used.
            node: where to.
            timeout_s: how long it may take.
            port: of the node, where it is another one than that of its name; the link is the same.

        Raises:
            TimeoutError: no answer.
            ConnectionRefusedError: nothing runs there.
        """
        link, target = self.link(client, node), self.node(node)
        established: asyncio.Future[Connection] = self.loop.create_future()
        connection = Connection(self, link, target, port=port)

        def arrive() -> None:
            if not target.up or target.server is None:
                self.carry(link, Direction.TO_CLIENT, refuse)
                return
            connection.begin(establish)

        def refuse() -> None:
            if not established.done():
                established.set_exception(ConnectionRefusedError(111, f"connect to {node}"))

        def establish() -> None:
            if established.done():
                connection.close()
            else:
                established.set_result(connection)

        self.carry(link, Direction.TO_SERVER, arrive)
        async with asyncio.timeout(timeout_s):
            await established
        self._hold(connection)
        return connection

    def carry(self, link: Link, way: Direction, arrive: Callable[[], None]) -> None:
        """Have ``arrive`` called after a delay, behind the healing of a link that is cut."""
        if way in link.cut:
            link.held[way].append(lambda: self.carry(link, way, arrive))
        else:
            self.carry_now(link, arrive, 0)

    def carry_now(self, link: Link, arrive: Callable[[], None], not_before_ns: int) -> int:
        """Have ``arrive`` called after a delay, over a link that is not cut; when that will be."""
        self.messages += 1
        loop, delays = self.loop, link.delays
        due_ns = loop.now_ns + delays.draw(self.entropy)
        due_ns = due_ns if due_ns > not_before_ns else not_before_ns  # noqa: FURB136 - max() is slow
        tick_ns = delays.tick_ns
        handed_ns = due_ns + -due_ns % tick_ns if tick_ns else due_ns
        loop.call_at_ns(handed_ns, arrive, context=self._context)
        return due_ns

    def _hold(self, connection: Connection) -> None:
        """The kernel closes the connections of a process that is killed."""
        process = PROCESS.get()
        if process is None:
            return
        sockets = self._sockets.get(process)
        if sockets is None:
            sockets = self._sockets[process] = {}
            process.on_killed.append(lambda: self._close_all(process))
        sockets[connection] = None
        connection.on_closed = lambda: void(sockets.pop(connection, None))

    def _close_all(self, process: Process) -> None:
        for connection in list(self._sockets.pop(process, {})):
            connection.close()


def _nothing() -> None:
    """Who has no interest."""


def void(_value: object) -> None:
    """Drop what a call returns."""
