"""The search for the highest rate that is sustained, by trials that may err.

A rate is judged by repeats: of its trials one answer has to lead by two, so one bad sample does not
decide. The answer is an interval: all rates up to its lower end were sustained, and its upper end
was not; both lead by three. Where judgements contradict each other, a higher rate sustained and a
lower one not, their rates are tried again and more of a lead is asked for; if they still do, the
interval is as wide as they lie apart.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from hookbench.errors import SettingError

__all__ = ["Capacity", "Judgement", "Trial", "TrialFn", "find_capacity"]

MAX_RATES = 40
_LEAD = 2
_MOST_TRIALS = (5, 9, 13)
"""Of a rate: at first, and each time that it is tried again."""


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
    search = _Search(trial, width=width, most_per_s=most_per_s)
    await search.bracket(first_per_s)
    while len(search.known) < MAX_RATES and await search.narrow():
        pass
    return _conclude(search.known, width)


class _Search:
    """What is known so far, and the next thing to ask."""

    def __init__(self, trial: TrialFn, *, width: float, most_per_s: float) -> None:
        self._trial = trial
        self._width = width
        self._most_per_s = most_per_s
        self._doubts: Counter[float] = Counter()
        self.known: dict[float, Judgement] = {}

    async def bracket(self, first_per_s: float) -> None:
        """Double the rate until it is not sustained, or halve it until it is."""
        rate = first_per_s
        answer = await self._ask(rate)
        while answer and rate < self._most_per_s and len(self.known) < MAX_RATES:
            rate = min(2 * rate, self._most_per_s)
            answer = await self._ask(rate)
        if any(item.sustained for item in self.known.values()):
            return
        while answer is False and rate > first_per_s / 1024:
            rate /= 2
            answer = await self._ask(rate)

    async def narrow(self) -> bool:
        """Ask about one more rate, or again about some; ``False`` if nothing is left to ask."""
        if any(item.sustained is None for item in self.known.values()):
            return False
        doubtful = self._contradicted()
        if doubtful:
            return await self._ask_again(doubtful)
        low, high = _interval(self.known)
        if high is None or not low:
            return False
        if high / low - 1 > self._width:
            await self._ask(_between(low, high))
            return True
        new = [
            rate
            for rate in _neighbours(low, high, self._width, self._most_per_s)
            if rate not in self.known
        ]
        for rate in new:
            await self._ask(rate)
        unsure = [rate for rate in (low, high) if not self._doubts[rate]]
        return bool(new) or await self._ask_again(unsure)

    async def _ask(self, rate_per_s: float) -> bool | None:
        self.known[rate_per_s] = await self._judge(rate_per_s, ())
        return self.known[rate_per_s].sustained

    async def _ask_again(self, rates_per_s: Sequence[float]) -> bool:
        asked = False
        for rate in rates_per_s:
            if self._doubts[rate] + 1 < len(_MOST_TRIALS):
                self._doubts[rate] += 1
                self.known[rate] = await self._judge(rate, self.known[rate].trials)
                asked = True
        return asked

    def _contradicted(self) -> list[float]:
        """Rates that were sustained above one that was not, and the other way round."""
        good = [rate for rate, item in self.known.items() if item.sustained]
        bad = [rate for rate, item in self.known.items() if not item.sustained]
        if not good or not bad or max(good) < min(bad):
            return []
        return sorted(rate for rate in self.known if min(bad) <= rate <= max(good))

    async def _judge(self, rate_per_s: float, before: tuple[Trial, ...]) -> Judgement:
        doubts = self._doubts[rate_per_s]
        trials = list(before)
        while len(trials) < _MOST_TRIALS[doubts] and _lead(trials) < _LEAD + doubts:
            trials.append(await self._trial(rate_per_s))
        answer, count = Counter(item.sustained for item in trials).most_common(1)[0]
        return Judgement(
            rate_per_s=rate_per_s,
            sustained=answer if count > len(trials) / 2 else None,
            trials=tuple(trials),
        )


def _lead(trials: Sequence[Trial]) -> int:
    """Of the answer that most of the trials gave, over the next one."""
    counts = sorted(Counter(item.sustained for item in trials).values(), reverse=True)
    first, second, *_others = (*counts, 0, 0)
    return first - second


def _neighbours(low: float, high: float, width: float, most_per_s: float) -> tuple[float, ...]:
    """Rates around the interval: a search that closes in never sees whether it went astray."""
    around = (low / (1 + width), min(high * (1 + width), most_per_s))
    return tuple(float(f"{rate:.3g}") for rate in around)


def _between(low: float, high: float) -> float:
    """The geometric mean, with three digits, so that the same rates are tried again next time."""
    middle = (low * high) ** 0.5
    rounded = float(f"{middle:.3g}")
    return rounded if low < rounded < high else middle


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
        said = [item for item in silent[0].trials if item.sustained is None]
        told = said[-1].why if said else "its trials do not agree"
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
