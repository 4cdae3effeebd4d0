"""Acknowledgements whose confirmation is awaited, over a client in this process."""

import asyncio

import pytest
from nats.aio.msg import Msg

from hookbench.errors import BrokerUnreachableError
from hookbench.ledger.events import Broker, Event
from hookbench.queues.confirmed_acks import AckLimits, ConfirmedAcks
from hookbench.worker.confirmations import Confirmations
from tests.fakes import MemoryRecorder
from tests.virtual import VirtualClock


class FakeClient:
    """Answers what it is told to answer."""

    is_connected = True

    def __init__(self, *, answers=True):
        self.answers = answers
        self.subscriptions = []
        self.sent = []

    def new_inbox(self):
        return "_INBOX.acks"

    async def subscribe(self, subject, queue="", cb=None):  # noqa: ARG002
        self.subscriptions.append(subject)
        self.deliver = cb

    async def publish(self, subject, payload=b"", reply=""):
        assert payload == b""
        self.sent.append((subject, reply))
        if self.answers:
            await self.answer(reply)

    async def answer(self, reply, headers=None):
        await self.deliver(Msg(self, subject=reply, data=b"", headers=headers))


def opened(*, answers=True, **limits):
    client, clock = FakeClient(answers=answers), VirtualClock()
    return client, clock, ConfirmedAcks(client, clock, AckLimits(**limits))


async def test_many_are_confirmed_over_one_subscription():
    client, _clock, acks = opened()
    futures = [await acks.send(f"$JS.ACK.{number}") for number in range(100)]
    assert all(future.done() and future.exception() is None for future in futures)
    assert client.subscriptions == ["_INBOX.acks.*"]
    assert len(acks) == 0


async def test_each_answer_confirms_its_own():
    client, _clock, acks = opened(answers=False)
    first, second = await acks.send("a"), await acks.send("b")
    await client.answer(client.sent[1][1])
    assert (first.done(), second.done()) == (False, True)
    await client.answer("_INBOX.acks.77")  # nobody waits for it
    assert not first.done()
    await acks.close()
    with pytest.raises(BrokerUnreachableError, match="closed before"):
        await first


async def test_what_is_not_answered_is_sent_again_and_then_has_failed():
    client, clock, acks = opened(answers=False, answer_s=2.0, tries=3)
    begin_ns = clock.now_ns
    future = await acks.send("a")
    with pytest.raises(BrokerUnreachableError, match="not confirmed after 3 tries"):
        await future
    assert client.sent == [("a", "_INBOX.acks.0")] * 3
    assert clock.now_ns - begin_ns >= 6e9


async def test_a_late_answer_to_any_try_confirms():
    client, clock, acks = opened(answers=False, answer_s=2.0)
    future = await acks.send("a")
    await clock.sleep(2.6)
    assert len(client.sent) == 2
    await client.answer(client.sent[0][1])
    assert future.done()
    assert future.exception() is None


async def test_nobody_leads_the_consumer_is_no_confirmation():
    client, clock, acks = opened(answers=False, answer_s=2.0)
    future = await acks.send("a")
    await client.answer(client.sent[0][1], {"Status": "503"})
    assert not future.done()
    client.answers = True
    await clock.sleep(3.0)
    assert future.done()
    assert len(client.sent) == 2


async def test_nothing_is_sent_again_while_there_is_no_connection():
    client, clock, acks = opened(answers=False, answer_s=2.0)
    future = await acks.send("a")
    client.is_connected = False
    await clock.sleep(5.0)
    assert len(client.sent) == 1
    client.is_connected, client.answers = True, True
    await clock.sleep(3.0)
    assert future.done()
    assert future.exception() is None


async def test_who_sends_more_than_may_be_in_flight_waits():
    client, _clock, acks = opened(answers=False, in_flight=2)
    await acks.send("a")
    await acks.send("b")
    third = asyncio.ensure_future(acks.send("c"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(client.sent) == 2
    await client.answer(client.sent[0][1])
    await third
    assert len(client.sent) == 3
    await acks.close()


async def test_confirmations_are_recorded_when_they_come(make_task):
    recorder, clock = MemoryRecorder(), VirtualClock()
    confirmations = Confirmations(recorder)
    loop = asyncio.get_running_loop()
    futures = [loop.create_future() for _ in range(3)]
    for future in futures:
        confirmations.expect(make_task().id, Broker.NATS, future)
    assert recorder.events == []
    futures[0].set_result(None)
    futures[1].set_exception(BrokerUnreachableError("no"))
    assert await confirmations.drain(clock, 5.0) == 1
    assert recorder.kinds() == [Event.ACK_CONFIRMED, Event.ACK_FAILED, Event.ACK_FAILED]
    assert confirmations.failed == 2
    assert await confirmations.drain(clock, 5.0) == 0
