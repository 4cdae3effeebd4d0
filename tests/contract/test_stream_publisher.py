"""Both ways to publish to a stream, nats-py's and ours: what they answer is the same."""

import asyncio
import contextlib

import nats.errors
import nats.js.errors
import pytest
from nats.js.api import DiscardPolicy, StreamConfig

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats
from hookbench.brokers.resolve import resolve_nats
from hookbench.queues import nats_requests
from hookbench.queues.reconnecting import connect_client
from hookbench.queues.stream_publisher import StreamPublisher
from tests.conftest import eventually

TIMEOUT_S = 10.0
SHORT_S = 0.3


@pytest.fixture
def own_nats(tmp_path):
    """A server for one test, which may pause or kill it."""
    broker = start_nats(resolve_nats(env={"PATH": ""}), tmp_path, Durability.MEMORY)
    yield broker
    broker.stop()


async def quiet(_error):
    """Outages are what some of these are about."""


@pytest.fixture
async def client(request):
    name = "own_nats" if "own_nats" in request.fixturenames else "nats_broker"
    url = request.getfixturevalue(name).url
    client = await connect_client(
        url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=quiet
    )
    yield client
    await client.close()


@pytest.fixture(params=["ours", "nats-py"])
def publisher(request, client):
    return StreamPublisher(client) if request.param == "ours" else client.jetstream()


@pytest.fixture
async def stream(client, names):
    streams = client.jetstream()
    await streams.add_stream(
        StreamConfig(name=names.stream, subjects=[names.subject("*")], storage="memory")
    )
    yield streams
    with contextlib.suppress(nats.js.errors.NotFoundError):
        await streams.delete_stream(names.stream)


async def test_each_has_the_sequence_of_its_own(publisher, stream, names):
    subject = names.subject("sync")
    payloads = [b"%d" % number for number in range(500)]
    found = await asyncio.gather(
        *(publisher.publish(subject, data, timeout=TIMEOUT_S) for data in payloads)
    )
    assert sorted(ack.seq for ack in found) == list(range(1, 501))
    assert not any(ack.duplicate for ack in found)
    for ack, data in list(zip(found, payloads, strict=True))[::50]:
        stored = await stream.get_msg(names.stream, ack.seq)
        assert (stored.data, stored.subject) == (data, subject)


@pytest.mark.usefixtures("stream")
async def test_a_repeat_is_known_by_its_id(publisher, names):
    headers = {"Nats-Msg-Id": "0192-one"}
    for duplicate in (None, True):
        ack = await publisher.publish(
            names.subject("sync"), b"x", timeout=TIMEOUT_S, headers=headers
        )
        assert (ack.seq, ack.duplicate or None) == (1, duplicate)


async def test_no_stream_is_an_error_of_its_own(publisher, names):
    with pytest.raises(nats.js.errors.NoStreamResponseError):
        await publisher.publish(names.subject("sync"), b"x", timeout=TIMEOUT_S)


async def test_what_a_stream_refuses_says_why(publisher, stream, names):
    await stream.update_stream(
        StreamConfig(
            name=names.stream,
            subjects=[names.subject("*")],
            storage="memory",
            max_msgs=1,
            discard=DiscardPolicy.NEW,
        )
    )
    await publisher.publish(names.subject("sync"), b"x", timeout=TIMEOUT_S)
    with pytest.raises(nats.js.errors.APIError, match="maximum messages exceeded") as caught:
        await publisher.publish(names.subject("sync"), b"y", timeout=TIMEOUT_S)
    assert caught.value.err_code == 10077


async def test_more_than_the_server_takes_is_not_sent(publisher, client, names):
    with pytest.raises(nats.errors.MaxPayloadError):
        await publisher.publish(
            names.subject("sync"), bytes(client.max_payload + 1), timeout=TIMEOUT_S
        )


async def test_without_an_answer_it_ends_in_time(own_nats, client, publisher, stream, names):
    """And what is answered later is nobody else's answer."""
    subject = names.subject("sync")
    await publisher.publish(subject, b"one", timeout=TIMEOUT_S)
    own_nats.pause()
    try:
        with pytest.raises(TimeoutError):
            await publisher.publish(subject, b"two", timeout=SHORT_S)
    finally:
        own_nats.resume()
    ack = await publisher.publish(subject, b"three", timeout=TIMEOUT_S)
    stored = await stream.get_msg(names.stream, ack.seq)
    assert stored.data == b"three"
    assert client.is_connected


async def test_it_goes_on_after_a_restart(own_nats, client, publisher, names):
    subject = names.subject("sync")
    config = StreamConfig(name=names.stream, subjects=[names.subject("*")], storage="memory")
    await client.jetstream().add_stream(config)
    await publisher.publish(subject, b"one", timeout=TIMEOUT_S)
    own_nats.kill()
    own_nats.restart()
    await eventually(lambda: client.stats["reconnects"] == 1, what="the connection")
    await client.jetstream().add_stream(config)
    assert (await publisher.publish(subject, b"two", timeout=TIMEOUT_S)).seq == 1


@pytest.mark.usefixtures("stream")
async def test_a_caller_that_is_cancelled_takes_no_other_answer(publisher, names):
    subject = names.subject("sync")
    await publisher.publish(subject, b"first", timeout=TIMEOUT_S)
    asked = [
        asyncio.ensure_future(publisher.publish(subject, b"%d" % number, timeout=TIMEOUT_S))
        for number in range(3)
    ]
    await asyncio.sleep(0)
    asked[1].cancel()
    first, middle, last = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(middle, asyncio.CancelledError)
    assert (first.seq, last.seq) in ((2, 4), (2, 3))  # whether or not the middle one had left


