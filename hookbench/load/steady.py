"""Which moments of a trial count: those in which the machine's memory was as fast as it can be.

A machine that shares its memory with others has bursts of seconds, and minutes full of them, in
which it is a third as fast; its cores, as digests show, are not. Of 40 trials of JetStream at 9,000
tasks per second on one with two cores, p99 was at most 50 ms in each of the eleven with a fast
memory before and after them, and 120 ms in the median of the others.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import numpy as np

from hookbench.clock import NS_PER_S, Clock
from hookbench.errors import HookbenchError, SettingError

__all__ = ["LEAST_SPEED", "MachineFasterError", "MemorySamples", "SteadyMachine"]

LEAST_SPEED = 0.8
_FILLED_BYTES = 2**25
"""More than the caches of a core hold; filled in a millisecond or two."""
_EVERY_S = 0.1


class MachineFasterError(HookbenchError):
    """The machine is faster than it was in the trials before: they were of a slow one."""


class MemorySamples:
    """How fast the memory was, ten times a second, from a thread, while it is entered.

    Attributes:
        times_ns: of the samples, monotonic.
        per_s: fillings of 32 MiB per second.
    """

    def __init__(self, clock: Clock) -> None:
        self.times_ns: list[int] = []
        self.per_s: list[float] = []
        self._clock = clock
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory samples", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def highest(self, begin_ns: int, end_ns: int) -> float | None:
        """The best of a span of time; one alone may have waited for a core."""
        found = [
            speed
            for time_ns, speed in zip(self.times_ns, self.per_s, strict=True)
            if begin_ns <= time_ns < end_ns
        ]
        return max(found, default=None)

    def _sample(self) -> None:
        filled = np.zeros(_FILLED_BYTES, dtype=np.uint8)
        filled[:] = 1  # the first time its pages are mapped
        while not self._over.wait(_EVERY_S):
            begin_ns = self._clock.monotonic_ns()
            filled[:] = len(self.per_s) % 2
            end_ns = self._clock.monotonic_ns()
            self.times_ns.append(end_ns)
            self.per_s.append(NS_PER_S / max(1, end_ns - begin_ns))


class SteadyMachine:
    """Knows how fast the memory can be, from all trials so far.

    Args:
        clock: of this process.
        least: share of the highest speed, below which a span of time says nothing.

    Raises:
        SettingError: a share that no machine has.
    """

    def __init__(self, clock: Clock, least: float = LEAST_SPEED) -> None:
        if not 0 < least < 1:
            raise SettingError(f"least speed {least:g}: use more than 0 and less than 1")
        self._clock = clock
        self._least = least
        self._highest = 0.0
        self._trusted = 0.0
        """The highest speed when the first trial was judged that is still believed."""

    @contextmanager
    def watched(self) -> Iterator[MemorySamples]:
        """Sample for the time of the block, and learn from it."""
        with MemorySamples(self._clock) as samples:
            yield samples
        self._highest = max([self._highest, *samples.per_s])

    def was_fast(self, samples: MemorySamples, begin_ns: int, end_ns: int) -> bool:
        """Whether the memory was at its speed in a span of time; no sample of it is no."""
        speed = samples.highest(begin_ns, end_ns)
        return speed is not None and speed >= self._least * self._highest

    def believe(self) -> None:
        """A trial is judged by what is known of the machine.

        Raises:
            MachineFasterError: earlier ones were judged by much less.
        """
        if not self._trusted:
            self._trusted = self._highest
        if self._trusted < self._least * self._highest:
            share = self._trusted / self._highest
            raise MachineFasterError(
                f"the memory is faster than it was before, when it had {share:.2f} of this speed"
            )

    def forget(self) -> None:
        """The trials so far, but not the speed of the machine."""
        self._trusted = 0.0
