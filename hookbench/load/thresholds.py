"""Thresholds beyond which a run fails: ``p99>100ms,lost>0``."""

import operator
import re
from collections.abc import Callable, Mapping

import msgspec

from hookbench.errors import SettingError

__all__ = ["COUNTS", "Threshold", "parse_thresholds"]

COUNTS = ("lost", "left", "dead", "duplicated", "redelivered", "refused", "unknown")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_TERM = re.compile(r"([a-z_]+[\d.]*)\s*(>=|<=|>|<)\s*(\d+(?:\.\d+)?)\s*(us|ms|s|/s)?")
_TIME = re.compile(r"(publish_)?(?:p(\d{1,2}(?:\.\d{1,3})?)|max)")
_EXAMPLE = (
    "use terms such as p99>100ms, publish_p99>20ms, max>2s, rate<500/s or lost>0"
    f" ({', '.join(COUNTS)})"
)


class Threshold(msgspec.Struct, frozen=True):
    """One of them.

    Attributes:
        text: as it was given.
        name: ``p99`` or ``max`` of the end-to-end latency, the same of a publish with
            ``publish_`` before it, ``rate`` of accepted tasks per second, or one of ``COUNTS``.
        comparison: with which it fails.
        bound: ms, tasks per second, or a count.
    """

    text: str
    name: str
    comparison: str
    bound: float

    @property
    def is_time(self) -> bool:
        """Whether it is a latency, in ms."""
        return _TIME.fullmatch(self.name) is not None

    def broken_by(self, values: Mapping[str, float]) -> str | None:
        """What is beyond it, ``None`` if nothing is.

        A value that there is not, such as the latency of no task, breaks it: nothing was shown.
        """
        value = values.get(self.name)
        if value is None:
            return f"{self.text}: there is no {self.name}"
        if _COMPARE[self.comparison](value, self.bound):
            return (
                f"{self.text}: {value:,.3f} ms" if self.is_time else f"{self.text}: {value:,.10g}"
            )
        return None


def parse_thresholds(text: str) -> tuple[Threshold, ...]:
    """The thresholds in a text, with commas between; none in an empty one.

    Raises:
        SettingError: a term that is none.
    """
    return tuple(_parse(term.strip()) for term in text.split(",") if term.strip())


def _parse(term: str) -> Threshold:
    match = _TERM.fullmatch(term)
    if match is None:
        raise SettingError(f"threshold {term!r}: {_EXAMPLE}")
    name, comparison, number, unit = match.groups()
    if _TIME.fullmatch(name):
        if unit not in _UNITS_MS:
            raise SettingError(f"threshold {term!r}: give the time a unit: us, ms or s")
        return Threshold(term, name, comparison, float(number) * _UNITS_MS[unit])
    if (name == "rate" and unit in (None, "/s")) or (name in COUNTS and unit is None):
        return Threshold(term, name, comparison, float(number))
    raise SettingError(f"threshold {term!r}: {_EXAMPLE}")
