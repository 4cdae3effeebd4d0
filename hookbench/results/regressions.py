"""How much worse a new run may be: ``p99 +15%``.

A threshold of a load test (``load.thresholds``) is a bound of one figure; this is one of a change.
"""

import difflib
import math
import re
from collections.abc import Sequence

import msgspec

from hookbench.errors import SettingError
from hookbench.results.differences import Difference, Differences
from hookbench.results.metrics import METRICS
from hookbench.results.stats import ALPHA, holm, p_above

__all__ = ["Judgement", "Regression", "judge", "parse_regression", "parse_share"]


_TERM = re.compile(r"([A-Za-z_][\w.]*)\s*([+-])\s*(\d+(?:\.\d+)?)\s*%")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*(%?)")
_EXAMPLE = "use a metric, the direction that is worse, and percent, such as 'p99 +15%'"
_ALL = 100.0


class Regression(msgspec.Struct, frozen=True):
    """More than this is too much.

    Attributes:
        text: as it was given.
        metric: name of the metric.
        bound: logarithm of the ratio that it may change by towards the worse, 0 or more.
    """

    text: str
    metric: str
    bound: float


def parse_regression(text: str) -> Regression:
    """A threshold such as ``p99 +15%`` or ``done_per_s -10%``.

    Raises:
        SettingError: it is none; the text says why.
    """
    match = _TERM.fullmatch(text.strip())
    if match is None:
        raise SettingError(f"--fail-if {text!r}: {_EXAMPLE}")
    name, sign, number = match.groups()
    metric = METRICS.get(name)
    if metric is None:
        near = difflib.get_close_matches(name, METRICS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise SettingError(
            f"--fail-if {text!r}: no metric {name!r}; {hint}use {', '.join(METRICS)}"
        )
    worse = "+" if metric.more_is_worse else "-"
    if sign != worse:
        direction = "more" if metric.more_is_worse else "less"
        raise SettingError(
            f"--fail-if {text!r}: {direction} {name} is worse, so use '{name} {worse}{number}%'"
        )
    percent = float(number)
    if sign == "-" and percent >= _ALL:
        raise SettingError(f"--fail-if {text!r}: use less than {_ALL:g} %, which is all there is")
    return Regression(text.strip(), name, abs(math.log1p(float(f"{sign}{number}") / _ALL)))


def parse_share(text: str) -> float:
    """A share such as ``5%`` or ``0.05``.

    Raises:
        SettingError: it is none.
    """
    match = _SHARE.fullmatch(text.strip())
    if match is None:
        raise SettingError(f"--min-effect {text!r}: use percent or a share, such as 5% or 0.05")
    number, percent = match.groups()
    return float(number) / (_ALL if percent else 1)


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What a threshold came to: ``exceeded``, ``held`` or ``unknown``, and where or why."""

    threshold: str
    answer: str
    because: list[str] = []


def judge(found: Differences, regressions: Sequence[Regression]) -> list[Judgement]:
    """Each threshold in every phase: is NEW significantly worse by more than that?

    A one-sided test, corrected for all that is asked of all phases.
    """
    known = {key: item for key, item in found.items() if not item.unknown}
    asked = [
        (place, key)
        for place, item in enumerate(regressions)
        for key in known
        if key[1] == item.metric
    ]
    p_values = [_p_worse(regressions[place], known[key]) for place, key in asked]
    corrected = dict(zip(asked, holm(p_values), strict=True))
    judgements = []
    for place, item in enumerate(regressions):
        mine = [key for key in found if key[1] == item.metric]
        exceeded = [key for key in mine if corrected.get((place, key), 1.0) < ALPHA]
        because = [f"{key[0]}: {math.expm1(known[key].change):+.1%}" for key in exceeded]
        answer = "exceeded" if exceeded else "held"
        if not exceeded:
            because = [f"{key[0]}: {found[key].unknown}" for key in mine if found[key].unknown]
            because = because if mine else [f"these runs have no {item.metric}"]
            answer = "unknown" if because else answer
        judgements.append(Judgement(threshold=item.text, answer=answer, because=because))
    return judgements


def _p_worse(threshold: Regression, found: Difference) -> float:
    sign = 1 if METRICS[threshold.metric].more_is_worse else -1
    bound = max(threshold.bound, found.least)
    return p_above(sign * found.change, bound, found.error, found.degrees)
