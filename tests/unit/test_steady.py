"""A machine that is slow now and then: which moments of a trial count."""

import time

import pytest

from hookbench.clock import SystemClock
from hookbench.errors import SettingError
from hookbench.load.steady import MachineFasterError, MemorySamples, SteadyMachine
from tests.virtual import FixedClock

MS = 1_000_000


class Sampled(SteadyMachine):
    """Learns from samples that a test has written down."""

    def see(self, **per_s_at_ms):
        samples = MemorySamples(FixedClock())
        for at_ms, speed in per_s_at_ms.items():
            samples.times_ns.append(int(at_ms.removeprefix("at_")) * MS)
            samples.per_s.append(speed)
        self._highest = max(self._highest, *samples.per_s)
        return samples


@pytest.fixture
def machine():
    return Sampled(FixedClock())


def test_a_moment_counts_by_its_best_sample(machine):
    samples = machine.see(at_100=300.0, at_200=90.0, at_1100=100.0, at_1200=239.0, at_2100=241.0)
    spans = [(begin * 1000 * MS, (begin + 1) * 1000 * MS) for begin in range(4)]
    assert [machine.was_fast(samples, *span) for span in spans] == [True, False, True, False]
    assert samples.highest(0, 1000 * MS) == 300.0
    assert samples.highest(3000 * MS, 4000 * MS) is None
    assert samples.highest(100 * MS, 101 * MS) == 300.0
    assert samples.highest(99 * MS, 100 * MS) is None, "the end is not in it"


def test_what_was_fast_is_known_from_all_trials(machine):
    first = machine.see(at_100=200.0)
    assert machine.was_fast(first, 0, 200 * MS)
    machine.see(at_100=300.0)
    assert not machine.was_fast(first, 0, 200 * MS)


def test_trials_of_a_machine_that_was_slow_all_along_are_known_when_it_is_faster(machine):
    machine.see(at_100=200.0)
    machine.believe()
    machine.see(at_100=240.0)
    machine.believe()
    machine.see(at_100=300.0)
    with pytest.raises(MachineFasterError, match=r"had 0\.67 of this speed"):
        machine.believe()
    machine.forget()
    machine.believe()


@pytest.mark.parametrize("least", [0.0, 1.0, -1.0])
def test_a_share_that_no_machine_has_is_refused(least):
    with pytest.raises(SettingError, match="least speed"):
        SteadyMachine(SystemClock(), least)


def test_a_trial_is_sampled_while_it_runs_and_not_afterwards():
    machine = SteadyMachine(SystemClock())
    begin_ns = time.monotonic_ns()
    with machine.watched() as samples:
        deadline = time.monotonic() + 30
        while len(samples.per_s) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    count = len(samples.per_s)
    assert count >= 3
    assert all(speed > 0 for speed in samples.per_s)
    assert all(begin_ns < at_ns <= time.monotonic_ns() for at_ns in samples.times_ns)
    assert not samples._thread.is_alive()
    best_at_ns = samples.times_ns[samples.per_s.index(max(samples.per_s))]
    assert machine.was_fast(samples, best_at_ns, best_at_ns + 1)
