"""How a rate changes in the course of a load: factors of it over time.

A shape says how many seconds' worth of the rate have gone by at a time (``mass``), and when so many
have (``moment``). So every arrival process can have every shape: its arrivals at a rate of one are
taken as masses, and sent at their moments.
"""

import bisect
import itertools
import math
from typing import TYPE_CHECKING, Protocol

from hookbench.errors import SettingError
from hookbench.load.parameters import check_name, number_of, numbers_of, split_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

__all__ = ["SHAPES", "Diurnal", "Ramp", "Shape", "Steps", "parse_shape"]

_NEWTON_STEPS = 100
_EXACT = 1e-12
MAX_FACTOR = 1e6


class Shape(Protocol):
    """Factors of a rate, from the beginning of the load on, without an end."""

    @property
    def text(self) -> str:
        """As ``parse_shape`` reads it."""
        ...

    def mass(self, at_s: float) -> float:
        """The integral of the factor from 0 to a time, s."""
        ...

    def masses(self, at_s: "Floats") -> "Floats":
        """``mass`` of many times at once."""
        ...

    def moment(self, mass: float) -> float:
        """The time at which the integral is that, s; the inverse of ``mass``."""
        ...


def _check(name: str, value: float, low: float, high: float = MAX_FACTOR) -> float:
    if not low <= value <= high:
        raise SettingError(f"{name} {value:g}: use between {low:g} and {high:g}")
    return value


class Ramp:
    """From one factor to another in equal steps of time; then it stays.

    Args:
        first: factor at the beginning, from 0 on.
        last: factor at the end and afterwards, above 0.
        over_s: how long it takes.

    Raises:
        SettingError: one of them is out of bounds.
    """

    def __init__(self, *, first: float, last: float, over_s: float) -> None:
        self._first = _check("ramp: from", first, 0.0)
        self._last = _check("ramp: to", last, 1e-6)
        self._over_s = _check("ramp: over", over_s, 1e-3)
        self._mass = (first + last) / 2 * over_s
        self.text = f"ramp:from={first!r},to={last!r},over={over_s!r}"

    def mass(self, at_s: float) -> float:
        """See ``Shape``."""
        if at_s >= self._over_s:
            return self._mass + self._last * (at_s - self._over_s)
        slope = (self._last - self._first) / self._over_s
        return self._first * at_s + slope * at_s * at_s / 2

    def masses(self, at_s: "Floats") -> "Floats":
        """See ``Shape``."""
        import numpy as np  # noqa: PLC0415 - producers do without it, it takes 0.1 s

        within_s = np.minimum(at_s, self._over_s)
        slope = (self._last - self._first) / self._over_s
        ramp = self._first * within_s + slope * within_s * within_s / 2
        return np.asarray(ramp + self._last * (at_s - within_s))

    def moment(self, mass: float) -> float:
        """See ``Shape``."""
        if mass >= self._mass:
            return self._over_s + (mass - self._mass) / self._last
        if mass <= 0:
            return 0.0
        slope = (self._last - self._first) / self._over_s
        # The root of mass(t) = m in the form that does not cancel where the slope is small.
        root = math.sqrt(max(0.0, self._first * self._first + 2 * slope * mass))
        return 2 * mass / (self._first + root)


