"""Frames of both protocols, cut out of bytes that were split anywhere."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookbench.faults.wire.conversation import NatsConversation, RespConversation
from hookbench.faults.wire.frames import MAX_FRAME_BYTES, FrameParser
from hookbench.faults.wire.nats_frames import REPLY_VERBS, REQUEST_VERBS, NatsScanner
from hookbench.faults.wire.resp_frames import RespReplyScanner, RespRequestScanner

SCANNERS = {
    "resp request": RespRequestScanner,
    "resp reply": RespReplyScanner,
    "nats request": lambda: NatsScanner(REQUEST_VERBS),
    "nats reply": lambda: NatsScanner(REPLY_VERBS),
}
sides = st.sampled_from(sorted(SCANNERS))


def bulk(value):
    return b"$%d\r\n%s\r\n" % (len(value), value)


def command(*arguments):
    return b"*%d\r\n%s" % (len(arguments), b"".join(map(bulk, arguments)))


def message(verb, words, payload, header=None):
    sizes = [b"%d" % len(payload)]
    if header is not None:
        sizes = [b"%d" % len(header), b"%d" % (len(header) + len(payload))]
    return b" ".join([verb, *words, *sizes]) + b"\r\n" + (header or b"") + payload + b"\r\n"


some_bytes = st.binary(max_size=40)
lines = st.binary(max_size=20).filter(lambda line: b"\r" not in line)
resp_request = st.lists(some_bytes, min_size=1, max_size=5).map(lambda parts: command(*parts))
leaf = st.one_of(
    st.builds(lambda kind, line: kind + line + b"\r\n", st.sampled_from([b"+", b"-", b":"]), lines),
    some_bytes.map(bulk),
    st.sampled_from([b"$-1\r\n", b"*-1\r\n", b"*0\r\n"]),
)
resp_reply = st.recursive(
    leaf,
    lambda inner: st.lists(inner, min_size=1, max_size=4).map(
        lambda parts: b"*%d\r\n%s" % (len(parts), b"".join(parts))
    ),
    max_leaves=12,
)
subject = st.from_regex(rb"[a-zA-Z$_][a-zA-Z0-9._]{0,10}", fullmatch=True)
nats_request = st.one_of(
    st.builds(lambda s, p: message(b"PUB", [s], p), subject, some_bytes),
    st.builds(lambda s, r, p: message(b"pub", [s, r], p), subject, subject, some_bytes),
    st.builds(lambda s, p, h: message(b"HPUB", [s], p, h), subject, some_bytes, some_bytes),
    st.builds(lambda s: b"SUB " + s + b" 1\r\n", subject),
    st.sampled_from([b"PING\r\n", b"PONG\r\n", b"UNSUB 1 5\r\n", b'CONNECT {"a": "b c"}\r\n']),
)
nats_reply = st.one_of(
    st.builds(lambda s, p: message(b"MSG", [s, b"1"], p), subject, some_bytes),
    st.builds(
        lambda s, r, p, h: message(b"HMSG", [s, b"1", r], p, h),
        subject,
        subject,
        some_bytes,
        some_bytes,
    ),
    st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'no'\r\n", b'INFO {"a":1}\r\n']),
)
VALID = {
    "resp request": resp_request,
    "resp reply": resp_reply,
    "nats request": nats_request,
    "nats reply": nats_reply,
}
streams = sides.flatmap(lambda side: st.tuples(st.just(side), st.lists(VALID[side], max_size=6)))


@st.composite
def split(draw, data):
    """The bytes in pieces."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    edges = [0, *cuts, len(data)]
    return [data[first:last] for first, last in itertools.pairwise(edges)]


def feed_all(parser, pieces):
    """The bytes of each frame in turn, and the first error. After one, nothing is parsed."""
    frames = []
    for piece in pieces:
        batch = parser.feed(piece)
        frames += [batch.data[frame.start : frame.end] for frame in batch.frames]
        assert b"".join(batch.data[f.start : f.end] for f in batch.frames) == batch.data
        if batch.error is not None:
            return frames, batch.error
    return frames, None


@given(streams, st.data())
def test_frames_do_not_depend_on_how_the_bytes_are_split(stream, data):
    side, frames = stream
    pieces = data.draw(split(b"".join(frames)))
    parser = FrameParser(SCANNERS[side]())
    assert feed_all(parser, pieces) == (frames, None)
    assert parser.held_bytes == 0


@given(streams, st.data())
def test_a_frame_is_whole_at_its_last_byte_and_not_before(stream, data):
    side, frames = stream
    whole = b"".join(frames)
    stop = data.draw(st.integers(0, len(whole)))
    parser = FrameParser(SCANNERS[side]())
    found, error = feed_all(parser, data.draw(split(whole[:stop])))
    assert error is None
    expected = []
    for frame in frames:
        if len(b"".join(expected)) + len(frame) > stop:
            break
        expected.append(frame)
    assert found == expected
    assert b"".join(found) + parser.held == whole[:stop]


