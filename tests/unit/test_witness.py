"""The witness itself: it reads exactly, and it refutes a ledger that is wrong by one record."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookbench.ledger.events import Broker, Event, LedgerWriter
from tests.virtual import FixedClock
from tests.witness.accounts import Seen, read_told
from tests.witness.compare import compare
from tests.witness.monitor import Command, parse_monitor_line
from tests.witness.rehearsal import PENDING, WORK, see_commands, see_messages, task_of
from tests.witness.wire import Frames, Publish, Settlement, parse_settlement

A, B, C, D, E, F, G, STRANGER = (uuid.UUID(int=(7 << 76) + number) for number in range(8))
R, N = Broker.REDIS, Broker.NATS


# What Redis does to an argument before MONITOR tells it: sdscatrepr in its sds.c.
def repr_of_redis(argument):
    named = {0x5C: "\\\\", 0x22: '\\"', 10: "\\n", 13: "\\r", 9: "\\t", 7: "\\a", 8: "\\b"}
    shown = (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in argument)
    whole = zip(argument, shown, strict=True)
    return f'"{"".join(named.get(byte, text) for byte, text in whole)}"'.encode()


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5))
@pytest.mark.parametrize("source", [b"127.0.0.1:40000", b"[::1]:40000", b"unix:/tmp/a b", b"lua"])
def test_a_command_is_read_as_it_was_sent(source, arguments):
    shown = b" ".join(repr_of_redis(argument) for argument in arguments)
    found = parse_monitor_line(b"+1700000000.123456 [0 " + source + b"] " + shown)
    assert found == Command(source, tuple(arguments))
    assert found.from_lua == (source == b"lua")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"+OK",
        b"-ERR no",
        b"+1700000000.123456 [0 127.0.0.1:40000]",
        b'+1700000000.123456 [0 127.0.0.1:40000] "LPUSH',
        b'+1700000000.123456 [0 127.0.0.1:40000] "LPUSH" key',
        b'+1700000000.123456 [0 127.0.0.1:40000] "LPUSH""key"',
        b'+1700000000.123456 [0 127.0.0.1:40000] "LPUSH" ',
    ],
)
def test_half_a_line_is_no_command(line):
    with pytest.raises(ValueError, match="line of MONITOR"):
        parse_monitor_line(line)


def test_messages_are_read_from_chunks_of_any_size():
    headers = b"NATS/1.0\r\nNats-Msg-Id: 7\r\n\r\n"
    body = b"\r\nMSG a 1 3\r\n"
    stream = (
        b'INFO {"version":"2.15.1"}\r\nPONG\r\n'
        + b"MSG queue.hook.sync 1 _INBOX.1 %d\r\n%b\r\n" % (len(body), body)
        + b"PING\r\n"
        + b"HMSG queue.hook.sync 1 %d %d\r\n%b\r\n"
        % (len(headers), len(headers) + len(body), headers + body)
        + b"+OK\r\nMSG empty 1 0\r\n\r\nPING\r\n"
    )
    wanted = [
        Publish("queue.hook.sync", b"", body),
        Publish("queue.hook.sync", headers, body),
        Publish("empty", b"", b""),
    ]
    for size in (1, 2, 3, 7, 64, len(stream)):
        frames = Frames()
        for start in range(0, len(stream), size):
            frames.feed(stream[start : start + size])
        assert frames.messages == wanted
        assert (frames.pings, frames.pongs, frames.info) == (2, 1, {"version": "2.15.1"})
    assert [item.message_id for item in wanted] == [None, b"7", None]
    with pytest.raises(ConnectionError, match="Slow Consumer"):
        Frames().feed(b"-ERR 'Slow Consumer'\r\n")


@pytest.mark.parametrize("front", ["$JS.ACK", "$JS.ACK.hub.abcdef"])
@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (b"", "ack"),
        (b"+ACK", "ack"),
        (b"-NAK", "nak"),
        (b'-NAK {"delay": 5}', "nak"),
        (b"+TERM", "term"),
        (b"+WPI", "in progress"),
    ],
)
def test_an_answer_is_read_in_both_forms(front, payload, what):
    subject = f"{front}.HOOK_QUEUE.hook-sync-worker.2.40.41.1700000000000000000.3"
    for end in ["", ".token"] if front != "$JS.ACK" else [""]:
        found = parse_settlement(Publish(subject + end, b"", payload))
        assert found == Settlement(what, "HOOK_QUEUE", "hook-sync-worker", 2, 40, 41)


@pytest.mark.parametrize(
    ("subject", "payload"),
    [("$JS.ACK.a.b.1.2.3.4.5", b"+NXT"), ("$JS.ACK.a.b.1", b""), ("$JS.ACK.a.b.x.2.3.4.5", b"")],
)
def test_what_is_no_answer_is_an_error(subject, payload):
    with pytest.raises(ValueError, match=r"acknowledgement|invalid literal"):
        parse_settlement(Publish(subject, b"", payload))


def payload_of(task):
    return b'{"id":"%b"}' % str(task).encode()


# One run in which everything happens once. On Redis: A is done, B fails and is put back and done,
# C is a dead letter, D is in a crashed worker's hands, E is never read. On NATS: A is stored once
# although it was sent twice, and done; B is given back by the worker and then done; C is given
# back by the client and then done; D is dropped by the client and then done; F is terminated.
LEDGER = [
    *((Event.PUT_OK, task, R, number, 0) for number, task in enumerate((A, B, C, D, E), start=1)),
    *((Event.RECEIVED, task, R, 0, 1) for task in (A, B, C, D)),
    (Event.ACK_SENT, A, R, 0, 0),
    (Event.NAK, B, R, 0, 0),
    (Event.RECEIVED, B, R, 0, 2),
    (Event.ACK_SENT, B, R, 0, 0),
    (Event.TERM, C, R, 0, 0),
    *((Event.PUT_OK, task, N, at, 0) for task, at in ((A, 1), (A, 1), (B, 2), (C, 3), (D, 4))),
    (Event.PUT_OK, F, N, 5, 0),
    (Event.RECEIVED, A, N, 1, 1),
    (Event.ACK_SENT, A, N, 0, 0),
    (Event.RECEIVED, B, N, 2, 1),
    (Event.NAK, B, N, 0, 0),
    *((Event.RECEIVED, task, N, at, 2) for task, at in ((B, 2), (C, 3), (D, 4))),
    *((Event.ACK_SENT, task, N, 0, 0) for task in (B, C, D)),
    (Event.RECEIVED, F, N, 5, 1),
    (Event.TERM, F, N, 0, 0),
]
COMMANDS = [
    *(Command(b"client", (b"LPUSH", PENDING, payload_of(task))) for task in (A, B, C, D, E)),
    Command(b"client", (b"lrem", WORK, b"0", payload_of(A))),
    Command(b"lua", (b"LREM", WORK, b"0", payload_of(B))),
    Command(b"lua", (b"LPUSH", PENDING, payload_of(B))),
    *(Command(b"client", (b"LREM", WORK, b"0", payload_of(task))) for task in (B, C)),
]
ID_HEADER = b"NATS/1.0\r\nNats-Msg-Id: a\r\n\r\n"
PUBLISHED = [
    Publish("queue.hook.sync", ID_HEADER, payload_of(A)),
    Publish("queue.hook.sync", ID_HEADER, payload_of(A)),
    *(Publish("queue.hook.sync", b"", payload_of(task)) for task in (B, C, D, F)),
]
ANSWERS = [
    Settlement(what, "HOOK_QUEUE", "hook-sync-worker", attempt, sequence, number)
    for what, attempt, sequence, number in (
        ("ack", 1, 1, 1),
        ("nak", 1, 2, 2),
        ("nak", 1, 3, 3),
        ("ack", 2, 2, 5),
        ("ack", 2, 3, 6),
        ("term", 1, 5, 7),
        ("ack", 2, 4, 8),
    )
]
CLIENTS_OWN_NAK = ANSWERS[2]
NEUTRAL = [
    Command(b"client", (b"BLMOVE", PENDING, WORK, b"RIGHT", b"LEFT", b"1")),
    Command(b"client", (b"LLEN", PENDING)),
    Command(b"client", (b"DEL", b"unrelated")),
]


def tell(folder, records):
    writer = LedgerWriter(folder, role="worker", writer=1, clock=FixedClock(monotonic_ns=1))
    for event, task, broker, value, attempt in records:
        writer.record(event, task.bytes, broker=broker, value=value, attempt=attempt)
    writer.close()
    return read_told(folder)


def see(commands=COMMANDS, published=PUBLISHED, answers=ANSWERS, **fields):
    seen = Seen(
        stored={1: str(A), 2: str(B), 3: str(C), 4: str(D), 5: str(F)},
        messages=5,
        last_sequence=5,
        deliveries=8,
    )
    seen.pending_left[str(E)] += 1
    seen.work_left[str(D)] += 1
    see_commands([*commands, *NEUTRAL], seen)
    see_messages(published, answers, seen)
    for name, value in fields.items():
        setattr(seen, name, value)
    return seen


@pytest.fixture
def told(tmp_path):
    return tell(tmp_path, LEDGER)


def test_equal_accounts_agree(told):
    found = compare(see(), told)
    assert (found.refuted, found.unknown) == ([], [])
    assert all(side["seen"] == side["told"] > 0 for side in found.sides.values())
    assert found.figures == {
        "nats_received": 6,
        "nats_given_back": 1,
        "nats_dropped": 1,
        "nats_redelivered": 3,
    }


def without(items, index):
    return [item for number, item in enumerate(items) if number != index]


def twice(items, index):
    return [*items, items[index]]


@pytest.mark.parametrize("index", range(len(LEDGER)))
def test_a_ledger_that_lacks_a_record_or_has_one_too_many_is_refuted(tmp_path, index):
    for number, records in enumerate((without(LEDGER, index), twice(LEDGER, index))):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert compare(see(), tell(folder, records)).refuted


@pytest.mark.parametrize("index", range(len(LEDGER)))
def test_one_task_in_the_place_of_another_is_refuted(tmp_path, index):
    """Every total is what it was. What NATS delivered is told by its sequence, not by its id."""
    event, _task, broker, value, attempt = LEDGER[index]
    if (event, broker) == (Event.RECEIVED, N):
        value = 99
    records = [*without(LEDGER, index), (event, STRANGER, broker, value, attempt)]
    refuted = " ".join(compare(see(), tell(tmp_path, records)).refuted)
    assert "nats_deliveries" in refuted if value == 99 else str(STRANGER) in refuted


@pytest.mark.parametrize(
    ("part", "items"), [("commands", COMMANDS), ("published", PUBLISHED), ("answers", ANSWERS)]
)
def test_what_was_seen_once_more_or_not_at_all_is_refuted(told, part, items):
    for index, item in enumerate(items):
        if item == CLIENTS_OWN_NAK:
            continue
        for changed in (without(items, index), twice(items, index)):
            assert compare(see(**{part: changed}), told).refuted, item


def test_only_the_clients_own_nak_has_no_record_and_it_is_counted(told):
    found = compare(see(answers=[item for item in ANSWERS if item != CLIENTS_OWN_NAK]), told)
    assert found.refuted == []
    assert (found.figures["nats_given_back"], found.figures["nats_dropped"]) == (0, 2)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"stored": {1: str(A), 2: str(B), 3: str(C), 4: str(D)}}, "nats_stream"),
        ({"stored": {1: str(B), 2: str(A), 3: str(C), 4: str(D), 5: str(F)}}, "nats_stream"),
        ({"messages": 4}, "nats_stream_length"),
        ({"last_sequence": 6}, "nats_stream_length"),
        ({"repeats": 0}, "nats_stream_length"),
        ({"deliveries": 7}, "nats_deliveries"),
        ({"deliveries": 9}, "nats_deliveries"),
        ({"pending_left": {}}, "redis_pending_list"),
        ({"work_left": {}}, "redis_work_list"),
    ],
)
def test_each_count_of_the_brokers_can_refute(told, change, name):
    for key in ("pending_left", "work_left"):
        if key in change:
            change = {key: type(see().pushed)(change[key])}
    refuted = compare(see(**change), told).refuted
    assert any(problem.startswith(f"{name}:") for problem in refuted), refuted


def look_for(task, count=1):
    return [Command(b"client", (b"LREM", PENDING, b"-1", payload_of(task)))] * count


def test_a_copy_that_was_trimmed_is_accounted_for(tmp_path):
    """G was put on both brokers and done by NATS; its copy was looked for twice."""
    records = [
        *LEDGER,
        (Event.PUT_OK, G, R, 6, 0),
        (Event.PUT_OK, G, N, 6, 0),
        (Event.RECEIVED, G, N, 6, 1),
        (Event.ACK_SENT, G, N, 0, 0),
    ]
    told = tell(tmp_path, records)
    seen = {
        "published": [*PUBLISHED, Publish("queue.hook.sync", b"", payload_of(G))],
        "answers": [*ANSWERS, Settlement("ack", "HOOK_QUEUE", "hook-sync-worker", 1, 6, 9)],
        "stored": {**see().stored, 6: str(G)},
        "messages": 6,
        "last_sequence": 6,
        "deliveries": 9,
    }
    put = [*COMMANDS, Command(b"client", (b"LPUSH", PENDING, payload_of(G)))]
    found = compare(see(commands=[*put, *look_for(G, 2)], **seen), told)
    assert (found.refuted, found.unknown) == ([], [])
    assert found.sides["redis_trims"] == {"seen": 1, "told": 1}
    (problem,) = compare(see(commands=put, **seen), told).refuted
    assert problem.startswith("redis_pending_list:")
    (problem,) = compare(see(commands=[*put, *look_for(G), *look_for(E)], **seen), told).refuted
    assert problem.startswith("redis_trims: 1 trimmed that NATS had not done")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"incomplete": ["MONITOR of Redis was cut"]}, "was cut"),
        ({"ack_pending": 2}, "2 deliveries were not answered"),
        ({"commands": []}, "redis_puts: nothing happened"),
        ({"published": []}, "nats_puts: nothing happened"),
        ({"answers": []}, "nats_acks: nothing happened"),
        ({"deliveries": 0}, "nats_deliveries: nothing happened"),
        ({"commands": [Command(b"client", (b"DEL", PENDING))]}, "1 DEL on the lists"),
        ({"commands": [Command(b"client", (b"LMOVE", WORK, PENDING))]}, "1 LMOVE on the lists"),
        ({"answers": [Settlement("ack", "OTHER", "a", 1, 1, 1)]}, "another consumer"),
    ],
)
def test_a_witness_that_may_have_missed_something_knows_nothing(told, change, why):
    assert why in "; ".join(compare(see(**change), told).unknown)


@pytest.mark.parametrize("event", [Event.PUT_FAIL, Event.PUT_UNKNOWN, Event.ACK_FAILED])
def test_a_call_without_an_outcome_leaves_the_comparison_unknown(tmp_path, event):
    told = tell(tmp_path, [*LEDGER, (event, G, N, 0, 0)])
    assert f"the ledger holds 1 {event.name} NATS" in compare(see(), told).unknown


def test_a_writer_that_crashed_leaves_the_comparison_unknown(tmp_path):
    LedgerWriter(tmp_path, role="hook-1", writer=2, clock=FixedClock(monotonic_ns=1))
    assert "writers that crashed: ['hook-1.00002']" in " ".join(
        compare(see(), tell(tmp_path, LEDGER)).unknown
    )


def test_bytes_that_are_no_task_have_a_name():
    assert task_of(payload_of(A)) == str(A)
    for junk in (b"\xff", b"[]", b"{}", b"7"):
        assert task_of(junk) == f"bytes {junk!r}"
