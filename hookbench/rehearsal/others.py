"""How much of the machine others used meanwhile: what was busy, and not of this process."""

from typing import Any

import psutil

from hookbench.clock import NS_PER_S, Clock

__all__ = ["OthersMeter"]

_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")
"""What psutil tells of them on this system; the time of a guest is in ``user``."""


class OthersMeter:
    """The cores that others kept busy since this was made.

    What this process and its children used is its own, of children when they have ended and were
    waited for. The kernel's own threads are others, so a trial that syncs has a few hundredths of
    a core of them.

    Args:
        clock: of this process.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begin_ns = clock.monotonic_ns()
        self._process = psutil.Process()
        self._before_s = _busy_s() - self._own_s()

    def cores(self) -> float:
        """On average, 0 for none."""
        seconds = (self._clock.monotonic_ns() - self._begin_ns) / NS_PER_S
        others_s = _busy_s() - self._own_s() - self._before_s
        return max(0.0, others_s) / seconds if seconds > 0 else 0.0

    def _own_s(self) -> float:
        times: Any = self._process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(getattr(times, name, 0.0) for name in _BUSY))
