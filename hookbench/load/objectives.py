"""Service-level objectives: ``p99<50ms,backlog=flat``."""

import re
from collections.abc import Mapping, Sequence
from statistics import median

import msgspec

from hookbench.errors import SettingError

__all__ = ["COUNTS", "DEFAULT_OBJECTIVE", "Objective", "parse_objective"]

DEFAULT_OBJECTIVE = "p99<50ms,backlog=flat"
_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_LATENCY = re.compile(r"p(\d{1,2}(?:\.\d{1,3})?)\s*<\s*(\d+(?:\.\d+)?)\s*(us|ms|s)")
COUNTS = ("lost", "stuck", "duplicated", "refused", "dead")
"""Of tasks, that an objective can forbid."""
_EXAMPLE = f"use terms such as {DEFAULT_OBJECTIVE},lost=0"


class _Latency(msgspec.Struct, frozen=True):
    percentile: float
    bound_ms: float


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """What a rate has to meet.

    Attributes:
        text: as it was given.
        latencies: percentiles of the end-to-end latency and their bounds in ms.
        backlog_flat: the backlog does not grow.
        none_of: counts that have to be 0.
    """

    text: str
    latencies: tuple[_Latency, ...] = ()
    backlog_flat: bool = False
    none_of: tuple[str, ...] = ()

    @property
    def percentiles(self) -> tuple[float, ...]:
        """Those that ``missed`` asks for."""
        return tuple(item.percentile for item in self.latencies)

    def missed(
        self,
        windows_ms: Sequence[Mapping[float, float]],
        *,
        growth: float,
        counts: Mapping[str, int],
    ) -> list[str]:
        """What is not met, one text each.

        A percentile is met if it is below its bound in at least half of the windows of time, as
        RFC 9971 (MLRsearch) has it with its recommended exceed ratio: a moment in which the machine
        was busy with something else does not decide.

        Args:
            windows_ms: of each window, the end-to-end latencies by percentile.
            growth: of the backlog, as a share of what was offered meanwhile.
            counts: of tasks, by name.
        """
        found = [text for item in self.latencies if (text := _missed_by(item, windows_ms))]
        if self.backlog_flat and growth > MAX_GROWTH:
            found.append(f"the backlog grows by {growth:.1%} of what is offered")
        found += [f"{counts[name]:,} {name}" for name in self.none_of if counts[name]]
        return found


def _missed_by(item: _Latency, windows_ms: Sequence[Mapping[float, float]]) -> str:
    values_ms = [window[item.percentile] for window in windows_ms]
    above = sum(value >= item.bound_ms for value in values_ms)
    if above <= EXCEED_RATIO * len(values_ms):
        return ""
    where = "" if len(values_ms) == 1 else f" in {above} of {len(values_ms)} windows"
    middle = "" if len(values_ms) == 1 else "a median of "
    return (
        f"p{item.percentile:g} is {middle}{median(values_ms):,.1f} ms,"
        f" not below {item.bound_ms:g} ms{where}"
    )


EXCEED_RATIO = 0.5
"""Of the windows, up to which a percentile may be above its bound."""
MAX_GROWTH = 0.01
"""Of what is offered, above which a backlog is not flat."""


def parse_objective(text: str) -> Objective:
    """The objective in a text.

    Args:
        text: terms with commas between: ``p99<50ms`` (any percentile; us, ms or s),
            ``backlog=flat``, and ``lost=0``, ``stuck=0``, ``duplicated=0``, ``refused=0`` or
            ``dead=0``.

    Raises:
        SettingError: a term that is none.
    """
    latencies, counts, flat = [], [], False
    for term in (item.strip() for item in text.split(",")):
        name, _equals, value = term.partition("=")
        if match := _LATENCY.fullmatch(term):
            percentile, bound, unit = match.groups()
            latencies.append(_Latency(float(percentile), float(bound) * _UNITS_MS[unit]))
        elif term == "backlog=flat":
            flat = True
        elif name in COUNTS and value == "0":
            counts.append(name)
        else:
            raise SettingError(f"objective {term!r}: {_EXAMPLE}")
    return Objective(
        text=text, latencies=tuple(latencies), backlog_flat=flat, none_of=tuple(counts)
    )
