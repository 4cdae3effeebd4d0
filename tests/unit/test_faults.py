"""Faults in a scenario, and a schedule in virtual time."""

import asyncio
import signal

import pytest

from hookbench.clock import sleep_until
from hookbench.errors import BrokerUnreachableError, HookbenchError, SettingError
from hookbench.faults.base import Fault, FaultNotFiredError
from hookbench.faults.memory import FaultMemory
from hookbench.faults.registry import FAULTS, parse_fault
from hookbench.faults.schedule import FaultSchedule
from hookbench.faults.step import STEPS, DyingRecorder, parse_step
from hookbench.ledger.events import Event
from tests.fakes import MemoryRecorder
from tests.virtual import VirtualClock

S = 1_000_000_000


class Noted(Fault, frozen=True, kw_only=True, tag="noted"):
    """Writes down what is done."""

    fails: str = ""

    async def inject(self, targets):
        targets.log.append(("inject", self.target, targets.clock.now_ns))
        if self.fails == "inject":
            raise FaultNotFiredError("nobody home")
        if self.fails == "twice" and len(targets.log) < 4:
            raise BrokerUnreachableError("it is down")
        if self.fails == "hang":
            await targets.clock.sleep(1e6)

    async def heal(self, targets):
        targets.log.append(("heal", self.target, targets.clock.now_ns))
        if self.fails == "heal":
            raise HookbenchError("the port is taken")
        if self.fails == "slow heal":
            await targets.clock.sleep(10.0)
            targets.log.append(("healed", self.target, targets.clock.now_ns))


class Setting(Noted, frozen=True, kw_only=True, tag="setting"):
    """Changes a setting, which those that come later must not find changed."""

    @property
    def what(self):
        return "setting"


class Alone(Noted, frozen=True, kw_only=True, tag="alone"):
    """Not before the one of its kind is healed."""

    lead: float = 0.0

    @property
    def one_at_a_time(self):
        return True

    @property
    def lead_s(self):
        return self.lead

    async def prepare(self, targets):
        targets.log.append(("prepare", self.target, targets.clock.now_ns))


class Targets:
    def __init__(self):
        self.clock = VirtualClock()
        self.memory = FaultMemory()
        self.log = []
        self.roles = {}

    async def resolve(self, target):
        if self.roles.get(target, target) is None:
            raise HookbenchError("nobody leads")
        return self.roles.get(target, target)


@pytest.fixture
def carry_out():
    async def run(*faults, until_s=None, roles=None, phases=()):
        targets, recorder = Targets(), MemoryRecorder()
        targets.roles = {} if roles is None else roles
        schedule = FaultSchedule(faults, targets, recorder)
        start_ns = targets.clock.now_ns
        running = asyncio.ensure_future(schedule.run(start_ns))
        for phase_index, at_s in phases:
            await sleep_until(start_ns + int(at_s * S), targets.clock)
            schedule.begin_phase(phase_index, targets.clock.now_ns)
        if until_s is not None:
            await targets.clock.sleep(until_s)
            running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await schedule.heal()
        log = [(what, who, (at - start_ns) / S) for what, who, at in targets.log]
        return schedule, log, recorder, start_ns

    return run


async def test_each_fault_comes_at_its_time_and_is_healed(carry_out):
    schedule, log, recorder, start_ns = await carry_out(
        Noted(target="b", at_s=2.0, for_s=3.0), Noted(target="a", at_s=1.0, for_s=1.5)
    )
    assert log == [
        ("inject", "a", 1.0),
        ("inject", "b", 2.0),
        ("heal", "a", 2.5),
        ("heal", "b", 5.0),
    ]
    assert schedule.unknown() == []
    first = schedule.records[0]
    assert (first.kind, first.begin_ns, first.end_ns) == (
        "noted",
        start_ns + 2 * S,
        start_ns + 5 * S,
    )
    events = [(event, value) for event, _task, _broker, value, _attempt in recorder.events]
    assert events == [
        (Event.FAULT_BEGIN, 1),
        (Event.FAULT_BEGIN, 0),
        (Event.FAULT_END, 1),
        (Event.FAULT_END, 0),
    ]


