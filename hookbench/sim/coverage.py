"""Where faults struck: the steps at which tasks were when each of them fired."""

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from hookbench.clock import NS_PER_MS
from hookbench.ledger.events import NO_TASK, Event
from hookbench.ledger.read import Ledger

__all__ = ["COVERED_STEPS", "IDLE", "Firing", "add_up", "cells_of", "strikes"]

IDLE = "idle"
"""No task was under way."""
_OVER = (
    Event.ACK_CONFIRMED,
    Event.TERM,
    Event.SKIPPED,
    Event.DEAD,
    Event.SUPERSEDED,
    Event.REFUSED,
    Event.DOUBTFUL,
)
_MAYBE_OVER = (Event.ACCEPTED, Event.DONE, Event.ACK_SENT)
"""Nothing need come behind these: they count for a moment only."""
_MOMENT_NS = 5 * NS_PER_MS
COVERED_STEPS = (
    IDLE,
    "put_invoked",
    "put_ok",
    "put_unknown",
    "put_fail",
    "accepted",
    "received",
    "claimed",
    "started",
    "effect",
    "done",
    "ack_sent",
    "nak",
    "failed",
    "requeued",
)
"""Rows of the table: the last thing that had been recorded of a task."""


class Firing(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that fired.

    Attributes:
        index: its place in the schedule.
        kind, subject: as of ``SimFault``.
        at_ns: when.
        writer: of the process that it was aimed at, by its number; ``None`` for none.
        role: of that process.
        met: the name of the message that it met, see ``frame_name``; empty for none.
        steps: at which steps tasks were then, without repeats; of that process alone where there
            is one.
    """

    index: int
    kind: str
    subject: str
    at_ns: int
    writer: int | None = None
    role: str = ""
    met: str = ""
    steps: tuple[str, ...] = ()


def strikes(ledger: Ledger, firings: Sequence[Firing]) -> list[Firing]:
    """The firings with the steps at which they struck."""
    records = ledger.records
    real = np.array([bytes(item) != NO_TASK for item in ledger.ids], dtype=bool)
    kept = real[ledger.task]
    times = records["time_ns"][kept]
    events, tasks, writers = records["event"][kept], ledger.task[kept], ledger.writer[kept]
    found = []
    for firing in firings:
        until = int(np.searchsorted(times, firing.at_ns, side="right"))
        mine = np.arange(until)
        name = f"{firing.role}.{firing.writer:05d}" if firing.writer is not None else ""
        if name in ledger.writers:
            mine = mine[writers[:until] == ledger.writers.index(name)]
        # Of the records of a task the last one stays.
        last = dict(zip(tasks[mine].tolist(), mine.tolist(), strict=True))
        rows = np.fromiter(last.values(), dtype=np.int64, count=len(last))
        over = np.isin(events[rows], _OVER)
        over |= np.isin(events[rows], _MAYBE_OVER) & (times[rows] < firing.at_ns - _MOMENT_NS)
        steps = {Event(event).name.lower() for event in events[rows[~over]].tolist()}
        found.append(msgspec.structs.replace(firing, steps=tuple(sorted(steps)) or (IDLE,)))
    return found


def cells_of(firings: Iterable[Firing]) -> dict[str, int]:
    """How many firings struck each ``kind subject|step``."""
    cells: Counter[str] = Counter()
    for firing in firings:
        for step in firing.steps:
            cells[f"{firing.kind} {firing.subject}|{step}"] += 1
    return dict(sorted(cells.items()))


def add_up(cells: Iterable[dict[str, int]]) -> dict[str, dict[str, int]]:
    """By kind and subject, then by step."""
    table: dict[str, dict[str, int]] = {}
    for found in cells:
        for cell, count in found.items():
            column, _, step = cell.partition("|")
            row = table.setdefault(column, {})
            row[step] = row.get(step, 0) + count
    return dict(sorted(table.items()))
