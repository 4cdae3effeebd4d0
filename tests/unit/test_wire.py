"""The wire form: what version 0.1.0 wrote is read for ever, and is still what is written.

The values are written out here, apart from any codec; the bytes stand in ``data/wire``.
"""

import datetime as dt
import random
import uuid
from pathlib import Path

import msgspec
import pytest

from hookbench.githook import receive
from hookbench.githook.config import HookConfig
from hookbench.ledger.events import Broker
from hookbench.task import HookTask, Names, decode_task, encode_task, new_task, with_retry
from hookbench.worker.dead_letters import DeadLetter, RedisDeadLetters
from tests.fakes import FakeRedis
from tests.virtual import FixedClock

FOLDER = Path(__file__).parent / "data" / "wire"
NEWEST = "0.1.0"
"""The newest version with files of its own: today's encoder writes these."""

ZERO = "0" * 40
SECOND = dt.datetime(2025, 11, 3, 9, 8, 7, tzinfo=dt.UTC)
MICROSECOND = SECOND.replace(microsecond=123456)
WALL_NS = 1_762_160_887_123_456_789  # MICROSECOND and 789 ns, which no task keeps


def task(number, **changes):
    values = {
        "id": uuid.UUID(int=(0x0192F3A07C00 << 80) | (7 << 76) | (2 << 62) | number),
        "repo_id": "team/app.git",
        "task_type": "sync",
        "payload": {"ref": "refs/heads/main"},
        "created_at": MICROSECOND,
        "retry_count": 0,
        **changes,
    }
    return HookTask(**values)


def nested(depth):
    value = {"end": None}
    for level in range(depth):
        value = {"level": level, "inner": [value]}
    return value


def refs(count):
    return [
        {"old": ZERO, "new": f"{number:040x}", "ref": f"refs/heads/topic/{'x' * 150}-{number}"}
        for number in range(count)
    ]


TASKS = {
    "0.1.0-sync": task(1),
    "0.1.0-fsck": task(2, task_type="fsck", payload={}),
    "0.1.0-gc": task(3, task_type="gc", payload={"prune": True}),
    "0.1.0-other-type": task(4, task_type="re-index_2"),
    "0.1.0-empty-payload": task(5, payload={}),
    "0.1.0-second": task(6, created_at=SECOND),
    "0.1.0-millisecond": task(7, created_at=SECOND.replace(microsecond=120_000)),
    "0.1.0-retried": task(8, retry_count=3),
    "0.1.0-most-retries": task(9, retry_count=1_000_000),
    "0.1.0-unicode": task(
        10,
        repo_id="équipe/grün-東京.git",
        payload={"ключ": "naïve ☃ 🚀 \u202e \x7f", "escapes": '"\\/\b\f\n\r\t\x00\x1f', "": ""},
    ),
    "0.1.0-numbers": task(
        11, payload={"numbers": [0, -1, 2**53, -(2**63), 2**64 - 1, 0.1, -2.5e-9, 1e22, True, None]}
    ),
    "0.1.0-deep-payload": task(12, payload=nested(100)),
    "0.1.0-many-refs": task(13, payload={"refs": refs(100), "refs_total": 4711}),
    "0.1.0-longest-names": task(14, repo_id="r" * 255, task_type="t" * 32),
}

