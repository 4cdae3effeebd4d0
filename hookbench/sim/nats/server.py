"""A simulated NATS server on a node of the network."""

import contextvars
import json
import random
from collections.abc import Callable
from typing import Any

import msgspec

from hookbench.sim.clock import SimulatedClock
from hookbench.sim.connection import Connection
from hookbench.sim.errors import SimulationError
from hookbench.sim.loop import SimulatedLoop
from hookbench.sim.nats.consumer import Host
from hookbench.sim.nats.disk import Crash, Disk
from hookbench.sim.nats.frames import (
    Frame,
    Headers,
    message_frame,
    parse_frame,
    status_headers,
)
from hookbench.sim.nats.jetstream import JetStream, stored_headers
from hookbench.sim.nats.monitor import MONITOR_PORT, MonitorSession, varz_of
from hookbench.sim.nats.subjects import is_literal, literal_head, matches
from hookbench.sim.network import Node

__all__ = ["MAX_PAYLOAD_BYTES", "NatsServer"]

MAX_PAYLOAD_BYTES = 1024 * 1024
_FOUND_MAX = 4_096
"""Subjects whose subscribers are remembered."""
_encode = msgspec.json.Encoder().encode
_NO_RESPONDERS = "503"
_NOT_FOUND = "404 Message Not Found"
_DIRECT = "$JS.API.DIRECT.GET."
_API, _ACK, _NEXT = "$JS.API.", "$JS.ACK.", "$JS.API.CONSUMER.MSG.NEXT."


