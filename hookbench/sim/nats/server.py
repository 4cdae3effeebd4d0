"""A simulated NATS server on a node of the network."""

import contextvars
import json
from collections.abc import Callable
from typing import Any

from hookbench.sim.clock import SimulatedClock
from hookbench.sim.connection import Connection
from hookbench.sim.loop import SimulatedLoop
from hookbench.sim.nats.consumer import Host
from hookbench.sim.nats.frames import (
    Frame,
    Headers,
    message_frame,
    parse_frame,
    status_headers,
)
from hookbench.sim.nats.jetstream import JetStream
from hookbench.sim.nats.subjects import matches
from hookbench.sim.network import Node

__all__ = ["MAX_PAYLOAD_BYTES", "NatsServer"]

MAX_PAYLOAD_BYTES = 1024 * 1024
_NO_RESPONDERS = "503"
_API, _ACK, _NEXT = "$JS.API.", "$JS.ACK.", "$JS.API.CONSUMER.MSG.NEXT."


class NatsServer:
    """One server process.

    Args:
        loop: of the simulation.
        node: where it runs.
        jetstream: the data of one that ran there before; ``None`` for none.
        wall_offset_ns: how far its clock is ahead.
        version: that it tells.

    Attributes:
        jetstream: its streams and consumers.
        data: what a server that is started again is to be given.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        node: Node,
        *,
        before: "NatsServer | None" = None,
        wall_offset_ns: int = 0,
        version: str = "2.15.1",
    ) -> None:
        self._loop = loop
        self._node = node
        self._clock = SimulatedClock(loop, wall_offset_ns=wall_offset_ns)
        self._version = version
        self._sessions: dict[NatsSession, None] = {}
        self._clients = 0
        self._context = contextvars.Context()
        self._serving: NatsServer = self
        if before is None:
            self.jetstream = JetStream(self._host())
        else:
            self.jetstream = before.jetstream
            before._serving = self  # noqa: SLF001 - its consumers go on here
            before._link_to(self)  # noqa: SLF001 - as above
            self.jetstream.begin_again()

    def _link_to(self, server: "NatsServer") -> None:
        self._serving = server

    def _present(self) -> "NatsServer":
        """The server that has the data now: this one, or one that was started after it."""
        server = self
        while server._serving is not server:
            server = server._serving
        return server

    def _host(self) -> Host:
        return Host(
            now_ns=lambda: self._loop.now_ns,
            wall_ns=self._clock.wall_ns,
            after=self._after,
            has_interest=lambda subject: self._present().has_interest(subject),
            deliver=lambda *message: self._present().deliver(*message),
            status=lambda *told: self._present().tell(*told),
            advise=lambda *told: self._present().advise(*told),
        )

    def accept(self, connection: Connection) -> "NatsSession":
        """Somebody has connected: he is told who is here."""
        self._clients += 1
        session = NatsSession(self, connection)
        self._sessions[session] = None
        info = {
            "server_id": self._node.name,
            "server_name": self._node.name,
            "version": self._version,
            "proto": 1,
            "headers": True,
            "jetstream": True,
            "max_payload": MAX_PAYLOAD_BYTES,
            "client_id": self._clients,
        }
        connection.answer(f"INFO {json.dumps(info)}\r\n".encode())
        return session

    def drop(self, session: "NatsSession") -> None:
        """A session has ended."""
        self._sessions.pop(session, None)

    def _after(self, delay_ns: int, call: Callable[[], None]) -> Any:
        """Call something later, unless no server runs there then."""
        node = self._node

        def due() -> None:
            if node.stopped:
                node.waiting.append(due)
            elif node.up:
                call()

        return self._loop.call_at_ns(self._loop.now_ns + delay_ns, due, context=self._context)

    def has_interest(self, subject: str) -> bool:
        """Whether somebody subscribes to it."""
        return any(session.takes(subject) for session in self._sessions)

    def deliver(self, inbox: str, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """Send a message to whoever subscribes to ``inbox``, under a subject of its own."""
        for session in list(self._sessions):
            session.send_to(inbox, subject, reply, headers, payload)

    def tell(self, inbox: str, status: str, headers: Headers) -> None:
        """Send a status."""
        self.deliver(inbox, inbox, "", status_headers(status, headers), b"")

    def advise(self, what: str, told: dict[str, Any]) -> None:
        """Publish an advisory about a consumer."""
        subject = f"$JS.EVENT.ADVISORY.CONSUMER.{what}"
        payload = json.dumps(told).encode()
        self.deliver(subject, subject, "", b"", payload)
        self.jetstream.store(subject, b"", payload)

    def publish(self, subject: str, reply: str, headers: bytes, payload: bytes) -> bool:
        """What a client has published; whether anybody took it."""
        if subject.startswith(_ACK):
            known = self.jetstream.acknowledge(subject, payload)
            if known and reply:
                self.deliver(reply, reply, "", b"", b"")
            return known
        if subject.startswith(_NEXT):
            return self.jetstream.ask(subject, reply, payload)
        if subject.startswith(_API):
            answer = self.jetstream.api(subject, payload)
            if answer is not None and reply:
                self.deliver(reply, reply, "", b"", json.dumps(answer).encode())
            return answer is not None
        taken = self.has_interest(subject)
        if taken:
            self.deliver(subject, subject, reply, headers, payload)
        stored = self.jetstream.store(subject, headers, payload)
        if stored is not None and reply:
            self.deliver(reply, reply, "", b"", json.dumps(stored).encode())
        return taken or stored is not None


class NatsSession:
    """The server's side of a connection."""

    def __init__(self, server: NatsServer, connection: Connection) -> None:
        self._server = server
        self._connection = connection
        self._subscriptions: dict[bytes, str] = {}
        self._left: dict[bytes, int] = {}
        self._no_responders = False

    def on_message(self, data: bytes) -> None:
        """A frame of the client."""
        frame = parse_frame(data)
        deal = _VERBS.get(frame.verb)
        if deal is None:
            self._connection.answer(b"-ERR 'Unknown Protocol Operation'\r\n")
        else:
            deal(self, frame)

    def on_closed(self) -> None:
        """What it subscribed to is forgotten."""
        self._server.drop(self)

    def takes(self, subject: str) -> bool:
        """Whether it subscribes to a subject."""
        return any(matches(pattern, subject) for pattern in self._subscriptions.values())

    def send_to(self, inbox: str, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """Send a message to each of its subscriptions to ``inbox``."""
        for sid, pattern in list(self._subscriptions.items()):
            if matches(pattern, inbox):
                self._connection.answer(message_frame(subject, sid, reply, headers, payload))
                if sid in self._left:
                    self._count_down(sid)

    def _count_down(self, sid: bytes) -> None:
        self._left[sid] -= 1
        if self._left[sid] <= 0:
            del self._left[sid]
            self._subscriptions.pop(sid, None)

    def _connect(self, frame: Frame) -> None:
        self._no_responders = bool(frame.settings().get("no_responders"))

    def _ping(self, _frame: Frame) -> None:
        self._connection.answer(b"PONG\r\n")

    def _pong(self, _frame: Frame) -> None:
        """This server sends no pings that would be counted."""

    def _subscribe(self, frame: Frame) -> None:
        self._subscriptions[frame.words[-1]] = frame.words[0].decode()

    def _unsubscribe(self, frame: Frame) -> None:
        sid = frame.words[0]
        if len(frame.words) > 1 and int(frame.words[1]) > 0:
            self._left[sid] = int(frame.words[1])
        else:
            self._subscriptions.pop(sid, None)
            self._left.pop(sid, None)

    def _publish(self, frame: Frame) -> None:
        sizes = 2 if frame.verb == b"HPUB" else 1
        names = frame.words[:-sizes]
        subject = names[0].decode()
        reply = names[1].decode() if len(names) > 1 else ""
        taken = self._server.publish(subject, reply, frame.headers, frame.payload)
        if not taken and reply and self._no_responders:
            self._server.tell(reply, _NO_RESPONDERS, {})


_VERBS: dict[bytes, Callable[[NatsSession, Frame], None]] = {
    b"CONNECT": NatsSession._connect,  # noqa: SLF001 - of this module
    b"HPUB": NatsSession._publish,  # noqa: SLF001 - of this module
    b"PING": NatsSession._ping,  # noqa: SLF001 - of this module
    b"PONG": NatsSession._pong,  # noqa: SLF001 - of this module
    b"PUB": NatsSession._publish,  # noqa: SLF001 - of this module
    b"SUB": NatsSession._subscribe,  # noqa: SLF001 - of this module
    b"UNSUB": NatsSession._unsubscribe,  # noqa: SLF001 - of this module
}
