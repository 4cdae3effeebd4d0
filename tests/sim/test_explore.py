"""The search: what it draws, what it finds, and that it says the same twice."""

import logging

import pytest

from hookbench.ledger.events import Event
from hookbench.ledger.model import Verdict
from hookbench.migration.phases import Design, Phase
from hookbench.sim import trial as trial_module
from hookbench.sim.errors import SpentError
from hookbench.sim.explore import explore, try_seed
from hookbench.sim.schedule import FaultKind, SimFault, draw_schedule
from hookbench.sim.trial import Scope, try_schedule

P = Phase
ALL = tuple(Phase)


pytestmark = pytest.mark.usefixtures("quiet")


def scope_of(*phases, design=Design.GUIDE, **settings):
    transition = 1 if len(phases) == 2 else None
    return Scope(design=design, phases=phases, transition=transition, **settings)


def first_seed_with(key, scope, most, engine):
    for seed in range(1, most + 1):
        if key in try_seed(scope, seed, "-", engine).causes:
            return seed
    return None


def test_a_schedule_follows_from_its_seed_and_lies_in_its_span():
    span = scope_of(*ALL).span
    drawn = [draw_schedule(seed, span) for seed in range(300)]
    assert drawn == [draw_schedule(seed, span) for seed in range(300)]
    assert len(set(drawn)) == 300
    faults = [fault for schedule in drawn for fault in schedule]
    assert {fault.kind for fault in faults} == set(FaultKind)
    assert all(0 < fault.at_s < span.end_s for fault in faults)
    assert all(list(item) == sorted(item, key=lambda fault: fault.at_s) for item in drawn)


def test_faults_of_a_transition_are_gathered_around_it():
    span = scope_of(P.DUAL_WRITE, P.DUAL_READ, phase_s=10.0).span
    faults = [fault for seed in range(300) for fault in draw_schedule(seed, span)]
    near = sum(abs(fault.at_s - 10.0) <= 1.0 for fault in faults)
    assert 0.5 < near / len(faults) < 0.7


def test_no_fault_is_aimed_at_a_broker_that_a_phase_does_not_use():
    for phase, other in ((P.REDIS_ONLY, "nats"), (P.NATS_ONLY, "redis")):
        span = scope_of(phase).span
        faults = [fault for seed in range(200) for fault in draw_schedule(seed, span)]
        assert faults
        assert not [item for item in faults if other in (item.target, item.broker)]


@pytest.mark.parametrize(
    ("phases", "key", "most"),
    [
        ((P.NATS_PRIMARY,), "P10/1", 20),  # lost: acknowledged early, then the worker dies
        ((P.REDIS_ONLY,), "R3/5", 20),  # orphaned in the work list
        ((P.DUAL_WRITE,), "P3/5", 20),  # NATS took it, Redis did not
        ((P.DUAL_READ,), "P9/5", 40),  # only in Redis, which nobody reads
        ((P.DUAL_WRITE, P.DUAL_READ), "P5/4", 1),  # replayed by a consumer made late
        ((P.DUAL_READ, P.NATS_PRIMARY), "P8/5", 5),  # copies left behind in Redis
        ((P.NATS_PRIMARY, P.REDIS_ONLY), "B3/5", 40),  # stranded by a rollback
    ],
    ids=lambda item: item if isinstance(item, str) else None,
)
def test_the_hazards_of_the_guide_are_found(phases, key, most, engine):
    assert first_seed_with(key, scope_of(*phases), most, engine) is not None


def test_hardened_has_no_failure(engine):
    """A few seeds of each; thousands are searched as evidence."""
    scopes = [scope_of(*ALL, design=Design.HARDENED)] * 4
    scopes += [scope_of(phase, design=Design.HARDENED) for phase in ALL for _ in range(2)]
    scopes += [
        scope_of(*ends, design=Design.HARDENED)
        for ends in (
            (P.DUAL_WRITE, P.DUAL_READ),
            (P.DUAL_READ, P.NATS_PRIMARY),
            (P.NATS_PRIMARY, P.REDIS_ONLY),
        )
        for _ in range(2)
    ]
    found = [try_seed(scope, seed, "-", engine) for seed, scope in enumerate(scopes, 1)]
    assert [(item.scope, item.seed, item.failing) for item in found if item.failing] == []
    assert sum(item.fired for item in found) > 40


def same(entries):
    return [
        (item.seed, item.verdict, item.digest, item.causes, item.cells, item.faults)
        for item in sorted(entries, key=lambda item: item.seed)
    ]


def test_a_seed_says_the_same_again_and_in_other_processes():
    scope = scope_of(P.NATS_PRIMARY)
    here = same(explore(scope, [7, 8, 9], "-", jobs=1))
    assert same(explore(scope, [7, 8, 9], "-", jobs=1)) == here
    assert same(explore(scope, [9, 8, 7], "-", jobs=2)) == here
    assert len({digest for _seed, _verdict, digest, *_rest in here}) == 3


def test_who_explores_still_logs():
    logging.disable(logging.NOTSET)
    log = logging.getLogger("hookbench.queues")
    before = log.isEnabledFor(logging.INFO), log.isEnabledFor(logging.ERROR)
    for _entry in explore(scope_of(P.NATS_PRIMARY), [7], "-", jobs=1):
        assert (log.isEnabledFor(logging.INFO), log.isEnabledFor(logging.ERROR)) == before
    assert before[1]


