"""How large the payloads of synthetic tasks are: one size, or a distribution of sizes."""

import itertools
import math
import random
from collections.abc import Callable

from hookbench.errors import SettingError
from hookbench.load.parameters import check_name, number_of, numbers_of, split_name

__all__ = ["MAX_PAYLOAD_BYTES", "PayloadSizes", "parse_payload"]

MAX_PAYLOAD_BYTES = 64 * 1024 * 1024
KINDS = ("uniform", "lognormal", "choice")


class PayloadSizes:
    """Sizes of the filling of payloads, bytes.

    Args:
        draw: a size.
        largest: that it can draw.
        text: as ``parse_payload`` reads it.
    """

    def __init__(self, draw: Callable[[random.Random], int], largest: int, text: str) -> None:
        self.draw = draw
        self.largest = largest
        self.text = text


def _size(kind: str, value: float) -> int:
    if not (0 <= value <= MAX_PAYLOAD_BYTES and value == int(value)):
        raise SettingError(
            f"{kind} of {value:g} bytes: use a whole number up to {MAX_PAYLOAD_BYTES:,}"
        )
    return int(value)


def _uniform(rest: str) -> PayloadSizes:
    given = numbers_of("payload uniform", rest, {"min": 64, "max": 4096})
    low, high = _size("payload", given["min"]), _size("payload", given["max"])
    if low > high:
        raise SettingError(f"payload uniform: min {low} is more than max {high}")
    return PayloadSizes(lambda rng: rng.randint(low, high), high, f"uniform:min={low},max={high}")


def _lognormal(rest: str) -> PayloadSizes:
    """Many small ones and a few large ones, as files and messages mostly are."""
    given = numbers_of(
        "payload lognormal", rest, {"median": 512, "sigma": 1.0, "max": MAX_PAYLOAD_BYTES}
    )
    median, largest = _size("payload", given["median"]), _size("payload", given["max"])
    sigma = given["sigma"]
    if not 1 <= median <= largest:
        raise SettingError(f"payload lognormal: median {median}: use 1 to max, which is {largest}")
    if not 0 <= sigma <= 5:  # noqa: PLR2004 - e^5 is a factor of 148
        raise SettingError(f"payload lognormal: sigma {sigma:g}: use between 0 and 5")
    middle = math.log(median)

    def draw(rng: random.Random) -> int:
        while True:  # at least every other one is at most the median
            size = round(rng.lognormvariate(middle, sigma))
            if size <= largest:
                return size

    return PayloadSizes(draw, largest, f"lognormal:median={median},sigma={sigma!r},max={largest}")


def _choice(rest: str) -> PayloadSizes:
    sizes, weights = [], []
    for part in rest.split(","):
        size, equals, weight = part.partition("=")
        if not equals:
            raise SettingError(f"payload choice {rest!r}: use size=weight, as in 64=9,65536=1")
        sizes.append(_size("payload", number_of("payload choice: size", size)))
        weights.append(number_of(f"payload choice: weight of {size}", weight))
    if min(weights) < 0 or not any(weights):
        raise SettingError(f"payload choice {rest!r}: use weights from 0 on, and one above")
    up_to = list(itertools.accumulate(weights))
    text = ",".join(f"{size}={weight!r}" for size, weight in zip(sizes, weights, strict=True))
    largest = max(size for size, weight in zip(sizes, weights, strict=True) if weight)
    return PayloadSizes(
        lambda rng: rng.choices(sizes, cum_weights=up_to)[0], largest, f"choice:{text}"
    )


def parse_payload(text: str) -> PayloadSizes:
    """The sizes in a text.

    Args:
        text: ``256``, ``uniform:min=64,max=4096``, ``lognormal:median=512,sigma=1`` or
            ``choice:64=9,65536=1``.

    Raises:
        SettingError: another form; the text says what to use.
    """
    name, rest = split_name(text)
    if name.isdigit() and not rest:
        size = _size("payload", int(name))
        return PayloadSizes(lambda _rng: size, size, str(size))
    check_name("payload", name, KINDS)
    made = {"uniform": _uniform, "lognormal": _lognormal, "choice": _choice}
    return made[name](rest)