HOOK_CONFIG = HookConfig(repo_id="team/app.git", spool="spool.sqlite")
# What each push gives to the hook on its stdin, and the time.
PUSHES = {
    "0.1.0-hook": ([f"{ZERO} {'a' * 40} refs/heads/main"], WALL_NS),
    "0.1.0-hook-second": ([f"{'a' * 40} {ZERO} refs/tags/v1"], WALL_NS // 10**9 * 10**9),
    "0.1.0-hook-unicode": (
        [f"{ZERO} {'b' * 40} refs/heads/grün ☃ und\tblau", f"{ZERO} {'c' * 40} refs/x/\ufffd"],
        WALL_NS,
    ),
}
# The first ids that ``random.Random(7)`` gives at that time.
HOOK_IDS = {
    "0.1.0-hook": "019a48f9-4553-752e-89a7-834df2a74de4",
    "0.1.0-hook-second": "019a48f9-44d8-752e-89a7-834df2a74de4",
    "0.1.0-hook-unicode": "019a48f9-4553-752e-89a7-834df2a74de4",
}

LETTERS = {
    "0.1.0-dead-failed": DeadLetter(
        task_type="sync",
        reason="failed 3 times, last: RepositoryError: repository 'grün': no \"such\" thing",
        broker="redis",
        attempts=3,
        died_at_ns=WALL_NS,
        payload_base64="eyJpZCI6MX0=",
    ),
    "0.1.0-dead-no-task": DeadLetter(
        task_type="gc",
        reason="no task in 4 bytes: JSON is malformed: invalid character (byte 0)",
        broker="nats",
        attempts=1,
        died_at_ns=0,
        payload_base64="/wABAg==",
    ),
}


def recorded(name):
    return (FOLDER / f"{name}.json").read_bytes()


def hook_task(name):
    """The task of a push, from its parts."""
    lines, wall_ns = PUSHES[name]
    pushed = [dict(zip(("old", "new", "ref"), line.split(" ", 2), strict=True)) for line in lines]
    return task(
        0,
        id=uuid.UUID(HOOK_IDS[name]),
        payload={"refs": pushed, "refs_total": len(lines)},
        created_at=SECOND if wall_ns % 10**9 == 0 else MICROSECOND,
    )


def newest(names):
    return [name for name in names if name.startswith(f"{NEWEST}-")]


def test_every_recorded_file_is_known_and_there():
    assert {path.stem for path in FOLDER.glob("*.json")} == {*TASKS, *PUSHES, *LETTERS}


@pytest.mark.parametrize("name", TASKS)
def test_a_recorded_task_has_the_values_that_it_had(name):
    found = decode_task(recorded(name))
    assert found == TASKS[name]
    assert found.created_at.utcoffset() == dt.timedelta(0)


@pytest.mark.parametrize("name", newest(TASKS))
def test_a_task_is_still_written_as_recorded(name):
    assert encode_task(TASKS[name]) == recorded(name)


def test_a_new_task_is_written_as_recorded():
    """From the producer's own constructor, not from values that were put in."""
    made = new_task(
        repo_id="team/app.git",
        task_type="sync",
        payload={"ref": "refs/heads/main"},
        clock=FixedClock(wall_ns=WALL_NS),
        entropy=random.Random(7),
    )
    first = recorded("0.1.0-sync")
    assert encode_task(made) == first.replace(str(task(1).id).encode(), str(made.id).encode())


def test_a_retry_changes_the_count_and_nothing_else():
    data = encode_task(with_retry(decode_task(recorded("0.1.0-sync"))))
    assert data == recorded("0.1.0-sync").replace(b'"retry_count":0', b'"retry_count":1')


@pytest.mark.parametrize("name", PUSHES)
def test_a_recorded_push_has_the_values_that_it_had(name):
    assert decode_task(recorded(name)) == hook_task(name)


@pytest.mark.parametrize("name", newest(PUSHES))
def test_the_hook_still_writes_as_recorded(name, monkeypatch):
    monkeypatch.setattr(receive, "system_entropy", lambda: random.Random(7))
    lines, wall_ns = PUSHES[name]
    _task_id, data = receive.task_json(HOOK_CONFIG, lines, FixedClock(wall_ns=wall_ns))
    assert data == recorded(name)


@pytest.mark.parametrize("name", newest(PUSHES))
def test_the_hooks_own_encoder_agrees_with_the_projects(name):
    """A worker that puts the task back writes what the hook wrote, but for the count."""
    assert encode_task(decode_task(recorded(name))) == recorded(name)


@pytest.mark.parametrize("name", LETTERS)
def test_a_recorded_dead_letter_has_the_values_that_it_had(name):
    assert msgspec.json.decode(recorded(name), type=DeadLetter) == LETTERS[name]


@pytest.mark.parametrize("name", newest(LETTERS))
async def test_a_dead_letter_is_still_written_as_recorded(name):
    redis, names = FakeRedis(), Names()
    await RedisDeadLetters(redis, names).bury(LETTERS[name])
    assert redis.lists[names.dead_key(LETTERS[name].task_type)] == [recorded(name)]


def test_a_letter_about_a_payload_is_the_recorded_one():
    made = DeadLetter.of(
        b"\xff\x00\x01\x02",
        task_type="gc",
        reason=LETTERS["0.1.0-dead-no-task"].reason,
        broker=Broker.NATS,
        attempts=1,
        died_at_ns=0,
    )
    assert made == LETTERS["0.1.0-dead-no-task"]
    assert made.payload == b"\xff\x00\x01\x02"
