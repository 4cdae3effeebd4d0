"""What a pull asks for after the server forgot what it owed."""

import json

from nats.aio.msg import Msg

from hookbench.clock import SystemClock
from hookbench.queues.standing_pull import StandingPull


class ShiftedClock(SystemClock):
    """The machine's clock, moved on by hand."""

    shift_ns = 0

    def monotonic_ns(self):
        return super().monotonic_ns() + self.shift_ns


class FakeClient:
    """Keeps the sizes of the requests."""

    is_connected = True
    is_closed = False

    def __init__(self):
        self.stats = {"reconnects": 0}
        self.asked = []

    def new_inbox(self):
        return "_INBOX.x"

    async def subscribe(self, _subject, cb):
        self.deliver = cb

    async def publish(self, _subject, data, reply):
        assert reply == "_INBOX.x"
        self.asked.append(json.loads(data)["batch"])


async def open_pull():
    client, clock = FakeClient(), ShiftedClock()
    pull = StandingPull(client, "S", "c", clock)
    await pull.open()
    return client, clock, pull


def message(client, headers=None):
    return Msg(client, subject="queue.hook.sync", reply="$JS.ACK.x", data=b"x", headers=headers)


async def test_nothing_is_asked_for_twice_while_it_is_owed():
    client, _clock, pull = await open_pull()
    assert await pull.take(10, 0.01) == []
    await client.deliver(message(client))
    assert len(await pull.take(10, 0.01)) == 1
    assert await pull.take(10, 0.01) == []
    assert client.asked == [10, 1]


async def test_after_a_reconnect_all_is_asked_for_again():
    """The server forgets the requests of a connection that ends, and does not say so.

    The reads that find one task missing must not go on asking for one task only.
    """
    client, _clock, pull = await open_pull()
    assert await pull.take(10, 0.01) == []
    client.stats["reconnects"] += 1
    assert await pull.take(10, 0.01) == []
    assert client.asked == [10, 10]


async def test_a_request_that_was_lost_is_asked_for_again_although_others_follow_it():
    client, clock, pull = await open_pull()
    assert await pull.take(10, 0.01) == []
    clock.shift_ns += 700_000_000
    assert await pull.take(11, 0.01) == []
    clock.shift_ns += 700_000_000
    assert await pull.take(11, 0.01) == []
    assert client.asked == [10, 1, 10]


async def test_what_a_request_did_not_get_is_not_owed_any_more():
    client, _clock, pull = await open_pull()
    assert await pull.take(10, 0.01) == []
    await client.deliver(message(client, {"Status": "408", "Nats-Pending-Messages": "4"}))
    assert await pull.take(10, 0.01) == []
    await client.deliver(message(client, {"Status": "404"}))
    assert await pull.take(10, 0.01) == []
    assert client.asked == [10, 4, 10]
