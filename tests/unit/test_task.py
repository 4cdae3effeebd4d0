import datetime as dt
import json
import random
import string
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookbench.errors import DecodeError, OversizeError, SettingError
from hookbench.ids import uuid7, uuid7_wall_ms
from hookbench.task import (
    HookTask,
    Names,
    check_size,
    check_task_type,
    decode_task,
    encode_task,
    new_task,
    with_retry,
)
from tests.virtual import FixedClock

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
tasks = st.builds(
    HookTask,
    id=st.uuids(),
    repo_id=st.text(min_size=1, max_size=255),
    task_type=st.from_regex(r"[a-z][a-z0-9_-]{0,31}", fullmatch=True),
    payload=st.dictionaries(st.text(), json_values, max_size=4),
    created_at=st.datetimes(
        dt.datetime(1970, 1, 2),  # noqa: DTZ001 - Hypothesis adds the zone
        dt.datetime(9000, 1, 1),  # noqa: DTZ001
        timezones=st.just(dt.UTC),
    ),
    retry_count=st.integers(0, 1_000_000),
)


@given(tasks)
def test_what_is_encoded_is_decoded(task):
    assert decode_task(encode_task(task)) == task


@given(st.binary(max_size=400))
def test_any_bytes_are_a_task_or_a_decode_error(data):
    try:
        task = decode_task(data)
    except DecodeError:
        return
    assert decode_task(encode_task(task)) == task


def wire(**changes):
    fields = {
        "id": "0192f3a0-0000-7000-8000-000000000001",
        "repo_id": "team/app.git",
        "task_type": "sync",
        "payload": {},
        "created_at": "2026-01-31T12:00:00Z",
        "retry_count": 0,
        **changes,
    }
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


def test_the_wire_form_of_this_version_is_read():
    task = decode_task(wire())
    assert task.id == uuid.UUID("0192f3a0-0000-7000-8000-000000000001")
    assert task.created_at == dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"id": "42"}, "id"),
        ({"id": 42}, "id"),
        ({"repo_id": ""}, "repo_id"),
        ({"repo_id": "x" * 256}, "repo_id"),
        ({"repo_id": None}, "repo_id"),
        ({"task_type": "Sync"}, "task_type"),
        ({"task_type": "a.b"}, "task_type"),
        ({"task_type": ">"}, "task_type"),
        ({"payload": []}, "payload"),
        ({"payload": "{}"}, "payload"),
        ({"created_at": "2026-01-31T12:00:00"}, "created_at"),
        ({"created_at": 1}, "created_at"),
        ({"retry_count": -1}, "retry_count"),
        ({"retry_count": "0"}, "retry_count"),
        ({"retry_count": 1.5}, "retry_count"),
        ({"surprise": 1}, "surprise"),
        ({"payload": ...}, "payload"),
        ({"id": ...}, "id"),
    ],
)
def test_decoding_is_strict_and_names_the_field(changes, named):
    with pytest.raises(DecodeError, match=named):
        decode_task(wire(**changes))


def test_deep_nesting_is_a_decode_error_and_no_crash():
    data = wire().replace(
        b'"payload": {}', b'"payload": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    )
    with pytest.raises(DecodeError):
        decode_task(data)


def test_retry_changes_the_count_and_nothing_else():
    task = decode_task(wire())
    again = with_retry(task)
    assert again.retry_count == 1
    assert again.id == task.id
    assert encode_task(again) != encode_task(task)


def test_size_is_checked_to_the_byte():
    check_size(b"x" * 10, 10)
    with pytest.raises(OversizeError, match="11 bytes"):
        check_size(b"x" * 11, 10)


@pytest.mark.parametrize("bad", ["", "Sync", "a b", "a.b", "a>", "*", "-x", "x" * 33, "sync\n"])
def test_task_types_that_would_break_a_subject_are_refused(bad):
    with pytest.raises(SettingError):
        check_task_type(bad)


def test_names_are_the_guides_by_default():
    names = Names()
    assert names.subject("sync") == "queue.hook.sync"
    assert names.pending_key("sync") == "{hook}:sync"
    assert names.work_key("sync") == "{hook}:sync:work"
    assert names.stream == "HOOK_QUEUE"
    assert names.consumer == "hook-sync-worker"


@pytest.mark.parametrize(
    ("consumer", "task_type", "expected"),
    [
        ("hook-sync-worker", "sync", "hook-sync-worker"),
        ("hook-sync-worker", "fsck", "hook-fsck-worker"),
        ("mine", "sync", "mine"),
        ("mine", "gc", "mine-gc"),
    ],
)
def test_each_type_has_a_consumer_name_of_its_own(consumer, task_type, expected):
    assert Names(consumer=consumer).consumer_of(task_type) == expected


def test_names_of_a_run_share_nothing_with_the_guides():
    names = Names.for_run("0007-3fa9c1e")
    assert not names.pending_key("sync").startswith("{hook}")
    assert not names.subject("sync").startswith("queue.hook.")
    assert names.stream != "HOOK_QUEUE"


@pytest.mark.parametrize(
    "bad",
    [
        {"prefix": "a b"},
        {"prefix": "*"},
        {"stream": "a.b"},
        {"stream": ""},
        {"subject_root": "a..b"},
        {"subject_root": "a.>"},
        {"consumer": "a b"},
    ],
)
def test_names_that_a_broker_would_misread_are_refused(bad):
    with pytest.raises(SettingError, match=next(iter(bad))):
        Names(**bad)


def test_uuid7_follows_the_rfc():
    clock = FixedClock(wall_ns=0x0123456789AB * 1_000_000)
    task_id = uuid7(clock, random.Random(1))
    assert task_id.version == 7
    assert task_id.variant == uuid.RFC_4122
    assert uuid7_wall_ms(task_id) == 0x0123456789AB
    assert uuid7_wall_ms(uuid.UUID(int=4 << 76)) is None


def test_ids_come_from_the_given_entropy_alone():
    clock = FixedClock(wall_ns=1)
    first = [uuid7(clock, random.Random(5)) for _ in range(2)]
    assert first[0] == first[1]
    rng = random.Random(5)
    assert len({uuid7(clock, rng) for _ in range(10_000)}) == 10_000


def test_a_new_task_is_made_of_clock_and_entropy():
    clock = FixedClock(wall_ns=1_700_000_000_123_456_789)
    made = [
        new_task(
            repo_id="team/app.git",
            task_type="gc",
            payload={"letters": string.ascii_letters},
            clock=clock,
            entropy=random.Random(3),
        )
        for _ in range(2)
    ]
    assert encode_task(made[0]) == encode_task(made[1])
    assert decode_task(encode_task(made[0])) == made[0]
    assert made[0].created_at.tzinfo is not None


@pytest.mark.parametrize("repo_id", ["", "x" * 256])
def test_a_new_task_needs_a_repository(repo_id):
    with pytest.raises(SettingError, match="repository id"):
        new_task(
            repo_id=repo_id,
            task_type="sync",
            payload={},
            clock=FixedClock(wall_ns=1),
            entropy=random.Random(1),
        )
