"""What others used of the machine is told apart from what this process and its children did."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from hookbench.clock import SystemClock
from hookbench.rehearsal import others
from hookbench.rehearsal.others import OthersMeter
from tests.virtual import FixedClock

BURN = "import time; end = time.process_time() + 0.4\nwhile time.process_time() < end: pass"


@pytest.fixture
def machine(monkeypatch):
    """A machine and a process whose times the test sets."""
    times = SimpleNamespace(user=100.0, nice=0.0, system=50.0, irq=0.0, softirq=1.0, steal=0.0,
                            idle=900.0, iowait=80.0, guest=30.0)  # fmt: skip
    own = SimpleNamespace(user=5.0, system=1.0, children_user=20.0, children_system=3.0)
    monkeypatch.setattr(
        others,
        "psutil",
        SimpleNamespace(
            cpu_times=lambda: times, Process=lambda: SimpleNamespace(cpu_times=lambda: own)
        ),
    )
    return times, own


def test_what_was_busy_and_is_not_ones_own_is_others(machine):
    times, own = machine
    clock = FixedClock()
    meter = OthersMeter(clock)
    assert meter.cores() == 0
    clock.now_ns += 10_000_000_000
    own.children_user += 6.0
    own.system += 1.0
    times.user += 8.0
    times.system += 1.0
    times.steal += 1.5
    times.idle += 5.0
    times.iowait += 4.5
    times.guest += 8.0
    assert meter.cores() == pytest.approx((10.5 - 7.0) / 10.0)
    own.children_user += 9.0
    assert meter.cores() == 0, "ticks are counted at different times"


def test_a_child_that_was_waited_for_is_not_others():
    clock = SystemClock()
    meter, whole = OthersMeter(clock), OthersMeter(clock)
    whole._own_s = lambda: 0.0
    whole._before_s = others._busy_s()
    subprocess.run([sys.executable, "-c", BURN], check=True, timeout=60)
    assert whole.cores() > meter.cores()
