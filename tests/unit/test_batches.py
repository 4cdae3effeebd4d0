"""Requests that share a round trip."""

import asyncio

import pytest

from hookbench.queues.batches import Batches
from tests.conftest import eventually


class Trips:
    def __init__(self):
        self.sent = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error = None

    async def __call__(self, requests):
        self.sent.append(list(requests))
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [request * 10 for request in requests]


async def test_what_is_asked_in_one_turn_goes_together_up_to_the_limit():
    trips = Trips()
    batches = Batches(trips, limit=3)
    answers = await asyncio.gather(*(batches.ask(number) for number in range(7)))
    assert answers == [0, 10, 20, 30, 40, 50, 60]
    assert trips.sent == [[0, 1, 2], [3, 4, 5], [6]]


async def test_what_comes_during_a_trip_goes_with_the_next():
    trips = Trips()
    batches = Batches(trips, limit=10)
    trips.gate.clear()
    first = asyncio.ensure_future(batches.ask(1))
    await eventually(lambda: trips.sent)
    others = [asyncio.ensure_future(batches.ask(number)) for number in (2, 3)]
    await asyncio.sleep(0)
    trips.gate.set()
    assert await asyncio.gather(first, *others) == [10, 20, 30]
    assert trips.sent == [[1], [2, 3]]


async def test_an_error_is_everybodys_and_the_next_batch_goes_on():
    trips = Trips()
    batches = Batches(trips, limit=2)
    trips.error = ValueError("away")
    results = await asyncio.gather(*map(batches.ask, (1, 2, 3)), return_exceptions=True)
    assert [str(item) for item in results] == ["away"] * 3
    trips.error = None
    assert await batches.ask(4) == 40


async def test_one_who_gave_up_is_not_sent_and_does_not_hold_up_the_rest():
    trips = Trips()
    batches = Batches(trips, limit=1)
    trips.gate.clear()
    first, second, third = (asyncio.ensure_future(batches.ask(number)) for number in (1, 2, 3))
    await eventually(lambda: trips.sent)
    first.cancel()
    second.cancel()
    await asyncio.sleep(0)
    trips.gate.set()
    assert await third == 30
    with pytest.raises(asyncio.CancelledError):
        await first
    assert trips.sent == [[1], [3]]
