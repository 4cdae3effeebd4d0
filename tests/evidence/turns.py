"""What goes over the connections of this process, by who opened them and to which broker.

Counted where the clients hand their bytes to asyncio, so no broker is asked and no proxy slows
anything down. A *turn* is one write of a Redis client: a command, a pipeline as a whole, or what
several callers asked for together over a shared connection. NATS has no such pairs, so its
*messages* are counted, each way, by nats-py itself: a publish is one out and its acknowledgement
one in.
"""

import asyncio
import contextlib
import contextvars
import dataclasses
from unittest import mock

from hookbench.queues import redis_client, transport

__all__ = ["FIGURES", "ROLES", "Meter", "Tally", "as_role"]

PRODUCER, WORKER = ROLES = ("producer", "worker")
_ROLE = contextvars.ContextVar("role", default="")


def as_role(role):
    """A context for ``create_task``: connections that are opened in it are those of ``role``."""
    context = contextvars.copy_context()
    context.run(_ROLE.set, role)
    return context


@dataclasses.dataclass(kw_only=True)
class Tally:
    """Counts of one role; ``out`` is from the client to the broker."""

    redis_turns: float = 0
    redis_out_bytes: float = 0
    redis_in_bytes: float = 0
    nats_out: float = 0
    nats_in: float = 0
    nats_out_bytes: float = 0
    nats_in_bytes: float = 0

    @property
    def wire_bytes(self):
        """To and from both brokers."""
        redis = self.redis_out_bytes + self.redis_in_bytes
        return redis + self.nats_out_bytes + self.nats_in_bytes

    def less(self, other):
        """What came since ``other``."""
        return Tally(**{name: getattr(self, name) - getattr(other, name) for name in FIGURES})

    def plus(self, other):
        return Tally(**{name: getattr(self, name) + getattr(other, name) for name in FIGURES})

    def per(self, count):
        return Tally(**{name: getattr(self, name) / count for name in FIGURES})


FIGURES = tuple(field.name for field in dataclasses.fields(Tally))


class _CountedTransport:
    """A lent one: what is written to it is counted."""

    def __init__(self, lent, on_send):
        self._lent = lent
        self._on_send = on_send

    def write(self, data):
        self._on_send(len(data))
        self._lent.write(data)

    def __getattr__(self, name):
        return getattr(self._lent, name)


class _CountedProtocol(asyncio.Protocol):
    """Whom a connection is lent to: what it is given is counted."""

    def __init__(self, borrower, on_receive):
        self._on_receive = on_receive
        self._borrower = borrower
        self.connection_lost = borrower.connection_lost
        self.pause_writing = borrower.pause_writing
        self.resume_writing = borrower.resume_writing

    def data_received(self, data):
        self._on_receive(len(data))
        self._borrower.data_received(data)


class Meter:
    """Counts while its context lasts.

    Args:
        brokers: ``redis`` or ``nats`` by port; other connections are not counted.
    """

    def __init__(self, brokers):
        self._brokers = brokers
        self._bytes = {role: Tally() for role in ROLES}
        self._clients = {role: [] for role in ROLES}
        self._open = asyncio.open_connection
        self._connect = transport.connect_client
        self._lend = redis_client.PooledConnection.lend

    @contextlib.contextmanager
    def counting(self):
        with (
            mock.patch.object(asyncio, "open_connection", self._open_connection),
            mock.patch.object(transport, "connect_client", self._connect_client),
            mock.patch.object(redis_client.PooledConnection, "lend", self._counted_lend()),
        ):
            yield self

    def read(self, role):
        """What a role has sent and received since the beginning."""
        clients = self._clients[role]
        return dataclasses.replace(
            self._bytes[role],
            nats_out=sum(client.stats["out_msgs"] for client in clients),
            nats_in=sum(client.stats["in_msgs"] for client in clients),
        )

    async def _connect_client(self, *arguments, **options):
        client = await self._connect(*arguments, **options)
        if _ROLE.get():
            self._clients[_ROLE.get()].append(client)
        return client

    def _counted_lend(self):
        def lend(connection, protocol):
            counts = getattr(connection._writer, "counts", None)
            if counts is None:
                return self._lend(connection, protocol)
            on_send, on_receive = counts
            lent = self._lend(connection, _CountedProtocol(protocol, on_receive))
            return _CountedTransport(lent, on_send)

        return lend

    async def _open_connection(self, host=None, port=None, **options):
        reader, writer = await self._open(host, port, **options)
        broker, role = self._brokers.get(port), _ROLE.get()
        if broker and role:
            self._count(self._bytes[role], broker, reader, writer)
        return reader, writer

    @staticmethod
    def _count(tally, broker, reader, writer):
        write, writelines, feed = writer.write, writer.writelines, reader.feed_data
        sent, received = f"{broker}_out_bytes", f"{broker}_in_bytes"

        def add(name, number):
            setattr(tally, name, getattr(tally, name) + number)

        def on_send(size):
            add(sent, size)
            if broker == "redis":
                add("redis_turns", 1)

        def counted_write(data):
            on_send(len(data))
            write(data)

        def counted_writelines(lines):
            lines = list(lines)
            on_send(sum(map(len, lines)))
            writelines(lines)

        def on_receive(size):
            add(received, size)

        def counted_feed(data):
            on_receive(len(data))
            feed(data)

        writer.counts = on_send, on_receive
        writer.write, writer.writelines = counted_write, counted_writelines
        reader.feed_data = counted_feed
