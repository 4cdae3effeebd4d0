"""What the frames of a run show, in one sentence for each plot."""

import pandas as pd

from hookbench.clock import NS_PER_MS
from hookbench.report.frames import RunFrames

__all__ = [
    "depth_finding",
    "format_ms",
    "latency_finding",
    "repeat_finding",
    "throughput_finding",
]

_TALL = 3.0
"""How many times the others' p99 a phase must have to be called the slowest."""
_GROWN = 10
"""A depth below this is that of a queue that is kept empty."""


def format_ms(value_ns: float) -> str:
    """Milliseconds in as many digits as are worth reading."""
    value = value_ns / NS_PER_MS
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"  # noqa: PLR2004 - two digits each


def throughput_finding(frames: RunFrames) -> str:
    """Rates over the phases, and the peak of what was done again."""
    tasks = frames.tasks
    accepted, done = int(tasks["accepted"].sum()), int((tasks["done_count"] > 0).sum())
    if not accepted and not done:
        return "Nothing was accepted"
    text = f"{accepted:,} tasks accepted, {done:,} done"
    seconds = frames.phases["end_s"].max() if len(frames.phases) else 0.0
    if seconds > 0:
        text = (
            f"{accepted / seconds:,.0f} tasks/s accepted on average; {done:,} of {accepted:,} done"
        )
    repeats = frames.repeats
    if len(repeats):
        again = frames.timeline(frames.bin_freq())["repeated_per_s"].max()
        text += f"; {len(repeats):,} done again, up to {again:,.0f}/s"
    return text


def latency_finding(frames: RunFrames) -> str:
    """The phase with the slowest tail against the others."""
    finished = frames.synthetic.dropna(subset=["end_to_end_ns"])
    if finished.empty:
        return "No latency: no synthetic task was done"
    values = finished["end_to_end_ns"].astype("float64")
    tails = values.groupby(finished["phase"], observed=True).quantile(0.99).sort_values()
    worst = str(tails.index[-1])
    if len(tails) == 1:
        return f"{worst}: 99 % of tasks done within {format_ms(tails.iloc[-1])} ms"
    others = f"{format_ms(tails.iloc[0])} to {format_ms(tails.iloc[-2])} ms"
    if tails.iloc[-1] < _TALL * tails.iloc[-2]:
        return (
            f"p99 end-to-end between {format_ms(tails.iloc[0])} and {format_ms(tails.iloc[-1])} ms"
        )
    if len(tails) == 2:  # noqa: PLR2004 - one other
        others = f"{format_ms(tails.iloc[0])} ms"
    return f"{worst} has the slowest tail: p99 {format_ms(tails.iloc[-1])} ms, elsewhere {others}"


def depth_finding(frames: RunFrames) -> str:
    """How far Redis grew and where, and what was replayed out of the stream."""
    pending = frames.samples["redis_pending"]
    parts = []
    if pending.notna().any():
        grown = _grown_in(frames, pending)
        if grown is not None:
            parts.append(grown)
        elif pending.max() == 0:
            parts.append("Redis list empty at every sample")
        else:
            parts.append(f"Redis list at most {int(pending.max()):,} tasks long")
    replayed = frames.repeats[frames.repeats["replayed"]]
    if len(replayed):
        first = replayed["row"].astype("str").value_counts().index[0]
        parts.append(f"{len(replayed):,} tasks replayed on entering {first.removeprefix('→ ')}")
    unread = frames.samples["stream_unread"]
    if not len(replayed) and unread.notna().any():
        parts.append(f"up to {int(unread.max()):,} in the stream not delivered")
    if not parts:
        return "No depth was sampled"
    text = "; ".join(parts)
    return text[0].upper() + text[1:]


def _grown_in(frames: RunFrames, pending: pd.Series) -> str | None:
    """The phase in which the Redis list grew most, if it grew and did not shrink again."""
    times_s = frames.samples["time_s"]
    best: tuple[int, int, str] | None = None
    for row in frames.phases.itertuples():
        inside = pending[(times_s >= row.start_s) & (times_s < row.end_s)].dropna()
        if len(inside) and (best is None or inside.iloc[-1] - inside.iloc[0] > best[0]):
            best = (int(inside.iloc[-1] - inside.iloc[0]), int(inside.max()), row.phase)
    if best is None or best[0] < _GROWN or pending.dropna().iloc[-1] < best[1] / 2:
        return None
    return f"Redis list grew to {int(pending.max()):,} copies in {best[2]}"


def repeat_finding(frames: RunFrames) -> str:
    """How many tasks were done again, and where most of them."""
    repeats = frames.repeats
    if repeats.empty:
        done = int((frames.tasks["done_count"] > 0).sum())
        return f"None of {done:,} tasks was done twice"
    counts = repeats["row"].astype("str").value_counts()
    name = str(counts.index[0])
    where = f"on entering {name.removeprefix('→ ')}" if name.startswith("→") else f"in {name}"
    if len(counts) == 1:
        return f"{len(repeats):,} repeated executions, all {where}"
    return f"{len(repeats):,} repeated executions, {counts.iloc[0]:,} of them {where}"
