"""Whether NEW is slower than BASE: two sets of stored runs, metric by metric and phase by phase.

What is right here, and why:

**The unit is a block of time, not a task.** Tasks of one second share its queue and its stalls; a
test over all tasks takes a million of them for a million observations, and calls everything
significant. A phase is cut into blocks of a second or more; the start of the first phase is left
out, and a phase is only compared with itself. A percentile is that of the histograms of all blocks
of a side, added up. How far chance moves it is found by drawing blocks anew, those of a run from
that run (``stats.draw_blocks``), so a stall in one block makes a percentile as uncertain as it is.
Blocks that follow each other are alike where a machine has busy and quiet times: the variance is
widened by their own autocorrelation (``stats.dependence_factor``).

**Runs differ from each other by more than their blocks tell.** With repeats this is seen: the
variance is the larger one of that of the blocks and that of whole runs, pooled over both sides.

**A busy machine is not slow code.** The generator notes how late each put began, and it does next
to nothing else: its schedule lag is how long the machine takes to wake a process, and every task
waits for that some times on its way. On two shared cores it explains most of what the median of
the same code differs by from run to run. So it is a covariate (analysis of covariance): how much a
latency grows with the lag is estimated between the blocks of each run, where no difference of code
can be in it, and latencies are compared at equal lag; how unsure that slope is widens the
interval. The price: a change that makes the *producer's process* busy shows in the lag, and that
part is not seen in latencies (it is in ``cpu_producer``, and with ``level=False``).

**What is tested** is not whether there is any difference, which there always is, but whether it is
larger than ``min_effect`` and ``min_ms``: a t test of the logarithm of NEW / BASE against that, for
both sides (``stats.p_beyond``), corrected for the number of metrics and phases (``stats.holm``). If
nothing has changed, the chance that anything at all is called significant is 5 % at the most. The
interval is that of the metric on its own, at 95 %.

**Not significant** means that nothing was shown, not that both are the same: ``detectable`` says
from which change on it would have been. **Unknown** means that there is too little to say even
that, and why.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from hookbench.errors import ResultsError, SettingError
from hookbench.results.blocks import phase_blocks
from hookbench.results.comparable import obstacles
from hookbench.results.differences import (
    Difference,
    Differences,
    Side,
    phase_differences,
    run_difference,
)
from hookbench.results.metrics import METRICS
from hookbench.results.regressions import Judgement, Regression, judge
from hookbench.results.run import Run
from hookbench.results.stats import (
    ALPHA,
    MIN_REPEATS,
    MedianInterval,
    holm,
    median_interval,
    p_beyond,
    t_of,
)

__all__ = ["MIN_EFFECT", "MIN_MS", "WARM_UP_S", "Change", "Comparison", "answer_changes", "compare"]

WORSE, BETTER, SAME, UNKNOWN = "worse", "better", "not significant", "unknown"
WHOLE_RUN = "whole run"
WARM_UP_S = 3.0
"""Processes start, connect, and work off what was due meanwhile."""
MIN_EFFECT = 0.05
MIN_MS = 0.25
"""libuv's timers go by whole milliseconds: part of one is when a process started, not its code."""
_MAX_LAG_MS = 50.0
_MOST = {"min_effect": 10.0, "min_ms": 60_000.0, "warm_up_s": 86_400.0}
_LONGEST_LOG = 10.0


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one phase; changes are shares, 0.15 for 15 % more.

    Attributes:
        phase: its name, with a number where it is in the timeline several times; or the whole run.
        metric, unit: see ``METRICS``.
        base, new: values of all runs of a side together; ``None`` for none.
        base_repeats, new_repeats: medians of the runs, with an interval from three on.
        measured: NEW against BASE; ``None`` if unknown.
        change, low, high: the same at equal schedule lag, and its 95 % interval.
        detectable: from which change on the answer would have been worse or better.
        p: corrected for the number of metrics.
        answer: ``worse``, ``better``, ``not significant`` or ``unknown``.
        reason: why it is unknown.
        lags_ms: the same percentile of the schedule lag of BASE and NEW; empty for no latency.
    """

    phase: str
    metric: str
    unit: str
    answer: str
    reason: str = ""
    lags_ms: list[float] = []
    base: float | None = None
    new: float | None = None
    base_repeats: MedianInterval | None = None
    new_repeats: MedianInterval | None = None
    measured: float | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    detectable: float | None = None
    p: float | None = None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two sides, compared.

    Attributes:
        base, new: ids of the runs.
        min_effect, min_ms: the smallest change that matters, a share, and of a latency in ms.
        warm_up_s: what was left out of the first phase.
        forced: differences between the runs that were overridden; empty for comparable ones.
        notes: what the reader has to know.
        changes: by phase and metric.
        judgements: of the thresholds.
    """

    base: list[str]
    new: list[str]
    min_effect: float
    min_ms: float
    warm_up_s: float
    forced: list[str]
    notes: list[str]
    changes: list[Change]
    judgements: list[Judgement] = []

    @property
    def significant(self) -> list[Change]:
        """What is worse or better."""
        return [change for change in self.changes if change.answer in (WORSE, BETTER)]


