"""The nine invariants: a rule and a checker each, run under a guard.

A checker that crashes makes its invariant unknown, and nothing else: the others still run. One
can be left out, which is how a mutation is shown to be caught by its checker and no other.
"""

import traceback
from collections.abc import Callable, Collection

from hookbench.ledger.attribution import attribute
from hookbench.ledger.contradictions import check_budget, check_unexpected
from hookbench.ledger.effect_checks import check_effects
from hookbench.ledger.history import History, NotCheckedError
from hookbench.ledger.model import Attribution, InvariantResult, Verdict
from hookbench.ledger.order import check_order
from hookbench.ledger.unfinished import check_accepted, check_quiescence, check_unknown

__all__ = ["RULES", "RULE_OF_THE_WHOLE", "check_invariants"]

Checker = Callable[[History], None]

_CHECKERS: dict[int, Checker] = {
    1: check_accepted,
    2: check_unknown,
    3: check_unexpected,
    4: check_effects,
    5: check_quiescence,
    6: check_budget,
    7: check_order,
}
_ATTRIBUTION = 8
RULE_OF_THE_WHOLE = 9
"""Holds when each of the others could be checked."""

RULES = {
    1: "acknowledged to the caller: exactly one end",
    2: "unknown to the caller: one end or none",
    3: "nothing unexpected comes out",
    4: "effects: what each handler class promises",
    5: "after quiescence nothing is without an end",
    6: "deliveries within the budget of attempts",
    7: "order of a repository: inversions counted",
    8: "every loss and duplicate has a phase, a step and a cause",
    9: "everything could be checked",
}


def check_invariants(
    history: History, without: Collection[int] = ()
) -> tuple[list[InvariantResult], list[Attribution]]:
    """Run every checker.

    Args:
        history: the run; rows and findings are filled.
        without: numbers of checkers that are left out; their invariants are unknown.

    Returns:
        One result per invariant, in order, and the attributions, see ``attribute``.
    """
    unknown: dict[int, str] = {}
    attributions: list[Attribution] = []

    def run_attribution(history: History) -> None:
        attributions.extend(attribute(history))

    for number, checker in {**_CHECKERS, _ATTRIBUTION: run_attribution}.items():
        if number in without:
            unknown[number] = "left out"
            continue
        try:
            checker(history)
        except NotCheckedError as reason:
            unknown[number] = str(reason)
        except Exception as error:  # noqa: BLE001 - a checker that crashes is an unknown verdict
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{where.name}, line {where.lineno}"
            unknown[number] = f"its checker crashed: {type(error).__name__}: {error} ({place})"
    results = [_result(history, number, unknown) for number in range(1, RULE_OF_THE_WHOLE)]
    open_ones = [str(number) for number in unknown if number not in without]
    results.append(
        InvariantResult(
            number=RULE_OF_THE_WHOLE,
            rule=RULES[RULE_OF_THE_WHOLE],
            verdict=Verdict.UNKNOWN if open_ones else Verdict.VALID,
            count=len(open_ones),
            reason=f"not checked: {', '.join(open_ones)}" if open_ones else "",
        )
    )
    return results, attributions


def _result(history: History, number: int, unknown: dict[int, str]) -> InvariantResult:
    count = sum(item.count for item in history.findings if item.invariant == number)
    verdict = Verdict.INVALID if count else Verdict.VALID
    if number in unknown:
        verdict = Verdict.UNKNOWN
    return InvariantResult(
        number=number,
        rule=RULES[number],
        verdict=verdict,
        count=count,
        reason=unknown.get(number, _figures(history, number)),
    )


def _figures(history: History, number: int) -> str:
    """What belongs to an invariant beside its violations."""
    if number == 4:  # noqa: PLR2004
        repeated = sum(row.duplicated_effects or 0 for row in history.rows.values())
        return (
            f"{repeated:,} effects repeated, {history.effects_explained:,} of them explained"
            if history.effects is not None
            else ""
        )
    if number == 7:  # noqa: PLR2004
        inverted = sum(row.inverted or 0 for row in history.rows.values())
        return f"{inverted:,} tasks overtaken"
    return ""
