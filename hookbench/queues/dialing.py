"""How a process comes to its connections: the seam at which the simulator brings its own."""

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Protocol, cast

from hookbench.clock import Clock
from hookbench.queues.access import redis_of
from hookbench.queues.nats_measures import GUIDE_NATS, NatsMeasures
from hookbench.queues.redis_client import RedisClient, closed_is_never_sent, connect_redis
from hookbench.task import Names

if TYPE_CHECKING:
    from hookbench.queues.transport import AppTransport

__all__ = [
    "NETWORK",
    "PROBE_TIMEOUT_S",
    "ByteReader",
    "ByteWriter",
    "Dialer",
    "NetworkDialer",
    "RedisProbe",
]

PROBE_TIMEOUT_S = 3.0
"""How long a server may take to say what it is."""


class RedisProbe(Protocol):
    """A Redis client for a question or two."""

    def info(self, section: str) -> Awaitable[dict[str, Any]]:
        """A section of what the server says of itself."""
        ...

    async def aclose(self) -> None:
        """Close its connection."""
        ...


class ByteReader(Protocol):
    """What is read of an ``asyncio.StreamReader``."""

    async def read(self, n: int) -> bytes:
        """Up to ``n`` bytes; none at the end."""
        ...

    async def readline(self) -> bytes:
        """Up to the end of a line, or of everything."""
        ...


class ByteWriter(Protocol):
    """What is used of an ``asyncio.StreamWriter``."""

    def write(self, data: bytes) -> None:
        """Send."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...

    async def wait_closed(self) -> None:
        """Until it is closed."""
        ...


class Dialer(Protocol):
    """Opens connections to brokers by their URLs."""

    def redis(self, url: str, *, block_timeout_secs: float = 5.0) -> RedisClient:
        """See ``connect_redis``."""
        ...

    async def nats(
        self,
        url: str,
        *,
        names: Names | None = None,
        clock: Clock | None = None,
        measures: NatsMeasures = GUIDE_NATS,
    ) -> "AppTransport":
        """See ``AppTransport.connect``."""
        ...

    def probe(self, url: str) -> RedisProbe:
        """A client of one Redis node, which answers within ``PROBE_TIMEOUT_S``.

        Raises:
            ValueError: the URL is no redis URL.
        """
        ...

    async def stream(self, host: str, port: int) -> tuple[ByteReader, ByteWriter]:
        """Bytes to and from a server; the caller says how long that may take.

        Raises:
            OSError: nothing listens there.
        """
        ...


class NetworkDialer:
    """Over the real network."""

    def redis(self, url: str, *, block_timeout_secs: float = 5.0) -> RedisClient:
        """See ``connect_redis``."""
        return connect_redis(url, block_timeout_secs=block_timeout_secs)

    async def nats(
        self,
        url: str,
        *,
        names: Names | None = None,
        clock: Clock | None = None,
        measures: NatsMeasures = GUIDE_NATS,
    ) -> "AppTransport":
        """See ``AppTransport.connect``."""
        from hookbench.queues.transport import AppTransport  # noqa: PLC0415 - see ``probe``

        return await AppTransport.connect(url, names=names, clock=clock, measures=measures)

    def probe(self, url: str) -> RedisProbe:
        """See ``Dialer``; who only asks what a server is pays for no NATS client."""
        client = redis_of(
            url,
            protocol=2,  # as the queues speak it: what a proxy between them reads
            socket_timeout=PROBE_TIMEOUT_S,
            socket_connect_timeout=PROBE_TIMEOUT_S,
        )
        closed_is_never_sent(client.connection_pool)
        return cast("RedisProbe", client)

    async def stream(self, host: str, port: int) -> tuple[ByteReader, ByteWriter]:
        """See ``Dialer``."""
        return await asyncio.open_connection(host, port)


NETWORK = NetworkDialer()
"""It has no state."""
