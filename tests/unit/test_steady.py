"""Trials of a machine that is slow now and then: which of them count."""

import pytest

from hookbench.clock import SystemClock
from hookbench.errors import SettingError
from hookbench.load.search import Trial
from hookbench.load.steady import MachineFasterError, Speed, SteadyTrials, measure_speed
from tests.virtual import FixedClock, VirtualClock

FULL = Speed(1000.0, 300.0)
SLOW_CORES = Speed(800.0, 300.0)
SLOW_MEMORY = Speed(1000.0, 200.0)
NEARLY = Speed(960.0, 250.0)
FIRST = [FULL] * 8


class Machine:
    """Has these speeds, one after the other, then the last one for ever; and its trials."""

    def __init__(self, *speeds):
        self.speeds = list(speeds)
        self.made = []

    def measure(self, _clock):
        return self.speeds.pop(0) if len(self.speeds) > 1 else self.speeds[0]

    async def trial(self, rate_per_s):
        self.made.append(rate_per_s)
        return Trial(rate_per_s=rate_per_s, sustained=True, figures={"p99_ms": 7.0})


def steady(machine, clock=None, told=None):
    return SteadyTrials(
        machine.trial,
        clock=clock or FixedClock(monotonic_ns=1),
        measure=machine.measure,
        tell=(told if told is not None else []).append,
    )


async def test_a_trial_of_a_fast_machine_counts_at_once():
    machine = Machine(FULL)
    made = await steady(machine)(50.0)
    assert (made.sustained, machine.made) == (True, [50.0])
    speeds = {"cores_speed": 1.0, "memory_speed": 1.0, "slow_trials": 0.0}
    assert made.figures == {"p99_ms": 7.0, **speeds}


@pytest.mark.parametrize("slow", [SLOW_CORES, SLOW_MEMORY])
async def test_it_is_made_again_where_the_machine_was_slow_after_it(slow):
    machine = Machine(*FIRST, FULL, slow, FULL, slow, FULL, NEARLY)
    made = await steady(machine)(50.0)
    assert machine.made == [50.0] * 3
    speeds = {"cores_speed": 0.96, "memory_speed": 0.833, "slow_trials": 2.0}
    assert made.figures == {"p99_ms": 7.0, **speeds}


async def test_it_waits_for_a_slow_machine_before_and_says_so():
    clock, told = VirtualClock(), []
    began_ns = clock.monotonic_ns()
    machine = Machine(*FIRST, *[SLOW_MEMORY] * 12, FULL)
    made = await steady(machine, clock, told)(50.0)
    assert made.figures["slow_trials"] == 0
    assert len(machine.made) == 1
    assert clock.monotonic_ns() - began_ns == 6_000_000_000
    assert told == ["waiting for the machine: cores at 1.00, memory at 0.67 of their speed"]


async def test_a_machine_that_stays_slow_says_nothing_and_why():
    clock = VirtualClock()
    machine = Machine(*FIRST, SLOW_CORES)
    made = await steady(machine, clock)(50.0)
    assert made.sustained is None
    assert made.why == (
        "the machine was slow at each of 4 trials: cores at 0.80, memory at 1.00 of their speed"
    )
    assert len(machine.made) == 4


async def test_trials_of_a_machine_that_was_slow_all_along_are_known_when_it_is_faster():
    machine = Machine(*[SLOW_MEMORY] * 10, *[FULL] * 9)
    trials = steady(machine)
    assert (await trials(50.0)).figures["memory_speed"] == 1.0
    with pytest.raises(MachineFasterError, match=r"memory at 0\.67 of their speed"):
        await trials(60.0)
    trials.forget()
    assert (await trials(60.0)).sustained


@pytest.mark.parametrize("least", [0.0, 1.0, -1.0])
def test_a_share_that_no_machine_has_is_refused(least):
    with pytest.raises(SettingError, match="least speed"):
        SteadyTrials(Machine(FULL).trial, clock=SystemClock(), least=least)


def test_a_speed_is_one():
    speeds = [measure_speed(SystemClock(), 0.02) for _ in range(3)]
    assert all(speed.cores > 0 and speed.memory > 0 for speed in speeds)