def compare(
    base: Sequence[Run],
    new: Sequence[Run],
    *,
    min_effect: float = MIN_EFFECT,
    min_ms: float = MIN_MS,
    warm_up_s: float = WARM_UP_S,
    regressions: Sequence[Regression] = (),
    level: bool = True,
    force: bool = False,
    seed: int = 0,
) -> Comparison:
    """Compare runs, see the docstring of the module.

    Args:
        base: one run or more, repeats of the same scenario.
        new: the same of the other code.
        min_effect: the smallest change that matters, a share: 0.05 is 5 %.
        min_ms: the smallest difference of a latency that matters.
        warm_up_s: how much of the first phase is left out.
        regressions: thresholds, each judged as its own least difference, for one side.
        level: compare latencies at equal schedule lag; else as they were measured.
        force: compare runs that are not comparable all the same.
        seed: of what is drawn.

    Raises:
        ResultsError: the runs are not comparable; the text names each difference.
        SettingError: a run is given twice, or a number cannot be used.
    """
    _check(base, new, min_effect=min_effect, min_ms=min_ms, warm_up_s=warm_up_s)
    labelled = [("BASE", run) for run in base] + [("NEW", run) for run in new]
    manifests = [(f"{side} {run.manifest.run}", run.manifest) for side, run in labelled]
    forced = obstacles(manifests)
    for (label, _manifest), (_side, run) in zip(manifests, labelled, strict=True):
        forced += [f"{label} has a damaged ledger: {line}" for line in run.damage]
    if forced and not force:
        lines = "\n".join(f"  {line}" for line in forced)
        raise ResultsError(f"these runs are not comparable (--force compares them):\n{lines}")
    rng = np.random.default_rng(seed)
    found, alone = _differences(base, new, warm_up_s, rng, level=level, min_ms=min_ms)
    notes = _notes(base, new)
    notes += [f"{key} is in one side only, and was not compared" for key in alone]
    return Comparison(
        base=[run.manifest.run for run in base],
        new=[run.manifest.run for run in new],
        min_effect=min_effect,
        min_ms=min_ms,
        warm_up_s=warm_up_s,
        forced=forced,
        notes=notes,
        changes=answer_changes(found, min_effect, seed),
        judgements=judge(found, regressions),
    )


def _check(base: Sequence[Run], new: Sequence[Run], **numbers: float) -> None:
    if not base or not new:
        raise SettingError("nothing to compare: give a run for BASE and one for NEW")
    runs = (*base, *new)
    for place, run in enumerate(runs):
        if run.folder in [other.folder for other in runs[:place]]:
            raise SettingError(f"run {run.manifest.run} is given twice: a repeat is another run")
    for name, value in numbers.items():
        if not 0 <= value <= _MOST[name]:
            raise SettingError(f"{name.replace('_', ' ')} {value:g}: use 0 to {_MOST[name]:g}")


