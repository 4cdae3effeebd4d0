"""Whether the head is slower than the base, or costs more: ratios and counts, never times.

A ratio (reference over yardstick, of one run) is worse if both hold: it grew by at least the least
effect of its benchmark, in the median over all pairs of a run of the head and one of the base, and
a one-sided Mann-Whitney test of the runs says that this is no chance. A count is worse if it grew:
it is the same in every run, but for what a slow machine can add, so the least of the runs is taken.
"""

import enum
import statistics

import msgspec
from scipy import stats

from tests.bench.measured import BASE, HEAD

__all__ = ["ALPHA", "LEAST_ROUNDS", "Row", "Verdict", "judge", "suspected", "worse"]

ALPHA = 0.01
LEAST_ROUNDS = 5
"""With fewer, no outcome of the test is as rare as that: 1 in 252 with five, 1 in 70 with four."""
LEAST_EFFECT = 0.10
_SAME_COUNT = 1e-9


class Verdict(enum.StrEnum):
    """What a benchmark came to, the worst first; the first two are regressions."""

    SLOWER = "SLOWER"
    MORE = "MORE"
    FASTER = "faster"
    FEWER = "fewer"
    ONLY_HEAD = "only in the head"
    ONLY_BASE = "only in the base"
    NOT_JUDGED = "not judged"
    SAME = "same"


REGRESSIONS = (Verdict.SLOWER, Verdict.MORE)


class Row(msgspec.Struct, kw_only=True):
    """One ratio or one count of a benchmark.

    Attributes:
        name: of the benchmark.
        what: ``ratio``, or which count per task.
        base: the median of the runs, of a count the least.
        change: of a ratio relative, of a count the difference.
        p: of the test for the direction in which it changed.
        least: by how much a ratio has to change before it counts.
        note: what else a reader should know.
    """

    name: str
    what: str
    verdict: Verdict
    base: float | None = None
    head: float | None = None
    change: float | None = None
    p: float | None = None
    least: float | None = None
    note: str = ""


def judge(series, only=None):
    """A row for each ratio and each count, the worst first.

    Args:
        series: the runs.
        only: names of benchmarks; all without it.
    """
    rows = []
    for name in series.names if only is None else only:
        base, head = series.of(BASE, name), series.of(HEAD, name)
        if not base and not head:
            rows.append(_row(name, "", Verdict.NOT_JUDGED, note="not in every run of either side"))
        elif not base:
            note = "fails on the base" if name in series.failed[BASE] else ""
            rows.append(_row(name, "", Verdict.ONLY_HEAD, note=note))
        elif not head:
            rows.append(_row(name, "", Verdict.ONLY_BASE))
        else:
            rows += _rows_of(name, base, head)
    order = list(Verdict)
    return sorted(rows, key=lambda row: order.index(row.verdict))


def worse(rows):
    """Those that fail a comparison."""
    return [row for row in rows if row.verdict in REGRESSIONS]


def suspected(rows):
    """Names of the benchmarks whose ratio grew by enough, be it by chance.

    A process can be slower than its like for all its life, by where its memory lies: one such
    among five hides a change from the test. So this is not asked here, but of more runs.
    """
    return [row.name for row in rows if row.what == "ratio" and row.change >= row.least]


def _row(name, what, verdict, **fields):
    return Row(name=name, what=what, verdict=verdict, **fields)


def _rows_of(name, base, head):
    counts = [*_counts(name, base, head)]
    ratios = {BASE: [item.ratio for item in base], HEAD: [item.ratio for item in head]}
    if None not in (*ratios[BASE], *ratios[HEAD]):
        least = head[0].extra_info.least_effect
        return [
            _ratio(name, ratios[BASE], ratios[HEAD], LEAST_EFFECT if least is None else least),
            *counts,
        ]
    if counts:
        return counts
    return [_row(name, "", Verdict.NOT_JUDGED, note="it has no yardstick")]


def _ratio(name, base, head, least):
    # Hodges and Lehmann's estimate, which belongs to the test: the median over all pairs of runs.
    change = statistics.median(mine / other for mine in head for other in base) - 1
    slower = change >= 0
    test = stats.mannwhitneyu(
        head, base, alternative="greater" if slower else "less", method="exact"
    )
    p = float(test.pvalue)
    verdict = Verdict.SAME
    # As much faster as would be slower the other way round.
    if p <= ALPHA and (change >= least if slower else 1 / (1 + change) - 1 >= least):
        verdict = Verdict.SLOWER if slower else Verdict.FASTER
    return _row(
        name,
        "ratio",
        verdict,
        base=statistics.median(base),
        head=statistics.median(head),
        change=change,
        p=p,
        least=least,
    )


def _counts(name, base, head):
    names = dict.fromkeys(key for item in (*base, *head) for key in item.extra_info.counts)
    for what in names:
        found = {
            side: [item.extra_info.counts[what] for item in items if what in item.extra_info.counts]
            for side, items in ((BASE, base), (HEAD, head))
        }
        if not all(found.values()):
            side = Verdict.ONLY_HEAD if found[HEAD] else Verdict.ONLY_BASE
            yield _row(name, what, side)
            continue
        before, after = min(found[BASE]), min(found[HEAD])
        verdict = Verdict.SAME
        if abs(after - before) > _SAME_COUNT:
            verdict = Verdict.MORE if after > before else Verdict.FEWER
        varied = [side for side, values in found.items() if max(values) > min(values)]
        yield _row(
            name, what, verdict, base=before, head=after, change=after - before,
            note=f"not the same in all runs of the {' and the '.join(varied)}" if varied else "",
        )  # fmt: skip