async def test_one_that_nobody_planned_makes_nothing_unknown():
    """Who asked for it is told; the run is what was planned."""
    targets = Targets()
    schedule = FaultSchedule((Noted(target="a", at_s=1.0),), targets, MemoryRecorder())
    running = asyncio.ensure_future(schedule.run(targets.clock.now_ns))
    indices = [
        schedule.add(Noted(target="b", at_s=0.5, fails="inject")),
        schedule.add(Noted(target="c", at_s=0.5, for_s=1.0)),
    ]
    await asyncio.gather(running, *map(schedule.carry_out, indices))
    records = [schedule.records[index] for index in indices]
    assert [record.problem is None for record in records] == [False, True]
    assert (records[1].end_ns - records[1].begin_ns) / S == 1.0
    assert schedule.unknown() == []


async def test_of_a_kind_that_comes_one_at_a_time_the_next_one_waits(carry_out):
    schedule, log, _recorder, _start_ns = await carry_out(
        Alone(target="a", at_s=1.0, for_s=1.0, fails="slow heal"),
        Alone(target="b", at_s=3.0, for_s=1.0, lead=0.5),
        Noted(target="c", at_s=3.0),
    )
    assert log == [
        ("inject", "a", 1.0),
        ("heal", "a", 2.0),
        ("inject", "c", 3.0),
        ("heal", "c", 3.0),
        ("healed", "a", 12.0),
        ("prepare", "b", 12.0),
        ("inject", "b", 12.5),
        ("heal", "b", 13.5),
    ]
    assert schedule.unknown() == []


async def test_what_is_healed_late_is_not_met_by_what_comes_later(carry_out):
    schedule, log, _recorder, _start_ns = await carry_out(
        Setting(target="a", at_s=1.0, for_s=1.0, fails="slow heal"),
        Setting(target="b", at_s=3.0, for_s=1.0),
        Noted(target="c", at_s=3.0),
    )
    assert log == [
        ("inject", "a", 1.0),
        ("heal", "a", 2.0),
        ("inject", "c", 3.0),
        ("heal", "c", 3.0),
        ("healed", "a", 12.0),
        ("inject", "b", 12.0),
        ("heal", "b", 13.0),
    ]
    assert schedule.unknown() == []


async def test_two_that_are_to_overlap_do(carry_out):
    _schedule, log, _recorder, _start_ns = await carry_out(
        Setting(target="a", at_s=1.0, for_s=2.0), Setting(target="b", at_s=2.0, for_s=2.0)
    )
    assert [(what, target) for what, target, _at in log] == [
        ("inject", "a"),
        ("inject", "b"),
        ("heal", "a"),
        ("heal", "b"),
    ]


async def test_one_that_does_not_fire_lets_the_next_one_come(carry_out):
    _schedule, log, _recorder, _start_ns = await carry_out(
        Setting(target="a", at_s=1.0, fails="inject"), Setting(target="b", at_s=2.0)
    )
    assert ("inject", "b", 2.0) in log


async def test_a_fault_of_a_phase_comes_so_long_after_the_change_into_it(carry_out):
    schedule, log, _recorder, start_ns = await carry_out(
        Noted(target="b", at_s=1.0, phase_index=1),
        Noted(target="a", at_s=2.5),
        Noted(target="c", at_s=0.5, phase_index=2),
        Noted(target="d", at_s=0.5, phase_index=3),
        phases=[(0, 0.0), (1, 7.0), (2, 7.2)],
        until_s=20.0,
    )
    assert [entry for entry in log if entry[0] == "inject"] == [
        ("inject", "a", 2.5),
        ("inject", "c", 7.7),
        ("inject", "b", 8.0),
    ]
    assert schedule.records[0].planned_ns == start_ns + 8 * S
    (reason,) = schedule.unknown()
    assert reason == (
        "fault 3 (noted d): it did not fire: planned 0.5 s into phase 3 of the timeline, when the"
        " load had ended"
    )


async def test_a_broker_that_another_fault_keeps_away_is_waited_for(carry_out):
    schedule, log, _recorder, start_ns = await carry_out(
        Noted(target="a", at_s=1.0, for_s=2.0, fails="twice")
    )
    assert log == [
        ("inject", "a", 1.0),
        ("heal", "a", 1.0),
        ("inject", "a", 1.5),
        ("heal", "a", 1.5),
        ("inject", "a", 2.0),
        ("heal", "a", 4.0),
    ]
    assert schedule.records[0].begin_ns == start_ns + 2 * S
    assert schedule.unknown() == []


