"""The ledger against an observer that shares no code with it, on one short pass; and the observer.

The long proof on the whole migration is in tests/evidence.
"""

import socket
import threading

import pytest
import redis

from hookbench.queues.redis_client import connect_redis
from hookbench.queues.redis_list import RedisListQueue
from hookbench.task import encode_task
from tests.witness.accounts import Seen
from tests.witness.compare import compare
from tests.witness.monitor import RedisMonitor
from tests.witness.rehearsal import see_commands, task_of, witness_run
from tests.witness.wire import NatsWitness


def test_the_ledger_is_what_the_witness_saw(tmp_path):
    run = witness_run(
        tmp_path,
        "quick",
        ["timeline.phase_seconds=1", "producers.rate_per_s=200", "pushes.interval_s=0.5"],
        timeout_s=150,
    )
    found = compare(run.seen, run.told)
    assert (found.refuted, found.unknown) == ([], [])
    assert run.tasks == 1000 + run.pushes
    assert run.pushes >= 5
    # 0, 1 and 2 write Redis; 1, 2, 3 and 4 write NATS, whose consumer reads all of it in the end.
    assert found.sides["redis_puts"]["seen"] > 550
    assert found.sides["nats_puts"]["seen"] > 750
    assert found.sides["nats_acks"]["seen"] >= found.sides["nats_puts"]["seen"]


async def test_every_byte_of_a_command_is_seen(redis_broker):
    strange = [b"", b"\x00\xff", b'a "quoted" \\ one', b"\r\n\t\a\b", "ü".encode(), b"\\x41", b"\n"]
    with RedisMonitor(redis_broker.port) as monitor, redis.Redis(port=redis_broker.port) as client:
        try:
            for value in strange:
                client.lpush("witness:bytes", value)
            client.delete("witness:bytes")
            commands, missed = monitor.finish()
        finally:
            client.delete("witness:bytes")
    assert missed == []
    pushed = [item.arguments for item in commands if item.name == "LPUSH"]
    assert pushed == [(b"LPUSH", b"witness:bytes", value) for value in strange]


async def test_a_retry_is_seen_as_the_script_that_makes_it(redis_broker, make_task):
    """With the guide's names, which the witness knows, on lists that are removed again."""
    client = connect_redis(redis_broker.url)
    queue = RedisListQueue(client)
    task = make_task()
    payload = encode_task(task)
    seen = Seen()
    with RedisMonitor(redis_broker.port) as monitor:
        try:
            await queue.put(payload)
            (first,) = await queue.receive(1, 1.0)
            await first.nak()
            (second,) = await queue.receive(1, 1.0)
            await second.ack()
            commands, missed = monitor.finish()
        finally:
            await client.delete("{hook}:sync", "{hook}:sync:work")
            await client.aclose()
    see_commands(commands, seen)
    assert (missed, seen.incomplete) == ([], [])
    once = {str(task.id): 1}
    assert (seen.pushed, seen.taken_back, seen.requeued, seen.removed) == (once, once, once, once)
    assert task_of(second.payload) == str(task.id)


def test_a_monitor_that_was_cut_off_says_so(redis_broker):
    with RedisMonitor(redis_broker.port) as monitor, redis.Redis(port=redis_broker.port) as client:
        (own,) = [item["id"] for item in client.client_list() if "O" in item["flags"]]
        client.client_kill_filter(_id=own)
        _commands, missed = monitor.finish()
    assert len(missed) == 1
    assert "MONITOR of Redis was cut" in missed[0]


def test_what_redis_counted_and_monitor_did_not_tell_is_missed(redis_broker):
    with RedisMonitor(redis_broker.port) as monitor, redis.Redis(port=redis_broker.port) as client:
        client.lpush("witness:bytes", b"1")
        client.delete("witness:bytes")
        monitor._before["LPUSH"] -= 1
        assert monitor.finish()[1] == ["MONITOR told 1 LPUSH, Redis counted 2"]


@pytest.mark.parametrize(
    ("last_words", "why"), [(b"", "closed by the server"), (b"-ERR 'Slow Consumer'\r\n", "Slow")]
)
def test_a_subscription_that_was_cut_off_says_so(last_words, why):
    """A server that takes the subscription, asks whether it is heard, and then hangs up."""
    heard = []

    def serve(listener):
        connection, _address = listener.accept()
        with connection:
            connection.sendall(b'INFO {"version":"2.15.1"}\r\n')
            while b"PING" not in b"".join(heard):
                heard.append(connection.recv(4096))
            connection.sendall(b"PONG\r\nMSG queue.hook.sync 1 2\r\nhi\r\nPING\r\n")
            while b"PONG" not in b"".join(heard):
                heard.append(connection.recv(4096))
            connection.sendall(last_words)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        with NatsWitness(listener.getsockname()[1], "queue.hook.>") as wire:
            server.join(timeout=10)
            wire._tap._thread.join(timeout=10)
            published, answers, missed = wire.finish()
    assert b"SUB queue.hook.> 1\r\nSUB $JS.ACK.> 2\r\n" in b"".join(heard)
    assert (published, answers) == ([], [])
    assert len(missed) == 1
    assert "the subscription on NATS was cut" in missed[0]
    assert why in wire._tap.cut
