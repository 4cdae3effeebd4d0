"""A minimal schedule told: who did what, numbered, from the ledger and the faults that fired."""

import tempfile
import uuid
from pathlib import Path

import numpy as np

from hookbench.clock import NS_PER_S
from hookbench.effects.read import read_effects
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.read import Ledger, read_ledger
from hookbench.results.story import EVENT_WORDS
from hookbench.sim.loop import EPOCH_NS
from hookbench.sim.redis.scripts import ScriptEngine
from hookbench.sim.scheduled import EFFECTS_NAME, LEDGER_NAME
from hookbench.sim.shrink import Minimal
from hookbench.sim.trial import Trial, try_schedule

__all__ = ["tell_story"]

_MAX_LINES = 60
_Line = tuple[int, str]
"""Time in ns of the loop, and what happened."""


def tell_story(minimal: Minimal, *, engine: ScriptEngine | None = None) -> list[str]:
    """The run of a minimal schedule, seen from one task that proves the failure.

    Args:
        minimal: it is run once more.
        engine: of scripts.
    """
    with tempfile.TemporaryDirectory(prefix="hookbench-sim-") as name:
        folder = Path(name)
        trial = try_schedule(
            minimal.scope.plan, minimal.faults, minimal.seed, engine=engine, folder=folder
        )
        cause = next((item for item in trial.causes if item.key == minimal.cause.key), None)
        if cause is None or not cause.tasks:  # the run broke down: there is no task to follow
            return [*_numbered(_said(trial)), f"So: {minimal.cause.text}."]
        task = uuid.UUID(cause.tasks[0])
        ledger = read_ledger(folder / LEDGER_NAME, lenient=True)
        labels = [phase.label for phase in minimal.scope.phases]
        lines = [*_of_task(ledger, task), *_changes(ledger, labels), *_said(trial)]
        lines.sort(key=lambda line: line[0])
        end = _end(trial, task, _effects(folder, task))
    return [*_numbered(lines), end, f"So: {cause.text}."]


def _numbered(lines: list[_Line]) -> list[str]:
    shown = lines
    if len(lines) > _MAX_LINES:
        half = _MAX_LINES // 2
        left_out = (lines[half][0], f"({len(lines) - _MAX_LINES:,} events are left out here)")
        shown = [*lines[:half], left_out, *lines[-half:]]
    width = len(str(len(shown)))
    return [
        f"{number:>{width}}. {(time_ns - EPOCH_NS) / NS_PER_S:>10.6f} s  {text}"
        for number, (time_ns, text) in enumerate(shown, 1)
    ]


def _of_task(ledger: Ledger, task: uuid.UUID) -> list[_Line]:
    rows = ledger.rows_of([task.bytes])
    if len(rows) == 0:
        return []
    records = ledger.records
    lines = []
    for number in np.flatnonzero(ledger.task == rows[0]).tolist():
        record = records[number]
        event = Event(int(record["event"]))
        words = EVENT_WORDS.get(event, event.name.lower()).format(
            broker=Broker(int(record["broker"])).name.lower(),
            value=int(record["value"]),
            attempt=int(record["attempt"]),
        )
        who = ledger.writers[int(ledger.writer[number])]
        lines.append((int(record["time_ns"]), f"{who} {words}"))
    first_ns, first = lines[0]
    lines[0] = (first_ns, f"{first} {task}")
    return lines


def _changes(ledger: Ledger, labels: list[str]) -> list[_Line]:
    """Which process entered which phase, where there are several."""
    if len(labels) == 1:
        return []
    records = ledger.records
    lines = []
    for number in np.flatnonzero(records["event"] == Event.PHASE).tolist():
        who = ledger.writers[int(ledger.writer[number])]
        label = labels[int(records["value"][number])]
        lines.append((int(records["time_ns"][number]), f"{who} enters {label}"))
    return lines


def _said(trial: Trial) -> list[_Line]:
    """The faults, and what became of processes."""
    lines = []
    for text in trial.incidents:
        at_s, _, what = text.partition(" s: ")
        lines.append((EPOCH_NS + round(float(at_s) * NS_PER_S), f"*** {what}"))
    return lines


def _effects(folder: Path, task: uuid.UUID) -> str:
    rows = read_effects(folder / EFFECTS_NAME).rows
    count = int((rows["task"] == np.void(task.bytes)).sum())
    return {0: "no effect", 1: "one effect"}.get(count, f"{count} effects")


def _end(trial: Trial, task: uuid.UUID, effects: str) -> str:
    places = trial.places.get(str(task), [])
    where = f"it lies in {' and '.join(places)}" if places else "it lies nowhere"
    return f"In the end the task has {effects}, and {where}."
