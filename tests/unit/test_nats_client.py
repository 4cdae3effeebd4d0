"""The JetStream queue over a client that has the operations of the Protocols and nothing else."""

import json
from types import SimpleNamespace

import pytest
from nats.js.api import AckPolicy
from nats.js.errors import NotFoundError

from hookbench.errors import ConfigDriftError, OversizeError, PublishRefusedError
from hookbench.queues.base import Depth
from hookbench.queues.jetstream import (
    ConsumerSettings,
    JetStreamQueue,
    StreamSettings,
    ensure_consumer,
    ensure_stream,
)
from hookbench.queues.transport import AppTransport
from tests.virtual import VirtualClock


class Delivery:
    """One message of the simulated server."""

    headers, reply = None, ""

    def __init__(self, server, sequence, attempt):
        self.data = server.tasks[sequence]
        self.metadata = SimpleNamespace(
            num_delivered=attempt, sequence=SimpleNamespace(stream=sequence)
        )
        self._server, self._sequence, self._attempt = server, sequence, attempt

    async def ack(self):
        self._server.in_flight.discard(self._sequence)

    async def nak(self, delay=None):
        assert delay is None
        self._server.in_flight.discard(self._sequence)
        self._server.waiting.append((self._sequence, self._attempt + 1))


class Server:
    """A client and its server in one: one stream, one consumer, no network."""

    is_connected, is_closed, max_payload = True, False, 1000

    def __init__(self):
        self.stats = {"reconnects": 0}
        self.tasks, self.waiting, self.in_flight = {}, [], set()
        self.configs = {}

    def jetstream(self, *, timeout):
        assert timeout > 0
        return Operations(self)

    def new_inbox(self):
        return "_INBOX.1"

    async def subscribe(self, subject, *, cb):
        assert subject == "_INBOX.1"
        self.hand_over = cb

        async def unsubscribe():
            self.hand_over = None

        return SimpleNamespace(unsubscribe=unsubscribe)

    async def publish(self, subject, payload=b"", reply=""):
        assert (subject, reply) == (
            "$JS.API.CONSUMER.MSG.NEXT.HOOK_QUEUE.hook-sync-worker",
            "_INBOX.1",
        )
        batch = json.loads(payload)["batch"]
        for sequence, attempt in self.waiting[:batch]:
            self.in_flight.add(sequence)
            await self.hand_over(Delivery(self, sequence, attempt))
        del self.waiting[:batch]

    async def flush(self, **_timeout):
        pass

    async def close(self):
        self.is_closed = True


class Operations:
    def __init__(self, server):
        self.server = server

    async def publish(self, subject, payload=b"", *, headers=None, **_timeout):
        assert (subject, headers) == ("queue.hook.sync", None)
        sequence = len(self.server.tasks) + 1
        self.server.tasks[sequence] = payload
        self.server.waiting.append((sequence, 1))
        return SimpleNamespace(seq=sequence, duplicate=False)

    async def stream_info(self, name):
        return self._info(name)

    async def add_stream(self, config=None):
        self.server.configs[config.name] = config
        return self._info(config.name)

    async def consumer_info(self, _stream, consumer):
        return self._info(consumer)

    async def add_consumer(self, _stream, config=None):
        self.server.configs[config.durable_name] = config
        return self._info(config.durable_name)

    def _info(self, name):
        if name not in self.server.configs:
            raise NotFoundError
        return SimpleNamespace(
            config=self.server.configs[name],
            num_pending=len(self.server.waiting),
            num_ack_pending=len(self.server.in_flight),
        )


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def transport(server):
    return AppTransport(server, clock=VirtualClock())


async def test_tasks_go_through_a_simulated_client(server, transport):
    await ensure_stream(transport)
    await ensure_consumer(transport)
    async with transport, JetStreamQueue(transport) as queue:
        assert [await queue.put(data) for data in (b"one", b"two")] == [1, 2]
        first, second = await queue.receive(5, 1.0)
        assert [item.payload for item in (first, second)] == [b"one", b"two"]
        await first.ack()
        assert await queue.depth() == Depth(pending=0, in_flight=1)
        await second.nak()
        (again,) = await queue.receive(5, 1.0)
        assert (again.payload, again.attempt) == (b"two", 2)
        await again.ack()
        assert await queue.depth() == Depth(pending=0, in_flight=0)
    assert server.is_closed


async def test_streams_and_consumers_of_a_simulated_client_are_held_to_the_settings(
    server, transport
):
    await ensure_stream(transport)
    assert server.configs["HOOK_QUEUE"].subjects == ["queue.hook.>"]
    assert (await ensure_consumer(transport)).config.ack_policy is AckPolicy.EXPLICIT
    with pytest.raises(ConfigDriftError, match="num_replicas: wanted 3, found 1"):
        await ensure_stream(transport, StreamSettings(replicas=3))
    with pytest.raises(ConfigDriftError, match="max_deliver: wanted 5, found 3"):
        await ensure_consumer(transport, ConsumerSettings(max_deliver=5))


async def test_what_a_simulated_client_cannot_take_is_refused(server, transport):
    queue = JetStreamQueue(transport)
    with pytest.raises(OversizeError, match="1001 bytes"):
        await queue.put(bytes(1001))
    server.is_connected = False
    with pytest.raises(PublishRefusedError, match="not connected"):
        await queue.put(b"one")
    assert server.tasks == {}
