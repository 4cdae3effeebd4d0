"""Trials of a machine that is slow now and then: which of them count."""

import pytest

from hookbench.clock import SystemClock
from hookbench.errors import SettingError
from hookbench.load.search import Trial
from hookbench.load.steady import SteadyTrials, measure_speed
from tests.virtual import FixedClock, VirtualClock

FULL = 1000.0
SLOW = 800.0


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


def steady(machine, clock=None):
    return SteadyTrials(
        machine.trial, clock=clock or FixedClock(monotonic_ns=1), measure=machine.measure
    )


async def test_a_trial_of_a_fast_machine_counts_at_once():
    machine = Machine(FULL)
    made = await steady(machine)(50.0)
    assert (made.sustained, machine.made) == (True, [50.0])
    assert made.figures == {"p99_ms": 7.0, "speed": 1.0, "slow_trials": 0.0}


async def test_it_is_made_again_where_the_machine_was_slow_after_it():
    before = [FULL] * 9
    machine = Machine(*before, SLOW, FULL, SLOW, FULL, 960.0)
    made = await steady(machine)(50.0)
    assert machine.made == [50.0] * 3
    assert made.figures == {"p99_ms": 7.0, "speed": 0.96, "slow_trials": 2.0}


async def test_it_waits_for_a_slow_machine_before():
    clock = VirtualClock()
    began_ns = clock.monotonic_ns()
    machine = Machine(*[FULL] * 8, SLOW, SLOW, SLOW, FULL)
    made = await steady(machine, clock)(50.0)
    assert made.figures["slow_trials"] == 0
    assert len(machine.made) == 1
    assert clock.monotonic_ns() - began_ns == 1_500_000_000


async def test_a_machine_that_stays_slow_says_nothing_and_why():
    machine = Machine(*[FULL] * 9, *[SLOW, FULL] * 3, SLOW)
    made = await steady(machine)(50.0)
    assert made.sustained is None
    assert made.why == "the machine ran at 0.80 of its speed at each of 4 trials"
    assert len(machine.made) == 4


async def test_a_higher_speed_becomes_the_measure():
    machine = Machine(*[SLOW] * 9, FULL)
    made = await steady(machine)(50.0)
    assert made.figures["speed"] == 1.0
    assert made.figures["slow_trials"] == 1


@pytest.mark.parametrize("least", [0.0, 1.0, -1.0])
def test_a_share_that_no_machine_has_is_refused(least):
    with pytest.raises(SettingError, match="least speed"):
        SteadyTrials(Machine(FULL).trial, clock=SystemClock(), least=least)


def test_a_speed_is_one():
    speeds = [measure_speed(SystemClock(), 0.02) for _ in range(3)]
    assert all(speed > 0 for speed in speeds)
