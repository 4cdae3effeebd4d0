"""The whole life of one task, as a story: who did what, when, in which phase."""

import math
import uuid
from pathlib import Path

import msgspec
import numpy as np

from hookbench.clock import NS_PER_MS
from hookbench.effects.classes import HandlerClass
from hookbench.effects.read import read_effects
from hookbench.errors import ResultsError
from hookbench.ledger.events import Broker, Event
from hookbench.ledger.model import Place
from hookbench.ledger.read import read_ledger
from hookbench.ledger.segment import MAX_STEPS
from hookbench.migration.phases import Phase
from hookbench.results.check import damage_lines, fault_windows
from hookbench.results.store import EFFECTS_NAME, Manifest, load_manifest

__all__ = ["EVENT_WORDS", "Chapter", "tell_task"]

MAX_MATCHES = 5
_ENDS = ("done", "dead", "superseded")

EVENT_WORDS = {
    Event.PUT_INVOKED: "is asked to put the task",
    Event.PUT_OK: "gets it acknowledged by {broker} as number {value}",
    Event.PUT_FAIL: "is refused by {broker}",
    Event.PUT_UNKNOWN: "gets no answer from {broker}: it may be there",
    Event.ACCEPTED: "tells its caller that the task is accepted",
    Event.REFUSED: "tells its caller that the task is refused",
    Event.DOUBTFUL: "tells its caller that the outcome is unknown",
    Event.RECEIVED: "receives it from {broker} (attempt {attempt})",
    Event.CLAIMED: "claims it (attempt {attempt}, token {value})",
    Event.STARTED: "starts to work on it",
    Event.EFFECT: "has its effect in the effect store",
    Event.DONE: "is done with it",
    Event.FAILED: "fails on it (attempt {attempt})",
    Event.ACK_SENT: "acknowledges it to {broker}",
    Event.ACK_CONFIRMED: "has the acknowledgement confirmed by {broker}",
    Event.ACK_FAILED: "cannot acknowledge it to {broker}",
    Event.NAK: "gives it back to {broker}",
    Event.TERM: "ends its delivery at {broker} for good",
    Event.REQUEUED: "puts it back",
    Event.DEAD: "makes it a dead letter",
    Event.SUPERSEDED: "finds it superseded",
    Event.SKIPPED: "is told that it has ended, and does not start it",
    Event.STALE: "has lost its claim, so that what it did is not recorded as done",
}


class Chapter(msgspec.Struct, frozen=True, kw_only=True):
    """One event of the task, or of a fault; ``at_ms`` counts from the task's first event."""

    at_ms: float
    phase: str
    who: str
    event: str
    text: str


def tell_task(run: Path, task: str) -> tuple[uuid.UUID, list[Chapter], list[str]]:
    """The life of one task of a stored run, and where it lay at the end.

    Args:
        run: folder of the run.
        task: its id, or the beginning of its id.

    Raises:
        ResultsError: no task begins so, or several do.
        LedgerError: nothing of the ledger can be read.
    """
    manifest = load_manifest(run)
    names = _phase_names(manifest)
    ledger = read_ledger(run / "ledger", lenient=True, steps=len(names) or MAX_STEPS)
    ids = [uuid.UUID(bytes=bytes(item)) for item in ledger.ids]
    wanted = task.lower()
    found = [row for row, item in enumerate(ids) if str(item).startswith(wanted)]
    if len(found) != 1:
        examples = ", ".join(str(ids[row]) for row in found[:MAX_MATCHES])
        what = f"{len(found)} tasks begin so ({examples})" if found else "no task begins so"
        damage = "".join(f"; damaged {line}" for line in damage_lines(ledger.damage))
        raise ResultsError(f"task {task!r} in run {manifest.run}: {what}{damage}")
    (row,) = found
    records = ledger.records
    mine = np.flatnonzero(ledger.task == row)
    first_ns = int(records["time_ns"][mine[0]])
    chapters = []
    for number in mine.tolist():
        record = records[number]
        event = Event(int(record["event"]))
        words = EVENT_WORDS.get(event, event.name.lower())
        index = int(record["phase"])
        chapters.append(
            Chapter(
                at_ms=(int(record["time_ns"]) - first_ns) / NS_PER_MS,
                phase=names[index] if index < len(names) else str(index),
                who=ledger.writers[int(ledger.writer[number])],
                event=event.name.lower(),
                text=words.format(
                    broker=Broker(int(record["broker"])).name.lower(),
                    value=int(record["value"]),
                    attempt=int(record["attempt"]),
                ),
            )
        )
    pushed = chapters[0].who.startswith("hook")
    chapters += _faults_of(manifest, chapters, first_ns)
    chapters.sort(key=lambda chapter: chapter.at_ms)
    end = _end_of(manifest, ids[row], chapters, ledger.crashed)
    if not pushed:  # a pushed task has its effect in a mirror
        end += _effects_of(run, ids[row])
    end += [f"may be incomplete: damaged {line}" for line in damage_lines(ledger.damage)]
    return ids[row], chapters, end


