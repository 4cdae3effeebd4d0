"""The search for the highest rate that is sustained, by trials that may err.

A rate is judged by repeats: two trials of at most three have to agree, so one bad sample does not
decide. The answer is an interval: all rates up to its lower end were sustained, and its upper end
was not. Judgements that contradict each other, a higher rate sustained and a lower one not, make
the interval as wide as they lie apart.
"""

from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec

from hookbench.errors import SettingError

__all__ = ["Capacity", "Judgement", "Trial", "TrialFn", "find_capacity"]

MAX_RATES = 40
_AGREE = 2


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One run at one rate.

    Attributes:
        rate_per_s: that was offered.
        sustained: whether it met the objective; ``None`` if the trial says nothing about it.
        why: what it did not meet, or why it says nothing.
        figures: what was measured, by name.
    """

    rate_per_s: float
    sustained: bool | None
    why: str = ""
    figures: dict[str, float] = {}


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What the trials of a rate come to; ``None`` if they do not agree, or say nothing."""

    rate_per_s: float
    sustained: bool | None
    trials: tuple[Trial, ...]


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """The answer.

    Attributes:
        low_per_s: this rate and all below it that were tried were sustained; 0 if none was.
        high_per_s: the lowest rate of which nothing better is known than that it was not;
            ``None`` if none was found.
        unknown_because: why there is no answer; empty if there is one.
        judgements: every rate that was tried, in the order of the rates.
    """

    low_per_s: float
    high_per_s: float | None
    unknown_because: str
    judgements: tuple[Judgement, ...]

    @property
    def width(self) -> float | None:
        """Of the interval, as a share of its lower end."""
        if self.high_per_s is None or not self.low_per_s:
            return None
        return self.high_per_s / self.low_per_s - 1


TrialFn = Callable[[float], Awaitable[Trial]]


async def find_capacity(
    trial: TrialFn, *, first_per_s: float, width: float = 0.1, most_per_s: float = 1e6
) -> Capacity:
    """Double a rate until it is not sustained, halve it until it is, then close in, and look back.

    Args:
        trial: makes one, at a rate.
        first_per_s: where to begin.
        width: of the interval, as a share of its lower end; a wider one is no answer.
        most_per_s: no rate is higher.

    Raises:
        SettingError: one of them is out of bounds.
    """
    if not 0 < first_per_s <= most_per_s:
        raise SettingError(f"first rate of {first_per_s:g}/s: use more than 0 up to {most_per_s:g}")
    if not 0.01 <= width <= 1:  # noqa: PLR2004
        raise SettingError(f"width {width:g}: use between 0.01 and 1")
    known: dict[float, Judgement] = {}

    async def ask(rate_per_s: float) -> bool | None:
        if rate_per_s not in known:
            known[rate_per_s] = await _judge(trial, rate_per_s)
        return known[rate_per_s].sustained

    rate = first_per_s
    answer = await ask(rate)
    while answer and rate < most_per_s and len(known) < MAX_RATES:
        rate = min(2 * rate, most_per_s)
        answer = await ask(rate)
    while answer is False and rate > first_per_s / 1024 and not _any_sustained(known):
        rate /= 2
        answer = await ask(rate)
    while answer is not None and len(known) < MAX_RATES:
        low, high = _interval(known)
        if high is None or not low or high / low - 1 <= width:
            break
        answer = await ask(_between(low, high))
    for neighbour in _neighbours(known, width, most_per_s) if answer is not None else ():
        await ask(neighbour)
    return _conclude(known, width)


def _neighbours(
    known: dict[float, Judgement], width: float, most_per_s: float
) -> tuple[float, ...]:
    """Rates around the interval: a search that closes in never sees whether it went astray."""
    low, high = _interval(known)
    if high is None or not low:
        return ()
    around = (low / (1 + width), min(high * (1 + width), most_per_s))
    return tuple(float(f"{rate:.3g}") for rate in around)


def _between(low: float, high: float) -> float:
    """The geometric mean, with three digits, so that the same rates are tried again next time."""
    middle = (low * high) ** 0.5
    rounded = float(f"{middle:.3g}")
    return rounded if low < rounded < high else middle


async def _judge(trial: TrialFn, rate_per_s: float) -> Judgement:
    trials: list[Trial] = []
    votes: Counter[bool | None] = Counter()
    while max(votes.values(), default=0) < _AGREE and len(trials) < 2 * _AGREE - 1:
        made = await trial(rate_per_s)
        trials.append(made)
        votes[made.sustained] += 1
    answer, count = votes.most_common(1)[0]
    return Judgement(
        rate_per_s=rate_per_s,
        sustained=answer if count >= _AGREE else None,
        trials=tuple(trials),
    )


def _any_sustained(known: dict[float, Judgement]) -> bool:
    return any(item.sustained for item in known.values())


def _interval(known: dict[float, Judgement]) -> tuple[float, float | None]:
    """Up to where all were sustained, and from where on none was."""
    good = [rate for rate, item in known.items() if item.sustained]
    bad = [rate for rate, item in known.items() if not item.sustained]
    low = max((rate for rate in good if all(rate < other for other in bad)), default=0.0)
    high = min((rate for rate in bad if all(rate > other for other in good)), default=None)
    return low, high


def _conclude(known: dict[float, Judgement], width: float) -> Capacity:
    low, high = _interval(known)
    judgements = tuple(known[rate] for rate in sorted(known))
    because = ""
    silent = [item for item in judgements if item.sustained is None]
    if silent:
        told = silent[0].trials[-1].why or "its trials do not agree"
        because = f"at {silent[0].rate_per_s:,.0f}/s: {told}"
    elif not low:
        because = "no rate was sustained"
        if judgements and judgements[0].trials:
            because += f"; at {judgements[0].rate_per_s:,.0f}/s: {judgements[0].trials[-1].why}"
    elif high is None:
        because = f"every rate up to {low:,.0f}/s was sustained: begin higher"
    elif high / low - 1 > width:
        because = f"the interval is {high / low - 1:.0%} wide, more than {width:.0%}"
    return Capacity(low_per_s=low, high_per_s=high, unknown_because=because, judgements=judgements)
