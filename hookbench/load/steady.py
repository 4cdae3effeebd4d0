"""Trials that count only where the machine was as fast as it can be, before and after them.

A machine that is shared with others, or that changes its clock rate, is slower for seconds at a
time. On one with two cores, the p99 of JetStream at one rate was 29 ms in the median of the trials
with a full speed before and after them, and 55 ms in that of the others.
"""

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable

import msgspec

from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import SettingError
from hookbench.load.search import Trial, TrialFn

__all__ = ["LEAST_SPEED", "SteadyTrials", "measure_speed"]

LEAST_SPEED = 0.95
_BUFFER = bytes(2**18)
"""Large enough that a digest of it leaves the interpreter's lock to others."""
_MEASURE_S = 0.25
_FIRST = 8
"""Measurements of which the highest is the speed of the machine until a higher one is seen."""
_PATIENCE_S = 20.0
_PAUSE_S = 0.5
_ATTEMPTS = 4


def measure_speed(clock: Clock, seconds: float = _MEASURE_S) -> float:
    """Digests of 256 KiB per second and core, all cores of this process at once; it blocks."""
    cores = len(os.sched_getaffinity(0))
    counts = [0] * cores
    begin_ns = clock.monotonic_ns()
    end_ns = begin_ns + int(seconds * NS_PER_S)

    def work(core: int) -> None:
        while clock.monotonic_ns() < end_ns:
            hashlib.sha256(_BUFFER)
            counts[core] += 1

    threads = [threading.Thread(target=work, args=(core,)) for core in range(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) * NS_PER_S / (clock.monotonic_ns() - begin_ns) / cores


class SteadyTrials:
    """Makes a trial when the machine is at its speed, and again if it was not afterwards.

    Args:
        trial: makes one, at a rate.
        clock: of this process.
        least: share of the highest speed that was seen, below which the machine is slow.
        measure: its speed now, in any unit; see ``measure_speed``.

    Raises:
        SettingError: a share that no machine has.
    """

    def __init__(
        self,
        trial: TrialFn,
        *,
        clock: Clock,
        least: float = LEAST_SPEED,
        measure: Callable[[Clock], float] = measure_speed,
    ) -> None:
        if not 0 < least < 1:
            raise SettingError(f"least speed {least:g}: use more than 0 and less than 1")
        self._trial = trial
        self._clock = clock
        self._least = least
        self._measure = measure
        self._highest = 0.0

    async def __call__(self, rate_per_s: float) -> Trial:
        """A trial of a machine at its speed; one that says nothing if there is none in time."""
        if not self._highest:
            for _ in range(_FIRST):
                await self._speed()
        share = 0.0
        for attempt in range(_ATTEMPTS):
            before = await self._settle()
            made = await self._trial(rate_per_s)
            share = min(before, await self._speed()) / self._highest
            if share >= self._least:
                figures = {**made.figures, "speed": round(share, 3), "slow_trials": float(attempt)}
                return msgspec.structs.replace(made, figures=figures)
        return Trial(
            rate_per_s=rate_per_s,
            sustained=None,
            why=f"the machine ran at {share:.2f} of its speed at each of {_ATTEMPTS} trials",
        )

    async def _settle(self) -> float:
        """Wait until the machine is at its speed, but not for ever; the speed then."""
        until_ns = self._clock.monotonic_ns() + int(_PATIENCE_S * NS_PER_S)
        while (speed := await self._speed()) < self._least * self._highest:
            if self._clock.monotonic_ns() >= until_ns:
                break
            await self._clock.sleep(_PAUSE_S)
        return speed

    async def _speed(self) -> float:
        speed = await asyncio.to_thread(self._measure, self._clock)
        self._highest = max(self._highest, speed)
        return speed
