"""The measures that ask beside the clients, have a disk, or an operator: each is seen to be on.

For each there is a run that goes wrong without it, and does not with it.
"""

import contextvars
import itertools

import pytest

from hookbench.brokers.durability import Durability
from hookbench.errors import BrokerUnsuitableError
from hookbench.ledger.model import Verdict
from hookbench.migration.phases import Design, Phase
from hookbench.migration.procedures import PROCEDURES
from hookbench.migration.spool import Spool
from hookbench.sim.faults import power_cut
from hookbench.sim.migration import MigrationPlan, simulate_migration
from hookbench.sim.schedule import FaultKind, SimFault
from hookbench.sim.trial import try_schedule

P = Phase
pytestmark = pytest.mark.usefixtures("quiet")


def plan_of(*phases, without=(), **settings):
    settings = {"tasks": 40 * len(phases), "service_s": 0.05, **settings}
    measures = ",".join(f"-{name}" for name in without)
    return MigrationPlan(design=Design.HARDENED, phases=phases, measures=measures, **settings)


def fault(kind, target, at_s, for_s=0.0, **settings):
    return SimFault(kind=kind, target=target, at_s=at_s, for_s=for_s, **settings)


def verdict_of(plan, faults, engine, seed=3):
    trial = try_schedule(plan, faults, seed, engine=engine)
    assert len(trial.firings) == len(faults), trial.incidents
    return trial


def is_valid(outcome):
    return all(item.verdict is Verdict.VALID for item in outcome.account.invariants)


def test_all_measures_of_the_design_are_on():
    plan = MigrationPlan(design=Design.HARDENED)
    assert all(getattr(plan.in_force, name) for name in plan.in_force.__struct_fields__)
    assert not plan_of(P.NATS_ONLY, without=("outbox",)).in_force.outbox


def test_without_an_outbox_a_task_is_accepted_that_only_one_broker_has(engine):
    """Hazard P3, where nothing reconciles what one broker lacks."""
    faults = [fault(FaultKind.KILL, "redis", 1.0, 1.0)]
    without = verdict_of(plan_of(P.DUAL_WRITE, without=("reconcile", "outbox")), faults, engine)
    assert without.verdict is Verdict.INVALID
    assert without.causes[0].hazard == "P3"
    with_it = verdict_of(plan_of(P.DUAL_WRITE, without=("reconcile",)), faults, engine)
    assert (with_it.verdict, with_it.causes) == (Verdict.VALID, ())


NOBODY_TAKES = [fault(FaultKind.KILL, broker, 1.0, 2.0) for broker in ("redis", "nats")]


@pytest.mark.parametrize("kind", [FaultKind.KILL, FaultKind.POWER_CUT])
def test_a_task_in_the_outbox_outlives_the_producer(kind, engine):
    faults = [*NOBODY_TAKES, fault(kind, "producer", 2.0, 0.5)]
    trial = verdict_of(plan_of(P.DUAL_WRITE), faults, engine)
    assert (trial.verdict, trial.causes) == (Verdict.VALID, ())
    assert trial.accepted >= 20, "those that were due until it died"


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [(FaultKind.KILL, Verdict.VALID), (FaultKind.POWER_CUT, Verdict.INVALID)],
)
def test_an_outbox_that_does_not_wait_for_its_disk_loses_by_the_power_cut_alone(
    kind, verdict, engine, monkeypatch
):
    transaction = Spool.transaction
    monkeypatch.setattr(
        Spool, "transaction", lambda self, **_durable: transaction(self, durable=False)
    )
    faults = [*NOBODY_TAKES, fault(kind, "producer", 2.0, 0.5)]
    trial = verdict_of(plan_of(P.DUAL_WRITE), faults, engine)
    assert trial.verdict is verdict
    assert (trial.lost > 0) == (verdict is Verdict.INVALID)


FULL_S, FULL_BYTES = 3.0, 1_010_000
STOPPED = [fault(FaultKind.PAUSE, f"worker-{number}", 1.0, FULL_S) for number in (0, 1)]


def test_without_oom_claims_nobody_takes_a_task_from_a_full_redis(engine):
    """Hazard R6; without the outbox, for its tasks find no room while records are kept."""
    settings = {"maxmemory_bytes": FULL_BYTES, "tasks": 160, "phase_s": 8.0}
    plan = plan_of(P.REDIS_ONLY, without=("outbox", "oom_claims"), **settings)
    without = verdict_of(plan, STOPPED, engine)
    assert without.verdict is not Verdict.VALID
    assert without.stuck > 0
    with_it = verdict_of(plan_of(P.REDIS_ONLY, without=("outbox",), **settings), STOPPED, engine)
    assert (with_it.verdict, with_it.causes) == (Verdict.VALID, ())
    assert 0 < with_it.accepted < 160, "it was not full"


