"""Tasks that go from NATS back to Redis while somebody else changes the consumer."""

import pytest

from hookbench.errors import BrokerUnreachableError, PlaceHeldError
from hookbench.queues import moving
from hookbench.queues.jetstream import (
    StreamSettings,
    ensure_consumer,
    ensure_dead_stream,
    ensure_stream,
)
from hookbench.queues.moving import Mover
from hookbench.queues.redis_client import connect_redis
from hookbench.task import encode_task

TASKS = 5
STILL_S = 2.0


@pytest.fixture
async def client(redis_broker):
    client = connect_redis(redis_broker.url)
    yield client
    await client.aclose()


@pytest.fixture
async def mover(client, transport, names, clock, make_task):
    await ensure_stream(transport, StreamSettings(storage="memory"))
    await ensure_consumer(transport)
    for _ in range(TASKS):
        await transport.publish(names.subject("sync"), encode_task(make_task()))
    yield Mover(client, transport, clock=clock)
    await client.delete(names.pending_key("sync"), moving.moved_key(names))


@pytest.mark.parametrize("absent", [True, False])
async def test_a_consumer_that_is_made_anew_after_a_look_is_drained(
    mover, client, transport, names, monkeypatch, absent
):
    """With ``absent`` there was none at that look, else one that is deleted right afterwards."""
    look, looks = moving.newest_consumers, []

    async def changed_after_the_first_look(transport):
        found = await look(transport)
        looks.append(found)
        if len(looks) == 1:
            if not absent:
                await transport.jetstream.delete_consumer(names.stream, names.consumer)
            await ensure_consumer(transport)
        return found

    if absent:
        await transport.jetstream.delete_consumer(names.stream, names.consumer)
    monkeypatch.setattr(moving, "newest_consumers", changed_after_the_first_look)
    told = []
    for _ in range(3):  # as a procedure does
        try:
            await mover.drain_to_redis(timeout_s=STILL_S)
        except BrokerUnreachableError as error:
            told.append(str(error))
    assert not [text for text in told if "hands none out" in text]
    assert await client.llen(names.pending_key("sync")) == TASKS
    assert await mover.left_on_nats() == 0


@pytest.mark.parametrize("way", ["drain_to_redis", "redis_to_nats", "letters_to_nats"])
async def test_who_has_lost_its_place_moves_no_further_task(
    mover, client, transport, names, clock, make_task, way
):
    async def assure():
        mover.asked += 1
        if mover.asked > 2:
            raise PlaceHeldError("ben has it", step="hold_places", evidence="ben")

    async def left():
        if way == "drain_to_redis":
            return await mover.left_on_nats()
        return await client.llen(key)

    key = names.dead_key("sync") if way == "letters_to_nats" else names.pending_key("sync")
    mover = Mover(client, transport, clock=clock, assure=assure)
    mover.asked = 0
    if way != "drain_to_redis":
        await ensure_dead_stream(transport, storage="memory")
        await client.lpush(key, *[encode_task(make_task()) for _ in range(TASKS)])
    with pytest.raises(PlaceHeldError):
        await getattr(mover, way)()
    assert await left() == TASKS - 2
    await client.delete(key)
