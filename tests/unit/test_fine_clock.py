"""The fine clock on the machine's own time: order and minimum, no bound from above."""

import asyncio
import os
import time

import pytest
import uvloop

from hookbench.load.fine_clock import FineClock

RUNS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run])


@RUNS
def test_sleeps_end_in_order_and_never_early(run):
    ended = []

    async def sleeper(clock, seconds):
        begin_ns = clock.monotonic_ns()
        await clock.sleep(seconds)
        assert clock.monotonic_ns() - begin_ns >= int(seconds * 1e9)
        ended.append(seconds)

    async def main():
        clock = FineClock()
        seconds = [0.03, 0.0002, 0.012, 0.0, 0.021, 0.003]
        await asyncio.gather(*(sleeper(clock, item) for item in seconds))
        clock.close()

    run(main())
    assert ended == [0.0, 0.0002, 0.003, 0.012, 0.021, 0.03]


@RUNS
def test_waiting_costs_no_core(run):
    async def main():
        clock = FineClock()
        begin_s, used_s = time.monotonic(), time.process_time()
        while time.monotonic() - begin_s < 0.5:
            await clock.sleep(0.002)
        clock.close()
        return (time.process_time() - used_s) / 0.5

    assert run(main()) < 0.6  # one that spins has 1


@RUNS
def test_a_cancelled_sleep_lets_the_others_sleep_on(run):
    async def main():
        clock = FineClock()
        first = asyncio.ensure_future(clock.sleep(0.005))
        second = asyncio.ensure_future(clock.sleep(0.01))
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert first.cancelled()
        clock.close()

    run(main())


@RUNS
def test_what_is_closed_is_given_back_and_wakes_who_waits(run):
    async def main():
        clock = FineClock()
        waiting = asyncio.ensure_future(clock.sleep(0.015))
        await asyncio.sleep(0.001)
        descriptor = clock._sleepers._timer._fd
        os.fstat(descriptor)
        clock.close()
        clock.close()
        await waiting
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
        await clock.sleep(0.001)  # it has another timer now
        clock.close()

    run(main())


async def test_where_there_is_no_timer_it_sleeps_as_the_loop_does(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    clock = FineClock()
    begin_ns = clock.monotonic_ns()
    await clock.sleep(0.002)
    assert clock.monotonic_ns() - begin_ns >= 1_500_000
    assert clock._sleepers is None


async def test_a_system_that_refuses_a_timer_is_named(monkeypatch):
    monkeypatch.setattr("hookbench.load.fine_clock._FLAGS", -1)
    with pytest.raises(OSError, match="timerfd_create: Invalid argument"):
        await FineClock().sleep(0.001)
