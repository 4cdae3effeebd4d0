"""From the account of a scenario to what it observed; counts and ids are the checkers' own."""

import uuid
from collections import Counter

from hookbench.effects.read import Effects
from hookbench.hazards.model import Harm, Observation
from hookbench.ledger.model import Account, Finding

__all__ = ["EXAMPLES", "observe"]

EXAMPLES = 5
_LEFT_BEHIND = "P8"
_OF_INVARIANT = {
    1: Harm.LOST,
    5: Harm.STUCK,
    7: Harm.REORDERED,
}


def observe(account: Account, effects: Effects | None) -> list[Observation]:
    """The harms to tasks: losses, what is stuck, left behind or reordered, and repeats.

    Repeats are counted in the effect store, whether they are explained or not: a task that is
    executed twice because its worker died was executed twice.
    """
    found = [_observation(item) for item in account.findings if item.invariant in _OF_INVARIANT]
    repeats = _repeats(effects)
    if repeats:
        again = sum(repeats.values()) - len(repeats)
        text = f"{len(repeats):,} tasks were executed again: {again:,} effects beyond the first"
        found.append(
            Observation(
                text=text, harm=Harm.DUPLICATED, count=len(repeats), tasks=_examples(list(repeats))
            )
        )
    return found


def _observation(finding: Finding) -> Observation:
    harm = Harm.LEFT if finding.hazard == _LEFT_BEHIND else _OF_INVARIANT[finding.invariant]
    return Observation(
        text=finding.text,
        harm=harm,
        count=finding.count,
        tasks=tuple(finding.examples[:EXAMPLES]),
    )


def _repeats(effects: Effects | None) -> Counter[bytes]:
    """Effects of each task that has more than one."""
    if effects is None:
        return Counter()
    counts = Counter(task.tobytes() for task in effects.rows["task"])
    return Counter({task: count for task, count in counts.items() if count > 1})


def _examples(tasks: list[bytes]) -> tuple[str, ...]:
    return tuple(str(uuid.UUID(bytes=task)) for task in tasks[:EXAMPLES])
