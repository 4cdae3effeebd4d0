"""What processes cost, read from real ones."""

import os
import subprocess
import sys
import time

import pytest

from hookbench.rehearsal.resources import ResourceMeter

BUSY_AND_IDLE = """
import sys, time
end = time.process_time() + 0.5
while time.process_time() < end:
    pass
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def processes():
    return [("harness", os.getpid())]


@pytest.fixture
def meter(processes, clock):
    return ResourceMeter(lambda: list(processes), clock)


def cpu_of(meter):
    return {use.name: use.cpu_s for use in meter.uses()}


@pytest.mark.parametrize("measured", [True, False])
def test_a_child_that_is_measured_itself_is_not_counted_twice(meter, processes, measured):
    """One that is not, as a git push, belongs to who started it."""
    meter.read()
    began_s = time.process_time()
    with subprocess.Popen(
        [sys.executable, "-c", BUSY_AND_IDLE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout.readline() == "\n"
        if measured:
            processes.append(("worker-0", child.pid))
        meter.read()
        child.stdin.close()
        child.wait()
    del processes[1:]
    meter.read()
    found = cpu_of(meter)
    assert found.get("worker-0", 0.5) > 0.4  # the kernel counts in hundredths of a second
    of_children = found["harness"] - (time.process_time() - began_s)
    assert (of_children < 0.25) is measured, found


def test_what_was_used_before_the_run_does_not_count(processes, clock):
    end_s = os.times().user + 0.5
    while os.times().user < end_s:
        pass
    meter = ResourceMeter(lambda: list(processes), clock)
    meter.read()
    meter.read()
    assert cpu_of(meter)["harness"] < 0.25
