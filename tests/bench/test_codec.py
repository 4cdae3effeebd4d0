import json
import random
import uuid

import msgspec
import pytest

from hookbench.errors import DecodeError
from hookbench.ids import uuid7, uuid7_wall_ms
from hookbench.task import HookTask, decode_task, encode_task, new_task

JUNK = {
    "no JSON": b"\x00\xff not json at all " * 10,
    "no task": b'{"id": 7, "nonsense": [1, 2, 3]}',
    "cut off": b'{"id":"0192f3a0-0000-7000-8000-000000000000","repo_id":"a/b","task_ty',
}


@pytest.fixture
def task(make_task, payload):
    return make_task(payload=payload)


@pytest.mark.benchmark(group="codec: encode a task")
def test_encode_task(benchmark, task):
    data = benchmark(encode_task, task)
    assert decode_task(data) == task


@pytest.mark.benchmark(group="codec: encode a task")
def test_encode_yardstick_json_dumps(benchmark, task):
    fields = msgspec.to_builtins(task)
    text = benchmark(json.dumps, fields)
    assert decode_task(text.encode()) == task


@pytest.mark.benchmark(group="codec: decode a task")
def test_decode_task(benchmark, task):
    assert benchmark(decode_task, encode_task(task)) == task


@pytest.mark.benchmark(group="codec: decode a task")
def test_decode_yardstick_json_loads(benchmark, task):
    assert benchmark(json.loads, encode_task(task)) == msgspec.to_builtins(task)


@pytest.mark.benchmark(group="codec: refuse junk")
@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_decode_junk(benchmark, junk):
    def refuse():
        try:
            decode_task(junk)
        except DecodeError as error:
            return error
        return None

    error = benchmark(refuse)
    assert isinstance(error, DecodeError)
    assert str(error).startswith(f"no task in {len(junk)} bytes: ")


@pytest.mark.benchmark(group="codec: make a task")
def test_new_task(benchmark, clock, payload):
    entropy = random.Random(7)

    def make():
        return new_task(
            repo_id="team/repo", task_type="sync", payload=payload, clock=clock, entropy=entropy
        )

    made = benchmark(make)
    assert isinstance(made, HookTask)
    assert (made.repo_id, made.task_type, made.retry_count) == ("team/repo", "sync", 0)
    assert made.id.version == 7
    assert made.payload == payload


@pytest.mark.benchmark(group="codec: make an id")
def test_uuid7(benchmark, clock):
    made = benchmark(uuid7, clock, random.Random(7))
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert 0 < uuid7_wall_ms(made) <= clock.wall_ns() // 1_000_000


@pytest.mark.benchmark(group="codec: make an id")
def test_id_yardstick_uuid4(benchmark):
    assert benchmark(uuid.uuid4).version == 4
