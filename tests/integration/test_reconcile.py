"""Reconciliation on real brokers: the stream by sequence, the verb, and the turn of a fleet."""

import asyncio
import json
import subprocess

import pytest

from hookbench.ledger.events import Broker, Event
from hookbench.ledger.read import read_ledger
from hookbench.migration.reconcile_loop import take_turn
from hookbench.queues.jetstream import StreamSettings, ensure_stream
from hookbench.queues.stream_log import StreamLog
from hookbench.task import encode_task, task_id_of
from tests.integration.conftest import COMMAND

NOTHING = {
    "event": "round",
    "in_redis": 0,
    "in_stream": 0,
    "done": 0,
    "turned_up": 0,
    "put_on_nats": 0,
    "put_on_redis": 0,
    "refused": 0,
    "unknown": 0,
    "stream_judged": False,
}


@pytest.fixture
async def log(transport):
    await ensure_stream(transport, StreamSettings(storage="memory"))
    return StreamLog(transport)


async def publish(transport, names, *payloads, task_type="sync"):
    for payload in payloads:
        await transport.publish(names.subject(task_type), payload)


async def test_tasks_are_read_by_sequence_and_what_is_gone_or_none_is_left_out(
    log, transport, names, make_task
):
    assert await log.bounds() == (1, 0)
    payloads = [encode_task(make_task()) for _ in range(100)]
    await publish(transport, names, *payloads[:50], b"junk", *payloads[50:])
    await transport.jetstream.delete_msg(names.stream, 10)
    found = await log.read(1, 101)
    wanted = [(number, payload) for number, payload in enumerate(payloads[:50], 1) if number != 10]
    wanted += list(enumerate(payloads[50:], 52))
    assert [(item.sequence, item.payload) for item in found] == wanted
    assert {item.task_id for item in found} == {task_id_of(payload) for _, payload in wanted}
    assert {item.subject for item in found} == {names.subject("sync")}
    assert [item.sequence for item in await log.read(60, 62)] == [60, 61, 62]
    await transport.jetstream.purge_stream(names.stream, keep=5)
    assert await log.bounds() == (97, 101)


async def test_a_time_is_found_by_halving(log, transport, names, make_task, clock):
    assert await log.first_since(0) == 1
    await publish(transport, names, *[encode_task(make_task()) for _ in range(20)])
    await asyncio.sleep(0.05)
    between_ms = clock.wall_ns() // 1_000_000
    await asyncio.sleep(0.05)
    await publish(transport, names, *[encode_task(make_task()) for _ in range(10)])
    await transport.jetstream.delete_msg(names.stream, 15)
    assert await log.first_since(0) == 1
    assert await log.first_since(between_ms) == 21
    assert await log.first_since(between_ms + 3_600_000) == 30


async def test_one_process_of_a_fleet_has_the_turn(redis_client, names):
    assert await take_turn(redis_client, names, "sync", "one")
    assert not await take_turn(redis_client, names, "sync", "other")
    assert await take_turn(redis_client, names, "sync", "one")
    assert await take_turn(redis_client, names, "fsck", "other")
    keys = [f"{names.pending_key(kind)}:reconciler" for kind in ("sync", "fsck")]
    assert await redis_client.delete(*keys) == 2


def reconcile(fleet, *more):
    return subprocess.run(
        [*COMMAND, "reconcile", "--json", "--grace=0.1", *fleet.arguments(), *more],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def test_the_verb_puts_what_only_redis_has(fleet, log, transport, redis_client, make_task):
    names = fleet.names
    tasks = [make_task() for _ in range(5)]
    payloads = [encode_task(task) for task in tasks]
    await publish(transport, names, *payloads[:2])
    await redis_client.lpush(names.pending_key("sync"), *payloads[:4])
    await redis_client.lpush(names.work_key("sync"), payloads[4])
    done = reconcile(fleet, "--once", f"--ledger={fleet.ledger}")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {**NOTHING, "in_redis": 5, "put_on_nats": 3}
    stored = await log.read(1, 9)
    assert sorted(item.payload for item in stored) == sorted(payloads)
    message = await transport.jetstream.get_msg(names.stream, 3)
    assert message.headers["Nats-Msg-Id"] == str(task_id_of(message.data))
    records = read_ledger(fleet.ledger).records
    put = records[records["event"] == Event.PUT_OK]
    assert sorted(put["value"]) == [3, 4, 5]
    assert set(put["broker"]) == {Broker.NATS}
    again = reconcile(fleet, "--once")
    assert json.loads(again.stdout) == {**NOTHING, "in_redis": 5}
    await redis_client.delete(names.pending_key("sync"), names.work_key("sync"))


async def test_what_cannot_be_put_is_an_exit_code(fleet, log, transport, redis_client, make_task):
    names = fleet.names
    info = await transport.jetstream.stream_info(names.stream)
    info.config.max_msg_size = 10
    await transport.jetstream.update_stream(info.config)
    await redis_client.lpush(names.pending_key("sync"), encode_task(make_task()))
    done = reconcile(fleet, "--once")
    assert done.returncode == 3
    assert json.loads(done.stdout) == {**NOTHING, "in_redis": 1, "refused": 1}
    await redis_client.delete(names.pending_key("sync"))
    assert await log.read(1, 9) == []


async def test_a_worker_reconciles_with_that_measure(fleet, log, redis_client, make_task):
    """In phase 2, where a task that Redis alone has is never read."""
    names = fleet.names
    task = make_task()
    await redis_client.lpush(names.pending_key("sync"), encode_task(task))
    worker = fleet.worker("--phase=dual_read", "--measures=reconcile")
    worker.wait_for(lambda: worker.latest("done") == 1, "the task")
    assert worker.stop() == 0
    assert [item.task_id for item in await log.read(1, 9)] == [task.id]
    key = names.pending_key("sync")
    await redis_client.delete(key, f"{key}:reconciler")