def test_a_run_that_breaks_down_is_unknown_and_failing(monkeypatch, engine):
    def broken(*_arguments, **_options):
        raise SpentError("no end", [])

    monkeypatch.setattr(trial_module, "run_schedule", broken)
    entry = try_seed(scope_of(P.NATS_ONLY), 1, "-", engine)
    assert entry.verdict is Verdict.UNKNOWN
    assert "SpentError: no end" in entry.failing


def fault(kind, **settings):
    return SimFault(kind=kind, target="worker-0", at_s=1.0, for_s=0.5, **settings)


@pytest.mark.parametrize("step", ["receive", "claim", "start", "effect", "done", "ack"])
@pytest.mark.parametrize("turns", [0, 1, 3])
def test_a_worker_dies_at_its_step(step, turns, engine):
    scope = scope_of(P.NATS_PRIMARY, design=Design.HARDENED, tasks=40)
    faults = [fault(FaultKind.KILL_AT_STEP, step=step, nth=1, turns=turns)]
    trial = try_schedule(scope.plan, faults, 3, engine=engine)
    assert trial.verdict is Verdict.VALID
    (firing,) = trial.firings
    if turns == 0:
        reached = {"receive": "received", "claim": "claimed", "start": "started"}
        assert reached.get(step, step).removesuffix("_sent") in " ".join(firing.steps)


@pytest.mark.parametrize("way", ["request", "reply"])
@pytest.mark.parametrize("kind", [FaultKind.KILL_AT_MESSAGE, FaultKind.LOSE, FaultKind.RESET])
def test_a_message_is_met(kind, way, engine):
    scope = scope_of(P.REDIS_ONLY, tasks=8)
    command = {"request": "LREM", "reply": "BLMOVE"}[way]
    faults = [fault(kind, broker="redis", way=way, command=command)]
    trial = try_schedule(scope.plan, faults, 3, engine=engine)
    (firing,) = trial.firings
    assert firing.kind == kind
    assert f"{kind} {way} {command}" in trial.incidents[0]


def test_what_does_not_come_has_not_fired(engine):
    scope = scope_of(P.REDIS_ONLY, tasks=8)
    faults = [fault(FaultKind.LOSE, broker="redis", way="request", command="XADD")]
    assert try_schedule(scope.plan, faults, 3, engine=engine).firings == ()


def test_a_killed_producer_is_replaced_and_goes_on(engine):
    scope = scope_of(P.REDIS_ONLY, tasks=40)
    faults = [SimFault(kind=FaultKind.KILL, target="producer", at_s=1.02, for_s=0.5)]
    trial = try_schedule(scope.plan, faults, 3, engine=engine)
    assert trial.verdict is Verdict.VALID
    assert trial.accepted == 40 - 5  # due while nobody was there
    assert any("producer is started again" in text for text in trial.incidents)


@pytest.mark.parametrize("design", list(Design))
def test_who_is_asked_to_stop_ends_what_it_has_and_is_replaced(design, engine):
    """Two workers in turn and the producer: nothing is lost, done again or left."""
    scope = scope_of(P.NATS_ONLY, design=design, tasks=80)
    faults = [
        SimFault(kind=FaultKind.RESTART, target=target, at_s=at_s, for_s=0.5)
        for target, at_s in (("worker-0", 1.0), ("producer", 1.5), ("worker-1", 2.0))
    ]
    trial = try_schedule(scope.plan, faults, 3, engine=engine)
    assert (trial.verdict, trial.causes) == (Verdict.VALID, ())
    assert len(trial.firings) == 3
    said = "\n".join(trial.incidents)
    for place in ("worker-0", "producer", "worker-1"):
        assert said.index(f"{place} ended in order") < said.index(f"{place} is started again")
    assert trial.accepted == 80 - 11  # due while there was no producer


def test_a_process_that_does_not_end_makes_the_run_unknown(engine, monkeypatch):
    monkeypatch.setattr("hookbench.worker.service.WorkerService.request_stop", lambda _self: None)
    asked = SimFault(kind=FaultKind.RESTART, target="worker-0", at_s=1.5, for_s=0.5)
    scope = scope_of(P.REDIS_ONLY, tasks=40)
    trial = try_schedule(scope.plan, [asked], 3, engine=engine)
    assert trial.verdict is Verdict.UNKNOWN
    assert any("worker-0 lives on 60 s after SIGTERM" in cause.text for cause in trial.causes)


def test_the_steps_of_a_put_are_covered(engine):
    """What strikes a producer is counted by what it had told last."""
    scope = scope_of(P.NATS_PRIMARY, tasks=40)
    faults = [
        SimFault(
            kind=FaultKind.KILL_AT_MESSAGE,
            target="producer",
            at_s=1.0,
            broker="nats",
            way="request",
            command="publish",
        )
    ]
    (firing,) = try_schedule(scope.plan, faults, 3, engine=engine).firings
    assert firing.steps == (Event.PUT_INVOKED.name.lower(),)


def test_what_is_thrown_away_lies_in_memory_where_there_is_room(tmp_path, monkeypatch):
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(trial_module, "_IN_MEMORY", tmp_path)
    assert trial_module._throw_away() == tmp_path
    monkeypatch.setattr(trial_module, "_ROOM_BYTES", 2**63)
    assert trial_module._throw_away() is None
    monkeypatch.setattr(trial_module, "_ROOM_BYTES", 0)
    monkeypatch.setattr(trial_module, "_IN_MEMORY", tmp_path / "none")
    assert trial_module._throw_away() is None
    monkeypatch.setattr(trial_module, "_IN_MEMORY", tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert trial_module._throw_away() is None
