"""Producer and consumer of one queue alone: the events of the reference, through the worker."""

import asyncio

import pytest

from hookbench.errors import (
    OversizeError,
    PublishRefusedError,
    PublishUnknownError,
    SendError,
)
from hookbench.ledger.events import Broker, Event, repository_number
from hookbench.migration.plain_queue import QueueConsumer, QueueProducer
from hookbench.queues.memory import MemoryQueue
from hookbench.worker.dead_letters import MemoryDeadLetters
from hookbench.worker.handlers.noop import NoopHandler
from hookbench.worker.loop import Worker
from tests.fakes import MemoryRecorder
from tests.virtual import VirtualClock


class Failing:
    """A queue that does not take anything."""

    def __init__(self, error):
        self._error = error

    async def put(self, _payload):
        raise self._error


async def test_what_is_put_is_worked_on_with_the_same_events(make_task):
    clock = VirtualClock()
    queue = MemoryQueue(clock)
    recorder = MemoryRecorder()
    task = make_task(repo_id="synthetic/plain/repo-9")
    producer = QueueProducer(queue, Broker.MEMORY, recorder=recorder)
    await producer.send(task, intended_ns=5)
    await queue.put(b"no task")
    letters = MemoryDeadLetters()
    worker = Worker(
        QueueConsumer(queue, wait_s=1.0, recorder=recorder),
        NoopHandler(),
        dead_letters=letters,
        clock=clock,
        recorder=recorder,
    )
    running = asyncio.ensure_future(worker.run())
    for _ in range(100_000):
        if worker.totals.done and worker.totals.dead:
            break
        await asyncio.sleep(0)
    worker.request_stop()
    await running
    assert recorder.kinds(task.id.bytes) == [
        Event.PUT_INVOKED,
        Event.PUT_OK,
        Event.ACCEPTED,
        Event.RECEIVED,
        Event.STARTED,
        Event.DONE,
        Event.ACK_SENT,
    ]
    assert recorder.repositories == {task.id.bytes: repository_number("synthetic/plain/repo-9")}
    assert recorder.count(Event.DEAD) == 1


@pytest.mark.parametrize(
    ("error", "outcome", "event", "told"),
    [
        (PublishRefusedError("full"), "fail", Event.PUT_FAIL, Event.REFUSED),
        (PublishUnknownError("silent"), "unknown", Event.PUT_UNKNOWN, Event.DOUBTFUL),
    ],
)
async def test_a_put_that_fails_says_how(error, outcome, event, told, make_task):
    recorder = MemoryRecorder()
    producer = QueueProducer(Failing(error), Broker.REDIS, recorder=recorder)
    task = make_task()
    with pytest.raises(SendError, match=str(task.id)) as raised:
        await producer.send(task)
    assert raised.value.outcome == outcome
    assert recorder.kinds() == [Event.PUT_INVOKED, event, told]


async def test_an_oversize_task_is_refused_before_the_put(make_task):
    recorder = MemoryRecorder()
    queue = Failing(AssertionError("must not be asked"))
    producer = QueueProducer(queue, Broker.REDIS, limit_bytes=10, recorder=recorder)
    with pytest.raises(OversizeError, match="10 bytes"):
        await producer.send(make_task())
    assert recorder.kinds() == [Event.PUT_INVOKED, Event.REFUSED]
