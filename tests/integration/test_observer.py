"""What the observer finds on brokers: the dead letters of both."""

import msgspec
import pytest

from hookbench.ledger.events import Broker
from hookbench.queues.jetstream import ensure_dead_stream
from hookbench.rehearsal.observer import Observer
from hookbench.task import encode_task
from hookbench.worker.dead_letters import DeadLetter, NatsDeadLetters, RedisDeadLetters


@pytest.fixture
async def observer(redis_broker, nats_broker, names, clock):
    opened = Observer(redis_broker.url, nats_broker.url, names, clock=clock)
    yield opened
    await opened.remove_own_data()
    await opened.close()


def letter(payload, broker):
    return DeadLetter.of(
        payload, task_type="sync", reason="test", broker=broker, attempts=3, died_at_ns=0
    )


async def test_dead_letters_of_both_brokers_are_found(
    observer, make_task, redis_client, transport, names
):
    assert (await observer.residue([])).letters == []
    await ensure_dead_stream(transport, storage="memory")
    assert (await observer.residue([])).letters == []
    large = make_task(payload={"text": "x" * 1_000_000})
    tasks = [make_task(), make_task(), large]
    redis, nats = RedisDeadLetters(redis_client, names), NatsDeadLetters(transport)
    await redis.bury(letter(encode_task(tasks[0]), Broker.REDIS))
    await redis.bury(letter(b"junk", Broker.REDIS))
    for task in tasks[1:]:
        await nats.bury(letter(encode_task(task), Broker.NATS))
    stored = await transport.jetstream.get_msg(names.dead_stream, 2)
    assert "bytes kept" in msgspec.json.decode(stored.data, type=DeadLetter).reason
    assert set((await observer.residue([])).letters) == {task.id for task in tasks}
    await transport.jetstream.delete_msg(names.dead_stream, 1)
    assert set((await observer.residue([])).letters) == {tasks[0].id, large.id}
