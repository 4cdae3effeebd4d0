"""Invariant 8: every loss and every duplicate has a phase, a step, and a cause."""

from collections.abc import Iterator

import numpy as np

from hookbench.ledger.columns import Bools, Ints, TaskColumns
from hookbench.ledger.duplicates import replay_hazard
from hookbench.ledger.events import Event
from hookbench.ledger.history import PHASE, TRANSITION, History, RowKey
from hookbench.ledger.killers import NO_FAULT
from hookbench.ledger.losses import last_records
from hookbench.ledger.model import Attribution
from hookbench.ledger.rollbacks import ends_rolled_back

__all__ = ["attribute"]

_NONE = "-"
_SECOND_END = "second end"
_LEASE = -2
_NOBODY = -1


def attribute(history: History) -> list[Attribution]:
    """Losses, duplicates and second ends by phase, step and fault.

    Losses and duplicates without a cause are found. A second end is found by invariants 1 and 2,
    with a cause or without.

    A cause is a fault that fired, or else a process that died, or the end of a lease; or a hazard.
    The step of a loss is the last event of the task, see ``last_records``, the step of a duplicate
    that of the execution that was repeated, the step of a second end the first one.
    """
    attributions = []
    found = (*_losses(history), *_duplicates(history), *_second_ends(history))
    for item, key, tasks in found:
        attributions.append(item)
        if (item.fault, item.hazard) == (_NONE, _NONE) and item.what != _SECOND_END:
            text = f"{{count}} times {item.what} after {item.step}, with no cause"
            history.find(8, key, tasks, text)
    return attributions


_Group = tuple[Attribution, RowKey, Ints]


def _losses(history: History) -> Iterator[_Group]:
    columns = history.columns
    lost = np.flatnonzero(history.lost)
    last = last_records(columns)[lost]
    early = columns.received[lost] & columns.acked[lost]
    aged = (columns.sequence[lost] > 0) & ~columns.received[lost]
    if history.residue is not None:  # without it there are no losses to name
        aged &= columns.sequence[lost] < history.residue.first_sequence
    died = np.where(columns.died[last], columns.ledger.writer[last].astype(np.int64), _NOBODY)
    hazards = [_NONE, "P10", "P7"]
    fault = history.loss_faults[lost]
    died = np.where(fault == NO_FAULT, died, _NOBODY)
    codes = (columns.put_step[lost], columns.event[last], fault, died, np.where(early, 1, 2 * aged))
    for (step, event, place, writer, hazard), here in _groups(*codes):
        item = Attribution(
            what="lost",
            phase=history.steps[step].phase,
            step=Event(event).name.lower(),
            fault=_fault_text(history, place, writer),
            hazard=hazards[hazard],
            count=int(here.sum()),
            fault_index=_index(history, place),
        )
        yield item, (PHASE, step), lost[here]


def _duplicates(history: History) -> Iterator[_Group]:
    columns = history.columns
    repeats, explanation = history.repeats, history.explanation
    if len(repeats.task) == 0:
        return
    fault = explanation.fault
    writer = columns.ledger.writer[repeats.before].astype(np.int64)
    who = np.where(explanation.crash, writer, np.where(explanation.lease, _LEASE, _NOBODY))
    who = np.where(fault == NO_FAULT, who, _NOBODY)
    how = 1 * repeats.by_nats + 2 * repeats.by_redis
    how += 3 * (repeats.by_fallback | repeats.after_fallback)
    acked = _acked(columns, repeats.before)
    for (step, transition, confirmed, place, cause, kind), here in _groups(
        repeats.step, repeats.transition, acked, fault, who, how
    ):
        key = (TRANSITION if transition else PHASE, step)
        hazard = (_NONE, replay_hazard(history, step), "B2", "P8")[kind]
        item = Attribution(
            what="duplicate",
            phase=history.rows[key].name,
            step="ack_sent" if confirmed else "done",
            fault=_fault_text(history, place, cause),
            hazard=hazard,
            count=int(here.sum()),
            fault_index=_index(history, place),
        )
        yield item, key, repeats.task[here].astype(np.int64)


def _second_ends(history: History) -> Iterator[_Group]:
    """Tasks that ended in two ways. Only a record that was taken back lets a task end again."""
    columns = history.columns
    tasks = np.flatnonzero((columns.ends > 1) & columns.real & columns.offered)
    first, fault = ends_rolled_back(columns, tasks, history.faults)
    for (step, event, place), here in _groups(columns.put_step[tasks], columns.event[first], fault):
        item = Attribution(
            what=_SECOND_END,
            phase=history.steps[step].phase,
            step=Event(event).name.lower(),
            fault=_fault_text(history, place, _NOBODY),
            hazard=_NONE,
            count=int(here.sum()),
            fault_index=_index(history, place),
        )
        yield item, (PHASE, step), tasks[here]


def _groups(*codes: Ints | Bools) -> Iterator[tuple[tuple[int, ...], Bools]]:
    """The distinct rows of the codes, each with where it stands."""
    if len(codes[0]) == 0:  # most often, and numpy takes its time to find that out
        return
    table = np.stack([code.astype(np.int64) for code in codes], axis=1)
    distinct, which = np.unique(table, axis=0, return_inverse=True)
    for number, row in enumerate(distinct.tolist()):
        yield tuple(row), which.reshape(-1) == number


def _acked(columns: TaskColumns, records: Ints) -> Bools:
    """Whether the process of an execution ever acknowledged the task."""
    key = columns.ledger.writer.astype(np.int64) * columns.count + columns.task
    acked: Bools = np.isin(key[records], key[columns.where(Event.ACK_SENT)])
    return acked


def _fault_text(history: History, place: int, cause: int) -> str:
    if place != NO_FAULT:
        return history.faults[place].name
    if cause == _LEASE:
        return "lease"
    return _NONE if cause == _NOBODY else f"{history.columns.ledger.writers[cause]} died"


def _index(history: History, place: int) -> int | None:
    """The place in the schedule of the fault at a place in ``History.faults``."""
    return None if place == NO_FAULT else history.faults[place].index
