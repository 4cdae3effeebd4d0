"""Real workers, stopped, killed and moved from phase to phase."""

import asyncio
import signal
import subprocess

import msgspec
import nats.js.errors
import pytest

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_redis
from hookbench.brokers.resolve import resolve_redis
from hookbench.ledger.events import Event
from hookbench.ledger.read import read_ledger
from hookbench.migration.phases import Phase, PhaseFile
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import (
    ConsumerSettings,
    StreamSettings,
    ensure_consumer,
    ensure_stream,
)
from hookbench.queues.redis_list import RedisListQueue
from hookbench.task import Names
from hookbench.worker.dead_letters import DeadLetter
from hookbench.worker.service import WorkerService, WorkerSettings
from tests.conftest import eventually
from tests.integration.conftest import COMMAND, Fleet


async def send(fleet, phase, clock, tasks):
    connections = Connections(
        redis_url=fleet.redis_url,
        nats_url=fleet.nats_url,
        names=fleet.names,
        clock=clock,
        stream=StreamSettings(storage="memory"),
    )
    try:
        service = await open_service(phase, connections, fleet.names)
        await asyncio.gather(*[service.send(task) for task in tasks])
    finally:
        await connections.close()


def done_of(fleet):
    ledger = read_ledger(fleet.ledger)
    mask = ledger.records["event"] == Event.DONE
    return sorted(bytes(task) for task in ledger.ids[ledger.task[mask]])


@pytest.mark.parametrize("phase", [Phase.REDIS_ONLY, Phase.NATS_ONLY])
@pytest.mark.parametrize("ack", ["immediate", "after_processing"])
async def test_sigterm_under_load_loses_nothing_and_repeats_nothing(
    fleet, make_task, clock, phase, ack
):
    tasks = [make_task() for _ in range(400)]
    await send(fleet, phase, clock, tasks)
    arguments = (f"--phase={phase.label}", f"--ack={ack}", "--handler=sleep", "--sleep-ms=20")
    for writer in range(1, 5):  # three are stopped in the middle, the fourth finishes
        worker = fleet.worker(*arguments, writer=writer)
        if writer < 4:
            worker.wait_for(lambda w=worker: w.latest("received") or _some(fleet), "a task")
            assert worker.stop() == 0
        else:
            await eventually(lambda: len(done_of(fleet)) >= 400, timeout_s=30)
            assert worker.stop() == 0
    assert done_of(fleet) == sorted(task.id.bytes for task in tasks)


def _some(fleet):
    return len(done_of(fleet)) > 0


async def test_sigkill_leaves_a_ledger_and_the_guides_orphans(
    fleet, make_task, clock, redis_client
):
    await send(fleet, Phase.REDIS_ONLY, clock, [make_task() for _ in range(50)])
    worker = fleet.worker("--phase=0", "--handler=sleep", "--sleep-ms=60000", "--concurrency=10")
    queue = RedisListQueue(redis_client, names=fleet.names)
    await eventually(lambda: _in_flight(queue, 10))
    await eventually(lambda: _started(fleet) == 10)
    assert worker.stop(signal.SIGKILL) == -signal.SIGKILL
    ledger = read_ledger(fleet.ledger, same_boot=True)
    assert (ledger.records["event"] == Event.STARTED).sum() == 10
    assert ledger.crashed == ["worker.00001"]
    assert (await queue.depth()).in_flight == 10


def _started(fleet):
    return (read_ledger(fleet.ledger).records["event"] == Event.STARTED).sum()


async def _in_flight(queue, count):
    return (await queue.depth()).in_flight == count


async def test_a_worker_changes_phase_without_a_restart(fleet, make_task, clock):
    fleet.phase_file.write(0, Phase.REDIS_ONLY)
    worker = fleet.worker(f"--phase-file={fleet.phase_file.path}")
    sent = []
    for index, phase in enumerate((Phase.REDIS_ONLY, Phase.NATS_PRIMARY, Phase.REDIS_ONLY)):
        fleet.phase_file.write(index, phase)
        worker.wait_for(lambda i=index: worker.latest("index") == i, f"step {index}")
        tasks = [make_task() for _ in range(20)]
        sent += tasks
        await send(fleet, phase, clock, tasks)
        expected = len(sent)
        await eventually(lambda count=expected: len(done_of(fleet)) == count)
    assert worker.stop() == 0
    assert done_of(fleet) == sorted(task.id.bytes for task in sent)
    ledger = read_ledger(fleet.ledger)
    done = ledger.records[ledger.records["event"] == Event.DONE]
    assert sorted(set(done["phase"].tolist())) == [0, 1, 2]


