"""A stream is read to its end, or the reader is told that it was not."""

import nats.errors
import pytest
from nats.js import JetStreamContext

from hookbench.errors import BrokerUnreachableError
from hookbench.queues import stream_windows, watermark
from hookbench.queues.jetstream import StreamSettings, ensure_stream
from hookbench.queues.stream_windows import read_windows
from hookbench.queues.watermark import find_watermark
from hookbench.task import encode_task

COUNT, WINDOW = 25, 10
Pull = JetStreamContext.PullSubscription


@pytest.fixture
async def filled(transport, make_task):
    await ensure_stream(transport, StreamSettings(storage="memory"))
    subject = transport.names.subject("sync")
    for _ in range(COUNT):
        await transport.jetstream.publish(subject, encode_task(make_task()))
    yield transport
    await transport.jetstream.delete_stream(transport.names.stream)


@pytest.fixture
def fetches(monkeypatch):
    """What becomes of each fetch, in order; one without an order goes through."""
    orders, fetch = [], Pull.fetch

    async def ordered(self, *args, **options):
        order = orders.pop(0) if orders else "answered"
        if order == "no answer":
            raise nats.errors.TimeoutError
        messages = await fetch(self, *args, **options)
        if order == "lost":
            raise nats.errors.TimeoutError
        if order == "begun":
            return messages[:3]
        if order == "first lost":
            return messages[3:]
        return messages

    monkeypatch.setattr(Pull, "fetch", ordered)
    return orders


async def read(transport):
    found = []
    async for window in read_windows(transport, transport.names.stream, window=WINDOW):
        found += [item.sequence for item in window]
    return found


async def all_ended(ids):
    return set(ids)


@pytest.mark.parametrize(
    "orders",
    [
        [],
        ["no answer"],
        ["answered", "no answer", "no answer", "answered", "no answer"],
    ],
)
async def test_a_fetch_without_an_answer_is_not_the_end(filled, fetches, orders):
    fetches += orders
    assert await read(filled) == list(range(1, COUNT + 1))
    assert fetches == []


@pytest.mark.parametrize(
    ("orders", "told"),
    [
        (["no answer"] * 3, "no answer to 3 fetches"),
        (["lost"], "of 10 messages 0 arrived"),
        (["answered", "answered", "lost"], "of 25 messages 20 arrived"),
        (["begun", "no answer"], "of 10 messages 3 arrived"),
        (["begun"], "of 10 messages 3 arrived"),
        (["answered", "first lost"], "of 13 messages 10 arrived"),
    ],
)
async def test_what_did_not_arrive_is_said(filled, fetches, orders, told):
    fetches += orders
    with pytest.raises(BrokerUnreachableError, match=f"not read to its end: {told}"):
        await read(filled)
    # Nor is a consumer put behind what nobody has seen: the search reads on where it was cut off.
    fetches[:] = orders
    judged = []

    async def ended(ids):
        judged.extend(ids)
        return set(ids)

    mark = await find_watermark(filled, "sync", ended, window=WINDOW)
    assert (mark.sequence, mark.ended) == (COUNT + 1, COUNT)
    assert (len(judged), len(set(judged))) == (COUNT, COUNT)


async def test_a_search_that_comes_no_further_is_given_up(filled, fetches, monkeypatch):
    monkeypatch.setattr(watermark, "PATIENCE_S", 0.5)
    fetches += ["answered", *["lost"] * 1_000]
    with pytest.raises(BrokerUnreachableError, match="not read to its end"):
        await find_watermark(filled, "sync", all_ended, window=WINDOW)
    assert 0 < len(fetches) < 999


async def test_a_search_that_comes_further_is_not(filled, fetches, monkeypatch):
    monkeypatch.setattr(watermark, "PATIENCE_S", 0.0)
    fetches += ["answered", "lost", "answered", "lost"]
    mark = await find_watermark(filled, "sync", all_ended, window=WINDOW)
    assert (mark.sequence, mark.ended) == (COUNT + 1, COUNT)


async def test_whoever_knows_may_be_away_for_a_moment(filled):
    asked = []

    async def ended(ids):
        asked.append(len(ids))
        if len(asked) % 2:
            raise BrokerUnreachableError("the done-store is away")
        return set(ids)

    mark = await find_watermark(filled, "sync", ended, window=WINDOW)
    assert (mark.sequence, mark.ended) == (COUNT + 1, COUNT)
    assert asked == [10, 10, 10, 10, 5, 5]


async def test_a_stream_that_was_replaced_meanwhile_is_read_from_its_beginning(filled, make_task):
    """What comes after the same sequence there was never judged."""
    asked = []

    async def ended(ids):
        asked.append(set(ids))
        if len(asked) != 2:
            return set(ids) & asked[0]
        stream, subject = filled.names.stream, filled.names.subject("sync")
        await filled.jetstream.delete_stream(stream)
        await ensure_stream(filled, StreamSettings(storage="memory"))
        for _ in range(COUNT):
            await filled.jetstream.publish(subject, encode_task(make_task()))
        raise BrokerUnreachableError("it is another one")

    mark = await find_watermark(filled, "sync", ended, window=WINDOW)
    assert (mark.sequence, mark.ended) == (1, 0)


async def test_what_is_removed_meanwhile_is_the_end(filled, monkeypatch):
    monkeypatch.setattr(stream_windows, "_FETCH_S", 0.5)
    found = []
    async for window in read_windows(filled, filled.names.stream, window=WINDOW):
        found += [item.sequence for item in window]
        await filled.jetstream.purge_stream(filled.names.stream)
    assert found == list(range(1, WINDOW + 1))


async def test_a_reader_whose_consumer_is_gone_is_told(filled, fetches):
    fetches += ["answered", "no answer"]
    windows = read_windows(filled, filled.names.stream, window=WINDOW)
    await anext(windows)
    for info in await filled.jetstream.consumers_info(filled.names.stream):
        await filled.jetstream.delete_consumer(filled.names.stream, info.name)
    with pytest.raises(BrokerUnreachableError, match="not read to its end: NotFoundError"):
        await anext(windows)


async def test_the_watermark_is_behind_the_last_only_if_all_were_seen(filled):
    mark = await find_watermark(filled, "sync", all_ended, window=WINDOW)
    assert (mark.sequence, mark.ended) == (COUNT + 1, COUNT)
