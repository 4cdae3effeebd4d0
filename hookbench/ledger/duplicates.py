"""Executions beyond the first of a task that nothing explains: part of invariant 4."""

import numpy as np

from hookbench.ledger.columns import Bools, Ints
from hookbench.ledger.history import History, RowKey
from hookbench.ledger.model import StepAccount
from hookbench.ledger.repeats import Repeats

__all__ = ["find_duplicates", "hazards_of", "replay_hazard"]

_AFTER_FALLBACK = "P8, the other way round"
_TEXTS = {
    "P5": (
        "deliver-all replayed {{count}} tasks on entering {now}: done by redis before, delivered"
        " and done again by jetstream ({origins})"
    ),
    "B1": (
        "re-entry into {now} replayed {{count}} tasks: done by redis since NATS was read last,"
        " delivered and done again by jetstream ({origins})"
    ),
    "B2": (
        "{{count}} finished tasks run again on going back to {now}: done by jetstream before, their"
        " copies in redis delivered and done again ({origins})"
    ),
    "P8": (
        "{{count}} tasks done again in {now} from their copies in redis, which a fallback or a"
        " worker of the phase before read after jetstream had delivered them ({origins})"
    ),
    _AFTER_FALLBACK: (
        "{{count}} tasks done again in {now} from their copies in jetstream, which a fallback or a"
        " worker of the phase before had taken from redis ({origins})"
    ),
    "-": (
        "{{count}} tasks done again in {now} without a crash, the end of a lease or a fault of the"
        " broker before ({origins})"
    ),
}


def find_duplicates(history: History) -> None:
    """Count every repeat in its row; those that nothing explains are found."""
    repeats, explained = history.repeats, history.explanation.any
    for key, row in history.rows.items():
        here = repeats.within(*key)
        row.duplicated = int(here.sum())
        row.explained = int((here & explained).sum())
        for hazard, mask in hazards_of(history, key, repeats):
            task = repeats.task[here & mask & ~explained].astype(np.int64)
            if len(task):
                text = _AFTER_FALLBACK if mask is repeats.after_fallback else hazard
                history.find(4, key, task, _text(history, row, task, text), hazard=hazard)


def hazards_of(history: History, key: RowKey, repeats: Repeats) -> list[tuple[str, Bools]]:
    """The hazards behind the repeats of a row, and which repeats are whose."""
    return [
        (replay_hazard(history, key[1]), repeats.by_nats),
        ("B2", repeats.by_redis),
        ("P8", repeats.by_fallback),
        ("P8", repeats.after_fallback),
        ("-", ~repeats.of_both),
    ]


def replay_hazard(history: History, step: int) -> str:
    """The hazard of a replay by jetstream in a step: a re-entry where NATS was read before."""
    return "B1" if any(item.reads_nats for item in history.steps[:step]) else "P5"


def _text(history: History, row: StepAccount, task: Ints, text: str) -> str:
    columns, steps = history.columns, history.steps
    counts = np.bincount(columns.put_step[task].clip(0), minlength=len(steps))
    origins = ", ".join(
        f"{count:,} put in {steps[index].phase}" for index, count in enumerate(counts) if count
    )
    return _TEXTS[text].format(now=steps[row.step].phase, origins=origins)