async def test_a_damaged_phase_file_does_not_stop_a_running_worker(fleet, make_task, clock):
    fleet.phase_file.write(0, Phase.REDIS_ONLY)
    worker = fleet.worker(f"--phase-file={fleet.phase_file.path}")
    fleet.phase_file.path.write_text("{")
    await send(fleet, Phase.REDIS_ONLY, clock, [make_task()])
    await eventually(lambda: len(done_of(fleet)) == 1)
    assert worker.stop() == 0
    assert "phase change put off" in worker.errors.read_text()


JUNK = [b"", b"\x00\xff", b"{", b'{"id": "x"}', b"[" * 1000, b"plain text"]


async def test_junk_in_redis_ends_as_dead_letters_with_the_reason(
    fleet, make_task, clock, redis_client
):
    for junk in JUNK:
        await redis_client.lpush(fleet.names.pending_key("sync"), junk)
    await send(fleet, Phase.REDIS_ONLY, clock, [make_task()])
    worker = fleet.worker("--phase=0")
    await eventually(lambda: len(done_of(fleet)) == 1)
    key = fleet.names.dead_key("sync")
    await eventually(lambda: _has_length(redis_client, key, len(JUNK)))
    letters = [
        msgspec.json.decode(data, type=DeadLetter) for data in await redis_client.lrange(key, 0, -1)
    ]
    assert sorted(letter.payload for letter in letters) == sorted(JUNK)
    assert all("no task" in letter.reason for letter in letters)
    # A letter is put before its entry is removed.
    work = fleet.names.work_key("sync")
    await eventually(lambda: _has_length(redis_client, work, 0))
    assert worker.stop() == 0


async def _has_length(client, key, length):
    return await client.llen(key) == length


async def test_junk_in_the_stream_ends_as_dead_letters(fleet, make_task, clock, transport):
    await send(fleet, Phase.NATS_ONLY, clock, [make_task()])
    for junk in JUNK:
        await transport.publish(fleet.names.subject("sync"), junk)
    worker = fleet.worker("--phase=4")
    await eventually(lambda: len(done_of(fleet)) == 1)
    await eventually(lambda: _stored(transport, fleet.names.dead_stream, len(JUNK)))
    info = await transport.jetstream.consumer_info(fleet.names.stream, fleet.names.consumer)
    assert (info.num_pending, info.num_ack_pending) == (0, 0)
    assert worker.stop() == 0


async def _stored(transport, stream, count):
    try:
        info = await transport.jetstream.stream_info(stream)
    except nats.js.errors.NotFoundError:
        return False
    return info.state.messages == count


async def test_a_failing_task_is_retried_with_its_count_and_then_buried(
    fleet, make_task, clock, redis_client, tmp_path
):
    (tmp_path / "origins").mkdir()
    (tmp_path / "mirrors").mkdir()
    task = make_task(repo_id="--upload-pack=x")
    await send(fleet, Phase.REDIS_ONLY, clock, [task])
    worker = fleet.worker(
        "--phase=0",
        "--handler=git",
        f"--origins={tmp_path / 'origins'}",
        f"--mirrors={tmp_path / 'mirrors'}",
    )
    key = fleet.names.dead_key("sync")
    await eventually(lambda: _has_length(redis_client, key, 1))
    (data,) = await redis_client.lrange(key, 0, -1)
    letter = msgspec.json.decode(data, type=DeadLetter)
    assert letter.attempts == 3
    assert "'--upload-pack=x'" in letter.reason
    assert await redis_client.llen(fleet.names.pending_key("sync")) == 0
    assert await redis_client.llen(fleet.names.work_key("sync")) == 0
    assert worker.stop() == 0
    ledger = read_ledger(fleet.ledger)
    received = ledger.records[ledger.records["event"] == Event.RECEIVED]
    assert received["attempt"].tolist() == [1, 2, 3]


