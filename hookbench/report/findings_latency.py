"""What the latencies of one or several runs show, in one sentence for each plot."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from hookbench.report.findings import format_ms
from hookbench.report.labels import run_labels
from hookbench.results.run import Run

__all__ = [
    "Curve",
    "ecdf_finding",
    "latency_curves",
    "latency_over_time_finding",
    "percentile_finding",
    "value_at",
]

_WHAT = {"end_to_end": "end-to-end", "enqueue": "enqueue"}
_QUIET_FACTOR = 2.0
"""A longer stretch with a p99 above so many times the median of the run's is worth a word."""


class Curve(NamedTuple):
    """The distribution of one group of one run.

    Attributes:
        run: the number of the run in the sequence.
        keys: of the group: ``{"queue": "jetstream"}``.
        frame: as ``Run.distributions`` has it.
        label: of the group, and of the run where another run has the same group.
        alone: whether no two curves are of the same group.
    """

    run: int
    keys: dict[str, str]
    frame: pd.DataFrame
    label: str
    alone: bool


def latency_curves(runs: Sequence[Run], by: str | Sequence[str], what: str) -> list[Curve]:
    """The distributions of every group of every run, in their order.

    Raises:
        SettingError: no run, or no such group or latency.
    """
    names = run_labels(runs)
    groups = [
        (number, keys, frame)
        for number, run in enumerate(runs)
        for keys, frame in run.distributions(by, what=what)
    ]
    texts = [", ".join(str(value) for value in keys.values()) for _run, keys, _frame in groups]
    alone = all(texts) and len(set(texts)) == len(texts)
    found = []
    for (number, keys, frame), group in zip(groups, texts, strict=True):
        name = names[number]
        label = group if alone else ", ".join(part for part in (group, name) if part)
        named = {key: str(value) for key, value in keys.items()}
        found.append(Curve(number, named, frame, label, alone=alone))
    return found


def value_at(frame: pd.DataFrame, percentile: float) -> float:
    """The ns that so many percent of a distribution stay at or below."""
    place = int(np.searchsorted(frame["percentile"].to_numpy(), percentile - 1e-9))
    return float(frame["value_ns"].iloc[min(place, len(frame) - 1)])


def percentile_finding(curves: Sequence[Curve], what: str) -> str:
    """The p99 of the fastest and of the slowest curve, and how far they are apart."""
    if not curves:
        return f"No {_WHAT[what]} latency: no synthetic task has one"
    return _compared(curves, 99.0, f"p99 {_WHAT[what]}")


def ecdf_finding(curves: Sequence[Curve], what: str) -> str:
    """Within what time half of the tasks of the fastest and of the slowest curve were done."""
    if not curves:
        return f"No {_WHAT[what]} latency: no synthetic task has one"
    done = "done" if what == "end_to_end" else "accepted"
    return _compared(curves, 50.0, f"half of the tasks {done} within")


def _compared(curves: Sequence[Curve], percentile: float, what: str) -> str:
    values = sorted(
        ((value_at(curve.frame, percentile), curve.label) for curve in curves),
        key=lambda item: item[0],
    )
    (low, fastest), (high, slowest) = values[0], values[-1]
    text = what if what.startswith("p99") else what[0].upper() + what[1:]
    if len(values) == 1:
        return f"{fastest}: {what} {format_ms(high)} ms"
    if low <= 0 or format_ms(low) == format_ms(high):
        return f"{text} {format_ms(low)} to {format_ms(high)} ms everywhere"
    times = f"{high / low:.1f}" if high / low < 10 else f"{high / low:,.0f}"  # noqa: PLR2004
    return (
        f"{text} {format_ms(low)} ms ({fastest}) to {format_ms(high)} ms ({slowest}), {times} times"
    )


def latency_over_time_finding(run: Run, timeline: pd.DataFrame) -> str:
    """The worst bin, in which phase and fault it lies, and what p99 is as a rule."""
    done = timeline[timeline["p99_ns"].notna()] if len(timeline) else timeline
    if done.empty:
        return "No latency: no synthetic task was done"
    usual, worst = done["p99_ns"].median(), done.loc[done["p99_ns"].idxmax()]
    if worst["p99_ns"] < _QUIET_FACTOR * usual:
        return f"p99 steady at {format_ms(usual)} ms, {format_ms(worst['p99_ns'])} ms at most"
    bound = _QUIET_FACTOR * usual
    peaks = _stretches(done["p99_ns"].to_numpy() > bound)
    time_s = float(worst["time_s"])
    where = _phase_at(run.phases, time_s)
    highest = f"{format_ms(worst['p99_ns'])} ms for tasks due at {time_s:,.0f} s{where}"
    text = f"p99 {format_ms(usual)} ms as a rule, "
    if peaks == 1:
        return f"{text}{highest}"
    return f"{text}above {format_ms(bound)} ms {peaks} times: up to {highest}"


def _stretches(above: npt.NDArray[np.bool_]) -> int:
    return sum(1 for value, _run in itertools.groupby(above.tolist()) if value)


def _phase_at(phases: pd.DataFrame, time_s: float) -> str:
    inside = phases[(phases["start_s"] <= time_s) & (phases["end_s"] > time_s)]
    return f", in {inside['phase'].iloc[0]}" if len(inside) else ""
