"""The gates between the phases: which conditions hold a transition or a rollback back.

Pure functions of a snapshot: who reads the brokers and listens to the processes is elsewhere
(``rehearsal/survey.py``), and who acts on the answer too (``migration/reconcile.py``).
"""

import msgspec

from hookbench.errors import SettingError
from hookbench.migration import fleet_conditions as fleet
from hookbench.migration import task_conditions as tasks
from hookbench.migration.checks import Answer, Check, Condition, GateBounds, Moment, Move
from hookbench.migration.phases import Phase
from hookbench.migration.snapshot import Snapshot
from hookbench.queues.authority import Authority

__all__ = ["GATES", "GateAnswer", "conditions_of", "decide", "is_known", "records_to"]

_FLEET: tuple[Condition, ...] = (fleet.both_answer, fleet.no_old_producer, fleet.homogeneous_fleet)
_LEFT_NATS: tuple[Condition, ...] = (
    *_FLEET,
    tasks.nats_is_drained,
    tasks.none_forgotten,
    tasks.nobody_publishes,
)

_P = Phase
GATES: dict[tuple[Phase, Phase], dict[Moment, tuple[Condition, ...]]] = {
    (_P.REDIS_ONLY, _P.DUAL_WRITE): {
        Moment.BEFORE: (*_FLEET, fleet.no_drift, fleet.head_room),
        Moment.AFTER: _FLEET,
    },
    (_P.DUAL_WRITE, _P.DUAL_READ): {
        Moment.BEFORE: (
            *_FLEET,
            tasks.no_backlog,
            tasks.oldest_is_young,
            tasks.ids_reconciled,
            tasks.watermark_known,
            fleet.no_drift,
            fleet.head_room,
            fleet.types_have_consumers,
        ),
        Moment.AFTER: (*_FLEET, fleet.few_redeliveries, fleet.no_drift),
    },
    (_P.DUAL_READ, _P.NATS_PRIMARY): {
        Moment.BEFORE: (
            *_FLEET,
            tasks.oldest_is_young,
            fleet.few_redeliveries,
            fleet.no_drift,
            fleet.head_room,
            fleet.types_have_consumers,
        ),
        Moment.BETWEEN: (fleet.both_answer, fleet.homogeneous_fleet),
        Moment.AFTER: (*_FLEET, tasks.no_backlog),
    },
    (_P.NATS_PRIMARY, _P.NATS_ONLY): {
        Moment.BEFORE: (
            *_FLEET,
            fleet.few_redeliveries,
            fleet.no_drift,
            fleet.types_have_consumers,
        ),
        Moment.BETWEEN: (fleet.both_answer, tasks.redis_is_empty, fleet.authority_moved),
        Moment.AFTER: (*_FLEET, fleet.authority_moved),
    },
    (_P.DUAL_WRITE, _P.REDIS_ONLY): {
        Moment.BEFORE: (*_FLEET, fleet.head_room),
        Moment.AFTER: (*_FLEET, tasks.ids_reconciled, tasks.nobody_publishes),
    },
    (_P.DUAL_READ, _P.DUAL_WRITE): {
        Moment.BEFORE: (*_FLEET, fleet.head_room, tasks.no_stale_copies),
        Moment.AFTER: (*_FLEET, tasks.ids_reconciled),
    },
    (_P.DUAL_READ, _P.REDIS_ONLY): {
        Moment.BEFORE: (*_FLEET, fleet.head_room),
        Moment.BETWEEN: (fleet.both_answer, tasks.nats_is_drained, tasks.no_stale_copies),
        Moment.AFTER: _LEFT_NATS,
    },
    (_P.NATS_PRIMARY, _P.DUAL_READ): {
        Moment.BEFORE: (*_FLEET, fleet.no_drift, fleet.head_room, tasks.no_stale_copies),
        Moment.AFTER: _FLEET,
    },
    (_P.NATS_PRIMARY, _P.REDIS_ONLY): {
        Moment.BEFORE: (*_FLEET, fleet.head_room, tasks.no_stale_copies),
        Moment.AFTER: _LEFT_NATS,
    },
    (_P.NATS_ONLY, _P.NATS_PRIMARY): {
        Moment.BEFORE: (*_FLEET, fleet.no_drift),
        Moment.AFTER: (*_FLEET, fleet.authority_moved),
    },
    (_P.NATS_ONLY, _P.REDIS_ONLY): {
        Moment.BEFORE: (*_FLEET, fleet.head_room, tasks.no_stale_copies),
        Moment.BETWEEN: (fleet.both_answer, fleet.authority_moved),
        Moment.AFTER: _LEFT_NATS,
    },
}
"""By transition or rollback, and by moment, what has to hold."""


class GateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate said.

    Attributes:
        answer: ``go`` if every condition is; ``no-go`` if one is that; else ``unknown``.
        checks: every condition, in order.
    """

    source: str
    target: str
    moment: Moment
    answer: Answer
    checks: tuple[Check, ...]

    @property
    def holds(self) -> tuple[Check, ...]:
        """The conditions that hold the move back."""
        return tuple(check for check in self.checks if check.answer is not Answer.GO)

    @property
    def evidence(self) -> str:
        """Why it is not ``go``, in one line; what was looked at if it is."""
        shown = self.holds or self.checks
        return "; ".join(
            f"{check.name} {check.answer}: {check.evidence}"
            + (f", e.g. {check.ids[0]}" if check.ids and self.holds else "")
            for check in shown
        )


def is_known(source: Phase, target: Phase) -> bool:
    """Whether there is a gate from one phase to another."""
    return (source, target) in GATES


def conditions_of(move: Move) -> tuple[Condition, ...]:
    """What has to hold at a moment of a move.

    Raises:
        SettingError: there is no such transition or rollback, or nothing is asked at that moment.
    """
    moments = GATES.get((move.source, move.target))
    if moments is None:
        known = ", ".join(f"{int(old)} to {int(new)}" for old, new in GATES)
        raise SettingError(
            f"from {move.source.label} to {move.target.label}: no such transition or rollback; go"
            f" by way of another phase (known: {known})"
        )
    if move.moment not in moments:
        raise SettingError(f"{move.label}: asked {', '.join(moments)} only")
    return moments[move.moment]


def records_to(move: Move) -> Authority | None:
    """Which done-store has to know what the other one does; ``None`` where it does not matter.

    Raises:
        SettingError: see ``conditions_of``.
    """
    if fleet.authority_moved not in conditions_of(move):
        return None
    return Authority.NATS if move.target > move.source else Authority.REDIS


def decide(snapshot: Snapshot, move: Move, bounds: GateBounds | None = None) -> GateAnswer:
    """Hold a snapshot against the conditions of a move.

    Raises:
        SettingError: see ``conditions_of``.
    """
    bounds = bounds or GateBounds()
    checks = tuple(condition(snapshot, move, bounds) for condition in conditions_of(move))
    answers = {check.answer for check in checks}
    answer = Answer.GO
    if Answer.NO_GO in answers:
        answer = Answer.NO_GO
    elif Answer.UNKNOWN in answers:
        answer = Answer.UNKNOWN
    return GateAnswer(
        source=move.source.label,
        target=move.target.label,
        moment=move.moment,
        answer=answer,
        checks=checks,
    )
