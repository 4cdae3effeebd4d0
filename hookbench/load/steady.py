"""Trials that count only where the machine was as fast as it can be, before and after them.

A machine that is shared with others has minutes in which its memory is a third as fast, and seconds
in which its cores are slower. On one with two cores, p99 of JetStream at 9,000 tasks per second was
at most 50 ms in each of the eleven trials with a fast memory, and 120 ms in the median of the
others. A search across such minutes finds two capacities.
"""

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np

from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import HookbenchError, SettingError
from hookbench.load.search import Trial, TrialFn

__all__ = ["LEAST_SPEED", "MachineFasterError", "Speed", "SteadyTrials", "measure_speed"]

LEAST_SPEED = 0.95
_MEMORY_TIMES = 4
"""So many times as much as that of the cores may the speed of the memory fall short."""
_BUFFER = bytes(2**18)
"""Large enough that a digest of it leaves the interpreter's lock to others."""
_FILLED_BYTES = 2**26
"""More than any cache holds."""
_MEASURE_S = 0.2
_FIRST = 8
"""Measurements of which the highest is the speed of the machine until a higher one is seen."""
_PATIENCE_S = 300.0
_PAUSE_S = 0.5
_SAY_AFTER = 10
"""Measurements of a slow machine after which it is said that it is waited for."""
_ATTEMPTS = 4


class MachineFasterError(HookbenchError):
    """The machine is faster than it was in the trials before: they were of a slow one."""


class Speed(NamedTuple):
    """Of a machine now.

    Attributes:
        cores: digests of 256 KiB per second and core, all cores of this process at once.
        memory: fillings of 64 MiB per second, by one core.
    """

    cores: float
    memory: float


def measure_speed(clock: Clock, seconds: float = _MEASURE_S) -> Speed:
    """Measure both, so many seconds each; it blocks."""
    return Speed(_cores(clock, seconds), _memory(clock, seconds))


def _cores(clock: Clock, seconds: float) -> float:
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


def _memory(clock: Clock, seconds: float) -> float:
    filled = np.zeros(_FILLED_BYTES, dtype=np.uint8)
    filled[:] = 1  # the first time the pages are mapped
    begin_ns, count = clock.monotonic_ns(), 0
    end_ns = begin_ns + int(seconds * NS_PER_S)
    while clock.monotonic_ns() < end_ns:
        filled[:] = count % 2
        count += 1
    return count * NS_PER_S / (clock.monotonic_ns() - begin_ns)


class SteadyTrials:
    """Makes a trial when the machine is at its speed, and again if it was not afterwards.

    Args:
        trial: makes one, at a rate.
        clock: of this process.
        least: share of the highest speed of the cores that was seen, below which the machine is
            slow; that of its memory may fall short four times as much.
        measure: its speed now, see ``measure_speed``.
        tell: is told that it is waited for.

    Raises:
        SettingError: a share that no machine has.
    """

    def __init__(
        self,
        trial: TrialFn,
        *,
        clock: Clock,
        least: float = LEAST_SPEED,
        measure: Callable[[Clock], Speed] = measure_speed,
        tell: Callable[[str], None] = lambda _text: None,
    ) -> None:
        if not 0 < least < 1:
            raise SettingError(f"least speed {least:g}: use more than 0 and less than 1")
        self._trial = trial
        self._clock = clock
        self._least = Speed(least, max(0.0, 1 - _MEMORY_TIMES * (1 - least)))
        self._measure = measure
        self._tell = tell
        self._highest = Speed(0.0, 0.0)
        self._slowest: Speed | None = None
        """Of the trials that counted."""

    async def __call__(self, rate_per_s: float) -> Trial:
        """A trial of a machine at its speed; one that says nothing if there is none in time.

        Raises:
            MachineFasterError: trials that counted were of a slow machine, as is seen now.
        """
        if not self._highest.cores:
            for _ in range(_FIRST):
                await self._now()
        speed = Speed(0.0, 0.0)
        for attempt in range(_ATTEMPTS):
            before = await self._settle()
            made = await self._trial(rate_per_s)
            speed = _lower(before, await self._now())
            if self._is_full(speed):
                self._count(speed)
                share = self._share(speed)
                figures = {
                    **made.figures,
                    "cores_speed": round(share.cores, 3),
                    "memory_speed": round(share.memory, 3),
                    "slow_trials": float(attempt),
                }
                return msgspec.structs.replace(made, figures=figures)
        return Trial(
            rate_per_s=rate_per_s,
            sustained=None,
            why=f"the machine was slow at each of {_ATTEMPTS} trials: {self._text(speed)}",
        )

    def forget(self) -> None:
        """All trials so far, but not the speed of the machine."""
        self._slowest = None

    def _count(self, speed: Speed) -> None:
        self._slowest = speed if self._slowest is None else _lower(self._slowest, speed)
        if not self._is_full(self._slowest):
            text = self._text(self._slowest)
            raise MachineFasterError(f"the machine is faster than it was before: {text}")

    async def _settle(self) -> Speed:
        """Wait until the machine is at its speed, but not for ever; the speed then."""
        until_ns = self._clock.monotonic_ns() + int(_PATIENCE_S * NS_PER_S)
        measured = 0
        while not self._is_full(speed := await self._now()):
            measured += 1
            if measured == _SAY_AFTER:
                self._tell(f"waiting for the machine: {self._text(speed)}")
            if self._clock.monotonic_ns() >= until_ns:
                break
            await self._clock.sleep(_PAUSE_S)
        return speed

    async def _now(self) -> Speed:
        speed = await asyncio.to_thread(self._measure, self._clock)
        self._highest = Speed(
            max(self._highest.cores, speed.cores), max(self._highest.memory, speed.memory)
        )
        return speed

    def _share(self, speed: Speed) -> Speed:
        return Speed(speed.cores / self._highest.cores, speed.memory / self._highest.memory)

    def _is_full(self, speed: Speed) -> bool:
        share = self._share(speed)
        return share.cores >= self._least.cores and share.memory >= self._least.memory

    def _text(self, speed: Speed) -> str:
        share = self._share(speed)
        return f"cores at {share.cores:.2f}, memory at {share.memory:.2f} of their speed"


def _lower(one: Speed, other: Speed) -> Speed:
    return Speed(min(one.cores, other.cores), min(one.memory, other.memory))
