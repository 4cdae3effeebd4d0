"""The guide's own code, in Python, on real brokers."""

import asyncio

import pytest

from hookbench.brokers.durability import Durability
from hookbench.brokers.embedded import start_nats
from hookbench.brokers.ports import free_port
from hookbench.brokers.process import spawn
from hookbench.brokers.resolve import resolve_nats
from hookbench.errors import (
    BrokerUnreachableError,
    OversizeError,
    PublishRefusedError,
    SettingError,
)
from hookbench.migration.consumer import RedisConsumer
from hookbench.migration.phases import Phase, WriteRoute
from hookbench.migration.producer import ReceiveSyncService
from hookbench.migration.service import open_service
from hookbench.queues.connections import Connections
from hookbench.queues.jetstream import StreamSettings, ensure_consumer, ensure_stream
from hookbench.queues.transport import AppTransport
from hookbench.task import Names
from tests.conftest import eventually


@pytest.fixture
async def hook_queue(transport, names):
    await ensure_stream(transport, StreamSettings(storage="memory"))
    await ensure_consumer(transport)
    yield transport
    await transport.jetstream.delete_stream(names.stream)


def publish_over(transport):
    """The guide's producer integration."""

    async def nats_publish(subject, payload):
        ack = await transport.publish(subject, payload)
        return ack.sequence

    return nats_publish


def consume_over(transport):
    """The guide's consumer integration: one pull after another."""

    async def nats_consume(subject, batch_size):
        results = []
        for _ in range(batch_size):
            message = await transport.pull_one(subject)
            if message is None:
                break

            async def ack_fn(message=message):
                await message.ack()

            results.append((message.payload, ack_fn))
        return results

    return nats_consume


async def settled(transport, names):
    info = await transport.jetstream.consumer_info(names.stream, names.consumer)
    return (info.num_pending, info.num_ack_pending) == (0, 0)


async def test_the_guides_integration_works_as_written(hook_queue, redis_client, names, make_task):
    producer = ReceiveSyncService.with_nats(redis_client, publish_over(hook_queue), names=names)
    consumer = RedisConsumer.with_nats(
        redis_client, names.prefix, 1, consume_over(hook_queue), names=names
    )
    tasks = [make_task() for _ in range(5)]
    receipts = [await producer.send(task) for task in tasks]
    assert [receipt.sequence for receipt in receipts] == [1, 2, 3, 4, 5]
    received = await consumer.receive("sync", 3)
    received += await consumer.receive("sync", 3)
    assert [item.task for item in received] == tasks
    await eventually(lambda: settled(hook_queue, names))
    assert await consumer.receive("sync", 3) == []


async def test_rollback_is_the_plain_constructor(hook_queue, redis_client, names, make_task):
    both = ReceiveSyncService.with_nats(
        redis_client, publish_over(hook_queue), route=WriteRoute.BOTH, names=names
    )
    first, second = make_task(), make_task()
    await both.send(first)
    await ReceiveSyncService(redis_client, names=names).send(second)
    consumer = RedisConsumer(redis_client, names.prefix, 1)
    received = await consumer.receive("sync", 10)
    assert [item.task for item in received] == [first, second]
    for item in received:
        await item.delivery.ack()
    assert await redis_client.llen(names.work_key("sync")) == 0


async def test_dual_read_falls_back_to_redis_while_nats_is_away(
    tmp_path, redis_client, make_task, names
):
    broker = start_nats(resolve_nats(env={"PATH": ""}), tmp_path, Durability.LAZY)
    try:
        async with await AppTransport.connect(broker.url, names=names) as transport:
            await ensure_stream(transport)
            await ensure_consumer(transport)
            producer = ReceiveSyncService.with_nats(
                redis_client, publish_over(transport), route=WriteRoute.BOTH, names=names
            )
            consumer = RedisConsumer.with_nats(
                redis_client, names.prefix, 1, consume_over(transport), names=names
            )
            await producer.send(make_task())
            assert len(await consumer.receive("sync", 1)) == 1
            await eventually(lambda: settled(transport, names))  # the ack has arrived
            broker.kill()
            await eventually(lambda: not transport.client.is_connected)
            task = make_task()
            receipt = await producer.send(task)
            assert receipt.sequence is None
            assert receipt.redis_length == 2
            received = await consumer.receive("sync", 10)
            # P8: the copy of the task that NATS delivered before is run again
            assert len(received) == 2
            assert received[1].task == task
            broker.restart()
            await eventually(lambda: transport.client.is_connected)
            after = make_task()
            assert (await producer.send(after)).sequence is not None
            (item,) = await consumer.receive("sync", 1)
            assert item.task == after
    finally:
        await redis_client.delete(names.pending_key("sync"), names.work_key("sync"))
        broker.stop()


async def test_no_stream_is_a_refusal_and_no_timeout(transport, names):
    with pytest.raises(PublishRefusedError, match="no stream takes"):
        await transport.publish(names.subject("sync"), b"{}")


async def test_a_message_id_is_stored_once(hook_queue, names):
    first = await hook_queue.publish(names.subject("sync"), b"{}", msg_id="a")
    second = await hook_queue.publish(names.subject("sync"), b"{}", msg_id="a")
    assert (first.duplicate, second.duplicate) == (False, True)
    assert first.sequence == second.sequence


async def test_a_subject_without_a_consumer_is_an_error(hook_queue, names):
    with pytest.raises(SettingError, match="has no consumer"):
        await hook_queue.pull_one(names.subject("fsck"))


async def test_many_waiting_pulls_share_the_tasks_and_lose_none(
    nats_broker, names, hook_queue, make_task
):
    producer = ReceiveSyncService.nats_only(publish_over(hook_queue), names=names)
    tasks = [make_task() for _ in range(300)]
    transports = [await AppTransport.connect(nats_broker.url, names=names) for _ in range(4)]
    got = []

    async def work(transport):
        while len(got) < 300:
            for message in await transport.pull(names.subject("sync"), 10, 0.2):
                got.append(message.payload)
                await message.ack()

    try:
        async with asyncio.timeout(30):
            await asyncio.gather(
                *[work(transport) for transport in transports],
                *[producer.send(task) for task in tasks],
            )
    finally:
        for transport in transports:
            await transport.close()
    assert len(got) == len(set(got)) == 300
    await eventually(lambda: settled(hook_queue, names))


async def test_the_size_limit_is_what_the_server_takes(tmp_path, clock, make_task):
    port = free_port()
    configuration = tmp_path / "nats.conf"
    configuration.write_text(
        f'listen: "127.0.0.1:{port}"\nmax_payload: 8192\n'
        f'jetstream {{ store_dir: "{tmp_path}/js" }}\n'
    )
    server = spawn("nats", [resolve_nats(env={"PATH": ""}).binary, "-c", str(configuration)])
    connections = Connections(
        redis_url=None, nats_url=f"nats://127.0.0.1:{port}", names=Names(), clock=clock
    )
    try:
        service = None
        async with asyncio.timeout(15):
            while service is None:
                try:
                    service = await open_service(Phase.NATS_ONLY, connections, Names())
                except BrokerUnreachableError:  # it is still starting
                    await asyncio.sleep(0.05)
        await service.send(make_task(payload={"filling": "x" * 6000}))
        with pytest.raises(OversizeError, match="limit of the brokers is 7168 bytes"):
            await service.send(make_task(payload={"filling": "x" * 7500}))
    finally:
        await connections.close()
        server.stop()