class Steps:
    """Factors one after the other, each for the same time, again and again.

    Args:
        factors: from 0 on, one of them above.
        each_s: how long each lasts.

    Raises:
        SettingError: one of them is out of bounds.
    """

    def __init__(self, factors: tuple[float, ...], *, each_s: float) -> None:
        for factor in factors:
            _check("steps: factor", factor, 0.0)
        if not any(factors):
            raise SettingError(
                f"steps {'/'.join(f'{item:g}' for item in factors)}: use one above 0"
            )
        self._factors = factors
        self._each_s = _check("steps: each", each_s, 1e-3)
        self._up_to = [0.0, *itertools.accumulate(factor * each_s for factor in factors)]
        self._period_s = each_s * len(factors)
        self.text = f"steps:{'/'.join(repr(item) for item in factors)},each={each_s!r}"

    def mass(self, at_s: float) -> float:
        """See ``Shape``."""
        rounds, left_s = divmod(at_s, self._period_s)
        step = min(int(left_s / self._each_s), len(self._factors) - 1)
        within = (left_s - step * self._each_s) * self._factors[step]
        return rounds * self._up_to[-1] + self._up_to[step] + within

    def masses(self, at_s: "Floats") -> "Floats":
        """See ``Shape``."""
        import numpy as np  # noqa: PLC0415 - as of Ramp

        rounds, left_s = np.divmod(at_s, self._period_s)
        steps = np.minimum((left_s / self._each_s).astype(np.int64), len(self._factors) - 1)
        within = (left_s - steps * self._each_s) * np.asarray(self._factors)[steps]
        return np.asarray(rounds * self._up_to[-1] + np.asarray(self._up_to)[steps] + within)

    def moment(self, mass: float) -> float:
        """See ``Shape``."""
        rounds, left = divmod(mass, self._up_to[-1])
        # The last step that begins with no more than that: those of factor 0 are passed over.
        step = min(bisect.bisect_right(self._up_to, left), len(self._factors)) - 1
        within_s = (left - self._up_to[step]) / self._factors[step]
        return rounds * self._period_s + step * self._each_s + within_s


class Diurnal:
    """Day and night: a sine from the low at the beginning over the peak, ``2 - low``, and back.

    Args:
        period_s: length of a day.
        low: factor at night, from 0 to 1; the mean over a day is 1.

    Raises:
        SettingError: one of them is out of bounds.
    """

    def __init__(self, *, period_s: float, low: float) -> None:
        self._period_s = _check("diurnal: period", period_s, 1e-3)
        self._swing = 1.0 - _check("diurnal: low", low, 0.0, 1.0)
        self.text = f"diurnal:period={period_s!r},low={low!r}"

    def mass(self, at_s: float) -> float:
        """See ``Shape``."""
        angle = math.tau * at_s / self._period_s
        return at_s - self._swing * self._period_s / math.tau * math.sin(angle)

    def masses(self, at_s: "Floats") -> "Floats":
        """See ``Shape``."""
        import numpy as np  # noqa: PLC0415 - as of Ramp

        angles = math.tau * at_s / self._period_s
        return np.asarray(at_s - self._swing * self._period_s / math.tau * np.sin(angles))

    def moment(self, mass: float) -> float:
        """See ``Shape``. It is Kepler's equation, by Newton's method from half a day on."""
        days, left = divmod(mass / self._period_s, 1.0)
        morning = left <= 1 / 2
        wanted = math.tau * (left if morning else 1.0 - left)
        angle = math.pi
        for _ in range(_NEWTON_STEPS):
            slope = 1.0 - self._swing * math.cos(angle)
            step = (angle - self._swing * math.sin(angle) - wanted) / slope if slope else 0.0
            angle -= step
            if abs(step) < _EXACT:
                break
        share = angle / math.tau
        return (days + (share if morning else 1.0 - share)) * self._period_s


SHAPES = ("ramp", "steps", "diurnal")


def parse_shape(text: str) -> Shape:
    """The shape in ``ramp:from=0.1,to=2,over=60``, ``steps:0.5/1/2,each=10`` and the like.

    Raises:
        SettingError: another form, or see the classes.
    """
    name, rest = split_name(text)
    check_name("shape of the load", name, SHAPES)
    if name == "ramp":
        given = numbers_of(name, rest, {"from": 0.0, "to": 2.0, "over": 60.0})
        return Ramp(first=given["from"], last=given["to"], over_s=given["over"])
    if name == "diurnal":
        given = numbers_of(name, rest, {"period": 60.0, "low": 0.2})
        return Diurnal(period_s=given["period"], low=given["low"])
    factors, _comma, others = (rest or "0.5/1/2").partition(",")
    return Steps(
        tuple(number_of("steps: factor", item) for item in factors.split("/")),
        each_s=numbers_of(name, others, {"each": 10.0})["each"],
    )
