"""Limits on size and depth: beyond them there is an error of the project's own."""

import asyncio
import os
import tomllib

import msgspec
import pytest
from nats.errors import ProtocolError

from hookbench.brokers.probe import read_nats_info
from hookbench.decoding import decode_json, decode_toml, read_document
from hookbench.errors import (
    BrokerUnreachableError,
    DecodeError,
    LedgerError,
    OversizeError,
    ResultsError,
    SettingError,
)
from hookbench.faults.wire.frames import MAX_FRAME_BYTES, FrameParser
from hookbench.faults.wire.nats_frames import REPLY_VERBS, NatsScanner
from hookbench.faults.wire.resp_frames import RespReplyScanner, RespRequestScanner
from hookbench.githook.config import read_config
from hookbench.ledger.events import LedgerWriter
from hookbench.ledger.read import read_ledger
from hookbench.ledger.segment import MAX_SLOTS
from hookbench.live.places import decode_step, parse_place
from hookbench.migration.announcements import read_announced
from hookbench.migration.phases import PhaseFile
from hookbench.migration.reconcile import read_progress
from hookbench.queues.nats_frames import MAX_LINE_BYTES, MAX_MESSAGE_BYTES
from hookbench.queues.reconnecting import ReconnectingClient
from hookbench.rehearsal.answers import load_answers
from hookbench.report.growth import read_growth
from hookbench.report.prices import load_prices
from hookbench.results.histograms import HISTOGRAMS_NAME, load_histograms
from hookbench.results.store import MANIFEST_NAME, load_manifest
from hookbench.scenarios.matrix_file import load_plan
from hookbench.scenarios.schema import load_scenario
from hookbench.settings import read_file
from hookbench.task import MAX_DEPTH, MAX_TASK_BYTES, decode_task, encode_task
from tests.virtual import FixedClock

DEEP = 100_000
ARRAYS = "[" * DEEP + "]" * DEEP
OBJECT = f'{{"schema": 1, "index": 0, "x": {ARRAYS}}}'


def nested(levels):
    value = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def test_a_payload_of_the_greatest_depth_goes_both_ways(make_task):
    task = make_task(payload=nested(MAX_DEPTH))
    assert decode_task(encode_task(task)) == task
    wide = make_task(payload={"refs": [{} for _ in range(10 * MAX_DEPTH)], "text": "[" * 1000})
    assert decode_task(encode_task(wide)) == wide


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, DEEP])
def test_a_deeper_payload_is_refused_both_ways(make_task, levels):
    task = make_task(payload=nested(levels))
    with pytest.raises(OversizeError, match=f"deeper than {MAX_DEPTH}"):
        encode_task(task)
    text = encode_task(make_task(payload={})).replace(
        b'"payload":{}', b'"payload":' + b'{"a":' * levels + b"1" + b"}" * levels
    )
    with pytest.raises(DecodeError, match="no task in"):
        decode_task(text)


def test_a_task_larger_than_any_broker_should_hand_out_is_not_looked_at():
    with pytest.raises(DecodeError, match=f"more than {MAX_TASK_BYTES}"):
        decode_task(b" " * (MAX_TASK_BYTES + 1))


