"""Faults of brokers, handlers and load in the simulator: those of a rehearsal, by its own code."""

import pytest

from hookbench.ledger.model import Verdict
from hookbench.migration.phases import Design, Phase
from hookbench.sim.schedule import FaultKind, SimFault
from hookbench.sim.trial import Scope, try_schedule

K, P = FaultKind, Phase
pytestmark = pytest.mark.usefixtures("quiet")
TASKS = 40


def fault(kind, target, **more):
    return SimFault(kind=kind, target=target, **{"at_s": 2.0, "for_s": 1.0, **more})


FAULTS = [
    (P.REDIS_ONLY, fault(K.PROMOTE, "redis", delay_ms=500.0)),
    (P.DUAL_WRITE, fault(K.MAXMEMORY, "redis")),
    (P.NATS_PRIMARY, fault(K.STREAM_LIMITS, "nats")),
    (P.NATS_PRIMARY, fault(K.DELETE_CONSUMER, "nats")),
    (P.DUAL_READ, fault(K.RECREATE_CONSUMER, "nats", for_s=0.0)),
    (P.NATS_ONLY, fault(K.FAILING_HANDLER, "workers", probability=0.5)),
    (P.REDIS_ONLY, fault(K.FAILING_HANDLER, "workers", probability=1.0)),
    (P.NATS_ONLY, fault(K.SLOW_HANDLER, "workers", delay_ms=8000.0)),
    (P.REDIS_ONLY, fault(K.SLOW_HANDLER, "workers", delay_ms=8000.0)),
    (P.REDIS_ONLY, fault(K.POISON, "queue", count=5)),
    (P.NATS_ONLY, fault(K.POISON, "queue", count=5)),
    (P.DUAL_WRITE, fault(K.OVERSIZE, "producers", count=2)),
]


def trial(phase, *faults, design=Design.GUIDE, engine, **settings):
    scope = Scope(design=design, phases=(phase,), **{"tasks": TASKS, **settings})
    return try_schedule(scope.plan, faults, 3, engine=engine)


@pytest.mark.parametrize(
    ("phase", "planned"), FAULTS, ids=lambda item: getattr(item, "kind", None) or item.label
)
def test_hardened_survives_it(phase, planned, engine):
    found = trial(phase, planned, design=Design.HARDENED, engine=engine)
    assert found.verdict is Verdict.VALID
    assert [firing.kind for firing in found.firings] == [planned.kind]
    assert found.duplicated == 0


def of_both(engine, phase, *faults, **settings):
    return [trial(phase, *faults, design=item, engine=engine, **settings) for item in Design]


def test_a_promotion_loses_what_the_replica_has_not(engine):
    """Hazard R7: while a backlog waits, and nothing got to the replica for 0.8 s."""
    slow = fault(K.SLOW_HANDLER, "workers", at_s=1.0, for_s=2.0, delay_ms=2000.0)
    lagging = fault(K.PROMOTE, "redis", at_s=1.5, delay_ms=800.0)
    guide, hardened = of_both(engine, P.REDIS_ONLY, slow, lagging, tasks=80, concurrency=1)
    assert [cause.key for cause in guide.causes] == ["-/1 # tasks lost: acknowledged to the caller"]
    assert guide.lost > 5
    assert (hardened.verdict, hardened.lost) == (Verdict.VALID, 0)


def test_a_consumer_made_anew_delivers_all_again(engine):
    """Hazard N7; the account knows the fault, so it is duplicated, and not invalid."""
    again = fault(K.RECREATE_CONSUMER, "nats", for_s=0.0)
    guide, hardened = of_both(engine, P.NATS_PRIMARY, again)
    assert guide.duplicated > TASKS // 3
    assert hardened.duplicated == 0


def test_a_failing_handler_loses_what_was_acknowledged_early(engine):
    """Hazard P10."""
    fails = fault(K.FAILING_HANDLER, "workers", probability=1.0)
    guide, hardened = of_both(engine, P.NATS_PRIMARY, fails)
    assert [cause.key for cause in guide.causes] == ["P10/1"]
    assert hardened.verdict is Verdict.VALID


def test_a_handler_that_hangs_beyond_its_lease_is_done_twice(engine):
    """Hazard N6, which the early acknowledgement of the guide masks."""
    hangs = fault(K.SLOW_HANDLER, "workers", delay_ms=8000.0)
    assert trial(P.NATS_PRIMARY, hangs, engine=engine).duplicated == 0
    assert trial(P.NATS_PRIMARY, hangs, engine=engine, measures="ack_after").duplicated > 0


def test_a_full_redis_refuses_and_the_outbox_takes(engine):
    full, options = fault(K.MAXMEMORY, "redis"), {"design": Design.HARDENED, "engine": engine}
    refused = trial(P.REDIS_ONLY, full, measures="-outbox", **options)
    taken = trial(P.REDIS_ONLY, full, **options)
    assert refused.accepted < TASKS <= taken.accepted
    assert (refused.verdict, taken.verdict) == (Verdict.VALID, Verdict.VALID)


def test_a_task_beyond_all_limits_is_refused(engine):
    """Hazard S1."""
    assert trial(P.DUAL_WRITE, fault(K.OVERSIZE, "producers", count=2), engine=engine).accepted == (
        TASKS - 2
    )


def test_what_finds_no_target_has_not_fired(engine):
    gone = fault(K.DELETE_CONSUMER, "nats")
    found = trial(P.DUAL_WRITE, gone, engine=engine)
    assert found.firings == ()
    assert "delete_consumer nats did not fire: " in found.incidents[0]


def test_a_replica_is_there_for_a_promotion_alone(engine):
    first = trial(P.REDIS_ONLY, engine=engine)
    assert first == trial(P.REDIS_ONLY, engine=engine)
    twice = [trial(P.REDIS_ONLY, fault(K.PROMOTE, "redis"), engine=engine) for _ in range(2)]
    assert twice[0] == twice[1]
    assert twice[0].digest != first.digest


def test_a_master_that_is_down_is_not_promoted_over(engine):
    down = fault(K.KILL, "redis", at_s=1.9)
    found = trial(P.REDIS_ONLY, down, fault(K.PROMOTE, "redis"), engine=engine)
    assert [firing.kind for firing in found.firings] == ["kill"]
    assert found.verdict is Verdict.VALID


def test_a_replica_follows_a_master_that_had_lost_its_power(engine):
    """Under hardened nothing is taken without it. The promotion finds the master down."""
    dark = fault(K.POWER_CUT, "redis", at_s=1.9)
    late = fault(K.PROMOTE, "redis", at_s=1.8, delay_ms=300.0)
    found = trial(P.REDIS_ONLY, dark, late, design=Design.HARDENED, engine=engine)
    assert [firing.kind for firing in found.firings] == ["power_cut"]
    assert found.verdict is Verdict.VALID
