"""What a run shows: the row of the consumers in Locust's tables, and the account at the end."""

import re
import time

from _figures import percentile_ms
from _protocol import Histogram, RunAccount
from _run_options import RunOptions
from locust.stats import RequestStats, StatsEntry

from hookbench.clock import NS_PER_MS, NS_PER_S
from hookbench.load.thresholds import parse_thresholds

__all__ = ["ConsumeRow", "account_lines", "broken_thresholds", "entry_of"]

LAG_BOUND_NS = 50 * NS_PER_MS
"""Schedule lag (p99) above which the users do not keep the rate that was asked for."""


_END_TO_END = re.compile(r"p[\d.]+")


class ConsumeRow:
    """Tasks done and their end-to-end latency, beside the total and not in it."""

    def __init__(self, stats: RequestStats, queue: str) -> None:
        self._stats = stats
        self._key = (f"{queue} end to end", "CONSUME")

    def add(self, done: Histogram) -> None:
        """Add the tasks of a pulse."""
        if done.count:
            self._stats.entries[self._key].extend(self._entry(done))

    def settle(self, done: Histogram) -> None:
        """Replace what was followed live by what the ledger holds in the end."""
        row = self._stats.entries[self._key]
        late = done.count - row.num_requests
        moments = dict(row.num_reqs_per_sec)
        row.reset()
        if not done.count:
            return
        entry = self._entry(done)
        entry.num_reqs_per_sec.clear()
        row.extend(entry)
        row.num_reqs_per_sec.update(moments)
        row.num_reqs_per_sec[int(time.time())] += max(0, late)

    def _entry(self, done: Histogram) -> StatsEntry:
        return entry_of(self._stats, self._key, done)


def entry_of(stats: RequestStats, key: tuple[str, str], found: Histogram) -> StatsEntry:
    """A row of Locust's with these samples, all of this second, to extend another one with."""
    now_s = time.time()
    entry = StatsEntry(stats, *key)
    entry.num_requests = found.count
    entry.total_response_time = found.total_ms
    entry.min_response_time = found.min_ms
    entry.max_response_time = found.max_ms
    entry.response_times.update(found.buckets)
    entry.num_reqs_per_sec[int(now_s)] = found.count
    entry.last_request_timestamp = now_s
    return entry


def account_lines(run: str, options: RunOptions, account: RunAccount) -> list[str]:
    """The account for a person."""
    loop = f"open loop, {options.rate_per_s:g}/s per user" if options.rate_per_s else "closed loop"
    left = ", ".join(f"{count:,} {place}" for place, count in account.left.items())
    lines = [
        f"run         {run}  {_what(options)}",
        f"            design {options.design}  {loop}",
        f"published   {account.published:,}  {_times(account.publish_ns)}{_unsent(account)}",
        f"consumed    {account.consumed:,}  {_times(account.end_to_end_ns)}{_repeats(account)}",
        f"left        {account.left_total:,}{f' ({left})' if left else ''}",
        f"lost        {account.lost:,}",
        f"send        {_times(account.send_ns)} to the acknowledgement",
    ]
    if options.rate_per_s and account.lag_ns is not None:
        behind = account.lag_ns["p99"] > LAG_BOUND_NS
        note = f": OVER {LAG_BOUND_NS // NS_PER_MS} ms, the users did not keep the rate"
        lines.append(f"lag         {_times(account.lag_ns)} behind the schedule{note * behind}")
    lines += _phase_lines(account)
    lines += _clock_lines(account)
    lines += [f"why         {text}" for text in account.findings]
    lines += [f"doubt       {text}" for text in account.doubts]
    lines += [f"FAILED      {text}" for text in broken_thresholds(options, account)]
    lines.append(f"account     {_verdict(account)}")
    return lines


def _what(options: RunOptions) -> str:
    if options.phases:
        return f"timeline {options.phases}"
    return f"queue {options.queue} (phase {options.queue.phase.label})"


def _phase_lines(account: RunAccount) -> list[str]:
    """One for each step of a timeline, by when the tasks were put."""
    one = len(account.phases) == 1
    return (
        []
        if one
        else [
            f"{item.phase:<11} {item.published:,} published, {item.consumed:,} consumed,"
            f" {item.lost:,} lost, {item.redelivered:,} redelivered  {_times(item.end_to_end_ns)}"
            for item in account.phases
        ]
    )


def _clock_lines(account: RunAccount) -> list[str]:
    """How far the times of other machines may be off, which is the error of what spans two."""
    lines = [
        f"clock       {item.worker}: {abs(item.offset_ns) / NS_PER_S:,.6f} s"
        f" {'behind' if item.offset_ns > 0 else 'ahead'}, known to"
        f" {item.error_ns / NS_PER_MS:.2f} ms"
        for item in account.clocks
    ]
    if account.clocks:
        worst_ms = max(item.error_ns for item in account.clocks) / NS_PER_MS
        lines.append(
            f"end to end  up to {worst_ms:.2f} ms off; {account.negative:,} of"
            f" {account.done.count:,} are negative"
        )
    return lines


def broken_thresholds(options: RunOptions, account: RunAccount) -> list[str]:
    """What is beyond a threshold, one text each."""
    values: dict[str, float] = {
        "lost": account.lost,
        "left": account.left_total,
        "dead": account.dead,
        "duplicated": account.duplicated,
        "redelivered": account.redelivered,
        "refused": account.refused,
        "unknown": account.unknown,
    }
    if account.published_ns:
        values["rate"] = account.published * NS_PER_S / account.published_ns
    for name, value_ns in (account.publish_ns or {}).items():
        values[f"publish_{name}"] = value_ns / NS_PER_MS
    found = []
    for item in parse_thresholds(options.fail_if):
        if item.name == "max" and account.done.count:
            values["max"] = account.done.max_ms
        elif _END_TO_END.fullmatch(item.name) and account.done.count:
            values[item.name] = percentile_ms(account.done, float(item.name[1:]))
        if text := item.broken_by(values):
            found.append(text)
    return found


def _unsent(account: RunAccount) -> str:
    if not account.refused and not account.unknown:
        return ""
    return f"  (not acknowledged: {account.refused:,} refused, {account.unknown:,} unknown)"


def _repeats(account: RunAccount) -> str:
    if not account.dead and not account.redelivered and not account.duplicated:
        return ""
    return (
        f"  (dead letters {account.dead:,}, redelivered {account.redelivered:,},"
        f" duplicated {account.duplicated:,})"
    )


def _verdict(account: RunAccount) -> str:
    sides = (
        f"{account.published:,} published, {account.consumed:,} consumed"
        f" + {account.left_total:,} left"
    )
    if not account.balanced:
        return f"NOT BALANCED: {sides}, {account.lost:,} lost"
    return f"{'UNKNOWN' if account.doubts else 'balanced'}: {sides}"


def _times(values_ns: dict[str, int] | None) -> str:
    if values_ns is None:
        return "p50/p99/max -"
    parts = " / ".join(f"{values_ns[name] / NS_PER_MS:.2f}" for name in ("p50", "p99", "max"))
    return f"p50/p99/max {parts} ms"
