"""Which steps each transition and rollback is made of, and in what order."""

import enum

from hookbench.migration.checks import Moment
from hookbench.migration.phases import Phase

__all__ = ["JOINED", "MOMENTS", "PROCEDURES", "REPEATED", "Step"]


class Step(enum.StrEnum):
    """What a procedure is made of."""

    ASK_BEFORE = "ask_before"
    REROUTE_PRODUCERS = "reroute_producers"
    REROUTE_WORKERS = "reroute_workers"
    JOIN_WORKERS = "join_workers"
    WAIT_UNTIL_DRAINED = "wait_until_drained"
    WAIT_FOR_WORK = "wait_for_work"
    TRIM_COPIES = "trim_copies"
    REDIS_TO_NATS = "redis_to_nats"
    LETTERS_TO_NATS = "letters_to_nats"
    RECORDS_TO_NATS = "records_to_nats"
    LATE_RECORDS_TO_NATS = "late_records_to_nats"
    RECORDS_TO_REDIS = "records_to_redis"
    NATS_ONLY_TO_REDIS = "nats_only_to_redis"
    DRAIN_TO_REDIS = "drain_to_redis"
    ASK_BETWEEN = "ask_between"
    ASK_AFTER = "ask_after"
    FORGET_MOVES = "forget_moves"


_P, _S = Phase, Step
_CHANGE = (_S.REROUTE_PRODUCERS, _S.REROUTE_WORKERS)
_PLAIN = (_S.ASK_BEFORE, *_CHANGE, _S.ASK_AFTER)
# What a consumer has to deliver, and what one that is gone, or was made anew, has forgotten.
_TAKE_BACK = (_S.DRAIN_TO_REDIS, _S.NATS_ONLY_TO_REDIS, _S.ASK_AFTER, _S.FORGET_MOVES)
_OUT_OF_NATS = (
    _S.ASK_BEFORE,
    *_CHANGE,
    *_TAKE_BACK,
)
PROCEDURES: dict[tuple[Phase, Phase], tuple[Step, ...]] = {
    (_P.REDIS_ONLY, _P.DUAL_WRITE): _PLAIN,
    (_P.DUAL_WRITE, _P.DUAL_READ): _PLAIN,
    # Workers first: none may be left in a fallback to what is not written any more (P12).
    (_P.DUAL_READ, _P.NATS_PRIMARY): (
        _S.ASK_BEFORE,
        _S.REROUTE_WORKERS,
        _S.ASK_BETWEEN,
        _S.REROUTE_PRODUCERS,
        _S.WAIT_FOR_WORK,
        _S.REDIS_TO_NATS,
        _S.ASK_AFTER,
    ),
    (_P.NATS_PRIMARY, _P.NATS_ONLY): (
        _S.ASK_BEFORE,
        _S.WAIT_FOR_WORK,
        _S.REDIS_TO_NATS,
        _S.LETTERS_TO_NATS,
        _S.RECORDS_TO_NATS,
        _S.ASK_BETWEEN,
        *_CHANGE,
        # What was done since, by workers that still asked both done-stores, and died in between.
        _S.LATE_RECORDS_TO_NATS,
        _S.ASK_AFTER,
    ),
    (_P.DUAL_WRITE, _P.REDIS_ONLY): (
        _S.ASK_BEFORE,
        *_CHANGE,
        _S.NATS_ONLY_TO_REDIS,
        _S.ASK_AFTER,
        _S.FORGET_MOVES,
    ),
    (_P.DUAL_READ, _P.DUAL_WRITE): (
        _S.ASK_BEFORE,
        _S.REROUTE_WORKERS,
        _S.REROUTE_PRODUCERS,
        _S.NATS_ONLY_TO_REDIS,
        _S.ASK_AFTER,
        _S.FORGET_MOVES,
    ),
    # The workers finish what NATS has, so that its copies in Redis are known to be finished. Until
    # they have left it, one of them may still put on NATS what Redis alone has: `reconcile`.
    (_P.DUAL_READ, _P.REDIS_ONLY): (
        _S.ASK_BEFORE,
        _S.REROUTE_PRODUCERS,
        _S.WAIT_UNTIL_DRAINED,
        _S.TRIM_COPIES,
        _S.ASK_BETWEEN,
        _S.REROUTE_WORKERS,
        *_TAKE_BACK,
    ),
    (_P.NATS_PRIMARY, _P.DUAL_READ): _PLAIN,
    (_P.NATS_PRIMARY, _P.REDIS_ONLY): _OUT_OF_NATS,
    # Who asks both done-stores has one in common with who asks that of NATS; when all do, what
    # only NATS knows is copied.
    (_P.NATS_ONLY, _P.NATS_PRIMARY): (
        _S.ASK_BEFORE,
        *_CHANGE,
        _S.RECORDS_TO_REDIS,
        _S.ASK_AFTER,
    ),
    (_P.NATS_ONLY, _P.REDIS_ONLY): (
        _S.ASK_BEFORE,
        _S.JOIN_WORKERS,
        _S.RECORDS_TO_REDIS,
        _S.ASK_BETWEEN,
        *_CHANGE,
        *_TAKE_BACK,
    ),
}
"""The steps of each transition and rollback, in order."""

JOINED = Phase.NATS_PRIMARY
"""Where workers go by way of, who are to ask both done-stores: ``Step.JOIN_WORKERS``."""

MOMENTS = {
    Step.ASK_BEFORE: Moment.BEFORE,
    Step.ASK_BETWEEN: Moment.BETWEEN,
    Step.ASK_AFTER: Moment.AFTER,
}
REPEATED = frozenset(
    {
        Step.TRIM_COPIES,
        Step.REDIS_TO_NATS,
        Step.LETTERS_TO_NATS,
        Step.RECORDS_TO_NATS,
        Step.LATE_RECORDS_TO_NATS,
        Step.RECORDS_TO_REDIS,
        Step.NATS_ONLY_TO_REDIS,
        Step.DRAIN_TO_REDIS,
    }
)
"""What is done again before a gate is asked again: a straggler may have come since."""
