"""The parts of the witness of all measures: logs and connections are read exactly."""

import json
import socket
import threading
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import eventually
from tests.witness import forward as forward_module
from tests.witness.aof import AofError, read_units, wait_for_mark
from tests.witness.forward import Forward, Frame, Talk, read_frames
from tests.witness.monitor import Command
from tests.witness.nats_log import Handed, is_wanted, read_talk
from tests.witness.redis_log import PENDING, RECORD, WORK, replay, unlike_monitor

A, B = (str(uuid.UUID(int=(7 << 76) + number)) for number in range(2))
OWN, DEAD = WORK + b":one.0", b"{hook}:sync:dead"
HEADERS = b"NATS/1.0\r\nNats-Msg-Id: 7\r\n\r\n"


def task(name):
    return json.dumps({"id": name}).encode()


def resp(*arguments):
    parts = [b"$%d\r\n%s\r\n" % (len(item), item) for item in arguments]
    return b"*%d\r\n%s" % (len(arguments), b"".join(parts))


@given(st.lists(st.lists(st.binary(max_size=20), min_size=1, max_size=4), max_size=6))
def test_a_log_is_read_as_it_was_written(commands):
    known = (b"MULTI", b"EXEC", b"SELECT")
    kept = [tuple(item) for item in commands if item[0].upper() not in known]
    data = b"".join(resp(*item) for item in kept)
    assert read_units(resp(b"SELECT", b"0") + data) == [[item] for item in kept]
    whole = read_units(resp(b"MULTI") + data + resp(b"EXEC"))
    assert whole == [list(kept)]


@pytest.mark.parametrize("data", [b"REDIS0011", b"*1\r\n$4\r\nPI", b"*1\r\n", resp(b"EXEC")])
def test_half_a_log_is_none(data):
    with pytest.raises(AofError):
        read_units(data)


def test_a_log_that_was_rewritten_is_none(redis_broker, tmp_path):
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    (folder / "appendonly.aof.2.incr.aof").write_bytes(b"")
    with pytest.raises(AofError, match="not the first one"):
        wait_for_mark(redis_broker.port, tmp_path, "mark")


def test_each_way_in_and_out_of_the_lists():
    move = (b"LMOVE", PENDING, OWN, b"RIGHT", b"LEFT")
    back = (b"LMOVE", OWN, PENDING, b"LEFT", b"RIGHT")
    seen = replay(
        [
            [(b"LPUSH", PENDING, task(A))],
            [(b"LPUSH", PENDING, task(B))],
            [move],
            [(b"LREM", OWN, b"1", task(A)), (b"LPUSH", PENDING, task(A))],
            [move],
            [(b"LREM", OWN, b"1", task(B)), (b"RPUSH", PENDING, task(B))],
            [move],
            [back, (b"HINCRBY", b"{hook}:sync:attempts", B.encode(), b"1")],
            [move],
            [(b"SET", RECORD + B.encode(), b"c|7|9|0|0|me.0|", b"PXAT", b"1")],
            [(b"SET", RECORD + B.encode(), b"c|7|19|0|0|me.0|", b"PXAT", b"1")],
            [(b"SET", RECORD + B.encode(), b"d|7", b"PXAT", b"1")],
            [(b"LREM", OWN, b"1", task(B))],
            [(b"LREM", PENDING, b"-1", task(A))],
            [(b"SADD", b"{hook}:reconcile:moved", b"x"), (b"LPUSH", PENDING, task(B))],
            [(b"LREM", PENDING, b"1", task(B))],
            [(b"RPUSH", PENDING, task(A))],
            [move],
            [(b"LREM", OWN, b"1", task(A))],
        ]
    )
    assert seen.puts == {(A, 1): 1, (B, 2): 1}
    assert seen.claims == {A: 2, B: 3}
    assert (seen.naks, seen.put_back, seen.copied) == ({A: 1}, {B: 2}, {A: 1})
    assert (seen.claimed, seen.done, seen.ended) == ({(B, 7): 1}, {(B, 7): 1}, {B})
    assert (seen.removed, seen.early) == ({A: 1, B: 1}, {A: 1})
    assert (seen.trimmed, seen.moved, seen.taken_out) == ([(A, False)], {B: 1}, {B: 1})
    assert (seen.pending_left, seen.work_left, seen.strange) == ({}, {}, {})


