"""What the run of a run show, in one sentence for each plot."""

import pandas as pd

from hookbench.clock import NS_PER_MS
from hookbench.results.run import Run

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


def throughput_finding(run: Run) -> str:
    """Rates over the phases, and the peak of what was done again."""
    accepted, done = run.totals["accepted"], run.totals["done"]
    if not accepted and not done:
        return "Nothing was accepted"
    text = f"{accepted:,} tasks accepted, {done:,} done"
    seconds = run.phases["end_s"].max() if len(run.phases) else 0.0
    if seconds > 0:
        text = (
            f"{accepted / seconds:,.0f} tasks/s accepted on average; {done:,} of {accepted:,} done"
        )
    if superseded := run.totals["superseded"]:
        text += f", {superseded:,} superseded"
    repeats = len(run.repeats)
    if repeats:
        again = run.timeline(run.bin_freq())["repeated_per_s"].max()
        text += f"; {repeats:,} done again, up to {again:,.0f}/s"
    return text


def latency_finding(run: Run) -> str:
    """The phase with the slowest tail against the others."""
    found = run.latency("phase")
    if found.empty:
        return "No latency: no synthetic task was done"
    tails = found.set_index("phase")["p99_ns"].sort_values()
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


def depth_finding(run: Run) -> str:
    """How far Redis grew and where, and what was replayed out of the stream."""
    pending = run.samples["redis_pending"]
    parts = []
    if pending.notna().any():
        grown = _grown_in(run, pending)
        if grown is not None:
            parts.append(grown)
        elif pending.max() == 0:
            parts.append("Redis list empty at every sample")
        else:
            parts.append(f"Redis list at most {int(pending.max()):,} tasks long")
    replayed = run.repeats[run.repeats["replayed"]]
    if len(replayed):
        first = replayed["row"].astype("str").value_counts().index[0]
        parts.append(f"{len(replayed):,} tasks replayed on entering {first.removeprefix('→ ')}")
    unread = run.samples["stream_unread"]
    if not len(replayed) and unread.notna().any():
        parts.append(f"up to {int(unread.max()):,} in the stream not delivered")
    if not parts:
        return "No depth was sampled"
    text = "; ".join(parts)
    return text[0].upper() + text[1:]


def _grown_in(run: Run, pending: pd.Series) -> str | None:
    """The phase in which the Redis list grew most, if it grew and did not shrink again."""
    times_s = run.samples["time_s"]
    best: tuple[int, int, str] | None = None
    for row in run.phases.itertuples():
        inside = pending[(times_s >= row.start_s) & (times_s < row.end_s)].dropna()
        if len(inside) and (best is None or inside.iloc[-1] - inside.iloc[0] > best[0]):
            best = (int(inside.iloc[-1] - inside.iloc[0]), int(inside.max()), row.phase)
    if best is None or best[0] < _GROWN or pending.dropna().iloc[-1] < best[1] / 2:
        return None
    return f"Redis list grew to {int(pending.max()):,} copies in {best[2]}"


def repeat_finding(run: Run) -> str:
    """How many tasks were done again, and where most of them."""
    repeats = run.repeats
    if repeats.empty:
        return f"None of {run.totals['done']:,} tasks was done twice"
    counts = repeats["row"].astype("str").value_counts()
    name = str(counts.index[0])
    where = f"on entering {name.removeprefix('→ ')}" if name.startswith("→") else f"in {name}"
    if len(counts) == 1:
        return f"{len(repeats):,} repeated executions, all {where}"
    return f"{len(repeats):,} repeated executions, {counts.iloc[0]:,} of them {where}"
