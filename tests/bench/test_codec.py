import json
import random
import uuid

import msgspec
import pytest

from hookbench.errors import DecodeError
from hookbench.ids import uuid7, uuid7_wall_ms
from hookbench.task import HookTask, decode_task, encode_task, new_task
from tests.bench.conftest import times

CALLS = 300
ROUNDS = 200
JUNK = {
    "no JSON": b"\x00\xff not json at all " * 10,
    "no task": b'{"id": 7, "nonsense": [1, 2, 3]}',
    "cut off": b'{"id":"0192f3a0-0000-7000-8000-000000000000","repo_id":"a/b","task_ty',
}


@pytest.fixture
def task(make_task, payload):
    return make_task(payload=payload)


@pytest.mark.benchmark(group="codec: encode a task, beside json.dumps")
def test_encode_task(beside, task):
    fields = msgspec.to_builtins(task)
    data, text = beside(
        times(4 * CALLS, encode_task, task), times(CALLS, json.dumps, fields), rounds=ROUNDS
    )
    assert decode_task(data) == decode_task(text.encode()) == task


@pytest.mark.benchmark(group="codec: decode a task, beside json.loads")
def test_decode_task(beside, task):
    data = encode_task(task)
    found, fields = beside(
        times(CALLS, decode_task, data), times(CALLS, json.loads, data), rounds=ROUNDS
    )
    assert found == task
    assert fields == msgspec.to_builtins(task)


@pytest.mark.benchmark(group="codec: refuse junk, beside int() of a word")
@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_decode_junk(beside, junk):
    def refuse():
        try:
            decode_task(junk)
        except DecodeError as error:
            return error
        return None

    def refuse_word():
        try:
            int("task")
        except ValueError as error:
            return error
        return None

    error, _plain = beside(times(CALLS, refuse), times(CALLS, refuse_word), rounds=ROUNDS)
    assert isinstance(error, DecodeError)
    assert str(error).startswith(f"no task in {len(junk)} bytes: ")


@pytest.mark.benchmark(group="codec: make a task, beside uuid4")
def test_new_task(beside, clock, payload):
    entropy = random.Random(7)

    def make():
        return new_task(
            repo_id="team/repo", task_type="sync", payload=payload, clock=clock, entropy=entropy
        )

    made, _plain = beside(times(CALLS, make), times(CALLS, uuid.uuid4), rounds=ROUNDS)
    assert isinstance(made, HookTask)
    assert (made.repo_id, made.task_type, made.retry_count) == ("team/repo", "sync", 0)
    assert made.id.version == 7
    assert made.payload == payload


@pytest.mark.benchmark(group="codec: make an id, beside uuid4")
def test_uuid7(beside, clock):
    made, plain = beside(
        times(CALLS, uuid7, clock, random.Random(7)), times(CALLS, uuid.uuid4), rounds=ROUNDS
    )
    assert (made.version, plain.version) == (7, 4)
    assert made.variant == uuid.RFC_4122
    assert 0 < uuid7_wall_ms(made) <= clock.wall_ns() // 1_000_000