def test_one_token_for_two_owners_is_two_claims():
    key = RECORD + A.encode()
    units = [[(b"SET", key, b"c|7|9|0|0|%s|" % owner)] for owner in (b"me.0", b"you.0")]
    assert replay(units).claimed == {(A, 7): 2}


@pytest.mark.parametrize(
    "command",
    [
        (b"LREM", OWN, b"1", b"x"),
        (b"LMOVE", PENDING, OWN, b"RIGHT", b"LEFT"),
        (b"RPOP", PENDING),
        (b"LTRIM", OWN, b"0", b"1"),
        (b"SET", RECORD + A.encode(), b"?"),
    ],
)
def test_what_cannot_be_replayed_is_said(command):
    assert replay([[command]]).strange.total() == 1


def test_the_log_must_be_what_monitor_told():
    def told(*arguments):
        return Command(b"lua", arguments)

    push, gone = (b"LPUSH", PENDING, task(A)), (b"LREM", OWN, b"1", task(A))
    assert unlike_monitor([[push]], [told(*push), told(*gone)]) == []  # it found nothing
    assert "1 in the log" in unlike_monitor([[push], [gone]], [told(*push)])[0]
    assert "1 that MONITOR told" in unlike_monitor([], [told(*push)])[0]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_both_sides_are_read_from_chunks_of_any_size(size):
    whole = (
        b'INFO {"version":"2.15.1"}\r\nCONNECT {}\r\nSUB a 1\r\nPING\r\n'
        b"PUB a 3\r\nxyz\r\nPUB a r 2\r\nhi\r\n"
        + b"HPUB a r %d %d\r\n%sHEY\r\n" % (len(HEADERS), len(HEADERS) + 3, HEADERS)
        + b"MSG a 1 4\r\n\r\n\r\n\r\nMSG a 1 r 1\r\n.\r\n"
        + b"HMSG a 1 r %d %d\r\n%s\r\n" % (len(HEADERS), len(HEADERS), HEADERS)
    )
    buffer, found = bytearray(), []
    for at in range(0, len(whole), size):
        buffer += whole[at : at + size]
        found += read_frames(buffer, 5)
    assert buffer == b""
    assert found == [
        Frame(5, "PUB", "a", "", b"", b"xyz"),
        Frame(5, "PUB", "a", "r", b"", b"hi"),
        Frame(5, "HPUB", "a", "r", HEADERS, b"HEY"),
        Frame(5, "MSG", "a", "", b"", b"\r\n\r\n"),
        Frame(5, "MSG", "a", "r", b"", b"."),
        Frame(5, "HMSG", "a", "r", HEADERS, b""),
    ]


def ack_of(number, sequence=3, attempt=1):
    return f"$JS.ACK.HOOK_QUEUE.hook-sync-worker-e1.{attempt}.{sequence}.{number}.1700.0"