def refused(fleet, *arguments):
    return subprocess.run(
        [*COMMAND, "worker", *fleet.arguments(), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


async def test_drift_of_stream_and_consumer_is_listed(fleet, transport):
    await ensure_stream(transport, StreamSettings(storage="memory", max_age_s=3600.0))
    done = refused(fleet, "--phase=4")
    assert done.returncode == 2
    assert "max_age: wanted 604800.0, found 3600.0" in done.stderr
    await transport.jetstream.delete_stream(fleet.names.stream)
    await ensure_stream(transport, StreamSettings(storage="memory"))
    await ensure_consumer(transport, ConsumerSettings(max_deliver=9, max_ack_pending=5))
    done = refused(fleet, "--phase=4")
    assert done.returncode == 2
    assert "max_deliver: wanted 3, found 9" in done.stderr
    assert "max_ack_pending: wanted 100, found 5" in done.stderr


async def test_the_guides_settings_are_what_the_server_has(fleet, transport):
    worker = fleet.worker("--phase=4")
    stream = (await transport.jetstream.stream_info(fleet.names.stream)).config
    assert stream.subjects == [f"{fleet.names.subject_root}.>"]
    assert (stream.retention, stream.max_msgs, stream.max_age) == ("limits", -1, 7 * 86400.0)
    consumer = (
        await transport.jetstream.consumer_info(fleet.names.stream, fleet.names.consumer)
    ).config
    assert consumer.filter_subject == fleet.names.subject("sync")
    assert (consumer.ack_policy, consumer.deliver_policy) == ("explicit", "all")
    assert (consumer.max_deliver, consumer.max_ack_pending) == (3, 100)
    assert consumer.deliver_subject is None
    assert worker.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either a phase or a phase file"),
        (["--phase=0", "--phase-file=x"], "either a phase or a phase file"),
        (["--phase=7"], "phase '7'"),
        (["--phase=0", "--ack=never"], "--ack 'never'"),
        (["--phase=0", "--handler=magic"], "--handler 'magic'"),
        (["--phase=0", "--handler=git"], "--origins and --mirrors"),
        (["--phase=0", "--handler=git", "--origins=/nope", "--mirrors=/nope"], "no such folder"),
        (["--phase=0", "--task-type=A.B"], "task type 'A.B'"),
        (["--phase=0", "--handler=sleep", "--sleep-ms=-5"], "sleep of"),
        (["--phase-file=/nope/phase.json"], "/nope/phase.json"),
        (["--phase=0", "--storage=tape"], "--storage 'tape'"),
        (["--phase=0", "--redis-url=http://x"], "Redis URL"),
        (["--phase=4", "--nats-url=nats://127.0.0.1:1"], "nats://127.0.0.1:1"),
        (["--phase=0", "--redis-url=redis://127.0.0.1:1"], "redis://127.0.0.1:1"),
        (["--phase=0", "--ledger=/nope"], "/nope"),
    ],
)
def test_bad_input_is_named_and_exits_with_2(fleet, arguments, message):
    done = refused(fleet, *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_worker_outlives_an_outage_of_its_broker(tmp_path, make_task, clock):
    broker = start_redis(resolve_redis(env={"PATH": ""}), tmp_path / "broker", Durability.FSYNC)
    fleet = Fleet(broker.url, "nats://127.0.0.1:1", Names(), tmp_path)
    try:
        worker = fleet.worker("--phase=0")
        broker.kill()
        await asyncio.sleep(0.6)
        broker.restart()
        await send(fleet, Phase.REDIS_ONLY, clock, [make_task() for _ in range(10)])
        await eventually(lambda: len(done_of(fleet)) == 10, timeout_s=20)
        assert worker.stop() == 0
    finally:
        fleet.close()
        broker.stop()


async def test_a_worker_that_cannot_follow_its_phase_any_more_ends(
    redis_broker, names, clock, tmp_path, monkeypatch
):
    """Else it would go on in the old phase, and no procedure would get any further."""
    file = PhaseFile(tmp_path / "phase.json")
    file.write(0, Phase.REDIS_ONLY)
    settings = WorkerSettings(
        redis_url=redis_broker.url,
        phase_file=file.path,
        names=names,
        block_timeout_secs=0.1,
    )

    async def noop(_task, _execution):
        pass

    async def broken(_workers, _index, _phase):
        raise ValueError("of this test")

    service = WorkerService(settings, noop, clock=clock)
    monkeypatch.setattr(service, "_switch", broken)
    run = asyncio.ensure_future(service.run())
    await asyncio.sleep(0.2)
    assert not run.done()
    file.write(1, Phase.REDIS_ONLY)
    async with asyncio.timeout(10):
        with pytest.raises(ValueError, match="of this test"):
            await run
