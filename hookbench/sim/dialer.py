"""The connections of a simulated process: ``hookbench.queues.dialing.Dialer``."""

import random

from nats.aio.client import Client

from hookbench.clock import Clock
from hookbench.queues.nats_measures import GUIDE_NATS, NatsMeasures
from hookbench.queues.redis_client import RedisClient
from hookbench.queues.transport import AppTransport
from hookbench.sim.nats.client import connect_simulated_nats
from hookbench.sim.network import Network
from hookbench.sim.redis.client import connect_simulated_redis
from hookbench.task import Names

__all__ = ["SimulatedDialer"]


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
