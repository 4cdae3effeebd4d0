"""How far another machine's clock is from this one's, by asking it.

Cristian's method (Probabilistic Clock Synchronization, 1989), as NTP has it for one question
(RFC 5905, section 8): the answer was given at some time between the question and its arrival here,
so the offset is known to half the round trip. Of several questions the one with the shortest round
trip says most; an old one says less, since clocks drift.
"""

from collections import deque
from typing import NamedTuple

from hookbench.clock import NS_PER_S

__all__ = ["ClockOffset", "Offset"]

_KEPT_NS = 30 * NS_PER_S
_DRIFT = 100e-6
"""Of a quartz, with a margin: NTP allows 500 ppm to be corrected, and real ones have up to 50."""


class Offset(NamedTuple):
    """What has to be added to a time of this clock to have it in the other one's, ns.

    Attributes:
        offset_ns: the middle of what is possible.
        error_ns: how far the truth may be from it.
    """

    offset_ns: int
    error_ns: int


class _Sample(NamedTuple):
    received_ns: int
    offset_ns: int
    half_trip_ns: int


class ClockOffset:
    """What is known of the other clock."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque()

    def add(self, asked_ns: int, answered_ns: int, received_ns: int) -> None:
        """One question.

        Args:
            asked_ns: when it was sent, by this clock.
            answered_ns: what the answer says, by the other one.
            received_ns: when the answer came, by this one.
        """
        half_ns = max(0, received_ns - asked_ns + 1) // 2
        middle_ns = (asked_ns + received_ns) // 2
        self._samples.append(_Sample(received_ns, answered_ns - middle_ns, half_ns))
        while self._samples and received_ns - self._samples[0].received_ns > _KEPT_NS:
            self._samples.popleft()

    def at(self, now_ns: int) -> Offset | None:
        """What it is now, by the best of the last questions; ``None`` before the first answer."""
        return min(
            (
                Offset(
                    item.offset_ns,
                    item.half_trip_ns + int(abs(now_ns - item.received_ns) * _DRIFT) + 1,
                )
                for item in self._samples
            ),
            key=lambda found: found.error_ns,
            default=None,
        )
