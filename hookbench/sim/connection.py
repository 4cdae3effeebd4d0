"""One connection of the simulated network."""

import enum
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from hookbench.sim.errors import SimulationError
from hookbench.sim.wire_rules import WireAction

if TYPE_CHECKING:
    from hookbench.sim.network import Link, Network, Node

__all__ = ["Connection", "Direction", "Session"]


class Direction(enum.StrEnum):
    """Which way a message goes."""

    TO_SERVER = "to_server"
    TO_CLIENT = "to_client"


_TO_SERVER, _TO_CLIENT = Direction
"""Each message asks for them, and a member of an enum is found slowly."""


class Session(Protocol):
    """The server's side of a connection."""

    def on_message(self, message: Any) -> None:
        """The client has sent something."""
        ...

    def on_closed(self) -> None:
        """The client is gone."""
        ...


class Connection:
    """Two directions, each of them in order.

    Attributes:
        on_lost: of the client: called once with the error of a connection that has ended.
        on_closed: of the network.
        port: of the node, where it is another one than that of its name.
        is_open: as far as the client knows.
    """

    def __init__(self, network: "Network", link: "Link", node: "Node", *, port: int = 0) -> None:
        self.port = port
        self._network = network
        self._link = link
        self._node = node
        self._session: Session | None = None
        self._accepted = False
        self._early: list[Any] = []
        self._on_message: Callable[[Any], None] | None = None
        self._last_ns = dict.fromkeys(Direction, 0)
        self.is_open = True
        self.on_lost: Callable[[OSError], None] = _nobody
        self.on_closed: Callable[[], None] = _nothing

    @property
    def node(self) -> "Node":
        """Where it goes to."""
        return self._node

    def on_message(self, take: Callable[[Any], None]) -> None:
        """Of the client: have ``take`` called with each message, also with those that are here."""
        self._on_message = take
        early, self._early = self._early, []
        for message in early:
            take(message)

    def begin(self, established: Callable[[], None]) -> None:
        """The server accepts it; the client is told, before what the server says at once."""
        server = self._node.server
        if server is None:
            raise SimulationError(f"node {self._node.name} has no server")
        self._send(_TO_CLIENT, established)
        self._node.connections[self] = None
        self._accepted = True
        self._session = server.accept(self)

    def send(self, message: Any) -> None:
        """From the client to the server.

        Raises:
            BrokenPipeError: the client knows that it is closed.
        """
        if not self.is_open:
            raise BrokenPipeError(32, "Broken pipe")
        self._pass(_TO_SERVER, message, self._at_server)

    def answer(self, message: Any) -> None:
        """From the server to the client; nothing, if the server's side has ended."""
        if self._accepted:
            self._pass(_TO_CLIENT, message, self._at_client)

    def close(self) -> None:
        """The client wants no more; the server is told, in order."""
        if not self.is_open:
            return
        self.is_open = False
        self.on_closed()
        self._send(_TO_SERVER, self._end_at_server)

    def reset(self) -> None:
        """Both sides find it reset, now."""
        self._end_at_server()
        self._lose(ConnectionResetError(104, "Connection reset by peer"))

    def end_server_side(self, *, tell: bool) -> None:
        """The server is gone, or closes it; the client is told, in order, if ``tell``."""
        self._session = None
        self._accepted = False
        self._node.connections.pop(self, None)
        if tell:
            self._send(_TO_CLIENT, lambda: self._lose(ConnectionResetError("closed by server")))

    def _pass(self, way: Direction, message: Any, arrive: Callable[[Any], None]) -> None:
        hold_ns = 0
        for rule in self._link.rules:
            if not rule.applies(way, message, self):
                continue
            if rule.action is WireAction.LOSE:
                return
            if rule.action is WireAction.RESET:
                self.reset()
                return
            if rule.action is WireAction.HOLD:
                hold_ns += rule.hold_ns
            else:
                self._send(way, partial(arrive, message))
        self._send(way, partial(arrive, message), hold_ns=hold_ns)

    def _send(self, way: Direction, arrive: Callable[[], None], *, hold_ns: int = 0) -> None:
        link = self._link
        if way in link.cut:
            link.held[way].append(lambda: self._send(way, arrive, hold_ns=hold_ns))
            return
        # Later by a nanosecond at least: what is due at one time may be dealt with in any order.
        not_before_ns = self._last_ns[way] + 1
        if hold_ns:
            not_before_ns = max(not_before_ns, self._network.loop.now_ns) + hold_ns
        self._last_ns[way] = self._network.carry_now(link, arrive, not_before_ns)

    def _at_server(self, message: Any) -> None:
        if self._node.stopped:
            self._node.waiting.append(lambda: self._at_server(message))
        elif self._session is not None:
            self._session.on_message(message)
        elif self._node.up:  # another process than the one that accepted: it knows no such thing
            self._send(
                _TO_CLIENT,
                lambda: self._lose(ConnectionResetError(104, "Connection reset by peer")),
            )

    def _end_at_server(self) -> None:
        if self._node.stopped:
            self._node.waiting.append(self._end_at_server)
            return
        session, self._session = self._session, None
        self._accepted = False
        self._node.connections.pop(self, None)
        if session is not None:
            session.on_closed()

    def _at_client(self, message: Any) -> None:
        if self.is_open and self._on_message is not None:
            self._on_message(message)
        elif self.is_open:
            self._early.append(message)

    def _lose(self, error: OSError) -> None:
        if self.is_open:
            self.is_open = False
            self.on_closed()
            self.on_lost(error)


def _nobody(_thing: Any) -> None:
    """Who has no interest."""


def _nothing() -> None:
    """As above."""