@given(sides, st.lists(st.binary(max_size=30), max_size=8))
def test_no_byte_is_lost_whatever_comes(side, pieces):
    parser = FrameParser(SCANNERS[side]())
    seen = 0
    frames = []
    for piece in pieces:
        batch = parser.feed(piece)
        seen += len(piece)
        frames.append(batch.data)
        assert b"".join(frames) + parser.held == b"".join(pieces)[:seen]
        if batch.error is not None:
            break


@given(streams, st.data())
def test_junk_is_junk_however_it_is_split(stream, data):
    side, frames = stream
    junk = b"\x16\x03\x01\x02"  # the beginning of TLS
    parser = FrameParser(SCANNERS[side]())
    found, error = feed_all(parser, data.draw(split(b"".join(frames) + junk)))
    assert found == frames
    assert error is not None


@pytest.mark.parametrize(
    ("side", "junk"),
    [
        ("resp request", b"*x\r\n"),
        ("resp request", b"*1\r\n+3\r\n"),
        ("resp request", b"*1\r\n$1_0\r\n"),
        ("resp request", b"*1\r\n$1\r\nabc"),
        ("resp request", b"*9999999\r\n"),
        ("resp request", b"*" + b"1" * 40),
        ("resp request", b"A" * 70_000),
        ("resp reply", b"%1\r\n+a\r\n+b\r\n"),  # RESP3
        ("resp reply", b"*1\r\n$-2\r\n"),
        ("nats request", b"MSG a 1 0\r\n\r\n"),
        ("nats request", b"PUB a\r\n"),
        ("nats request", b"PUB a b c 1\r\n"),
        ("nats request", b"PUB a 1\r\nabc\r\n"),
        ("nats request", b"HPUB a 5 3\r\nabc\r\n"),
        ("nats reply", b"PUB a 0\r\n\r\n"),
        ("nats reply", b"\r\n"),
        ("nats reply", b"GET / HTTP"),
        ("nats reply", b"PUB a %d\r\n" % (MAX_FRAME_BYTES + 1)),
        ("nats request", b"PUB a %d\r\n" % (MAX_FRAME_BYTES + 1)),
    ],
)
def test_what_is_no_frame_is_an_error(side, junk):
    assert feed_all(FrameParser(SCANNERS[side]()), [junk])[1] is not None


def read(conversation, requests=b"", replies=b"", copies=1):
    """What a conversation says of requests, then of replies."""
    sent = conversation.requests.feed(requests)
    for frame in sent.frames:
        conversation.label_request(frame)
        conversation.forwarded(frame, copies)
    answered = conversation.replies.feed(replies)
    wanted = [conversation.label_reply(frame, answered.data) for frame in answered.frames]
    return sent.frames, answered.frames, wanted


def labels(frames):
    return [((frame.special or frame.command).decode(), frame.key.decode()) for frame in frames]


def test_requests_of_redis_by_name_and_key():
    stream = b"".join(
        [
            command(b"lpush", b"a", b"1"),
            b"ping\r\n",
            b"set b 2\r\n",
            b"\r\n",
            b"*0\r\n",
            command(b"EVAL", b"return 1", b"1", b"c", b"x"),
            command(b"XREADGROUP", b"GROUP", b"g", b"me", b"STREAMS", b"d", b">"),
            command(b"EVAL", b"return 1", b"0"),
        ]
    )
    assert labels(FrameParser(RespRequestScanner()).feed(stream).frames) == [
        ("LPUSH", "a"),
        ("PING", ""),
        ("SET", "b"),
        ("", ""),
        ("", ""),
        ("EVAL", "c"),
        ("XREADGROUP", "d"),
        ("EVAL", ""),
    ]


def test_replies_of_redis_belong_to_the_oldest_request():
    told = []
    conversation = RespConversation(told.append)
    requests = b"".join(
        [
            command(b"LPUSH", b"a", b"1"),
            b"\r\n",  # Redis answers nothing to it
            command(b"MULTI"),
            command(b"LREM", b"b", b"1", b"x"),
            command(b"EXEC"),
            command(b"GET", b"c"),
        ]
    )
    replies = b":1\r\n+OK\r\n+QUEUED\r\n*1\r\n:1\r\n$-1\r\n"
    _sent, answered, wanted = read(conversation, requests, replies)
    assert labels(answered) == [
        ("LPUSH", "a"),
        ("MULTI", ""),
        ("LREM", "b"),
        ("EXEC", ""),
        ("GET", "c"),
    ]
    assert all(wanted)
    assert told == []


