"""Frames of NATS, however they are cut, are read as nats-py reads them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.errors import ProtocolError

from hookbench.queues.nats_frames import headers_of
from hookbench.queues.reconnecting import ReconnectingClient

OURS, THEIRS, GONE = 1, 2, 3
HEADERS = b"NATS/1.0\r\nNats-Msg-Id: one\r\n\r\n"


def frame(sid, payload, *, reply="", headers=b""):
    """MSG or HMSG."""
    front = f"queue.hook.sync {sid} {reply} " if reply else f"queue.hook.sync {sid} "
    if headers:
        sizes = f"{len(headers)} {len(headers) + len(payload)}"
        return f"HMSG {front}{sizes}\r\n".encode() + headers + payload + b"\r\n"
    return f"MSG {front}{len(payload)}\r\n".encode() + payload + b"\r\n"


class Heard:
    """A client without a connection, and what came to those who listen."""

    def __init__(self):
        self.client = ReconnectingClient()
        self.messages, self.errors, self.pongs = [], [], 0
        self.client.listeners[OURS] = self.listen
        self.client._error_cb = self.fail
        self.client._process_pong = self.pong
        self.plain = self.client._process_msg
        self.client._process_msg = self.theirs

    def listen(self, msg):
        self.messages.append((OURS, msg.subject, msg.reply, msg.data, msg.headers))
        if msg.data == b"raise":
            raise ValueError("by the listener")

    async def theirs(self, sid, subject, reply, data, headers):
        if sid == OURS:
            await self.plain(sid, subject, reply, data, headers)
            return
        found = headers_of(headers) if headers else None
        self.messages.append((sid, subject.decode(), reply.decode(), data, found))

    async def pong(self):
        self.pongs += 1

    async def fail(self, error):
        self.errors.append(str(error))

    async def read(self, *chunks):
        for chunk in chunks:
            await self.client._ps.parse(chunk)


def entries():
    payloads = st.one_of(st.binary(max_size=60), st.sampled_from([b"", b"\r\n", b"MSG a 1 3\r\n"]))
    messages = st.tuples(
        st.sampled_from([OURS, THEIRS]),
        payloads,
        st.sampled_from(["", "_INBOX.x.1"]),
        st.sampled_from([b"", HEADERS, b"NATS/1.0 503\r\n\r\n"]),
    )
    return st.lists(st.one_of(messages, st.just("PONG")), max_size=12)


@given(sent=entries(), cuts=st.lists(st.integers(0, 2_000), max_size=10))
async def test_frames_are_read_however_they_are_cut(sent, cuts):
    heard, wanted, data = Heard(), [], b""
    for item in sent:
        if item == "PONG":
            data += b"PONG\r\n"
            continue
        sid, payload, reply, headers = item
        data += frame(sid, payload, reply=reply, headers=headers)
        found = headers_of(headers) if headers else None
        wanted.append((sid, "queue.hook.sync", reply, payload, found))
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    await heard.read(*(data[a:b] for a, b in itertools.pairwise(places)))
    assert heard.messages == wanted
    assert heard.pongs == sent.count("PONG")
    assert heard.errors == []


async def test_byte_by_byte():
    heard = Heard()
    data = frame(OURS, b"a" * 300, reply="r", headers=HEADERS) + frame(OURS, b"b")
    await heard.read(*(data[at : at + 1] for at in range(len(data))))
    assert [item[3] for item in heard.messages] == [b"a" * 300, b"b"]
    assert heard.client.stats["in_msgs"] == 2
    assert heard.client.stats["in_bytes"] == 301


async def test_what_a_listener_raises_is_told_and_the_next_message_is_read():
    heard = Heard()
    await heard.read(frame(OURS, b"raise") + frame(OURS, b"next"))
    assert [item[3] for item in heard.messages] == [b"raise", b"next"]
    assert heard.errors == ["by the listener"]


async def test_a_frame_without_a_number_is_an_error_of_the_protocol():
    heard = Heard()
    with pytest.raises(ProtocolError):
        await heard.read(b"MSG queue.hook.sync one 3\r\nabc\r\n")


async def test_what_is_left_of_a_connection_is_forgotten_with_it():
    heard = Heard()
    await heard.read(frame(OURS, b"a" * 300)[:50])
    heard.client._ps.reset()
    await heard.read(frame(OURS, b"b"))
    assert [item[3] for item in heard.messages] == [b"b"]


async def test_nobody_listens_to_a_subscription_that_has_ended():
    heard = Heard()
    heard.client._remove_sub(OURS)
    await heard.read(frame(OURS, b"late"))
    assert heard.messages == []


@pytest.mark.parametrize(
    "raw",
    [
        HEADERS,
        b"NATS/1.0\r\n\r\n",
        b"NATS/1.0 503\r\n\r\n",
        b"NATS/1.0 404 No Messages\r\n\r\n",
        b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 4\r\nA: 0\r\n\r\n",
        b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\n\r\n",
        b"NATS/1.0\r\na:b\r\nA: two  words \r\n\r\n",
        b"NATS/1.0\r\nwith space: x\r\nno colon\r\n\r\n",
    ],
)
async def test_headers_are_what_nats_py_makes_of_them(raw):
    assert headers_of(raw) == await Client()._process_headers(raw)