def test_a_document_has_a_size(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_document(path, 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_document(path, 4)
    os.truncate(path, 2**40)  # takes no room on the disk, and would in memory
    with pytest.raises(OSError, match="more than 1,000 bytes"):
        read_document(path, 1_000)


def test_what_is_nested_too_deep_is_an_error_of_the_parser():
    with pytest.raises(msgspec.DecodeError, match="nested too deep"):
        decode_json(OBJECT, dict)
    with pytest.raises(tomllib.TOMLDecodeError, match="nested too deep"):
        decode_toml(f"value = {ARRAYS}")
    with pytest.raises(tomllib.TOMLDecodeError, match="too many digits"):
        decode_toml(f"value = {'9' * 5_000}")


@pytest.mark.parametrize(
    ("read", "name", "error", "text"),
    [
        (lambda path: load_manifest(path.parent), MANIFEST_NAME, ResultsError, OBJECT),
        (lambda path: load_histograms(path.parent), HISTOGRAMS_NAME, ResultsError, f"[{OBJECT}]"),
        (read_growth, "growth.json", ResultsError, OBJECT),
        (lambda path: load_answers(path.parent), "answer.json", ResultsError, OBJECT),
        (lambda path: PhaseFile(path).read(), "phase.json", SettingError, OBJECT),
        (read_progress, "progress.json", SettingError, OBJECT),
        (read_config, "hook.json", SettingError, OBJECT),
        (lambda path: read_announced([path]), "worker.jsonl", SettingError, OBJECT),
        (load_scenario, "scenario.toml", SettingError, f"name = {ARRAYS}"),
        (load_plan, "plan.toml", SettingError, f"name = {ARRAYS}"),
        (read_file, "hookbench.toml", SettingError, f"redis_url = {ARRAYS}"),
        (load_prices, "prices.toml", SettingError, f"currency = {ARRAYS}"),
    ],
)
def test_every_file_that_is_nested_too_deep_is_named(tmp_path, read, name, error, text):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(error) as raised:
        read(path)
    assert str(tmp_path) in str(raised.value)


def test_what_a_process_said_at_a_place_is_not_trusted():
    place = parse_place("redis:key")
    for data in (OBJECT.encode(), b"\xff", b"[]"):
        with pytest.raises(SettingError, match="redis:key holds no phase"):
            decode_step(place, data)


@pytest.mark.parametrize(
    ("scanner", "data"),
    [
        (RespRequestScanner, b"*2000000\r\n"),
        (RespRequestScanner, b"*1\r\n$99999999999\r\n"),
        (RespReplyScanner, b"$99999999999\r\n"),
        (RespReplyScanner, b"+" + b"x" * 70_000),
        (lambda: NatsScanner(REPLY_VERBS), b"MSG a 1 99999999999\r\n"),
        (lambda: NatsScanner(REPLY_VERBS), b"MSG a 1 " + b"9" * 5_000 + b"\r\n"),
        (lambda: NatsScanner(REPLY_VERBS), b"INFO " + b"x" * 1_100_000),
    ],
)
def test_a_frame_of_the_proxy_has_a_size(scanner, data):
    assert MAX_FRAME_BYTES < 99_999_999_999
    parser = FrameParser(scanner())
    assert parser.feed(data).error


@pytest.mark.parametrize(
    "data",
    [
        b"MSG a 1 -100\r\n",
        b"MSG a 1 %d\r\n" % (MAX_MESSAGE_BYTES + 1),
        b"MSG a 1 " + b"9" * 5_000 + b"\r\n",
        b"HMSG a 1 20 10\r\n",
        b"HMSG a 1 -5 10\r\n",
        b"MSG a 2 %d\r\n" % (MAX_MESSAGE_BYTES + 1),
        b"INFO " + b"x" * (MAX_LINE_BYTES + 1),
        b"INFO " + b"[" * 4_000 + b"\r\n",
        b"INFO []\r\n",
        b"-ERR\r\n",
        b"INFO \xff\xff\r\n",
    ],
)
async def test_a_frame_that_no_server_sends_ends_the_connection(data):
    client = ReconnectingClient()
    client.listeners[1] = list
    with pytest.raises(ProtocolError):
        await client._ps.parse(data)


class Dialer:
    """A server that says one thing."""

    def __init__(self, line):
        self._line = line

    async def stream(self, _host, _port):
        reader = asyncio.StreamReader()
        reader.feed_data(self._line)
        reader.feed_eof()
        return reader, self

    def close(self):
        """Nothing."""


@pytest.mark.parametrize(
    "line",
    [b"INFO " + ARRAYS.encode()[:60_000] + b"\r\n", b"INFO {\r\n", b"INFO []\r\n", b"x" * 200_000],
)
async def test_what_calls_itself_nats_is_not_trusted(line):
    with pytest.raises(BrokerUnreachableError):
        await read_nats_info("nats://a:1", dialer=Dialer(line))


def test_a_segment_is_not_believed_to_be_as_long_as_it_says(tmp_path):
    LedgerWriter(tmp_path, role="worker", writer=1, clock=FixedClock()).close()
    (path,) = tmp_path.glob("*.ledger")
    os.truncate(path, 2**40)
    with pytest.raises(LedgerError, match=f"no segment has more than {MAX_SLOTS:,}"):
        read_ledger(tmp_path)
