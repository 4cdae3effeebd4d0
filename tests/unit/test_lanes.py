"""Tasks that are kept for the next burst of the load tests."""

import asyncio

import pytest

from tests.unit.test_loadtests import load

lanes_module = load("_lanes")


class Works:
    """Parts that end when they are told to; knows who runs them, and how many at once."""

    def __init__(self):
        self.begun = []
        self.tasks = []
        self.fails = {}
        self.lanes = lanes_module.Lanes(self.one)

    async def one(self):
        number = len(self.begun)
        end = asyncio.get_running_loop().create_future()
        self.begun.append(end)
        self.tasks.append(asyncio.current_task())
        await end
        if number in self.fails:
            raise self.fails[number]
        return number

    async def until_begun(self, count):
        await settle()
        assert len(self.begun) == count

    def end(self, *numbers):
        for number in numbers:
            self.begun[number].set_result(None)


async def settle():
    """Let all that can go on go on."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_all_parts_run_at_once_each_in_a_task_of_its_own():
    works = Works()
    batch = asyncio.create_task(works.lanes.run(3))
    await works.until_begun(3)
    assert len(set(works.tasks)) == 3
    works.end(2, 0)
    await settle()
    assert not batch.done()
    works.end(1)
    assert await batch == ([2, 0, 1], None)


async def test_the_next_batch_is_done_by_the_same_tasks_and_more_where_they_do_not_suffice():
    works = Works()
    first = asyncio.create_task(works.lanes.run(2))
    await works.until_begun(2)
    works.end(0, 1)
    await first
    await settle()
    second = asyncio.create_task(works.lanes.run(2))
    third = asyncio.create_task(works.lanes.run(2))
    await works.until_begun(6)
    assert set(works.tasks[2:4]) == set(works.tasks[:2])
    assert len(set(works.tasks)) == 4
    works.end(2, 4, 5, 3)
    assert await third == ([4, 5], None)
    assert await second == ([2, 3], None)


async def test_an_error_keeps_no_result_of_the_others_back():
    works = Works()
    works.fails = {0: ValueError("first"), 1: ValueError("second")}
    batch = asyncio.create_task(works.lanes.run(3))
    await works.until_begun(3)
    works.end(1, 0)
    await settle()
    assert not batch.done()
    works.end(2)
    assert await batch == ([2], works.fails[1])
    await settle()
    again = asyncio.create_task(works.lanes.run(1))
    await works.until_begun(4)
    works.end(3)
    assert await again == ([3], None)
    assert works.tasks[3] in works.tasks[:3], "the task of an error was not kept"


async def test_a_batch_that_nobody_waits_for_any_more_still_ends():
    works = Works()
    batch = asyncio.create_task(works.lanes.run(2))
    await works.until_begun(2)
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    works.end(0, 1)
    await settle()
    assert not any(task.done() for task in works.tasks)


async def test_closed_they_end_and_those_that_work_when_they_have_done_their_part():
    works = Works()
    idle = asyncio.create_task(works.lanes.run(1))
    await works.until_begun(1)
    works.end(0)
    await idle
    await settle()
    busy = asyncio.create_task(works.lanes.run(2))  # one of them by the task that waited
    await works.until_begun(3)
    works.end(1)
    await settle()
    works.lanes.close()
    await settle()
    assert works.tasks[1].done()
    assert not works.tasks[2].done()
    works.end(2)
    assert await busy == ([1, 2], None)
    await settle()
    assert all(task.done() and task.exception() is None for task in works.tasks)


async def test_a_loop_that_ends_leaves_nobody_waiting_for_a_batch():
    works = Works()
    batch = asyncio.create_task(works.lanes.run(2))
    await works.until_begun(2)
    works.tasks[0].cancel()
    await settle()
    assert batch.cancelled()
    assert works.tasks[0].cancelled()
    works.end(1)
    await settle()


async def test_no_part_at_all():
    assert await Works().lanes.run(0) == ([], None)


async def test_no_more_tasks_wait_than_are_of_use(monkeypatch):
    monkeypatch.setattr(lanes_module, "_MOST_IDLE", 2)
    works = Works()
    batch = asyncio.create_task(works.lanes.run(5))
    await works.until_begun(5)
    works.end(*range(5))
    await batch
    await settle()
    assert sum(task.done() for task in works.tasks) == 3