async def test_a_fault_that_did_not_fire_is_said_with_its_reason(carry_out):
    schedule, log, _recorder, _start = await carry_out(
        Noted(target="a", at_s=1.0, fails="inject"),
        Noted(target="b", at_s=1.0, fails="heal"),
        Noted(target="c", at_s=99.0),
        until_s=5.0,
    )
    assert schedule.unknown() == [
        "fault 0 (noted a): it did not fire: nobody home",
        "fault 1 (noted b): it was not healed: the port is taken",
        "fault 2 (noted c): it did not fire: planned 99 s after the start, when the load had ended",
    ]
    assert [who for what, who, _at in log if what == "heal"] == ["a", "b"]


async def test_what_is_in_effect_when_a_run_is_cut_off_is_healed(carry_out):
    schedule, log, _recorder, _start = await carry_out(
        Noted(target="a", at_s=1.0, for_s=50.0),
        Noted(target="b", at_s=1.0, fails="hang"),
        until_s=2.0,
    )
    assert [entry[:2] for entry in log] == [
        ("inject", "a"),
        ("inject", "b"),
        ("heal", "a"),
        ("heal", "b"),
    ]
    assert schedule.records[0].end_ns is not None
    (reason,) = schedule.unknown()
    assert reason == (
        "fault 1 (noted b): it did not fire: tried from 1 s after the start on, and without effect"
        " when the load ended"
    )


async def test_a_role_is_whoever_has_it_when_the_fault_fires_and_the_same_is_healed(carry_out):
    class Changing(dict):
        """Another leader at each question."""

        def get(self, target, default):
            return {1: "nats-2", 0: None}[len(self)] if target == "leader" else default

    class Leads(Noted, frozen=True, kw_only=True, tag="leads"):
        async def inject(self, targets):
            await super().inject(targets)
            targets.roles.clear()  # now nobody leads

    schedule, log, recorder, _start = await carry_out(
        Leads(target="leader", at_s=1.0, for_s=1.0),
        Noted(target="leader", at_s=5.0),
        roles=Changing(once=True),
    )
    assert log == [("inject", "nats-2", 1.0), ("heal", "nats-2", 2.0)]
    hit, missed = schedule.records
    assert (hit.target, hit.node, hit.name) == ("leader", "nats-2", "leads leader (nats-2)")
    assert (missed.node, missed.begin_ns) == (None, None)
    assert schedule.unknown() == ["fault 1 (noted leader): it did not fire: nobody leads"]
    assert [event for event, *_rest in recorder.events] == [Event.FAULT_BEGIN, Event.FAULT_END]


async def test_a_healing_that_the_end_of_the_load_meets_is_finished(carry_out):
    schedule, log, _recorder, start_ns = await carry_out(
        Noted(target="a", at_s=1.0, for_s=1.0, fails="slow heal"), until_s=5.0
    )
    assert log == [("inject", "a", 1.0), ("heal", "a", 2.0), ("healed", "a", 12.0)]
    assert schedule.records[0].end_ns == start_ns + 12 * S


async def test_a_fault_is_prepared_before_it_begins(carry_out):
    class Prepared(Noted, frozen=True, kw_only=True, tag="prepared"):
        lead_s = 1.5

        async def prepare(self, targets):
            targets.log.append(("prepare", self.target, targets.clock.now_ns))
            targets.memory.note(self, "copied", 7)
            if self.fails == "prepare":
                raise FaultNotFiredError("the disk is full")

    schedule, log, recorder, _start = await carry_out(
        Prepared(target="a", at_s=2.0, for_s=1.0),
        Prepared(target="b", at_s=9.0, fails="prepare"),
    )
    assert log == [
        ("prepare", "a", 0.5),
        ("inject", "a", 2.0),
        ("heal", "a", 3.0),
        ("prepare", "b", 7.5),
        ("heal", "b", 7.5),
    ]
    assert schedule.records[0].noted == {"copied": "7"}
    assert schedule.unknown() == ["fault 1 (prepared b): it did not fire: the disk is full"]
    assert recorder.count(Event.FAULT_BEGIN) == recorder.count(Event.FAULT_END) == 1


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({}, 'kind = "kill"'),
        ({"kind": "kil", "target": "redis", "at_s": 1.0}, "did you mean 'kill'"),
        ({"kind": "kill", "target": "redis", "at_s": 1.0, "fro_s": 2}, "did you mean 'for_s'"),
        ({"kind": "kill", "target": "redis"}, "at_s"),
        ({"kind": "kill", "target": 7, "at_s": 1.0}, "target"),
        ({"kind": "kill", "target": "redis", "at_s": -1.0}, "0 or more"),
        ({"kind": "pause", "target": "redis", "at_s": 1.0}, r"for_s 0\.0"),
        ({"kind": "partition", "target": "nats-1", "at_s": 1.0}, r"for_s 0\.0"),
        (
            {"kind": "rolling_restart", "target": "worker-0", "at_s": 1.0},
            "use workers or producers",
        ),
        ({"kind": "kill_at_step", "target": "redis", "at_s": 1.0, "step": "ack"}, "only a worker"),
        (
            {"kind": "kill_at_step", "target": "worker-0", "at_s": 1.0, "step": "sleep"},
            "receive, claim, start, effect, done, ack",
        ),
    ],
)
def test_a_fault_that_makes_no_sense_is_named(table, named):
    with pytest.raises(SettingError, match=named) as raised:
        parse_fault(table, "faults")
    assert str(raised.value).startswith("faults: ")


