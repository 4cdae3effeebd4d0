"""Arrival processes: when each task is to be sent, as offsets from the start in nanoseconds."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hookbench.clock import NS_PER_S
from hookbench.errors import SettingError
from hookbench.load.parameters import check_name, numbers_of, split_name
from hookbench.load.shapes import Shape, parse_shape

if TYPE_CHECKING:
    from hookbench.load.traces import Trace

__all__ = ["ARRIVALS", "Arrivals", "check_rate", "parse_arrivals"]

MAX_RATE_PER_S = 1_000_000.0
ARRIVALS = ("constant", "poisson", "bursts", "trace")
MAX_BURST = 1_000_000.0

Masses = Callable[[random.Random], Iterator[float]]
"""Arrivals at a rate of one per second, s, ascending and without an end."""


def check_rate(rate_per_s: float) -> float:
    """``rate_per_s`` unchanged.

    Raises:
        SettingError: not positive, not finite, or above a million.
    """
    if not (math.isfinite(rate_per_s) and 0 < rate_per_s <= MAX_RATE_PER_S):
        raise SettingError(
            f"rate of {rate_per_s} tasks/s: use more than 0 and at most {MAX_RATE_PER_S:.0f}"
        )
    return rate_per_s


class Arrivals(Protocol):
    """An arrival process."""

    @property
    def text(self) -> str:
        """As ``parse_arrivals`` reads it."""
        ...

    @property
    def repositories(self) -> Sequence[str]:
        """Of each arrival of a trace that names them, else empty."""
        ...

    def offsets(
        self, rate_per_s: float, rng: random.Random, *, part: int = 0, parts: int = 1
    ) -> Iterator[int]:
        """Offsets of the tasks in ns, ascending; without an end, but for those of a trace.

        Args:
            rate_per_s: of this process alone.
            rng: of the arrivals alone.
            part: number of this process among those that share a load. They have a part of the
                rate each, and a trace is dealt out to them.
            parts: how many they are.
        """
        ...

    def total(self, *, part: int = 0, parts: int = 1) -> int | None:
        """How many tasks there are in all; ``None`` without an end."""
        ...

    def count(self, rate_per_s: float, seconds: float, *, part: int = 0, parts: int = 1) -> int:
        """How many tasks there are to be within a time; of a random process the mean."""
        ...


def constant(_rng: random.Random) -> Iterator[float]:
    """At equal distances."""
    number = 0
    while True:
        yield float(number)
        number += 1


def poisson(rng: random.Random) -> Iterator[float]:
    """A Poisson process: exponential gaps, independent of each other."""
    at_s = 0.0
    while True:
        at_s += rng.expovariate(1.0)
        yield at_s


class _Bursts:
    """So many at one moment, the moments of a Poisson process."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, rng: random.Random) -> Iterator[float]:
        for at_s in poisson(rng):
            for _ in range(self.size):
                yield at_s * self.size


class _Process:
    """Arrivals of a rate, which a shape may change over time."""

    repositories: Sequence[str] = ()

    def __init__(self, masses: Masses, text: str, shape: Shape | None) -> None:
        self._masses = masses
        self._shape = shape
        self.text = text if shape is None else f"{text}+{shape.text}"

    def offsets(
        self,
        rate_per_s: float,
        rng: random.Random,
        *,
        part: int = 0,  # noqa: ARG002 - each process draws its own
        parts: int = 1,  # noqa: ARG002
    ) -> Iterator[int]:
        """See ``Arrivals``."""
        check_rate(rate_per_s)
        masses = self._masses(rng)
        if self._shape is None:
            ns_per_mass = NS_PER_S / rate_per_s
            return (int(mass * ns_per_mass) for mass in masses)
        moment = self._shape.moment
        return (int(moment(mass / rate_per_s) * NS_PER_S) for mass in masses)

    def total(self, *, part: int = 0, parts: int = 1) -> int | None:  # noqa: ARG002
        """See ``Arrivals``."""
        return None

    def count(self, rate_per_s: float, seconds: float, *, part: int = 0, parts: int = 1) -> int:  # noqa: ARG002
        """See ``Arrivals``."""
        mass = seconds if self._shape is None else self._shape.mass(seconds)
        return round(rate_per_s * mass)


class _Replay:
    """What a trace says; the rate is left out of account."""

    def __init__(self, trace: "Trace", path: Path) -> None:
        self._trace = trace
        self.repositories = trace.repositories
        self.text = f"trace:{path}"

    def offsets(
        self,
        rate_per_s: float,  # noqa: ARG002 - it has its own
        rng: random.Random,  # noqa: ARG002
        *,
        part: int = 0,
        parts: int = 1,
    ) -> Iterator[int]:
        """See ``Arrivals``."""
        return iter(self._trace.offsets_ns[part::parts])

    def total(self, *, part: int = 0, parts: int = 1) -> int | None:
        """See ``Arrivals``."""
        return len(range(part, len(self._trace.offsets_ns), parts))

    def count(self, rate_per_s: float, seconds: float, *, part: int = 0, parts: int = 1) -> int:  # noqa: ARG002
        """See ``Arrivals``."""
        within = self._trace.within(seconds)
        return len(range(part, within, parts))


def parse_arrivals(text: str) -> Arrivals:
    """The process in ``poisson``, ``bursts:size=50``, ``constant+ramp:from=0,to=2,over=60``, ...

    Args:
        text: ``constant``, ``poisson`` or ``bursts:size=N``, perhaps with ``+`` and a shape, see
            ``parse_shape``; or ``trace:`` and the path of a trace, see ``read_trace``.

    Raises:
        SettingError: another form; the text says what to use.
        TraceError: the trace cannot be read.
    """
    name, rest = split_name(text)
    if name == "trace":
        from hookbench.load.traces import read_trace  # noqa: PLC0415 - it needs numpy: 0.1 s

        return _Replay(read_trace(Path(rest)), Path(rest))
    process, plus, shaped = text.partition("+")
    name, rest = split_name(process)
    check_name("arrivals", name, ARRIVALS)
    shape = parse_shape(shaped) if plus else None
    if name != "bursts":
        numbers_of(f"arrivals {name}", rest, {})
        return _Process(constant if name == "constant" else poisson, name, shape)
    size = numbers_of("arrivals bursts", rest, {"size": 20.0})["size"]
    if not (1 <= size <= MAX_BURST and size.is_integer()):
        raise SettingError(f"bursts of {size:g} tasks: use a whole number up to {MAX_BURST:,.0f}")
    return _Process(_Bursts(int(size)), f"bursts:size={int(size)}", shape)
