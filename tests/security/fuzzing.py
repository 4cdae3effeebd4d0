"""Bytes from outside, mutated: what reads them raises its own errors, and nothing else.

A target reads bytes. Its corpus is valid, so that a mutation gets further than the first check.
"""

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from nats.errors import ProtocolError

from hookbench.errors import DecodeError, LedgerError, OversizeError, SettingError
from hookbench.faults.wire.frames import FrameParser
from hookbench.faults.wire.nats_frames import REPLY_VERBS, REQUEST_VERBS, NatsScanner
from hookbench.faults.wire.resp_frames import RespReplyScanner, RespRequestScanner
from hookbench.ledger.events import Broker, Event, LedgerWriter
from hookbench.ledger.read import read_ledger
from hookbench.queues.reconnecting import ReconnectingClient
from hookbench.settings import read_file
from hookbench.task import HookTask, decode_task, encode_task, new_task, task_id_of
from tests.virtual import FixedClock

HEADERS = b"NATS/1.0\r\nNats-Msg-Id: one\r\n\r\n"
PIECES = (
    b"\r\n", b"\n", b"*", b"$", b"-1", b"0", b"99999999999", b"9" * 30, b" ", b"\x00", b"\xff",
    b"{", b"}", b"[", b"]", b'"', b"\\", b"[" * 10, b"[" * 3000, b"9" * 5000, b"MSG ", b"HMSG ",
    b"=", b"#", b"'''",
)  # fmt: skip


class Target(NamedTuple):
    """What reads bytes.

    Attributes:
        corpus: valid input.
        read: reads mutated input; a failed assertion and an error of another kind are findings.
    """

    corpus: list[bytes]
    read: Callable[[bytes], None]


def mutate(data, corpus, draw):
    """Some changes, of the kinds that tear protocols apart."""
    data = bytearray(data)
    for _ in range(draw.randint(1, 6)):
        at, end = sorted(draw.randint(0, len(data)) for _ in range(2))
        kind = draw.randrange(7)
        if kind == 0 and data:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del data[at : min(end, at + 64)]
        elif kind == 2:
            data[at:at] = data[at : min(end, at + 64)]
        elif kind == 3:
            data[at:at] = draw.choice(PIECES)
        elif kind == 4:
            del data[end:]
        elif kind == 5:
            other = draw.choice(corpus)
            data[at:at] = other[: draw.randint(0, len(other))]
        elif data:
            data[draw.randrange(len(data))] = draw.randrange(256)
    return bytes(data[:65536])


def _tasks():
    clock, entropy = FixedClock(), random.Random(7)
    payloads = ({}, {"refs": [{"old": "0" * 40, "ref": "refs/heads/main"}], "n": 1.5, "x": None})
    return [
        encode_task(
            new_task(repo_id="a/b", task_type="sync", payload=item, clock=clock, entropy=entropy)
        )
        for item in payloads
    ]


def _codec(data):
    for read in (task_id_of, decode_task):
        try:
            found = read(data)
        except DecodeError:
            continue
        if isinstance(found, HookTask):
            try:
                again = encode_task(found)
            except OversizeError:
                continue
            assert decode_task(again) == found


def _frames(make):
    def read(data):
        parser = FrameParser(make())
        seen, fed, cut = b"", 0, len(data) // 3
        for piece in (data[:cut], data[cut : 2 * cut], data[2 * cut :]):
            batch = parser.feed(piece)
            seen, fed = seen + batch.data, fed + len(piece)
            assert all(0 <= frame.start < frame.end for frame in batch.frames)
            if batch.error is not None:
                break
        assert seen + parser.held == data[:fed]

    return read


