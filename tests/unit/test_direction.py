"""The timeline of a load test, and who has to follow it, without brokers."""

from types import SimpleNamespace

import pytest

from hookbench.ledger.events import Event
from hookbench.migration.phases import Phase
from tests.fakes import MemoryRecorder
from tests.unit.test_loadtests import load
from tests.virtual import VirtualClock

direction, protocol, run_options = load("_direction"), load("_protocol"), load("_run_options")


class Ledger(MemoryRecorder):
    phase = 0


@pytest.fixture
def run(tmp_path):
    """A director of a timeline whose producers follow at once; what it says, and its clock."""

    def begin(phases):
        said, clock = [], VirtualClock()
        order = protocol.Order(run="r", options=run_options.RunOptions(phases=phases))

        def say(event):
            said.append(event)
            if type(event).__name__ == "Enter":
                follow(event)

        def follow(event):
            director.producers.hear(
                SimpleNamespace(
                    producer="locust", index=event.index, phase=event.phase, version="1",
                    measures="none",
                )
            )  # fmt: skip

        director = direction.Director(
            order,
            SimpleNamespace(),
            SimpleNamespace(of=lambda _role: [], members=[], poll=lambda: None),
            SimpleNamespace(),
            start_worker=lambda *_arguments: None,
            control=tmp_path,
            ledger=Ledger(),
            clock=clock,
            say=say,
        )
        director.producers.be(["locust"])
        director.begin()
        return director, said, clock

    return begin


def phases_of(director):
    begin_ns = director.steps[0][1]
    return [(phase.label, (at - begin_ns) / 1e9) for phase, at in director.steps]


async def test_the_phases_come_at_their_times(run):
    director, said, clock = run("redis_only:20,dual_write:10.5,nats_only")
    await clock.sleep(100.0)
    await director.end()
    wanted = [("redis_only", 0.0), ("dual_write", 20.0), ("nats_only", 30.5)]
    assert phases_of(director) == wanted
    assert [event.phase for event in said if type(event).__name__ == "Enter"] == [
        "dual_write", "nats_only",
    ]  # fmt: skip
    assert director.doubts == []


async def test_after_a_change_by_hand_nothing_more_is_planned(run):
    director, said, clock = run("redis_only:20,nats_only")
    await clock.sleep(5.0)
    director.do(protocol.Do(number=3, what="phase", value="dual_write"))
    await clock.sleep(100.0)
    await director.end()
    assert phases_of(director) == [("redis_only", 0.0), ("dual_write", 5.0)]
    (answer,) = [event for event in said if type(event).__name__ == "Answer"]
    assert (answer.number, answer.ok, answer.text) == (3, True, "the phase is dual_write")


async def test_a_producer_that_does_not_follow_ends_the_timeline(run):
    director, _said, clock = run("redis_only:20,dual_write:20,nats_only")
    director.producers.be(["locust", "another"])
    await clock.sleep(200.0)
    await director.end()
    assert director.phase is Phase.DUAL_WRITE
    assert director.doubts == ["the timeline ended in dual_write: another did not enter dual_write"]


async def test_one_that_is_gone_is_not_waited_for(run):
    director, _said, clock = run("redis_only:20,nats_only")
    director.producers.be(["locust", "another"])
    await clock.sleep(21.0)
    director.producers.be(["locust"])
    await clock.sleep(100.0)
    await director.end()
    assert director.phase is Phase.NATS_ONLY
    assert director.doubts == []


async def test_the_steps_are_in_the_ledger(run):
    director, _said, clock = run("redis_only:1,dual_write:1,dual_read")
    ledger = director._ledger
    await clock.sleep(10.0)
    await director.end()
    assert ledger.phase == 2
    values = [value for event, _task, _broker, value, _attempt in ledger.events]
    assert values == [0, 1, 2]
    assert {event[0] for event in ledger.events} == {Event.PHASE}
