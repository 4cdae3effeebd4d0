"""Invariant 4: effects, as the effect store has them, against what each class promises."""

import numpy as np
import numpy.typing as npt

from hookbench.effects.classes import HandlerClass
from hookbench.effects.read import Effects
from hookbench.ledger.columns import Ints, TaskColumns
from hookbench.ledger.duplicates import find_duplicates, hazards_of
from hookbench.ledger.events import Event
from hookbench.ledger.explanation import explain
from hookbench.ledger.history import PHASE, History, NotCheckedError
from hookbench.ledger.repeats import find_repeats
from hookbench.ledger.search import last_before

__all__ = ["check_effects"]


def check_effects(history: History) -> None:
    """4: executions and effects.

    An execution that is repeated without a reason is found whatever its class is: it is work done
    twice, and the hazard behind it runs plain handlers twice as well.

    Raises:
        NotCheckedError: the run has no effect store.
    """
    find_duplicates(history)
    if history.effects is None:
        raise NotCheckedError("the run has no effect store; executions were judged alone")
    tasks = history.columns.ledger.find(history.effects.rows["task"])
    _find_foreign(history, tasks)
    _find_missing(history, tasks)
    _find_transactional(history, history.effects, tasks)
    _find_wrong_state(history, history.effects)
    _find_repeated(history, history.effects, tasks)


def _find_foreign(history: History, tasks: Ints) -> None:
    """Effects of tasks that no process has ever received."""
    foreign = int((tasks < 0).sum())
    row = history.steps[0].index
    text = "{count} effects of tasks that are not in the ledger"
    history.find(4, (PHASE, row), tasks[:0], text, count=foreign)
    known = np.unique(tasks[tasks >= 0])
    started = history.columns.any(history.columns.where(Event.STARTED))
    strange = known[~started[known]]
    history.find(4, (PHASE, row), strange, "{count} tasks with an effect that nobody started")


def _find_missing(history: History, tasks: Ints) -> None:
    """Done, and no effect. Pushed tasks have theirs in the mirrors."""
    columns = history.columns
    has_effect = np.zeros(columns.count, dtype=bool)
    has_effect[tasks[tasks >= 0]] = True
    missing = (columns.done_count > 0) | columns.unsaid
    missing &= columns.offered & ~columns.pushed & ~has_effect
    said = columns.where(Event.DONE) | columns.where(Event.SKIPPED)
    done_step = columns.first(said, columns.phase, -1)
    begun_step = columns.first(columns.where(Event.STARTED), columns.phase, -1)
    done_step = np.where(done_step < 0, begun_step, done_step)  # nobody has said it
    for step in history.steps:
        history.find(
            4,
            (PHASE, step.index),
            missing & (done_step == step.index),
            "{count} tasks are done and have no effect",
        )


def _find_transactional(history: History, effects: Effects, tasks: Ints) -> None:
    """More than one effect of a transactional task."""
    columns = history.columns
    of_class = (effects.rows["class"] == HandlerClass.TRANSACTIONAL) & (tasks >= 0)
    twice = np.bincount(tasks[of_class], minlength=columns.count) > 1
    for step in history.steps:
        history.find(
            4,
            (PHASE, step.index),
            twice & (columns.put_step == step.index),
            "{count} transactional tasks have more than one effect",
        )


def _find_wrong_state(history: History, effects: Effects) -> None:
    """Idempotent tasks whose final state is not that of one execution."""
    columns = history.columns
    states = effects.state
    # The state that one execution leaves is the second half of the task's id, see ``mark_of``.
    expected = np.ascontiguousarray(states["task"]).view("<i8").reshape(-1, 2)[:, 1]
    tasks = columns.ledger.find(states["task"])
    wrong = np.zeros(columns.count, dtype=bool)
    wrong[tasks[(states["value"] != expected) & (tasks >= 0)]] = True
    of_class = (effects.rows["class"] == HandlerClass.IDEMPOTENT).nonzero()[0]
    executed = columns.ledger.find(effects.rows["task"][of_class])
    stateless = np.zeros(columns.count, dtype=bool)
    stateless[executed[executed >= 0]] = True
    stateless[tasks[tasks >= 0]] = False
    for step in history.steps:
        here = columns.put_step == step.index
        history.find(
            4,
            (PHASE, step.index),
            (wrong | stateless) & here,
            "{count} idempotent tasks have another final state than one execution leaves",
        )


def _find_repeated(history: History, effects: Effects, tasks: Ints) -> None:
    """Effects beyond the first of a task, and whether something explains those of plain tasks.

    An idempotent effect that is repeated leaves the same state: it is none.
    """
    columns = history.columns
    chosen = (tasks >= 0) & (effects.rows["class"] != HandlerClass.IDEMPOTENT)
    repeats = find_repeats(
        columns, history.steps, _starts(columns, effects.rows[chosen], tasks[chosen])
    )
    explained = explain(columns, repeats, history.faults).any
    history.effects_explained = int(explained.sum())
    classes = np.zeros(columns.count, dtype=np.int64)
    classes[tasks[chosen]] = effects.rows["class"][chosen]
    unexplained = (classes[repeats.task] == HandlerClass.PLAIN) & ~explained
    for key, row in history.rows.items():
        here = repeats.within(*key)
        row.duplicated_effects = int(here.sum())
        for hazard, mask in hazards_of(history, key, repeats):
            history.find(
                4,
                key,
                repeats.task[here & unexplained & mask].astype(np.int64),
                "{count} effects of plain tasks happened again, without a crash, the end of a lease"
                " or a fault of the broker before",
                hazard=hazard,
            )


def _starts(columns: TaskColumns, rows: npt.NDArray[np.void], tasks: Ints) -> Ints:
    """For each effect the record of the start of its execution; effects without one left out.

    It is the last start of the task by the effect's writer before the effect.
    """
    ledger = columns.ledger
    started = np.flatnonzero(columns.where(Event.STARTED))
    numbers = np.array([int(name.rsplit(".", 1)[1]) for name in ledger.writers], dtype=np.int64)
    key = numbers[ledger.writer[started]] * columns.count + columns.task[started]
    found = last_before(
        rows["writer"].astype(np.int64) * columns.count + tasks,
        rows["time_ns"].astype(np.int64),
        key,
        columns.time[started],
    )
    starts: Ints = started[found[found >= 0]]
    return starts
