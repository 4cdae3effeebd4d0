"""The loop in virtual time: what asyncio promises, and what makes a run replay."""

import asyncio
import contextlib
import contextvars
import itertools
import os
import random
import subprocess
import sys
import time

import pytest

from hookbench.sim.clock import SimulatedClock
from hookbench.sim.errors import DeadlockError, RefusedError, SpentError, UnretrievedError
from hookbench.sim.loop import EPOCH_NS, SimulatedLoop
from hookbench.sim.simulate import simulate

S = 1_000_000_000


def test_time_jumps_and_the_machine_does_not_wait():
    async def main(loop):
        clock = SimulatedClock(loop)
        await asyncio.sleep(3600)
        await clock.sleep(0.000_000_001)
        return clock.monotonic_ns() - EPOCH_NS, loop.time()

    begun = time.monotonic()
    assert simulate(main) == (3600 * S + 1, (EPOCH_NS + 3600 * S + 1) / S)
    assert time.monotonic() - begun < 60


def test_sleepers_wake_in_order_of_time_then_of_asking():
    woken = []

    async def sleep(name, seconds, by_clock):
        await (by_clock.sleep(seconds) if name % 2 else asyncio.sleep(seconds))
        woken.append(name)

    async def main(loop):
        clock = SimulatedClock(loop)
        await asyncio.gather(
            *(sleep(name, seconds, clock) for name, seconds in enumerate([2, 1, 3, 1, 0, 2]))
        )

    simulate(main)
    assert woken == [4, 1, 3, 0, 5, 2]


def test_what_asyncio_offers_works_in_virtual_time():
    async def main(loop):
        begun = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        assert loop.time() - begun == 5
        queue = asyncio.Queue(1)
        async with asyncio.TaskGroup() as group:
            group.create_task(queue.put(1))
            group.create_task(queue.put(2))
            got = [await queue.get(), await queue.get()]
        done, pending = await asyncio.wait(
            [loop.create_task(asyncio.sleep(seconds)) for seconds in (1, 9)],
            return_when=asyncio.FIRST_COMPLETED,
        )
        for task in pending:
            task.cancel()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(9), 1)
        await asyncio.shield(asyncio.sleep(1))
        return got, len(done), loop.time() - begun

    assert simulate(main) == ([1, 2], 1, 8)


def test_an_abandoned_timer_lets_no_time_pass():
    async def main(loop):
        async with asyncio.timeout(500):
            await asyncio.sleep(1)
        sleeper = asyncio.ensure_future(SimulatedClock(loop).sleep(900))
        await asyncio.sleep(0)
        sleeper.cancel()
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError):
        simulate(main, loop=(loop := SimulatedLoop()))
    assert loop.now_ns == EPOCH_NS + 1 * S


def test_a_deadlock_names_who_waits_and_where():
    async def for_ever(event):
        await event.wait()

    async def main(_loop):
        waiting = asyncio.create_task(for_ever(asyncio.Event()), name="worker-3")
        await waiting

    with pytest.raises(DeadlockError) as failure:
        simulate(main)
    assert [text.split(":")[0] for text in failure.value.tasks] == [
        "main at sim/test_loop.py",
        "worker-3 at sim/test_loop.py",
    ]
    assert "in test_a_deadlock_names_who_waits_and_where.<locals>.for_ever" in str(failure.value)


def test_limits_end_a_run_that_does_not():
    async def sleep_again(seconds):
        for _ in itertools.count():
            await asyncio.sleep(seconds)

    async def main(_loop):
        await sleep_again(60)

    async def spin(_loop):
        await sleep_again(0)

    with pytest.raises(SpentError, match="no end after 600 s of virtual time"):
        simulate(main, loop=SimulatedLoop(limit_ns=600 * S))
    with pytest.raises(SpentError, match="1000 callbacks"):
        simulate(spin, loop=SimulatedLoop(limit_calls=1000))


@pytest.mark.parametrize(
    "ask",
    [
        lambda loop: loop.run_in_executor(None, print),
        lambda loop: loop.create_connection(asyncio.Protocol, "localhost", 1),
        lambda _loop: asyncio.open_connection("localhost", 1),
        lambda _loop: asyncio.to_thread(print),
        lambda _loop: asyncio.create_subprocess_exec("true"),
    ],
)
def test_io_is_refused(ask):
    async def main(loop):
        await ask(loop)

    with pytest.raises(RefusedError, match="there is no I/O"):
        simulate(main)