def _differences(
    base: Sequence[Run],
    new: Sequence[Run],
    warm_up_s: float,
    rng: np.random.Generator,
    *,
    level: bool,
    min_ms: float,
) -> tuple[Differences, list[str]]:
    """Every metric, and the phases that not every run has."""
    blocks = [[phase_blocks(run, warm_up_s) for run in side] for side in (base, new)]
    every = [phases for side in blocks for phases in side]
    keys = list(dict.fromkeys(key for phases in every for key in phases))
    several = {name for name, number in keys if number > 1}
    lag_ms = max(_max_lag_ms(run) for run in (*base, *new))
    found: Differences = {}
    alone = []
    for key in keys:
        name = f"{key[0]} ({key[1]})" if key[0] in several else key[0]
        if not all(key in phases for phases in every):
            alone.append(name)
            continue
        old_side, new_side = (
            Side(label, [phases[key] for phases in side], lag_ms)
            for label, side in zip(("BASE", "NEW"), blocks, strict=True)
        )
        for metric, item in phase_differences(
            old_side, new_side, rng, level=level, min_ms=min_ms
        ).items():
            found[name, metric] = item
    for metric in [name for name, item in METRICS.items() if item.of_run]:
        role = METRICS[metric].what
        before, after = ([_cpu_of(run, role) for run in side] for side in (base, new))
        if np.isfinite([*before, *after]).any():
            found[WHOLE_RUN, metric] = run_difference(before, after)
    return found, alone


def _max_lag_ms(run: Run) -> float:
    return float(run.manifest.settings.get("max_lag_ms", _MAX_LAG_MS))


def _cpu_of(run: Run, role: str) -> float:
    """CPU seconds per million tasks of the processes of a role; NaN if there are none."""
    resources = run.resources
    mine = resources[resources["role"].str.split("-").str[0] == role]
    return math.nan if mine.empty else float(mine["cpu_s_per_million"].sum(skipna=False))


def answer_changes(found: Differences, min_effect: float, seed: int = 0) -> list[Change]:
    """What each difference says, corrected for their number."""
    least = math.log1p(min_effect)
    known = {key: item for key, item in found.items() if not item.unknown}
    p_values = [
        p_beyond(item.change, max(least, item.least), item.error, item.degrees)
        for item in known.values()
    ]
    corrected = dict(zip(known, holm(p_values), strict=True))
    changes = []
    for key, item in found.items():
        change = Change(
            phase=key[0],
            metric=key[1],
            unit=METRICS[key[1]].unit,
            answer=UNKNOWN,
            reason=item.unknown,
            base=item.base,
            new=item.new,
            base_repeats=_median(item.base_repeats, seed),
            new_repeats=_median(item.new_repeats, seed),
        )
        if not item.unknown:
            chance = ALPHA / len(known)
            change = _with_answer(change, item, least, chance=chance, p=corrected[key])
        changes.append(change)
    return changes


def _with_answer(
    change: Change, item: Difference, least: float, *, chance: float, p: float
) -> Change:
    """What a difference says, with its corrected p."""
    answer = SAME
    if p < ALPHA:
        worse = (item.change > 0) == METRICS[change.metric].more_is_worse
        answer = WORSE if worse else BETTER
    far = t_of(ALPHA / 2, item.degrees) * item.error
    return msgspec.structs.replace(
        change,
        answer=answer,
        lags_ms=item.lags_ms,
        measured=math.expm1(item.measured),
        change=math.expm1(item.change),
        low=math.expm1(item.change - far),
        high=_expm1(item.change + far),
        detectable=_expm1(max(least, item.least) + t_of(chance, item.degrees) * item.error),
        p=p,
    )


def _expm1(value: float) -> float | None:
    """``None`` for what is too large to be a figure."""
    return math.expm1(value) if value < _LONGEST_LOG else None


def _median(values: Sequence[float], seed: int) -> MedianInterval | None:
    finite = [value for value in values if math.isfinite(value)]
    return median_interval(finite, seed=seed) if finite else None


def _notes(base: Sequence[Run], new: Sequence[Run]) -> list[str]:
    notes = []
    if len(base) + len(new) == 2:  # noqa: PLR2004 - one of each
        notes.append(
            "one run on each side: how much runs of the same code differ is not known, and only"
            " the least effect and the schedule lag guard against it; give repeats, taken in turn"
        )
    elif min(len(base), len(new)) < MIN_REPEATS:
        notes.append(f"{len(base)} runs against {len(new)}: {MIN_REPEATS} of each tell more")
    if min(len(base), len(new)) > 1:
        before, after = ([run.manifest.started for run in side] for side in (base, new))
        if max(before) < min(after) or max(after) < min(before):
            notes.append(
                "all runs of one side were made before the first of the other: a machine that"
                " became slower in between is not told from the code; take them in turn"
            )
    loops = {run.manifest.settings.get("loop", "open") for run in (*base, *new)} - {"open"}
    if loops:
        notes.append(
            f"a {loops.pop()} loop: latencies count from the moment of sending, so what a stall"
            " kept from being sent is not in them"
        )
    return notes
