"""The outbox, message ids and the flush of a hook with real brokers and real processes."""

import asyncio
import contextlib
import signal
import sqlite3
import uuid

import nats.js.errors
import pytest

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats, start_redis
from hookbench.brokers.ports import free_port
from hookbench.brokers.resolve import resolve_nats, resolve_redis
from hookbench.errors import PublishRefusedError, PublishUnavailableError, SettingError
from hookbench.githook.config import HookConfig
from hookbench.githook.flush import Flush
from hookbench.ledger.events import Event
from hookbench.ledger.model import Place
from hookbench.ledger.read import read_ledger
from hookbench.migration.measures import Measures
from hookbench.migration.phases import Phase
from hookbench.migration.publishing import PublishPatience
from hookbench.migration.service import open_service
from hookbench.migration.spool import ON_NATS, Spool
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import StreamSettings, ensure_stream
from hookbench.queues.redis_absent import push_if_absent
from hookbench.queues.transport import AppTransport, make_nats_publish
from hookbench.task import Names, encode_task, task_id_of
from tests.conftest import eventually
from tests.integration.conftest import Process, stored

KEPT = StreamSettings(storage="memory")


async def ids_in(transport, names):
    """Ids in the stream, in order, and how many of them came with themselves as message id."""
    state = (await transport.jetstream.stream_info(names.stream)).state
    found, with_id = [], 0
    # The first of a stream that has had no message is 0, and to ask for that one is an error.
    for sequence in range(max(state.first_seq, 1), state.last_seq + 1):
        message = await transport.jetstream.get_msg(names.stream, sequence)
        found.append(task_id_of(message.data))
        with_id += (message.headers or {}).get("Nats-Msg-Id") == str(found[-1])
    return found, with_id


async def test_a_repeat_is_stored_once_and_told_the_first_sequence(transport, names, make_task):
    await ensure_stream(transport, KEPT)
    publish = make_nats_publish(transport, message_ids=True)
    first, second = (encode_task(make_task()) for _ in range(2))
    told = [await publish(names.subject("sync"), data) for data in (first, second, first)]
    assert told == [1, 2, 1]
    assert await ids_in(transport, names) == ([task_id_of(first), task_id_of(second)], 2)


async def test_the_guides_publish_has_no_id(transport, names, make_task):
    await ensure_stream(transport, KEPT)
    publish, data = make_nats_publish(transport), encode_task(make_task())
    assert [await publish(names.subject("sync"), data) for _ in range(2)] == [1, 2]
    assert (await ids_in(transport, names))[1] == 0


async def test_nobody_there_is_another_refusal_than_no(transport, names, make_task):
    publish = make_nats_publish(transport)
    with pytest.raises(PublishUnavailableError, match="no stream takes"):
        await publish(names.subject("sync"), encode_task(make_task()))
    await ensure_stream(transport, KEPT)
    info = await transport.jetstream.stream_info(names.stream)
    info.config.max_msg_size = 10
    await transport.jetstream.update_stream(info.config)
    with pytest.raises(PublishRefusedError) as caught:
        await publish(names.subject("sync"), encode_task(make_task()))
    assert not isinstance(caught.value, PublishUnavailableError)


async def test_a_push_looks_into_all_lists_and_pushes_once(redis_client, names, make_task):
    key, work = names.pending_key("sync"), names.work_key("sync")
    data, other = (encode_task(make_task()) for _ in range(2))
    told = await asyncio.gather(*(push_if_absent(redis_client, key, [work], data) for _ in "123"))
    assert sorted(told) == [0, 0, 1]
    await redis_client.blmove(key, work, 1, "RIGHT", "LEFT")
    assert await push_if_absent(redis_client, key, [work], data) == 0
    assert await push_if_absent(redis_client, key, [work], other) == 1
    await redis_client.delete(key, work)


@pytest.mark.parametrize(
    ("measures", "window_s", "text"),
    [
        (Measures(message_ids=True), 60.0, "60 s .* 60 s"),
        (Measures(outbox=True), 120.0, "give --spool"),
    ],
)
async def test_a_producer_that_cannot_keep_its_promise_does_not_start(
    redis_broker, nats_broker, names, clock, measures, window_s, text
):
    connections = Connections(
        redis_url=redis_broker.url,
        nats_url=nats_broker.url,
        names=names,
        clock=clock,
        stream=StreamSettings(storage="memory", duplicate_window_s=window_s),
    )
    try:
        with pytest.raises(SettingError, match=text):
            await open_service(Phase.DUAL_WRITE, connections, names, measures=measures)
    finally:
        await connections.close()