@pytest.mark.parametrize(
    "pushing", [(b"SUBSCRIBE", b"x"), (b"MONITOR",), (b"CLIENT", b"REPLY", b"OFF")]
)
def test_pushed_messages_end_the_matching_and_it_says_so(pushing):
    told = []
    conversation = RespConversation(told.append)
    requests = command(b"GET", b"a") + command(*pushing) + command(b"PING")
    _sent, answered, wanted = read(
        conversation, requests, b"$-1\r\n+OK\r\n+1.2 pushed\r\n+PONG\r\n"
    )
    assert labels(answered) == [("GET", "a"), ("", ""), ("", ""), ("", "")]
    assert all(wanted)
    assert not conversation.matches_replies()
    assert [pushing[0].decode() in text for text in told] == [True]


def test_the_reply_to_a_copy_is_not_for_the_client():
    conversation = RespConversation(pytest.fail)
    read(conversation, command(b"LPUSH", b"a", b"1"), copies=2)
    assert conversation.owed_swallows == 1
    _sent, answered, wanted = read(conversation, command(b"GET", b"b"), b":1\r\n:2\r\n$-1\r\n")
    assert labels(answered) == [("LPUSH", "a"), ("LPUSH", "a"), ("GET", "b")]
    assert wanted == [True, False, True]
    assert conversation.owed_swallows == 0


def test_a_dropped_request_has_no_reply():
    conversation = RespConversation(pytest.fail)
    read(conversation, command(b"LPUSH", b"a", b"1"), copies=0)
    _sent, answered, _wanted = read(conversation, command(b"GET", b"b"), b"$-1\r\n")
    assert labels(answered) == [("GET", "b")]


ACK = b'{"stream":"S","seq":7,"duplicate":true}'
REFUSED = b'{"error":{"code":503,"description":"no"},"stream":"S","seq":0}'


def test_a_pub_ack_is_the_answer_of_a_stream_to_a_publish():
    conversation = NatsConversation(pytest.fail)
    requests = b"".join(
        [
            message(b"PUB", [b"queue.a", b"_INBOX.x.1"], b"1"),
            message(b"HPUB", [b"queue.b", b"_INBOX.x.2"], b"1", b"NATS/1.0\r\n\r\n"),
            message(b"PUB", [b"queue.c", b"_INBOX.x.3"], b"1"),
            message(b"PUB", [b"$JS.API.STREAM.INFO.S", b"_INBOX.x.4"], b""),
            message(b"PUB", [b"queue.d"], b"1"),
            message(b"PUB", [b"$JS.ACK.S.c.1.1.1.1.0"], b"+ACK"),
            message(b"PUB", [b"$JS.API.CONSUMER.MSG.NEXT.S.c", b"_INBOX.y"], b"1"),
            message(b"PUB", [b"queue.e", b"_INBOX.x.5"], b"1"),
        ]
    )
    replies = b"".join(
        message(b"MSG", [inbox, b"1"], payload)
        for inbox, payload in [
            (b"_INBOX.x.2", ACK),
            (b"_INBOX.x.1", ACK),
            (b"_INBOX.x.1", ACK),  # the second one answers nothing
            (b"_INBOX.x.3", REFUSED),
            (b"_INBOX.x.4", ACK),
            (b"_INBOX.x.5", b"hello"),
            (b"queue.a", ACK),
        ]
    )
    sent, answered, wanted = read(conversation, requests, replies)
    assert labels(sent)[5:7] == [
        ("Ack", "$JS.ACK.S.c.1.1.1.1.0"),
        ("Fetch", "$JS.API.CONSUMER.MSG.NEXT.S.c"),
    ]
    assert [frame.special for frame in sent[:5]] == [b""] * 5
    assert labels(answered) == [
        ("PubAck", "queue.b"),
        ("PubAck", "queue.a"),
        ("MSG", "_INBOX.x.1"),
        ("MSG", "_INBOX.x.3"),
        ("MSG", "_INBOX.x.4"),
        ("MSG", "_INBOX.x.5"),
        ("MSG", "queue.a"),
    ]
    assert all(wanted)


def test_both_answers_to_a_doubled_publish_are_pub_acks():
    conversation = NatsConversation(pytest.fail)
    read(conversation, message(b"PUB", [b"queue.a", b"_INBOX.x"], b"1"), copies=2)
    _sent, answered, _wanted = read(
        conversation, replies=message(b"MSG", [b"_INBOX.x", b"1"], ACK) * 3
    )
    assert [label for label, _key in labels(answered)] == ["PubAck", "PubAck", "MSG"]
