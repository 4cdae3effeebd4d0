"""A connection that is lost before its first command, on uvloop, on which everything runs."""

import asyncio

import pytest
import uvloop
from nats.aio.client import Client
from redis.asyncio.connection import Connection

from hookbench.errors import BrokerUnreachableError, PublishRefusedError
from hookbench.queues.redis_client import connect_redis
from hookbench.queues.redis_list import RedisListQueue
from hookbench.queues.transport import AppTransport
from tests.conftest import eventually

LOSSES = 3


async def lose(writer):
    """As after a reset by the other side."""
    writer.transport.abort()
    await asyncio.sleep(0.01)


def test_a_put_is_refused_and_a_read_fails(redis_broker, names, monkeypatch):
    connect = Connection._connect

    async def connect_and_lose(self):
        await connect(self)
        await lose(self._writer)

    async def scene():
        client = connect_redis(redis_broker.url)
        try:
            async with RedisListQueue(client, names=names) as queue:
                monkeypatch.setattr(Connection, "_connect", connect_and_lose)
                with pytest.raises(PublishRefusedError, match="closed before"):
                    await queue.put(b"{}")
                with pytest.raises(BrokerUnreachableError, match="closed before"):
                    await queue.receive(1, 0.1)
                monkeypatch.undo()
                assert await queue.put(b"{}") == 1
        finally:
            await client.aclose()

    uvloop.run(scene())


def test_a_nats_client_goes_on_reconnecting(nats_broker, names, monkeypatch):
    process_info = Client._process_info
    losses = []

    async def greet_and_lose(self, *args, **kwargs):
        await process_info(self, *args, **kwargs)
        if len(losses) < LOSSES:
            losses.append(self)
            await lose(self._transport._io_writer)

    async def scene():
        transport = await AppTransport.connect(nats_broker.url, names=names)
        try:
            monkeypatch.setattr(Client, "_process_info", greet_and_lose)
            await lose(transport.client._transport._io_writer)
            await eventually(
                lambda: len(losses) == LOSSES and transport.client.is_connected,
                what="the connection",
            )
            await transport.client.flush()
        finally:
            await transport.close()

    uvloop.run(scene())
