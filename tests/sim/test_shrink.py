"""Shrinking, stories and scenarios: from a seed that fails to something that a person can read."""

import msgspec
import pytest

from hookbench.brokers.durability import Durability
from hookbench.ledger.events import Event
from hookbench.migration.phases import Design, Phase
from hookbench.scenarios.schema import load_scenario
from hookbench.sim.as_scenario import as_rehearsal, rehearsal_toml
from hookbench.sim.explore import try_seed
from hookbench.sim.schedule import FaultKind, SimFault, draw_schedule
from hookbench.sim.shrink import Minimal, shrink
from hookbench.sim.story import tell_story
from hookbench.sim.trial import Cause, Scope
from hookbench.worker.loop import Worker

P = Phase


pytestmark = pytest.mark.usefixtures("quiet")


def scope_of(*phases, design=Design.GUIDE, **settings):
    return Scope(design=design, phases=phases, **settings)


def found(scope, key, engine, most=40):
    """The first seed with a cause, shrunk."""
    for seed in range(1, most + 1):
        if key in try_seed(scope, seed, "-", engine).causes:
            return shrink(scope, draw_schedule(seed, scope.span), seed, key, engine=engine)
    raise AssertionError(f"{key} is not found in {most} seeds")


def test_a_loss_is_shrunk_to_the_kill_of_one_worker(engine):
    scope = scope_of(P.NATS_PRIMARY, schedule=1)  # in which no handler fails
    minimal = found(scope, "P10/1", engine)
    (fault,) = minimal.faults
    assert fault.kind in (FaultKind.KILL, FaultKind.KILL_AT_STEP)
    assert (minimal.scope.workers, minimal.scope.concurrency) == (1, 1)
    assert minimal.scope.plan.tasks < scope.plan.tasks
    story = tell_story(minimal, engine=engine)
    assert [line for line in story if "*** kill" in line]
    assert [line for line in story if "acknowledges it to nats" in line]
    assert story[-2] == "In the end the task has no effect, and it lies nowhere."
    assert story[-1].startswith("So: 1 tasks lost: acknowledged before they were processed")
    numbers = [int(line.split(".")[0]) for line in story[:-2]]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_replay_needs_no_fault_and_two_phases(engine):
    minimal = found(scope_of(*Phase), "P5/4", engine, most=2)
    assert minimal.faults == ()
    assert minimal.scope.phases == (P.DUAL_WRITE, P.DUAL_READ)


@pytest.mark.parametrize("orphans", ["R1", "R3"])
def test_orphans_of_a_lost_reply_and_of_a_dead_worker(orphans, engine):
    """One hazard for the account, two for the table: what is left of the schedule tells which."""
    fault = {
        "R1": SimFault(
            kind=FaultKind.LOSE,
            target="worker-0",
            at_s=2.0,
            broker="redis",
            way="reply",
            command="BLMOVE",
        ),
        "R3": SimFault(kind=FaultKind.KILL_AT_STEP, target="worker-0", at_s=2.0, step="start"),
    }[orphans]
    others = [
        SimFault(kind=FaultKind.LATENCY, target="producer", at_s=0.5, broker="redis", delay_ms=9.0),
        SimFault(kind=FaultKind.PAUSE, target="worker-1", at_s=3.0, for_s=0.4),
    ]
    scope = scope_of(P.REDIS_ONLY)
    minimal = shrink(scope, [others[0], fault, others[1]], 3, "R3/5", engine=engine)
    (left,) = minimal.faults
    assert left.kind is fault.kind


def test_any_message_is_named_when_it_is_known_which_it_was(engine):
    scope = scope_of(P.REDIS_ONLY, workers=1)
    fault = SimFault(
        kind=FaultKind.LOSE, target="worker-0", at_s=2.0, broker="redis", way="reply", nth=4
    )
    minimal = shrink(scope, [fault], 3, "R3/5", engine=engine)
    (left,) = minimal.faults
    assert (left.command, left.nth) == ("BLMOVE", 1)


def test_a_schedule_that_does_not_fail_for_a_reason_is_not_shrunk(engine):
    assert shrink(scope_of(P.REDIS_ONLY), [], 1, "P10/1", engine=engine) is None


def test_a_planted_bug_is_found_in_hardened_and_shrunk(engine, monkeypatch):
    """A worker that acknowledges before it has done the task."""
    original = Worker._process

    async def acknowledges_first(self, item):
        self._acks.take(item.key, item.delivery)
        await item.delivery.ack()
        self._recorder.record(Event.ACK_SENT, item.task.id.bytes, broker=item.delivery.broker)
        item.settled = True
        await original(self, item)

    monkeypatch.setattr(Worker, "_process", acknowledges_first)
    minimal = found(scope_of(P.NATS_PRIMARY, design=Design.HARDENED), "P10/1", engine)
    assert len(minimal.faults) == 1
    assert minimal.faults[0].kind.startswith("kill")


