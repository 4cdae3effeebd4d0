"""Figures of a run: latencies, throughput, gaps, deliveries. They judge nothing."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from hookbench.clock import NS_PER_S
from hookbench.ledger.columns import Bools, Ints
from hookbench.ledger.events import Event
from hookbench.ledger.history import PHASE, TRANSITION, History, RowKey
from hookbench.ledger.latency import LatencyHistogram, histogram_of, percentiles_of
from hookbench.ledger.repeats import find_repeats

__all__ = ["fill_deliveries", "fill_gaps", "fill_latencies", "fill_rates"]


def fill_latencies(history: History) -> list[LatencyHistogram]:
    """Tasks and latencies of each row, and the histograms behind them, of phases by second too.

    Latencies at a transition are of the tasks that were due around it, where gaps are looked for.
    """
    columns = history.columns
    synthetic = columns.offered & ~columns.pushed
    finished = synthetic & (columns.done_count > 0)
    enqueue_ns = columns.accepted_ns - columns.intended_ns
    total_ns = columns.done_ns - columns.intended_ns
    done_step = columns.first(columns.where(Event.DONE), columns.phase, -1)
    begin_ns = int(columns.intended_ns[synthetic].min()) if synthetic.any() else 0
    histograms = []

    def keep(key: RowKey, what: str, values: Ints, second: int | None = None) -> Any:
        row = history.rows[key]
        error_ns = history.bounds.clock_error_ns
        histogram = histogram_of(values, clock_error_ns=error_ns)
        histograms.append(
            LatencyHistogram(
                row=row.name,
                step=row.step,
                transition=row.transition,
                what=what,
                count=len(values),
                max_ns=max(0, int(values.max())),
                encoded=histogram.encode().decode(),
                second=second,
            )
        )
        return histogram

    def fill(key: RowKey, tasks: Bools, what: str, values_ns: Ints) -> dict[str, int] | None:
        values = values_ns[tasks]
        if len(values) == 0:
            return None
        if key[0] == PHASE:
            for second, part in _by_second(columns.intended_ns[tasks] - begin_ns, values):
                keep(key, what, part, second)
        return percentiles_of(keep(key, what, values), max(0, int(values.max())))

    for step in history.steps:
        here = columns.put_step == step.index
        key = (PHASE, step.index)
        row = history.rows[key]
        row.tasks = int(here.sum())
        row.enqueue_ns = fill(key, here & synthetic & columns.accepted, "enqueue", enqueue_ns)
        row.end_to_end_ns = fill(key, here & finished, "end_to_end", total_ns)
        if step.index > 0:
            crossing = columns.offered & (columns.put_step >= 0)
            crossing &= (columns.put_step < step.index) & (done_step == step.index)
            key = (TRANSITION, step.index)
            row = history.rows[key]
            row.tasks = int(crossing.sum())
            away_ns = np.abs(columns.intended_ns - history.step_starts_ns[step.index])
            near = away_ns <= history.bounds.gap_window_ns
            accepted = near & synthetic & columns.accepted
            row.enqueue_ns = fill(key, accepted, "enqueue", enqueue_ns)
            row.end_to_end_ns = fill(key, near & finished, "end_to_end", total_ns)
    return histograms


def _by_second(since_ns: Ints, values: Ints) -> Iterator[tuple[int, Ints]]:
    """The values of each second in which there are any."""
    order = np.argsort(since_ns, kind="stable")
    seconds, begins = np.unique(since_ns[order] // NS_PER_S, return_index=True)
    yield from zip(seconds.tolist(), np.split(values[order], begins[1:]), strict=True)


def fill_rates(history: History) -> None:
    """Accepted and completed tasks per second of each phase's own time."""
    columns = history.columns
    edges = np.array([*history.step_starts_ns, history.end_ns], dtype=np.int64)
    for event, field in ((Event.ACCEPTED, "accepted_per_s"), (Event.DONE, "done_per_s")):
        times = columns.time[columns.where(event)]
        counts = np.diff(np.searchsorted(times, edges))
        for step in history.steps:
            length_ns = int(edges[step.index + 1] - edges[step.index])
            if length_ns > 0:
                rate = float(counts[step.index]) * NS_PER_S / length_ns
                setattr(history.rows[PHASE, step.index], field, round(rate, 3))


def fill_gaps(history: History) -> None:
    """Around each transition, the longest time without an accepted put, and without a task done."""
    columns = history.columns
    window_ns = history.bounds.gap_window_ns
    for event, field in ((Event.ACCEPTED, "gap_accepted_ns"), (Event.DONE, "gap_done_ns")):
        times = columns.time[columns.where(event)]
        for step in history.steps[1:]:
            moment = history.step_starts_ns[step.index]
            low, high = moment - window_ns, moment + window_ns
            near = times[np.searchsorted(times, low) : np.searchsorted(times, high, "right")]
            gaps_edges = np.concatenate(([low], near, [high]))
            if times.size:  # the run itself may begin or end within the window
                gaps_edges = np.clip(gaps_edges, times[0], times[-1])
            gap_ns = int(np.diff(gaps_edges).max())
            setattr(history.rows[TRANSITION, step.index], field, gap_ns)


def fill_deliveries(history: History) -> None:
    """Redeliveries by their broker's count, and deliveries beyond the first of a task."""
    columns = history.columns
    received = columns.where(Event.RECEIVED)
    again = received & (columns.ledger.records["attempt"] > 1)
    again_steps = np.bincount(columns.phase[again], minlength=len(history.steps))
    repeats = find_repeats(
        columns, history.steps, np.flatnonzero(received & columns.real[columns.task])
    )
    for (kind, index), row in history.rows.items():
        if kind == PHASE:
            row.redelivered = int(again_steps[index])
        here = (repeats.step == index) & (repeats.transition == (kind == TRANSITION))
        row.duplicated_deliveries = int(here.sum())