def test_every_kind_can_be_written_and_read():
    nats, at_once = {"target": "nats"}, {"for_s": 0.0}
    more = {
        "kill_at_step": {"step": "ack"},
        "rolling_restart": {"target": "workers"},
        "wire": {"action": "partition", "target": "workers-nats"},
        "maxmemory": {"target": "redis", "headroom_bytes": 1024},
        "stream_limits": nats | {"max_msgs": 10},
        "consumer_limits": nats | {"max_deliver": -1},
        "delete_consumer": nats,
        "recreate_consumer": nats | at_once,
        "step_down": nats | at_once,
        "promote": {"target": "redis"},
        "power_cut": nats | {"rollback_s": 0.5},
        "slow_handler": {"service_ms": 20.0},
        "poison": {"target": "queue"} | at_once,
        "equal_payloads": {"target": "queue"} | at_once,
        "oversize": {"target": "producers"},
        "hot_repository": {"target": "producer-1"},
    }
    assert more.keys() <= FAULTS.keys()
    for kind in FAULTS:
        table = {"kind": kind, "target": "worker-0", "at_s": 1.0, "for_s": 2.0}
        table |= more.get(kind, {})
        fault = parse_fault(table, "faults")
        wanted = "partition workers-nats" if kind == "wire" else f"{kind} {table['target']}"
        assert fault.name == wanted


@pytest.mark.parametrize(
    "text",
    ["effect", "effect:", "effect:0", "effect:x", "effect:1:x", "effect:1:2:3", "nap:1", ""],
)
def test_a_step_that_is_none(text):
    with pytest.raises(SettingError, match="STEP:N"):
        parse_step(text)


def test_a_worker_dies_at_its_step_and_not_before(monkeypatch):
    killed = []
    monkeypatch.setattr("os.kill", lambda _pid, number: killed.append(number))
    inner = MemoryRecorder()
    dying = DyingRecorder(inner)
    dying.record(Event.DONE, b"a" * 16)
    dying.arm(*parse_step("done:2"))
    for event in (Event.DONE, Event.ACK_SENT, Event.RECEIVED):
        dying.record(event, b"b" * 16, attempt=1)
    assert killed == []
    dying.record(Event.DONE, b"c" * 16)
    assert killed == [signal.SIGKILL]
    assert inner.count(Event.DONE) == 3  # recorded first
    assert set(STEPS) == {"receive", "claim", "start", "effect", "done", "ack"}


async def test_a_worker_dies_some_turns_of_the_loop_behind_its_step(monkeypatch):
    killed, turn = [], 0
    monkeypatch.setattr("os.kill", lambda _pid, _number: killed.append(turn))
    dying = DyingRecorder(MemoryRecorder())
    dying.arm(*parse_step("done:1:3"))
    dying.record(Event.DONE, b"a" * 16)
    for turn in range(6):  # noqa: B007 - the number is what the death is told by
        await asyncio.sleep(0)
    assert killed == [2]


async def test_a_fault_lasts_as_long_as_it_says_although_timers_are_early():
    class EarlyClock(VirtualClock):
        now_ns = 0

        def monotonic_ns(self):
            return self.now_ns

        async def sleep(self, seconds):
            self.now_ns += max(1, int(seconds * 0.999 * S))

    clock = EarlyClock()
    await sleep_until(300_000_000, clock)
    assert clock.now_ns >= 300_000_000