async def test_a_publish_is_repeated_until_the_stream_is_there(
    redis_broker, nats_broker, names, clock, make_task
):
    connections = Connections(
        redis_url=redis_broker.url, nats_url=nats_broker.url, names=names, clock=clock, stream=KEPT
    )
    try:
        service = await open_service(
            Phase.NATS_PRIMARY,
            connections,
            names,
            measures=Measures(message_ids=True),
            patience=PublishPatience(horizon_s=30.0, timeout_s=1.0),
        )
        transport = await connections.nats()
        await transport.jetstream.delete_stream(names.stream)
        sending = asyncio.ensure_future(service.send(make_task()))
        await asyncio.sleep(0)
        await ensure_stream(transport, KEPT)
        assert (await sending).sequence == 1
    finally:
        await connections.close()


@pytest.fixture
def own_nats(tmp_path):
    """A NATS that may be stopped."""
    broker = start_nats(resolve_nats(env={"PATH": ""}), tmp_path, Durability.LAZY)
    yield broker
    broker.resume()
    broker.stop()


class Producers:
    """Producer processes that take each other's place, on one outbox."""

    def __init__(self, folder, nats_url):
        self.folder, self.nats_url = folder, nats_url
        self.ledger = folder / "ledger"
        self.ledger.mkdir()
        self.spool = folder / "outbox"
        self.started = []

    def start(self, count):
        number = len(self.started)
        arguments = [
            "produce",
            "--phase=nats_only",
            f"--nats-url={self.nats_url}",
            "--measures=outbox",
            f"--spool={self.spool}",
            f"--ledger={self.ledger}",
            f"--writer={number}",
            "--rate=500",
            f"--count={count}",
            f"--seed={number}",
            "--json",
        ]
        process = Process(arguments, self.folder, f"producer-{number}")
        self.started.append(process)
        return process

    def events(self, event):
        """Ids of the tasks with such a record."""
        if not any(self.ledger.glob("*.ledger")):
            return set()
        ledger = read_ledger(self.ledger, same_boot=True, lenient=True, steps=1)
        rows = ledger.records["event"] == event
        return {uuid.UUID(bytes=ledger.ids[task].tobytes()) for task in ledger.task[rows]}

    def close(self):
        for process in self.started:
            process.popen.kill()
            process.popen.wait()


@pytest.fixture
def producers(tmp_path, own_nats):
    made = Producers(tmp_path, own_nats.url)
    yield made
    made.close()


async def test_a_producer_killed_between_accept_and_put_loses_nothing(producers, own_nats):
    killed = producers.start(100_000)
    killed.wait_for(lambda: len(producers.events(Event.PUT_OK)) > 20, "the first puts")
    own_nats.pause()
    before = producers.events(Event.ACCEPTED)
    killed.wait_for(
        lambda: len(producers.events(Event.ACCEPTED)) > len(before) + 100,
        "tasks accepted meanwhile",
    )
    killed.stop(signal.SIGKILL)
    accepted, put = producers.events(Event.ACCEPTED), producers.events(Event.PUT_OK)
    assert len(accepted - put) >= 100
    own_nats.resume()
    successor = producers.start(1)
    await eventually(lambda: successor.popen.poll() is not None, timeout_s=30, what="its end")
    assert successor.popen.returncode == 0, successor.errors.read_text()
    assert successor.latest("spooled") == 0
    with Spool(producers.spool) as spool:
        assert spool.tasks() == []
    names = Names()
    async with await AppTransport.connect(own_nats.url, names=names) as transport:
        found, with_id = await ids_in(transport, names)
    assert len(found) == len(set(found)) == with_id
    assert accepted <= set(found)


async def test_a_stop_while_the_broker_is_away_is_bounded_and_says_what_is_left(
    producers, own_nats
):
    process = producers.start(100_000)
    process.wait_for(lambda: len(producers.events(Event.PUT_OK)) > 20, "the first puts")
    own_nats.kill()
    before = producers.events(Event.ACCEPTED)
    process.wait_for(
        lambda: len(producers.events(Event.ACCEPTED)) > len(before) + 50, "tasks accepted meanwhile"
    )
    assert process.stop() == 0, process.errors.read_text()
    left = process.latest("spooled")
    with Spool(producers.spool) as spool:
        assert len(spool) == left >= 50
    assert f"{left} tasks are left in the outbox" in process.errors.read_text()
    assert process.latest("refused") == process.latest("unknown") == 0


async def test_two_producers_do_not_share_an_outbox(producers):
    first = producers.start(100_000)
    first.wait_for(lambda: first.latest("phase") is not None, "its phase")
    second = producers.start(10)
    await eventually(lambda: second.popen.poll() is not None, timeout_s=30, what="its end")
    assert second.popen.returncode == 2
    assert "another process has it" in second.errors.read_text()