@pytest.mark.parametrize("answer", [b"what?", b"{}", b'{"seq": "one"}'])
async def test_an_answer_that_makes_no_sense_is_no_success(client, names, answer):
    async def respond(msg):
        await msg.respond(answer)

    await client.subscribe(names.subject("sync"), cb=respond)
    with pytest.raises(nats.errors.Error, match="an answer"):
        await StreamPublisher(client).publish(names.subject("sync"), b"x", timeout=TIMEOUT_S)


async def test_many_first_callers_listen_once(client):
    asked = (client.request("$JS.API.INFO", timeout=TIMEOUT_S) for _ in range(10))
    found = await asyncio.gather(*asked)
    assert all(b"account_info_response" in msg.data for msg in found)
    assert len(client._subs) == 1


async def test_an_answer_reaches_whoever_asked(client, names):
    """Of many at once, answered in another order than they were asked in."""
    asked = []

    async def answer_later(msg):
        asked.append(msg)
        if len(asked) == 100:
            for item in reversed(asked):
                await item.respond(item.data)

    await client.subscribe(names.prefix, cb=answer_later)
    payloads = [b"%d" % number for number in range(100)]
    found = await asyncio.gather(
        *(client.request(names.prefix, data, timeout=TIMEOUT_S) for data in payloads)
    )
    assert [msg.data for msg in found] == payloads


async def test_each_request_has_its_own_time(client, names):
    """The shorter of two ends first, though it was asked last; neither is answered."""
    await client.subscribe(names.prefix)
    loop = asyncio.get_running_loop()
    ended = []

    async def ask(name, timeout_s):
        with pytest.raises(nats.errors.TimeoutError):
            await client.request(names.prefix, timeout=timeout_s)
        ended.append((name, loop.time() - begun_s))

    begun_s = loop.time()
    await asyncio.gather(ask("long", 3 * SHORT_S), ask("short", SHORT_S))
    assert [name for name, _seconds in ended] == ["short", "long"]
    assert ended[0][1] >= SHORT_S
    assert ended[1][1] >= 3 * SHORT_S
    with pytest.raises(nats.errors.NoRespondersError):
        await client.request(f"{names.prefix}.nobody", timeout=TIMEOUT_S)


async def test_a_server_that_does_not_know_the_inbox_is_told_of_another(client):
    """A SUB that was lost on its way: the connection stands, and no answer ever comes."""
    assert (await client.request("$JS.API.INFO", timeout=TIMEOUT_S)).data
    (number,) = client._subs
    await client._send_command(f"UNSUB {number}\r\n".encode())  # the client does not know of it
    await client.flush()
    deaf = [client.request("$JS.API.INFO", timeout=SHORT_S) for _ in range(2)]
    for error in await asyncio.gather(*deaf, return_exceptions=True):
        assert isinstance(error, nats.errors.TimeoutError)
    assert list(client._subs) == [number], "two may be late"
    with pytest.raises(nats.errors.TimeoutError):
        await client.request("$JS.API.INFO", timeout=SHORT_S)
    assert (await client.request("$JS.API.INFO", timeout=TIMEOUT_S)).data
    await eventually(lambda: number not in client._subs, what="the end of the inbox before")
    assert len(client._subs) == 1


async def test_an_inbox_that_was_heard_since_is_kept(client, names):
    """Three late answers make another one only in a row."""
    await client.subscribe(names.prefix)  # who never answers
    for late in (2, 1):
        for _ in range(late):
            with pytest.raises(nats.errors.TimeoutError):
                await client.request(names.prefix, timeout=SHORT_S)
        before = set(client._subs)
        assert (await client.request("$JS.API.INFO", timeout=TIMEOUT_S)).data
        assert set(client._subs) == before


async def test_a_question_that_nobody_answered_is_asked_again(client, names, monkeypatch):
    """A change is not: whether it came through is not known."""
    monkeypatch.setattr(nats_requests, "_AGAIN_S", 0.2)
    heard = {"$JS.API.STREAM.INFO.": [], "$JS.API.STREAM.CREATE.": []}

    for subject, messages in heard.items():

        async def hear(msg, *, messages=messages):
            messages.append(msg.data)
            if len(messages) == 3:
                await msg.respond(b"at last")

        await client.subscribe(f"{subject}{names.stream}.x", cb=hear)
    found, created = await asyncio.gather(
        client.request(f"$JS.API.STREAM.INFO.{names.stream}.x", b"{}", timeout=TIMEOUT_S),
        client.request(f"$JS.API.STREAM.CREATE.{names.stream}.x", b"{}", timeout=1.0),
        return_exceptions=True,
    )
    assert found.data == b"at last"
    assert isinstance(created, nats.errors.TimeoutError)
    assert [len(messages) for messages in heard.values()] == [3, 1]


@pytest.mark.parametrize("value", ["one", "two words", "a\r\nStatus: 503", "a\nb"])
async def test_headers_arrive_as_nats_py_sends_them(client, names, value):
    """With a line break in a value as well, which must not become a header of its own."""
    heard = asyncio.Queue()
    await client.subscribe(names.prefix, cb=heard.put)
    if not client.send_now(names.prefix, b"x", headers={"Nats-Msg-Id": value}):
        await client.publish(names.prefix, b"x", headers={"Nats-Msg-Id": value})
    await client.publish(names.prefix, b"x", headers={"Nats-Msg-Id": value})
    ours, theirs = [await asyncio.wait_for(heard.get(), TIMEOUT_S) for _ in range(2)]
    assert ours.headers == theirs.headers
    assert set(ours.headers) == {"Nats-Msg-Id"}
    assert ours.data == theirs.data == b"x"
