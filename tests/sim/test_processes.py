"""Killed and stopped processes: what they start is their own."""

import asyncio

import pytest

from hookbench.sim.errors import SimulationError
from hookbench.sim.processes import PROCESS
from hookbench.sim.simulate import simulate


async def _tick(ticks, name):
    try:
        while True:
            ticks.append((name, PROCESS.get().name))
            await asyncio.sleep(1)
    finally:
        ticks.append((name, "cleaned up"))


def _start(loop, ticks, name="worker"):
    async def main():
        child = asyncio.create_task(_tick(ticks, "child"))
        await _tick(ticks, "main")
        await child

    return loop.processes.start(name, main, loop.create_task)


def test_a_killed_process_runs_no_line_more_and_its_children_neither():
    ticks, told = [], []

    async def main(loop):
        process, _task = _start(loop, ticks)
        process.on_killed.append(lambda: told.append(loop.now_ns))
        await asyncio.sleep(2.5)
        loop.processes.kill(process)
        seen = len(ticks)
        await asyncio.sleep(100)
        assert len(ticks) == seen == 6
        assert len(told) == 1
        with pytest.raises(SimulationError, match="dead already"):
            loop.processes.kill(process)

    simulate(main)
    assert set(ticks[:6]) == {("main", "worker"), ("child", "worker")}
    # What a collector would do at some time happens at the end, when nobody looks any more.
    assert sorted(ticks[6:]) == [("child", "cleaned up"), ("main", "cleaned up")]


def test_a_stopped_process_goes_on_where_it_was():
    ticks = []

    async def main(loop):
        process, task = _start(loop, ticks)
        await asyncio.sleep(2.5)
        loop.processes.stop(process)
        await asyncio.sleep(100)
        assert len(ticks) == 6
        loop.processes.resume(process)
        await asyncio.sleep(1.6)
        assert len(ticks) == 10, "two at once that were due, two a second later"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    simulate(main)


def test_a_stopped_process_can_be_killed_and_others_run_on():
    ticks = []

    async def main(loop):
        process, _task = _start(loop, ticks, "one")
        _start(loop, ticks, "two")
        await asyncio.sleep(0.5)
        loop.processes.stop(process)
        with pytest.raises(SimulationError, match="stopped already"):
            loop.processes.stop(process)
        loop.processes.kill(process)
        with pytest.raises(SimulationError, match="not stopped"):
            loop.processes.resume(process)
        await asyncio.sleep(5)

    simulate(main)
    assert ticks.count(("main", "one")) == 1
    assert ticks.count(("main", "two")) == 6
