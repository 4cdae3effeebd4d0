"""What the rounds come to: medians, ratios of one round, and the verdict on the target.

A ratio is the median, over the rounds in which both ran, of a contender's rate over that of the
best peer of its broker; the best peer is the one with the highest median.
"""

import enum
import statistics

import msgspec

__all__ = [
    "TARGETS",
    "Finding",
    "Spread",
    "Verdict",
    "best_peer",
    "measured_on_a_crash",
    "ratio",
    "ratio_to_best",
    "spread",
    "verdict",
]


class Verdict(enum.StrEnum):
    """What became of a target."""

    REACHED = "reached"
    MISSED = "MISSED"
    UNKNOWN = "unknown"


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Of the rounds that ran."""

    median: float
    low: float
    high: float
    rounds: int


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One of the reference's rows, and how many times the best peer it should be.

    Attributes:
        peers: who has to have run, or a best one is not known.
    """

    name: str
    broker: str
    times: float
    peers: tuple[str, ...]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A target, with what it came to in one sentence."""

    target: Target
    verdict: Verdict
    text: str


_NATS_PEERS = ("taskiq-nats",)
_REDIS_PEERS = ("taskiq-redis list", "taskiq-redis stream", "dramatiq", "arq", "saq", "streaq")
TARGETS = (
    Target(name="hookbench guide, jetstream", broker="nats", times=3.0, peers=_NATS_PEERS),
    Target(name="hookbench guide, redis_list", broker="redis", times=6.0, peers=_REDIS_PEERS),
    Target(name="hookbench hardened, jetstream", broker="nats", times=1.0, peers=_NATS_PEERS),
    Target(name="hookbench hardened, redis_list", broker="redis", times=1.0, peers=_REDIS_PEERS),
)
"""Of the no-op handler."""


def _ran(row, handler):
    return [rate for rate in row.rates_per_s.get(handler, []) if rate is not None]


def spread(row, handler):
    """Median, lowest and highest rate of a row; ``None`` where no round ran."""
    rates = _ran(row, handler)
    if not rates:
        return None
    return Spread(
        median=statistics.median(rates), low=min(rates), high=max(rates), rounds=len(rates)
    )


def best_peer(rows, broker, handler):
    """The peer with the highest median on a broker; ``None`` where none ran."""
    peers = [
        row
        for row in rows
        if row.contender.broker == broker and not row.contender.is_reference and _ran(row, handler)
    ]
    return max(peers, key=lambda row: spread(row, handler).median, default=None)


def ratio(row, other, handler):
    """The median ratio of the rounds in which both ran; ``None`` where there is none."""
    pairs = zip(row.rates_per_s.get(handler, []), other.rates_per_s.get(handler, []), strict=False)
    ratios = [ours / theirs for ours, theirs in pairs if ours is not None and theirs is not None]
    return statistics.median(ratios) if ratios else None


def ratio_to_best(rows, row, handler):
    """Of a row to the best peer of its broker."""
    best = best_peer(rows, row.contender.broker, handler)
    return None if best is None else ratio(row, best, handler)


def measured_on_a_crash(crashed):
    """What a kill did, in a few words: ``none lost``, ``24 lost``, ``100 wait for new tasks``."""
    if crashed is None:
        return "not measured"
    parts = [f"{crashed.lost:,} lost" if crashed.lost else "none lost"]
    if crashed.cut_off:
        parts[0] = f"{crashed.lost:,} not back when the time was up"
    if crashed.waiting > crashed.lost:
        parts.append(f"{crashed.waiting - crashed.lost:,} only when new tasks came")
    if crashed.repeated:
        parts.append(f"{crashed.repeated:,} repeated")
    return ", ".join(parts)


def verdict(report):
    """A finding for each target; unknown where a peer that it names, or a round, is missing."""
    return [_finding(report, target) for target in TARGETS]


def _finding(report, target):
    rows = {row.contender.name: row for row in report.rows}
    missing = [
        name
        for name in (target.name, *target.peers)
        if name not in rows or len(_ran(rows[name], "noop")) < report.plan.rounds
    ]
    if missing:
        text = f"{target.name}: not every round of {', '.join(missing)} ran"
        return Finding(target=target, verdict=Verdict.UNKNOWN, text=text)
    best = best_peer(report.rows, target.broker, "noop")
    times = ratio(rows[target.name], best, "noop")
    text = (
        f"{target.name}: {times:.2f} times {best.contender.name}, the best peer;"
        f" the target is {target.times:g}"
    )
    reached = Verdict.REACHED if times >= target.times else Verdict.MISSED
    return Finding(target=target, verdict=reached, text=text)
