"""How a process comes to its connections: the seam at which the simulator brings its own."""

from typing import Protocol

from hookbench.clock import Clock
from hookbench.queues.nats_measures import GUIDE_NATS, NatsMeasures
from hookbench.queues.redis_client import RedisClient, connect_redis
from hookbench.queues.transport import AppTransport
from hookbench.task import Names

__all__ = ["NETWORK", "Dialer", "NetworkDialer"]


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
    ) -> AppTransport:
        """See ``AppTransport.connect``."""
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
    ) -> AppTransport:
        """See ``AppTransport.connect``."""
        return await AppTransport.connect(url, names=names, clock=clock, measures=measures)


NETWORK = NetworkDialer()
"""It has no state."""