def test_answers_belong_to_their_questions():
    bucket = f"$KV.HOOK_QUEUE_DONE.{A}"
    refused = b'{"error":{"err_code":10071},"stream":"KV_HOOK_QUEUE_DONE","seq":0}'
    frames = [
        Frame(1, "PUB", "worker.queue.hook.sync.x", "i.0", b"", b""),
        Frame(2, "HPUB", "queue.hook.sync", "i.1", b"", task(A)),
        Frame(2, "HPUB", "queue.hook.sync", "i.2", b"", task(B)),
        Frame(2, "MSG", "i.1", "", b"", b'{"stream":"HOOK_QUEUE","seq":3}'),
        Frame(1, "HMSG", "queue.hook.sync", ack_of(1), b"", task(A)),
        Frame(9, "HMSG", "queue.hook.sync", ack_of(2, 4), b"", task(B)),
        Frame(1, "HPUB", bucket, "i.3", b"", b'{"s":"c","b":10}'),
        Frame(1, "HPUB", bucket, "i.4", b"", b'{"s":"c","b":10}'),
        Frame(1, "MSG", "i.3", "", b"", b'{"stream":"KV_HOOK_QUEUE_DONE","seq":5}'),
        Frame(1, "MSG", "i.4", "", b"", refused),
        Frame(1, "HPUB", bucket, "i.5", b"", b'{"s":"d","b":10,"t":15}'),
        Frame(1, "MSG", "i.5", "", b"", b'{"stream":"KV_HOOK_QUEUE_DONE","seq":6}'),
        Frame(1, "PUB", ack_of(1), "i.6", b"", b""),
        Frame(2, "MSG", "i.6", "", b"", b""),  # an inbox of another connection
        Frame(1, "PUB", ack_of(1), "i.6", b"", b""),
        Frame(1, "MSG", "i.6", "", b"", b""),
    ]
    assert all(map(is_wanted, frames))
    seen = read_talk(frames)
    first, second = (Handed("hook-sync-worker-e1", number) for number in (1, 2))
    assert (seen.puts, seen.unanswered) == ({(3, A): 1}, {B: 1})
    assert (seen.handed.keys(), seen.drained.keys()) == ({first}, {second})
    assert (seen.answers, seen.confirmed) == ({first: "ack"}, {first})
    assert (seen.claimed, seen.done, seen.ended) == ({(A, 15): 1}, {(A, 15): 1}, {A})
    assert len(seen.writes) == 2
    assert read_talk(frames[:-1]).confirmed == set()


def test_a_copied_record_is_no_completion():
    copied = Frame(1, "HPUB", f"$KV.HOOK_QUEUE_DONE.{A}", "i", b"", b'{"s":"d","b":7,"t":7}')
    answer = Frame(1, "MSG", "i", "", b"", b'{"stream":"KV_HOOK_QUEUE_DONE","seq":1}')
    seen = read_talk([copied, answer])
    assert (seen.done, seen.ended) == ({}, {A})


def test_a_talk_has_an_end(monkeypatch):
    monkeypatch.setattr(forward_module, "MOST_FRAMES", 1)
    talk = Talk(lambda frame: frame.payload != b"no")
    frames = [Frame(1, "PUB", "a", "", b"", text) for text in (b"no", b"1", b"2")]
    for frame in frames:
        talk.hear([frame])
    assert (talk.frames, talk.troubles) == ([frames[1]], ["more than 1 messages of NATS"])


async def test_every_byte_goes_on_and_is_heard():
    """A server that sends back what it gets, and hangs up at a word."""

    def serve(listener):
        connection, _address = listener.accept()
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)

    talk = Talk(lambda _frame: True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        with Forward(listener.getsockname()[1], talk) as forward:
            port = int(forward.url.rpartition(":")[2])
            sent = b"PUB a 3\r\nxyz\r\n"
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(sent)
                got = b""
                while len(got) < len(sent):
                    got += client.recv(4096)
                forward.settle(0.0)
                assert talk.troubles == ["2 sides of connections with NATS still talk"]
            await eventually(lambda: not any(item.is_alive() for item in forward._threads))
            forward.settle()
        server.join(timeout=10)
    assert got == sent
    assert [frame.payload for frame in talk.frames] == [b"xyz", b"xyz"]
    assert len(talk.troubles) == 1


def test_a_server_that_is_gone_is_told():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    talk = Talk(lambda _frame: True)
    with Forward(port, talk) as forward:
        own = int(forward.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", own), 10) as client:
            assert client.recv(1) == b""
    assert "the tap on NATS gets no connection" in talk.troubles[0]