class NatsServer:
    """One server process.

    Args:
        loop: of the simulation.
        node: where it runs.
        before: one that ran there, on whose data it starts; ``None`` for none.
        disk: how it syncs; by default with every write.
        entropy: of the times at which it does otherwise.
        wall_offset_ns: how far its clock is ahead.
        version: that it tells.

    Attributes:
        jetstream: its streams and consumers.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        node: Node,
        *,
        before: "NatsServer | None" = None,
        disk: Disk | None = None,
        entropy: random.Random | None = None,
        wall_offset_ns: int = 0,
        version: str = "2.15.1",
    ) -> None:
        self._loop = loop
        self._node = node
        self._clock = SimulatedClock(loop, wall_offset_ns=wall_offset_ns)
        self._version = version
        self._disk = disk or Disk(sync_interval_s=0)
        if before is not None:
            self._disk = before._disk  # noqa: SLF001 - it is the same one
        self._varz = varz_of(version, self._disk.sync_interval_s)
        self._sessions: dict[NatsSession, None] = {}
        self._literal: dict[str, dict[Subscription, None]] = {}
        self._patterns: dict[Subscription, str] = {}
        """With what a subject must begin."""
        self._found: dict[str, list[Subscription]] = {}
        self._clients = 0
        self._context = contextvars.Context()
        self._serving: NatsServer = self
        self._crash: Crash | None = None
        node.on_end.append(self._end)
        if before is None:
            self.jetstream = JetStream(self._host(), self._disk, entropy or random.Random(0))
        else:
            self.jetstream = before.jetstream
            before._serving = self  # noqa: SLF001 - its consumers go on here
            before._link_to(self)  # noqa: SLF001 - as above
            if before._crash is None:  # noqa: SLF001 - as above
                raise SimulationError(f"node {node.name}: the server before it has not ended")
            self.jetstream.begin_again(before._crash)  # noqa: SLF001 - as above

    def _end(self, power: bool) -> None:
        self._crash = Crash(self._clock.wall_ns(), power)

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
            after=self.after,
            has_interest=lambda subject: self._present().has_interest(subject),
            deliver=lambda *message: self._present().deliver(*message),
            status=lambda *told: self._present().tell(*told),
            advise=lambda *told: self._present().advise(*told),
        )

    def accept(self, connection: Connection) -> "NatsSession | MonitorSession":
        """Somebody has connected: he is told who is here."""
        if connection.port == MONITOR_PORT:
            return MonitorSession(connection, self._varz)
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
            **self._more_info(),
        }
        connection.answer(f"INFO {json.dumps(info)}\r\n".encode())
        return session

    def _more_info(self) -> dict[str, Any]:
        """What a node of a cluster tells beside that."""
        return {}

    def drop(self, session: "NatsSession") -> None:
        """A session has ended."""
        self._sessions.pop(session, None)
        for subscription in session.subscriptions:
            self.unsubscribe(subscription)

    def after(self, delay_ns: int, call: Callable[[], None]) -> Any:
        """Call something later, unless no server runs there then."""
        node = self._node

        def due() -> None:
            if node.stopped:
                node.waiting.append(due)
            elif node.up:
                call()

        return self._loop.call_at_ns(self._loop.now_ns + delay_ns, due, context=self._context)

    def subscribe(self, subscription: "Subscription") -> None:
        """A session wants what is published to a subject or pattern."""
        self._found.clear()
        pattern = subscription.pattern
        if is_literal(pattern):
            self._literal.setdefault(pattern, {})[subscription] = None
        else:
            self._patterns[subscription] = literal_head(pattern)

    def unsubscribe(self, subscription: "Subscription") -> None:
        """It does not any more."""
        self._found.clear()
        self._patterns.pop(subscription, None)
        self._literal.get(subscription.pattern, {}).pop(subscription, None)

    def _taking(self, subject: str) -> "list[Subscription]":
        """Who subscribes to a subject: looked up once, until somebody comes or goes."""
        found = self._found.get(subject)
        if found is None:
            if len(self._found) >= _FOUND_MAX:
                self._found.clear()
            found = self._found[subject] = [
                *self._literal.get(subject, ()),
                *(
                    item
                    for item, head in self._patterns.items()
                    if subject.startswith(head) and matches(item.pattern, subject)
                ),
            ]
        return found

    def has_interest(self, subject: str) -> bool:
        """Whether somebody subscribes to it."""
        return bool(self._taking(subject))

    def deliver(self, inbox: str, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """Send a message to whoever subscribes to ``inbox``, under a subject of its own."""
        for subscription in self._taking(inbox):
            subscription.session.send(subscription, subject, reply, headers, payload)

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
            confirmed = self.jetstream.acknowledge(subject, payload)
            if confirmed and reply:
                self.deliver(reply, reply, "", b"", b"")
            return confirmed is not None
        if subject.startswith(_NEXT):
            return self.jetstream.ask(subject, reply, payload)
        if subject.startswith(_DIRECT):
            return self._answer_direct(subject.removeprefix(_DIRECT), reply)
        if subject.startswith(_API):
            answer = self.jetstream.api(subject, payload)
            if answer is not None and reply:
                self.deliver(reply, reply, "", b"", _encode(answer))
            return answer is not None
        taken = self.has_interest(subject)
        if taken:
            self.deliver(subject, subject, reply, headers, payload)
        stored = self.jetstream.store(subject, headers, payload)
        if stored is not None and reply:
            self.deliver(reply, reply, "", b"", _encode(stored))
        return taken or stored is not None

    def _answer_direct(self, what: str, reply: str) -> bool:
        """Answer a read of the last message of a subject; whether its stream allows that."""
        stream, _, subject = what.partition(".")
        allowed, message = self.jetstream.direct(stream, subject)
        if not allowed or not reply:
            return allowed
        if message is None:
            self.deliver(reply, reply, "", status_headers(_NOT_FOUND), b"")
        else:
            told = stored_headers(stream, message)
            self.deliver(reply, reply, "", told, message.payload)
        return True


class Subscription:
    """One subscription of a session.

    Attributes:
        left: messages until it ends by itself; ``None`` for no end.
    """

    __slots__ = ("left", "pattern", "session", "sid")

    def __init__(self, session: "NatsSession", sid: bytes, pattern: str) -> None:
        self.session = session
        self.sid = sid
        self.pattern = pattern
        self.left: int | None = None


class NatsSession:
    """The server's side of a connection."""

    def __init__(self, server: NatsServer, connection: Connection) -> None:
        self._server = server
        self._connection = connection
        self._by_sid: dict[bytes, Subscription] = {}
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

    @property
    def subscriptions(self) -> "list[Subscription]":
        """What it subscribes to."""
        return list(self._by_sid.values())

    def send(
        self,
        subscription: "Subscription",
        subject: str,
        reply: str,
        headers: bytes,
        payload: bytes,
    ) -> None:
        """Send a message to one of its subscriptions."""
        sid = subscription.sid
        self._connection.answer(message_frame(subject, sid, reply, headers, payload))
        if subscription.left is not None:
            subscription.left -= 1
            if subscription.left <= 0:
                self._end(sid)

    def _end(self, sid: bytes) -> None:
        subscription = self._by_sid.pop(sid, None)
        if subscription is not None:
            self._server.unsubscribe(subscription)

    def _connect(self, frame: Frame) -> None:
        self._no_responders = bool(frame.settings().get("no_responders"))

    def _ping(self, _frame: Frame) -> None:
        self._connection.answer(b"PONG\r\n")

    def _pong(self, _frame: Frame) -> None:
        """This server sends no pings that would be counted."""

    def _subscribe(self, frame: Frame) -> None:
        if frame.words[-1] in self._by_sid:
            return  # as a server does: a client that reconnects may say it once more
        subscription = Subscription(self, frame.words[-1], frame.words[0].decode())
        self._by_sid[subscription.sid] = subscription
        self._server.subscribe(subscription)

    def _unsubscribe(self, frame: Frame) -> None:
        sid = frame.words[0]
        limited = len(frame.words) > 1 and int(frame.words[1]) > 0
        if limited and sid in self._by_sid:
            self._by_sid[sid].left = int(frame.words[1])
        else:
            self._end(sid)

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