FIRST_VERSION = """
CREATE TABLE spool (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    task_id TEXT NOT NULL UNIQUE,
    task BLOB NOT NULL,
    intended_ns INTEGER NOT NULL,
    boot_id BLOB NOT NULL,
    rejected TEXT
)
"""


async def test_a_flush_sweeps_what_is_pushed_while_it_lingers(
    nats_broker, names, clock, make_task, tmp_path, transport
):
    path = tmp_path / "spool"
    tasks = [make_task(), make_task()]

    def push(task):
        with Spool(path) as spool:
            spool.add(str(task.id), encode_task(task), intended_ns=0, boot_id=bytes(16))

    push(tasks[0])
    config = HookConfig(
        repo_id=tasks[0].repo_id,
        spool=str(path),
        nats_url=nats_broker.url,
        phase=Phase.NATS_ONLY.label,
        subject_root=names.subject_root,
        stream=names.stream,
        storage="memory",
        measures="outbox",
        flush_for_s=60.0,
        linger_s=30.0,
    )
    flush = Flush(config, clock=clock)
    running = asyncio.ensure_future(flush.run())

    async def holds(count):
        with contextlib.suppress(nats.js.errors.NotFoundError):
            return len((await ids_in(transport, names))[0]) == count

    await eventually(lambda: holds(1), what="the first push")
    push(tasks[1])
    await eventually(lambda: holds(2), what="the second push")

    def empty():
        with Spool(path) as spool:
            return len(spool) == 0

    await eventually(empty, what="an empty spool")
    flush.request_stop()
    totals = await running
    assert (totals.sent, totals.left) == (2, 0)


async def test_a_flush_keeps_a_task_until_both_brokers_have_it(
    nats_broker, names, clock, make_task, tmp_path, transport
):
    """The spool is of the version before, and Redis is down at first."""
    path, ledger = tmp_path / "spool", tmp_path / "ledger"
    ledger.mkdir()
    task = make_task()
    with sqlite3.connect(path) as db:
        db.execute(FIRST_VERSION)
        db.execute(
            "INSERT INTO spool (task_id, task, intended_ns, boot_id) VALUES (?, ?, 1, ?)",
            (str(task.id), encode_task(task), bytes(16)),
        )
    db.close()
    port = free_port()

    def flush(seconds):
        config = HookConfig(
            repo_id=task.repo_id,
            spool=str(path),
            redis_url=f"redis://127.0.0.1:{port}",
            nats_url=nats_broker.url,
            phase=Phase.DUAL_WRITE.label,
            prefix=names.prefix,
            subject_root=names.subject_root,
            stream=names.stream,
            storage="memory",
            measures="outbox",
            ledger=str(ledger),
            flush_for_s=seconds,
            linger_s=0.0,
        )
        return Flush(config, clock=clock)

    def acked():
        with Spool(path) as spool:
            return [row.acked for row in spool.oldest(9)]

    down = flush(60.0)
    running = asyncio.ensure_future(down.run())
    await eventually(lambda: acked() == [ON_NATS], timeout_s=30, what="NATS has it")
    down.request_stop()
    totals = await running
    assert (totals.sent, totals.left) == (0, 1)
    redis = start_redis(
        resolve_redis(env={"PATH": ""}), tmp_path / "redis", Durability.MEMORY, port=port
    )
    for file in ledger.iterdir():  # the next flush is another process as a rule
        file.rename(file.with_name(file.name.replace("hook-", "hook-before-")))
    try:
        totals = await flush(30.0).run()
    finally:
        redis.stop()
    assert (totals.sent, totals.left) == (1, 0)
    assert acked() == []
    assert await ids_in(transport, names) == ([task.id], 1)


@pytest.mark.timeout(150)
def test_a_rehearsal_accounts_for_every_task_of_a_killed_producer(rehearse, tmp_path):
    """It is killed while NATS is down: what it accepted is swept by the one in its place."""
    done = rehearse(
        [
            {"kind": "kill", "target": "nats", "at_s": 2.0, "for_s": 1.5},
            {"kind": "kill", "target": "producer-0", "at_s": 2.5},
        ],
        "--set",
        'measures=["outbox"]',
        phases='"nats_primary"',
        seconds=6.0,
    )
    manifest = stored(tmp_path)
    account = manifest.account
    assert account is not None, done.stderr
    assert [fault.begin_ns is not None for fault in manifest.faults] == [True, True]
    assert account.accepted > 1_000
    assert (account.lost, account.refused, account.stuck) == (0, 0, 0), account.findings
    assert account.done >= account.accepted
    assert manifest.residue.places[Place.SPOOL] == []