def every_kind():
    link = {"target": "worker-1", "broker": "nats"}
    return [
        SimFault(kind=FaultKind.KILL, target="worker-0", at_s=1.0),
        SimFault(kind=FaultKind.KILL, target="producer", at_s=1.0),
        SimFault(kind=FaultKind.KILL, target="redis", at_s=1.0),
        SimFault(kind=FaultKind.KILL_AT_STEP, target="worker-0", at_s=1.0, step="ack", turns=2),
        SimFault(kind=FaultKind.KILL_AT_MESSAGE, at_s=1.0, way="request", **link),
        SimFault(kind=FaultKind.RESTART, target="worker-0", at_s=1.0, for_s=0.5),
        SimFault(kind=FaultKind.RESTART, target="producer", at_s=1.0, for_s=0.5),
        SimFault(kind=FaultKind.POWER_CUT, target="nats", at_s=1.0, for_s=0.5),
        SimFault(kind=FaultKind.PAUSE, target="producer", at_s=1.0, for_s=0.5),
        SimFault(kind=FaultKind.CUT, at_s=1.0, for_s=0.5, way="reply", **link),
        SimFault(kind=FaultKind.LOSE, at_s=1.0, way="request", command="Ack", **link),
        SimFault(
            kind=FaultKind.REPEAT,
            target="producer",
            broker="nats",
            at_s=1.0,
            way="request",
            command="publish",
        ),
        SimFault(kind=FaultKind.HOLD, at_s=1.0, way="reply", command="MSG", delay_ms=50.0, **link),
        SimFault(kind=FaultKind.RESET, at_s=1.0, way="request", command="Fetch", nth=3, **link),
        SimFault(kind=FaultKind.LATENCY, at_s=1.0, for_s=0.5, delay_ms=20.0, **link),
        SimFault(kind=FaultKind.PROMOTE, target="redis", at_s=1.0, for_s=0.5, delay_ms=300.0),
        SimFault(kind=FaultKind.MAXMEMORY, target="redis", at_s=1.0, for_s=0.5),
        SimFault(kind=FaultKind.STREAM_LIMITS, target="nats", at_s=1.0, for_s=0.5),
        SimFault(kind=FaultKind.DELETE_CONSUMER, target="nats", at_s=1.0, for_s=0.5),
        SimFault(kind=FaultKind.RECREATE_CONSUMER, target="nats", at_s=1.0),
        SimFault(
            kind=FaultKind.FAILING_HANDLER, target="workers", at_s=1.0, for_s=0.5, probability=0.5
        ),
        SimFault(
            kind=FaultKind.SLOW_HANDLER, target="workers", at_s=1.0, for_s=0.5, delay_ms=900.0
        ),
        SimFault(kind=FaultKind.POISON, target="queue", at_s=1.0, count=3),
        SimFault(kind=FaultKind.OVERSIZE, target="producers", at_s=1.0, for_s=0.5, count=1),
    ]


@pytest.mark.parametrize("design", list(Design))
def test_every_kind_of_fault_is_a_scenario_or_named_as_none(tmp_path, design):
    faults = every_kind()
    assert {fault.kind for fault in faults} == set(FaultKind)
    cause = Cause(hazard="P10", invariant=1, row="-", count=1, text="1 tasks lost")
    minimal = Minimal(
        seed=5,
        scope=scope_of(*Phase, design=design),
        faults=tuple(faults),
        cause=cause,
        tries=1,
        digest="",
    )
    text = rehearsal_toml(minimal)
    path = tmp_path / "found.toml"
    path.write_text(text)
    scenario = load_scenario(path)
    assert scenario.design is design
    left_out = text.count("# Left out")
    assert len(scenario.faults) + left_out == len(faults)
    assert left_out == 0
    for told in ("at a message", "of all workers", "power cut"):
        assert told in text
    (step,) = [item for item in scenario.faults if item["kind"] == "kill_at_step"]
    assert step["turns"] == 2
    (cut,) = [item for item in scenario.faults if item.get("action") == "partition"]
    assert cut["direction"] == "reply"


def test_of_several_nodes_a_scenario_aims_at_the_one_that_leads():
    cause = Cause(hazard="P10", invariant=1, row="-", count=1, text="1 tasks lost")
    scope = scope_of(P.NATS_PRIMARY)
    faults = tuple(every_kind())
    minimal = Minimal(seed=5, scope=scope, faults=faults, cause=cause, tries=1, digest="")
    single = as_rehearsal(minimal).settings
    scope = msgspec.structs.replace(scope, durability=Durability.REPLICATED, max_inversions=0)
    several = as_rehearsal(msgspec.structs.replace(minimal, scope=scope)).settings
    assert (several.topology, several.durability) == ("replicated", Durability.REPLICATED)
    assert (several.max_inversions, single.max_inversions) == (0, None)
    assert single.durability is Durability.FSYNC
    moved = {
        (before.target, after.target)
        for before, after in zip(single.faults, several.faults, strict=True)
        if before != after
    }
    assert moved == {("redis", "redis_master")}


def test_a_minimal_schedule_is_kept_as_it_was(engine):
    minimal = found(scope_of(P.NATS_PRIMARY), "P10/1", engine)
    again = msgspec.json.decode(msgspec.json.encode(minimal), type=Minimal)
    assert again == minimal
    assert tell_story(again, engine=engine) == tell_story(minimal, engine=engine)


def test_what_a_rehearsal_cannot_do_is_left_out_and_said():
    faults = [
        SimFault(kind=FaultKind.KILL, target="operator", at_s=1.0),
        SimFault(kind=FaultKind.PAUSE, target="operator", at_s=1.0, for_s=0.5),
        SimFault(kind=FaultKind.POWER_CUT, target="producer", at_s=1.0, for_s=0.5),
        SimFault(kind=FaultKind.RESTART, target="producer", at_s=1.0, for_s=0.5),
    ]
    minimal = Minimal(
        seed=5,
        scope=scope_of(*Phase, design=Design.HARDENED),
        faults=tuple(faults),
        cause=Cause(hazard="-", invariant=1, row="-", count=1, text="1 tasks lost"),
        tries=1,
        digest="",
    )
    made = as_rehearsal(minimal)
    assert [(type(item).__name__, item.target) for item in made.settings.faults] == [
        ("Restart", "producer-0")
    ]
    assert made.left_out == 3
    assert sum("Left out, for a rehearsal has nothing like it" in note for note in made.notes) == 3