def _drive(coroutine):
    """A coroutine that waits for nothing, without a loop."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise AssertionError("it waits for something")


def _nats_client(data):
    client = ReconnectingClient()
    heard = []

    async def ignore(*_arguments, **_options):
        """Of what nats-py does with a frame that is whole."""

    for name in ("_process_ping", "_process_pong", "_process_err", "_process_msg", "_error_cb"):
        setattr(client, name, ignore)
    client._current_server = client
    client.listeners[1] = lambda msg: heard.append((msg.subject, msg.data, msg.headers))
    cut = len(data) // 2
    for piece in (data[:cut], data[cut:]):
        try:
            _drive(client._ps.parse(piece))
        except ProtocolError:
            return
    assert sum(len(item[1]) for item in heard) <= len(data)


def _segments():
    with tempfile.TemporaryDirectory() as name:
        folder, clock = Path(name), FixedClock(monotonic_ns=1_000)
        ledger = LedgerWriter(folder, role="worker", writer=1, clock=clock, capacity=40)
        for number in range(12):
            clock.now_ns += 10
            ledger.record(Event.DONE, (number + 1).to_bytes(16, "big"), broker=Broker.REDIS)
        ledger.close()
        return [path.read_bytes() for path in sorted(folder.glob("*.ledger"))]


def _ledger(data):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "worker.00001.0000.ledger").write_bytes(data)
        for lenient in (False, True):
            try:
                found = read_ledger(folder, lenient=lenient)
            except LedgerError:
                continue
            assert len(found.records) <= len(data)
            assert len(found.task) == len(found.records) == len(found.writer)


SETTINGS = b"""
redis_url = "rediss://worker@h:6379/0?password_file=/x"
nats_url = "nats://127.0.0.1:4222"
replicas = 3
[worker]
concurrency = 32
lease = 1.5
[gate]
producers = ["nats:producers"]
done_store = true
"""


def _settings(data):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "hookbench.toml"
        path.write_bytes(data)
        path.chmod(0o600)  # or it is said that everybody may read a password in it
        try:
            read_file(path)
        except SettingError:
            return


REQUESTS = [
    b"*3\r\n$5\r\nLPUSH\r\n$11\r\n{hook}:sync\r\n$4\r\ntask\r\n",
    b"*4\r\n$4\r\nEVAL\r\n$8\r\nreturn 1\r\n$1\r\n1\r\n$1\r\nk\r\nPING\r\n",
]
REPLIES = [
    b"+OK\r\n:1\r\n$4\r\ntask\r\n*2\r\n$1\r\na\r\n*-1\r\n",
    b"-ERR no\r\n$-1\r\n*1\r\n*1\r\n:1\r\n",
]
PUBLISHES = [
    b'CONNECT {"verbose":false}\r\nSUB _INBOX.a 1\r\nPUB queue.hook.sync _INBOX.a 4\r\ntask\r\n',
    b"HPUB a %d %d\r\n%btask\r\nPING\r\n" % (len(HEADERS), len(HEADERS) + 4, HEADERS),
]
MESSAGES = [
    (
        b'INFO {"max_payload":1048576}\r\n'
        b"MSG queue.hook.sync 1 $JS.ACK.a.b.1.1.1.1.0 4\r\ntask\r\n+OK\r\n"
    ),
    b"HMSG a 1 %d %d\r\n%btask\r\nPONG\r\n" % (len(HEADERS), len(HEADERS) + 4, HEADERS),
    b"MSG a 2 4\r\ntask\r\n-ERR 'no'\r\nPING\r\n",
]

TARGETS = {
    "codec": Target(_tasks(), _codec),
    "resp_requests": Target(REQUESTS, _frames(RespRequestScanner)),
    "resp_replies": Target(REPLIES, _frames(RespReplyScanner)),
    "nats_requests": Target(PUBLISHES, _frames(lambda: NatsScanner(REQUEST_VERBS))),
    "nats_replies": Target(MESSAGES, _frames(lambda: NatsScanner(REPLY_VERBS))),
    "nats_client": Target(MESSAGES, _nats_client),
    "ledger": Target(_segments(), _ledger),
    "settings": Target([SETTINGS], _settings),
}
