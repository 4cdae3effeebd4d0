"""A connection that is lost before its first command, on uvloop, on which everything runs."""

import asyncio

import pytest
import uvloop
from nats.aio.client import Client
from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError

from hookbench.errors import BrokerUnreachableError, PublishRefusedError
from hookbench.queues.reconnecting import connect_client
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


def test_a_client_whose_connection_is_lost_can_be_closed(nats_broker):
    """With something left to send, which it would write to the closed connection."""

    async def scene():
        client = await connect_client(nats_broker.url, error_cb=_quiet)
        client._transport._io_writer.transport.abort()
        assert client.send_now("somewhere", b"x")
        before = asyncio.all_tasks()
        await client.close()
        assert client.is_closed
        assert not asyncio.all_tasks() - before

    uvloop.run(scene())


async def _quiet(_error):
    """The connection is lost on purpose."""


@pytest.mark.parametrize("scheme", ["redis", "redis+replica"])
async def test_a_client_that_was_closed_opens_no_connection(redis_broker, names, scheme):
    """A read that nobody cancels, and whatever is tried again, goes on after the close."""
    url = f"{scheme}://127.0.0.1:{redis_broker.port}"
    client = connect_redis(url, block_timeout_secs=5.0)
    queue = RedisListQueue(client, names=names)
    assert await queue.put(b"{}") == 1
    reading = asyncio.ensure_future(client.blmove(names.prefix, "x", 5.0, "RIGHT", "LEFT"))
    opening = asyncio.ensure_future(client.ping())  # on a connection that is not there yet
    await asyncio.sleep(0)
    pool = client.connection_pool
    await client.aclose()
    for found in await asyncio.gather(reading, opening, return_exceptions=True):
        assert isinstance(found, ConnectionError | RedisConnectionError | bool), found
    with pytest.raises(PublishRefusedError, match="this client was closed"):
        await queue.put(b"{}")
    assert not any(item.is_connected for item in pool._available_connections)
    assert not pool._in_use_connections


@pytest.mark.parametrize("pipelined", [False, True])
async def test_a_connection_that_is_made_during_the_close_is_closed(
    redis_broker, names, monkeypatch, pipelined
):
    connect = Connection._connect
    closing = asyncio.Event()

    async def connect_later(self):
        await connect(self)
        await closing.wait()

    client = connect_redis(redis_broker.url, pipelined=pipelined)
    monkeypatch.setattr(Connection, "_connect", connect_later)
    putting = asyncio.ensure_future(RedisListQueue(client, names=names).put(b"{}"))
    await asyncio.sleep(0.05)
    if not pipelined:  # as a pool does for which this connection is none yet
        monkeypatch.setattr(type(client.connection_pool), "disconnect", lambda _: asyncio.sleep(0))
    await client.aclose()
    closing.set()
    with pytest.raises(PublishRefusedError, match="this client was closed"):
        await putting
    assert not any(item.is_connected for item in client.connection_pool._available_connections)