def test_who_dies_leaves_no_loop_behind(monkeypatch):
    """asyncio makes a loop for who asks for one outside of any, and nobody closes that."""
    made, asked = [], []
    policy = asyncio.DefaultEventLoopPolicy()
    monkeypatch.setattr(policy, "new_event_loop", lambda: made.append(1))
    before = asyncio.get_event_loop_policy()

    async def killed():
        try:
            await asyncio.Event().wait()
        finally:
            asked.append(1)
            asyncio.Future()

    async def main(loop):
        process, _task = loop.processes.start("worker", killed, loop.create_task)
        await asyncio.sleep(1)
        loop.processes.kill(process)

    asyncio.set_event_loop_policy(policy)
    try:
        simulate(main)
        assert asyncio.get_event_loop_policy() is policy
    finally:
        asyncio.set_event_loop_policy(before)
    assert (made, asked) == ([], [1])


def test_a_loop_inside_of_another_is_refused():
    async def main(_loop):
        simulate(main)

    with pytest.raises(RefusedError, match="another event loop runs"):
        simulate(main)


def test_a_failing_callback_ends_the_run_at_once():
    def fail():
        raise ValueError("no use")

    async def main(loop):
        loop.call_later(1, fail)
        await asyncio.sleep(9)

    with pytest.raises(UnretrievedError) as failure:
        simulate(main, loop=(loop := SimulatedLoop()))
    assert isinstance(failure.value.__cause__, ValueError)
    assert loop.now_ns == EPOCH_NS + 1 * S


def test_a_task_that_fails_unasked_fails_the_run():
    async def fail():
        raise ValueError("no use")

    async def main(_loop):
        asyncio.create_task(fail(), name="forgotten")  # noqa: RUF006 - that is the point
        for _ in range(1000):  # enough for the loop to forget tasks that are done
            await asyncio.create_task(asyncio.sleep(0))

    with pytest.raises(UnretrievedError, match="forgotten"):
        simulate(main)


def test_what_is_left_is_cancelled_in_order_and_may_clean_up():
    ended = []

    async def linger(name):
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1)
            ended.append(name)

    async def main(loop):
        for name in range(5):
            loop.create_task(linger(name))
        await asyncio.sleep(1)
        return "done"

    assert simulate(main, loop=(loop := SimulatedLoop())) == "done"
    assert ended == [0, 1, 2, 3, 4]
    assert loop.now_ns == EPOCH_NS + 2 * S


async def _record(trace, name, rng):
    for step in range(4):
        trace.append((name, step))
        await asyncio.sleep(rng.choice([0, 0, 1]))


def _trace(loop=None, count=6):
    trace = []

    async def main(loop):
        tasks = {loop.create_task(_record(trace, n, random.Random(n))) for n in range(count)}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.5):
                while tasks:
                    done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    trace.append([task.number for task in done])
                    trace.append([task.number for task in tasks])
        trace.append([task.get_name() for task in loop.tasks])

    simulate(main, loop=loop)
    return trace


def test_interleavings_differ_by_seed_and_replay():
    plain = _trace()
    drawn = {seed: _trace(SimulatedLoop(interleave=random.Random(seed))) for seed in range(20)}
    assert len({repr(trace) for trace in drawn.values()}) > 10
    assert plain == _trace()
    assert drawn == {
        seed: _trace(SimulatedLoop(interleave=random.Random(seed))) for seed in range(20)
    }


def test_sets_of_tasks_iterate_in_one_order_in_every_process():
    """Over addresses they would not: each process has others, and its own hashes of strings."""
    code = "from tests.sim.test_loop import _trace; print(_trace(count=200))"
    told = {
        subprocess.run(
            [sys.executable, "-c", f"junk = [object()] * {hash_seed}; {code}"],
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
            check=True,
            capture_output=True,
        ).stdout
        for hash_seed in (1, 2, 77)
    }
    assert len(told) == 1
    assert len(told.pop()) > 1000


def test_a_context_without_variables_is_kept():
    """An empty context is false; it is not that of whoever asks for the call."""
    variable = contextvars.ContextVar("variable", default="nobody")
    told = []

    async def main(loop):
        empty = contextvars.Context()
        variable.set("somebody")
        for ask in (
            loop.call_soon,
            lambda call, context: loop.call_later(1, call, context=context),
            lambda call, context: loop.call_at(loop.time() + 1, call, context=context),
        ):
            ask(lambda: told.append(variable.get()), context=empty)
        await asyncio.sleep(2)

    simulate(main)
    assert told == ["nobody"] * 3


@pytest.mark.parametrize("tenths", [1, 3, 7, 11, 133])
def test_a_timer_is_never_early(tenths):
    """Who looks at the time, and asks again for what is left, comes to an end."""
    looks = []

    async def main(loop):
        await asyncio.sleep(0.000_000_123 * tenths)
        until_s = loop.time() + tenths / 10 + 1e-10
        done = loop.create_future()

        def look():
            looks.append(loop.time())
            if loop.time() >= until_s:
                done.set_result(None)
            else:
                loop.call_at(until_s, look)

        loop.call_at(until_s, look)
        await done

    simulate(main, loop=SimulatedLoop(limit_calls=1_000))
    assert len(looks) == 1