def _faults_of(manifest: Manifest, chapters: list[Chapter], first_ns: int) -> list[Chapter]:
    """The faults that were in effect while the task lived: to the end of the run if it never ended.

    Each begins and ends with a chapter of its own, and may begin before the task.
    """
    ended = any(chapter.event in _ENDS for chapter in chapters)
    last_ms = chapters[-1].at_ms if ended else math.inf
    found = []
    for fault in fault_windows(manifest):
        begin_ns, end_ns = fault.span_ns()
        begin_ms, end_ms = ((time - first_ns) / NS_PER_MS for time in (begin_ns, end_ns))
        if begin_ms > last_ms or end_ms < 0:
            continue
        moments = [("fault_begin", begin_ms, "begins")]
        if fault.end_ns is not None:
            moments.append(("fault_end", end_ms, "has ended"))
        found += [
            Chapter(
                at_ms=at_ms,
                phase=_phase_at(manifest, first_ns + int(at_ms * NS_PER_MS)),
                who="harness",
                event=event,
                text=f"fault {fault.index} ({fault.name}) {what}",
            )
            for event, at_ms, what in moments
        ]
    return found


def _phase_at(manifest: Manifest, time_ns: int) -> str:
    """The phase of a moment; the first one before it began, the last one after it ended."""
    begun = [step for step in manifest.steps if step.start_ns <= time_ns] or manifest.steps[:1]
    return begun[-1].plan.phase if begun else "-"


def _phase_names(manifest: Manifest) -> list[str]:
    return [Phase(number).label for number in manifest.settings.get("phases", [])]


def _effects_of(run: Path, task_id: uuid.UUID) -> list[str]:
    """What the effect store says, which is what happened, whoever says what."""
    path = run / EFFECTS_NAME
    if not path.exists():
        return []
    rows = read_effects(path).rows
    mine = rows[rows["task"] == np.void(task_id.bytes)]
    if len(mine) == 0:
        return ["no effect in the effect store"]
    handler_class = HandlerClass(int(mine["class"][0])).label
    by = ", ".join(f"worker.{int(writer):05d}" for writer in mine["writer"])
    times = "once" if len(mine) == 1 else f"{len(mine)} times"
    return [f"{handler_class} effect {times} in the effect store, by {by}"]


def _end_of(
    manifest: Manifest, task_id: uuid.UUID, chapters: list[Chapter], crashed: list[str]
) -> list[str]:
    lines = [f"{who} died" for who in crashed if who in {chapter.who for chapter in chapters}]
    done = sum(chapter.event == "done" for chapter in chapters)
    lines.append(f"done {done} times" if done != 1 else "done once")
    if manifest.residue is None:
        lines.append("what was left on the brokers was not recorded")
        return lines
    for place in Place:
        count = manifest.residue.places.get(place, []).count(task_id)
        if count:
            lines.append(f"{count} left in {place.value} after the run")
    return lines