def test_with_oom_claims_a_redis_that_evicts_is_refused_at_the_start(tmp_path, engine):
    settings = {"maxmemory_bytes": FULL_BYTES, "eviction": "allkeys-lru", "tasks": 160}
    plan = plan_of(P.REDIS_ONLY, without=("oom_claims",), **settings)
    trial = try_schedule(plan, STOPPED, 3, engine=engine)
    assert trial.lost > 0
    with pytest.raises(BrokerUnsuitableError, match="evicts keys when it is full"):
        simulate_migration(plan_of(P.REDIS_ONLY, **settings), 3, tmp_path, engine=engine)


def test_with_synced_only_nobody_uses_a_jetstream_that_syncs_too_seldom(tmp_path, engine):
    """Hazard N10: a power cut takes what was written since the last sync."""
    outcomes = {}
    for without in ((), ("synced_only",)):
        folder = tmp_path / "-".join(("run", *without))
        folder.mkdir()
        phases = (P.REDIS_ONLY, P.DUAL_WRITE, P.DUAL_READ, P.NATS_PRIMARY)
        plan = plan_of(
            *phases, without=without, nats_sync_interval_s=120.0, service_s=0.5, concurrency=2
        )
        faults = [power_cut("nats", at_s=18.0, for_s=0.0)]
        outcomes[without] = simulate_migration(plan, 7, folder, engine=engine, faults=faults)
    on, off = outcomes[()], outcomes["synced_only",]
    assert off.held_back == ""
    assert off.account.lost > 0
    assert on.held_back == "redis_only to dual_write: producer not in dual_write"
    assert is_valid(on)
    assert on.account.done == on.account.accepted


@pytest.mark.parametrize("durability", [Durability.LAZY, Durability.FSYNC, Durability.REPLICATED])
def test_a_jetstream_that_syncs_in_time_is_used(durability, tmp_path, engine):
    plan = plan_of(P.REDIS_ONLY, P.DUAL_WRITE, durability=durability)
    outcome = simulate_migration(plan, 7, tmp_path, engine=engine)
    assert (outcome.held_back, is_valid(outcome)) == ("", True)


def test_without_gates_a_rollback_strands_what_a_late_producer_wrote(engine):
    """Hazard B3: the producer's link is cut while everybody is told to go back."""
    faults = [fault(FaultKind.CUT, "producer", 3.8, 2.0, broker="redis")]
    phases = (P.NATS_PRIMARY, P.REDIS_ONLY)
    without = verdict_of(plan_of(*phases, without=("gates",)), faults, engine)
    assert without.verdict is Verdict.INVALID
    assert without.causes[0].hazard == "B3"
    with_it = verdict_of(plan_of(*phases), faults, engine)
    assert (with_it.verdict, with_it.causes) == (Verdict.VALID, ())


def steps_of(phases):
    return [
        f"{source.label} to {target.label}: {step.value}"
        for source, target in itertools.pairwise(phases)
        for step in PROCEDURES[source, target]
    ]


def kill_the_operator_at_each_step(killed):
    async def watch(site):
        note = site.note

        def noted(text):
            note(text)
            if text in steps_of(site.plan.phases) and text not in killed:
                killed.append(text)
                contextvars.Context().run(site.loop.processes.kill, site.operator)

        site.note = noted

    return watch


@pytest.mark.parametrize(
    "phases",
    [tuple(Phase), (P.DUAL_READ, P.REDIS_ONLY), (P.NATS_ONLY, P.REDIS_ONLY)],
    ids=lambda phases: f"{phases[0].label}-{phases[-1].label}",
)
def test_an_operator_who_dies_at_each_step_goes_on_there(phases, tmp_path, engine):
    killed = []
    outcome = simulate_migration(
        plan_of(*phases),
        7,
        tmp_path,
        engine=engine,
        faults=[kill_the_operator_at_each_step(killed)],
    )
    assert killed == steps_of(phases)
    assert outcome.held_back == ""
    assert is_valid(outcome), [str(item) for item in outcome.account.findings]
    assert outcome.account.done + outcome.account.superseded == outcome.account.accepted


def test_a_schedule_may_be_aimed_at_the_operator(engine):
    faults = [
        fault(FaultKind.KILL, "operator", 4.3),
        fault(FaultKind.PAUSE, "operator", 5.2, 1.0),
        fault(FaultKind.CUT, "operator", 5.1, 1.0, broker="nats"),
    ]
    trial = verdict_of(plan_of(P.DUAL_READ, P.NATS_PRIMARY), faults, engine)
    assert (trial.verdict, trial.causes) == (Verdict.VALID, ())
    assert any("the operator goes on" in text for text in trial.incidents)


def test_a_gate_that_never_says_go_makes_the_run_unknown(engine):
    """The worker never wakes while the operator has patience: the fleet is not in one phase."""
    faults = [fault(FaultKind.PAUSE, "worker-0", 3.9, 200.0)]
    trial = verdict_of(plan_of(P.REDIS_ONLY, P.DUAL_WRITE), faults, engine)
    assert trial.verdict is Verdict.UNKNOWN
    assert any(
        "held back: redis_only to dual_write: worker-0" in item.text for item in trial.causes
    )
