"""The connections of a simulated process: ``hookbench.queues.dialing.Dialer``."""

import asyncio
import random
from typing import TYPE_CHECKING, cast

from nats.aio.client import Client

from hookbench.clock import Clock
from hookbench.queues.dialing import PROBE_TIMEOUT_S, ByteReader, ByteWriter, RedisProbe
from hookbench.queues.nats_measures import GUIDE_NATS, NatsMeasures
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.transport import AppTransport
from hookbench.sim.nats.client import connect_simulated_nats
from hookbench.sim.nats.monitor import MONITOR_PORT
from hookbench.sim.network import Network
from hookbench.sim.redis.client import SimulatedRedis, connect_simulated_redis
from hookbench.sim.redis.pool import ConnectionLimits, ConnectionPool
from hookbench.task import Names

if TYPE_CHECKING:
    from hookbench.sim.connection import Connection

__all__ = ["SimulatedDialer"]

_NATS_PORT = 4222


class SimulatedDialer:
    """Opens connections over the simulated network; a URL names the node, ``redis://redis:6379``.

    Args:
        network: between the process and the nodes.
        client: whose links are used.
        entropy: for the names of inboxes.
    """

    def __init__(self, network: Network, client: str, entropy: random.Random) -> None:
        self._network = network
        self._client = client
        self._entropy = entropy

    def redis(self, url: str, *, block_timeout_secs: float = 5.0) -> RedisClient:
        """See ``connect_redis``; several nodes are separated by commas."""
        nodes = url.partition("://")[2].split(",")
        return connect_simulated_redis(
            self._network, self._client, nodes, block_timeout_secs=block_timeout_secs
        )

    async def nats(
        self,
        url: str,
        *,
        names: Names | None = None,
        clock: Clock | None = None,
        measures: NatsMeasures = GUIDE_NATS,
    ) -> AppTransport:
        """See ``AppTransport.connect``."""

        async def connect(servers: str | list[str], **options: object) -> Client:
            urls = [servers] if isinstance(servers, str) else servers
            return await connect_simulated_nats(
                self._network, self._client, urls, entropy=self._entropy, **options
            )

        return await AppTransport.connect(
            url, names=names, clock=clock, measures=measures, connect=connect
        )

    def probe(self, url: str) -> RedisProbe:
        """See ``Dialer``."""
        limits = ConnectionLimits(
            socket_timeout_s=PROBE_TIMEOUT_S,
            connect_timeout_s=PROBE_TIMEOUT_S,
            pool_wait_s=PROBE_TIMEOUT_S,
            max_connections=1,
        )
        node = url.partition("://")[2]
        pool = ConnectionPool(self._network, self._client, [node], limits)
        return cast("RedisProbe", SimulatedRedis(pool))

    async def stream(self, host: str, port: int) -> tuple[ByteReader, ByteWriter]:
        """See ``Dialer``; the monitoring of a NATS server is on its node."""
        monitored = port == MONITOR_PORT
        connection = await self._network.connect(
            self._client,
            f"{host}:{_NATS_PORT if monitored else port}",
            timeout_s=PROBE_TIMEOUT_S,
            port=MONITOR_PORT if monitored else 0,
        )
        reader = asyncio.StreamReader(loop=asyncio.get_running_loop())
        connection.on_lost = lambda _error: reader.feed_eof()
        connection.on_message(reader.feed_data)
        return reader, _Writer(connection)


class _Writer:
    """``ByteWriter`` of a simulated connection: what is written at once is one message."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    def write(self, data: bytes) -> None:
        """See ``ByteWriter``."""
        self._connection.send(data)

    def close(self) -> None:
        """See ``ByteWriter``."""
        self._connection.close()

    async def wait_closed(self) -> None:
        """See ``ByteWriter``: the client's side is closed at once."""
