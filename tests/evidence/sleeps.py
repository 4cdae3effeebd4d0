"""How many sleeps a second an event loop in virtual time does, three ways, with the same load."""

import asyncio
import random
import selectors
import time

import simpy

from hookbench.sim.clock import SimulatedClock
from hookbench.sim.simulate import simulate

SLEEPERS, EACH = 1_000, 200


async def sleep_all(sleep):
    """Every sleeper for times of its own; the sum of what they were asked to sleep."""

    async def sleeper(entropy):
        total = 0.0
        for _ in range(EACH):
            seconds = entropy.random()
            total += seconds
            await sleep(seconds)
        return total

    return sum(await asyncio.gather(*(sleeper(random.Random(n)) for n in range(SLEEPERS))))


class JumpingSelector(selectors.DefaultSelector):
    """A selector that lets time pass instead of waiting, for the stock loop."""

    def __init__(self):
        super().__init__()
        self.now = 0.0

    def select(self, timeout=None):
        self.now += max(timeout or 0.0, 0.0)
        return []


def stock_loop():
    """asyncio's own loop, its time patched; ``asyncio.sleep`` is how production code sleeps."""
    selector = JumpingSelector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now
    loop._clock_resolution = 1e-9  # else a rounded time is never reached
    try:
        return loop.run_until_complete(sleep_all(asyncio.sleep)), loop.time()
    finally:
        loop.close()


def simulated_loop(by_clock):
    """The loop of the simulator, through the clock that production code is given, or not."""

    async def main(loop):
        begun = loop.time()
        total = await sleep_all(SimulatedClock(loop).sleep if by_clock else asyncio.sleep)
        return total, loop.time() - begun

    return simulate(main)


def simpy_timeouts():
    """SimPy, which has generators and no coroutines."""
    environment = simpy.Environment()
    totals = []

    def sleeper(entropy):
        total = 0.0
        for _ in range(EACH):
            seconds = entropy.random()
            total += seconds
            yield environment.timeout(seconds)
        totals.append(total)

    for number in range(SLEEPERS):
        environment.process(sleeper(random.Random(number)))
    environment.run()
    return sum(totals), environment.now


WAYS = {
    "stock": stock_loop,
    "simulated": lambda: simulated_loop(by_clock=True),
    "simulated_asyncio_sleep": lambda: simulated_loop(by_clock=False),
    "simpy": simpy_timeouts,
}


def rates(way):
    """Sleeps per second of CPU, and what was slept: the sum, and until when."""
    begun = time.process_time()
    slept = WAYS[way]()
    return SLEEPERS * EACH / (time.process_time() - begun), slept
